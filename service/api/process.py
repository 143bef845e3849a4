"""The API as a process: open the store, serve, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from concurrent.futures import ThreadPoolExecutor

from assay import catalogue

from service.api.allocator import bound_memory
from service.api.backing import ApiSettings, Backing, Limits, TlsFiles
from service.api.bearer import Issuer
from service.api.ledger import FLUSH_S, READS_S
from service.api.server import NotReady, Served, build, drain
from service.blobs import LocalBlobs
from service.rules.logs import log_to
from service.store.engine import BUSY_MS_API, StoreError, open_store
from service.store.migrations import check_revision

__all__ = ["ApiSettings", "Issuer", "Limits", "NotReady", "TlsFiles", "run"]

THREADS = 24
"""Threads for database and disk: 16 uploads of one tenant and some reads; the rest queues and loses nothing."""

GRACE_S = 10.0
"""Running calls may finish for so long after SIGTERM. Watches end at once and uploads resume elsewhere."""

SWEEP_S = 3600.0
"""Seconds between two looks for parts that nobody writes any more."""

LOG = logging.getLogger("assay.api")


def run(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Raises:
        StoreNotUsable: the database is not at this release's revision; the message names the command to run.
        MachineFailed: this installation has no readable catalogue.
        NotReady: see `service.api.server.build`.
    """
    bound_memory()
    log_to()
    check_revision(settings.database_url)
    asyncio.run(_serve(settings))


async def _serve(settings: ApiSettings) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="api"))
    store = open_store(settings.database_url, busy_ms=BUSY_MS_API)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        backing = Backing(
            settings=settings,
            store=store,
            blobs=settings.blobs or LocalBlobs(settings.blob_dir),
            catalogue=settings.catalogue or catalogue.load(),
            draining=asyncio.Event(),
        )
        served = build(backing)
        await served.start()
        await served.health.probe()
        host = settings.address.rpartition(":")[0]
        settings.ready(f"{host}:{served.port}")
        await _until(stop, served)
        await drain(served, backing, GRACE_S)
    finally:
        store.close()


async def _until(stop: asyncio.Event, served: Served) -> None:
    """Run the server's own loops until it is told to stop. A loop that dies takes the process down with it."""
    own = (served.health.watch(), _sweep(served), _write_denials(served), _write_reads(served))
    loops = [asyncio.create_task(one) for one in own]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (stopping, *loops):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _write_denials(served: Served) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        try:
            await asyncio.to_thread(served.denials.flush)
        except StoreError as error:
            LOG.warning("denials are kept until the store takes them: %s", error)


async def _write_reads(served: Served) -> None:
    while True:
        await asyncio.sleep(READS_S)
        try:
            await asyncio.to_thread(served.reads.flush)
        except StoreError as error:
            LOG.warning("reads are kept until the store takes them: %s", error)


async def _sweep(served: Served) -> None:
    while True:
        try:
            swept = await asyncio.to_thread(served.uploads.sweep)
            LOG.info("swept %d idle uploads", swept)
        except StoreError as error:
            LOG.warning("idle uploads were not swept: %s", error)
        await asyncio.sleep(SWEEP_S)
