"""The worker's process: prove isolation or refuse to start, then mind cells until SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assay import catalogue

from sandbox.cell import Cell
from service.blobs import BlobStore, LocalBlobs
from service.queue.celery_queue import CelerySource
from service.queue.contract import Source
from service.queue.polling import POLL_S, Look, PollingQueue
from service.queue.standin import SILENCE_S
from service.rules.logs import log_to
from service.rules.states import BACKOFF_BASE_MS, STRIKES_MAX, check_bound
from service.store.engine import BUSY_MS, Store, StoreError, open_store
from service.store.migrations import check_revision
from service.store.views import oldest_queued
from service.worker import plugins
from service.worker.attempt import Attempts
from service.worker.backends import image_of, kill_bound_of
from service.worker.bench import Bench
from service.worker.code import Guest
from service.worker.errors import WorkerClosed
from service.worker.isolation import Profile, Wall, tell
from service.worker.materialise import remove_orphans

__all__ = ["Guest", "WorkerSettings", "run"]

log = logging.getLogger("assay.worker")


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What a worker needs to know. Times are seconds."""

    database_url: str
    blob_dir: Path
    blobs: BlobStore | None = None
    """Where blobs are, if not in that folder."""
    work_dir: Path
    """Private to this worker: what lies there at start is removed."""
    broker_url: str | None
    """Redis; None polls the database."""
    broker_silence_s: float = SILENCE_S
    """How long Redis may be silent before the database is polled in its place."""
    poll_s: float = POLL_S
    """Between two looks of an idle slot where the database is polled."""
    slots: int
    """Cells at once."""
    cell: Cell
    guest: Guest
    isolation_file: Path
    capabilities: tuple[str, ...] = ("cpu",)
    """Queues to serve: the worker's own, then those that it looks at while that one is empty."""
    lease_s: float = 30.0
    """L. Beats are sent every L/6; without one for 2L/3 the worker kills its cell."""
    memory_bytes: int | None = None
    drain_s: float = 0.0
    """How long running cells may go on after SIGTERM before they are killed and their jobs given back."""
    backoff_base_ms: int = BACKOFF_BASE_MS
    strikes_max: int = STRIKES_MAX
    """Strikes after which a job is given up."""
    caps_lifted: bool = False
    """Whether neither attempts nor strikes are counted out: in rehearsals."""
    catalogue_file: Path = catalogue.FILE
    """Which checks exist; by default the one that the client ships."""
    third_party: Path | None = None
    """The operator's list of further checks; None has none."""
    ready: Callable[[], None] = lambda: None
    """Called once, when isolation has been proven."""
    profile: Profile = "production"
    """Only under development may cells isolate nothing."""
    has_room: Callable[[], bool] = lambda: True
    """Whether the disk has room for another attempt; without it a knock is let go, and comes again."""
    sweep: Callable[[], int] = lambda: 0
    """Removes what dead workers left on this host, and returns how much it was; may raise CellRefused."""


def run(settings: WorkerSettings) -> None:
    """Work until SIGTERM; must be called in the process's main thread.

    Raises:
        ThirdPartyRefused: the operator's list names what cannot be used; the message says what to do.
        StoreNotUsable: the database is of another revision; the message tells the command to run.
        IsolationMissing: no cell can be isolated here; nothing was leased. The message tells what to do.
        WorkerClosed: isolation was lost; a supervisor starts a fresh process, which proves it first.
        ValueError: the lease is too short for the kill bound.
    """
    check_lease(settings)
    log_to()
    check_revision(settings.database_url)
    drain = Drain(settings.drain_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: drain.begin())
    store = open_store(settings.database_url, busy_ms=min(BUSY_MS, int(settings.lease_s * 1000 / 3)))
    try:
        _work(settings, store, drain)
    finally:
        store.close()


def check_lease(settings: WorkerSettings) -> None:
    """Refuse a lease that could end while the old cell lives; the cell itself is asked how long it takes to die.

    Raises:
        ValueError: 2L/3 + kill bound + L/6 is more than L.
    """
    check_bound(settings.lease_s, kill_bound_of(settings.cell))


class Drain:
    """Whether this process is giving its work back.

    Args:
        patience_s: how long running cells may go on after `begin`.
        clock: monotonic, in seconds.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._until: float | None = None
        self.begun = threading.Event()
        self.on_begin: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Stop leasing; safe in a signal handler, and more than once."""
        if self._until is None:
            self._until = self._clock() + self._patience_s
        self.begun.set()
        self.on_begin()

    def over(self) -> bool:
        """Say whether running cells must be killed now."""
        return self._until is not None and self._clock() >= self._until


def _work(settings: WorkerSettings, store: Store, drain: Drain) -> None:
    left = remove_orphans(settings.work_dir)
    if left:
        log.info("removed the inputs of %d attempts that were killed", left)
    wall = Wall(settings.cell, settings.isolation_file, profile=settings.profile)
    wall.raise_first(settings.sweep)
    guest = plugins.ready(
        settings.third_party, settings.guest, settings.cell, settings.work_dir / "third-party", settings.catalogue_file
    )
    settings.ready()
    source = _source(settings, store, drain)
    drain.on_begin = source.stop
    if drain.begun.is_set():
        return
    attempts = Attempts(_bench(settings, guest, store, drain))

    def handle(job_id: str) -> None:
        if not drain.begun.is_set():
            wall.stand()
        if not drain.begun.is_set() and settings.has_room():  # proving again takes seconds
            attempts.attempt(job_id)

    try:
        source.run(handle)
    except WorkerClosed as closed:
        tell(settings.isolation_file, "none", str(closed))
        if "cell_unkillable" not in str(closed):
            raise
        # A fresh process would find the wall intact and lease again beside the cell that nobody can kill.
        log.critical("nothing is leased on this host any more: %s", closed)
        drain.begun.wait()


def _source(settings: WorkerSettings, store: Store, drain: Drain) -> Source:
    own, *also = settings.capabilities
    if settings.broker_url is None:
        return PollingQueue(look_in(store), own, also=also, slots=settings.slots, poll_s=settings.poll_s)
    return CelerySource(
        settings.broker_url,
        own,
        also=also,
        slots=settings.slots,
        on_stop=drain.begin,  # Celery has its own signal handlers, so it is what tells us of a SIGTERM
        look=look_in(store),
        poll_s=settings.poll_s,
        silence_s=settings.broker_silence_s,
    )


def look_in(store: Store) -> Look:
    """Return what a polling worker looks with."""

    def look(capability: str) -> str | None:
        try:
            with store.read() as connection:
                return next(iter(oldest_queued(connection, capability)), None)
        except StoreError as away:
            log.warning("the database could not be looked at, the next look tells: %s", away)
            return None

    return look


def _bench(settings: WorkerSettings, guest: Guest, store: Store, drain: Drain) -> Bench:
    return Bench(
        store=store,
        blobs=settings.blobs or LocalBlobs(settings.blob_dir),
        cell=settings.cell,
        guest=guest,
        catalogue=plugins.operator_catalogue(settings.third_party, settings.catalogue_file),
        work_dir=settings.work_dir,
        worker=f"{socket.gethostname()}:{os.getpid()}"[:64],
        lease_s=settings.lease_s,
        memory_bytes=settings.memory_bytes,
        threads=max(1, len(os.sched_getaffinity(0)) // settings.slots),
        backoff_base_ms=settings.backoff_base_ms,
        strikes_max=settings.strikes_max,
        caps_lifted=settings.caps_lifted,
        draining=drain.over,
        image=image_of(settings.cell),
    )
