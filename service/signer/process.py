"""The signer's process: settings in, operations out."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from assay import catalogue
from assay.catalogue import Catalogue

from service.blobs import BlobStore
from service.rules.logs import log_to
from service.signer.desk import Desk
from service.signer.evidence import Evidence
from service.signer.folder import Folder
from service.signer.handed_out import handed_out
from service.signer.journal import Journal
from service.signer.keys import ensure_key, ensure_log_key, load_key, load_log_key
from service.signer.refusal import Refused
from service.signer.registration import register
from service.signer.rows import Rows
from service.signer.sealing import seal, void
from service.signer.server import Allowance, Server
from service.signer.withdrawing import withdraw

log = logging.getLogger(__name__)

RATE_PER_MINUTE = 60
"""Specs: report, section 16. An audit needs two operations."""


@dataclass(frozen=True, kw_only=True)
class SignerSettings:
    """All that the signer is told."""

    database_url: str
    blob_dir: Path
    blobs: BlobStore | None = None
    """Where blobs are, if not in that folder."""
    home: Path
    """The only folder it writes, but for a cache of blobs that are elsewhere."""
    socket: Path
    allowed_uid: int
    """The scheduler's user; nobody else is answered, root neither."""
    key_file: Path
    log_key_file: Path
    log_origin: str
    """The log's name, for ever: readers remember logs by it."""
    profile: Literal["development", "production"]
    rate_per_minute: int = RATE_PER_MINUTE
    hash_threads: int | None = None
    """Model files hashed at once; None is one for each core, at most 8."""
    catalogue: Catalogue | None = None
    """Checks whose answers it signs; None are those of the installed release."""
    ready: Callable[[], None]
    """Called once the socket is open."""


def run(settings: SignerSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        KeyUnusable: there is no usable report key. Under the development profile one is made.
        MachineFailed: this installation has no catalogue.
        CannotServe: the socket cannot be opened, or the log is not the newest copy of itself.
    """
    log_to()
    os.umask(0o077)
    server = open_server(settings)

    def stop(_signal: int, _frame: Any) -> None:
        threading.Thread(target=server.close).start()  # not from inside accept's own thread

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    settings.ready()
    server.serve()


def open_server(settings: SignerSettings) -> Server:
    """Open the socket; `run` without signals, for tests."""
    if settings.profile == "development":
        ensure_key(settings.key_file)
        ensure_log_key(settings.log_key_file)
    private = load_key(settings.key_file)
    rows, home = Rows(settings.database_url), Folder(settings.home)
    evidence = Evidence(settings.blobs.open if settings.blobs else settings.blob_dir, threads=settings.hash_threads)
    journal = Journal(home.log, settings.log_origin, load_log_key(settings.log_key_file), _now)
    journal.require(handed_out(rows, evidence))
    desk = Desk(
        rows=rows,
        evidence=evidence,
        home=home,
        journal=journal,
        catalogue=settings.catalogue or catalogue.load(),
        private=private,
        public_file=ensure_key(settings.key_file),
        profile=settings.profile,
        clock=_now,
    )
    allowance = Allowance(settings.rate_per_minute)
    return Server(settings.socket, settings.allowed_uid, allowance, lambda asked: answer(desk, asked))


def _now() -> datetime:
    return datetime.now(UTC)


def answer(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Do one operation.

    Raises:
        Refused: with a code; INTERNAL for a defect of ours, whose trace goes to the operator's log.
    """
    try:
        row = desk.rows.audit(asked["audit"])
        if asked["op"] == "register":
            return {"registration": register(row, desk.evidence, desk.home, desk.journal, desk.clock).public()}
        if asked["op"] == "seal":
            return seal(desk, row, asked["token"])
        if asked["op"] == "withdraw":
            withdraw(desk, row, asked["reason"])
            return {}
        void(desk, row, asked["reason"])
        return {}
    except Refused as refused:
        log.warning("%s of audit %s refused: %s: %s", asked["op"], asked["audit"], refused.code, refused)
        raise
    except Exception as error:
        log.exception("%s of audit %s failed", asked["op"], asked["audit"])
        raise Refused("INTERNAL", f"the signer failed: {type(error).__name__}; its log says more") from error
