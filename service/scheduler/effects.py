"""The effects that transactions owe: register, sign, void and withdraw at the signer, publish at the queue."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.manifest import check_path, is_sha256
from sqlalchemy import Connection, select

from service.blobs import BlobError, BlobStore
from service.blobs.contract import EMPTY_SHA256
from service.queue.contract import Knocker
from service.rules import tracing
from service.rules.states import UNSIGNABLE
from service.scheduler.errors import SchedulerError, SignerRefused
from service.scheduler.signer_client import Signer
from service.store import journal, withdrawals
from service.store.audits import SealedReport, register, reject, seal, set_reason
from service.store.engine import Store, now_ms
from service.store.keeping import is_lost, keep, quarantine
from service.store.outbox import Owed, settle
from service.store.tables import audit, blob, job
from service.store.uploads import insert_absent
from service.store.views import capability_of, mark_published

log = logging.getLogger("assay.scheduler")

_CHUNK = 1 << 20
"""Bytes that are hashed at a time."""


class SignerEffects:
    """What the signer is asked, and where its answers go.

    Args:
        store: the database.
        blobs: where report files are put.
        signer: whoever signs.
    """

    def __init__(self, store: Store, blobs: BlobStore, signer: Signer) -> None:
        self._store = store
        self._blobs = blobs
        self._signer = signer

    def register(self, debt: Owed) -> None:
        """Have an audit written down before it may run, and store the registration."""
        request = self._place_request(debt)
        with tracing.span("register", self._above(debt), audit=debt.audit):
            registration = _registration(self._signer.ask({"op": "register", "audit": debt.audit}))
        with self._store.begin() as connection:
            if request is not None:
                _note_blob(connection, request)
            register(connection, debt.audit, registration)
            settle(connection, debt.id)
        log.info("registered", extra={"audit": debt.audit})

    def _place_request(self, debt: Owed) -> dict[str, Any] | None:
        """Make the request a blob, for the signer reads it there; return its digest and size, None if it is one.

        Until now its bytes lay in the audit's row alone, so that a submission waits for one commit and for no file.
        """
        asked = select(audit.c.request_sha256, audit.c.request_json).where(audit.c.id == debt.audit)
        with self._store.read() as connection:
            row = connection.execute(asked).one()
        if row.request_json is None:
            return None
        keep(self._store, self._blobs, [row.request_sha256])
        try:
            self._blobs.put(row.request_json, row.request_sha256)
        except (BlobError, OSError) as error:
            raise SignerRefused("REQUEST_NOT_STORED", f"request.json cannot be stored: {error}") from error
        return {"sha256": row.request_sha256, "size": len(row.request_json)}

    def _above(self, debt: Owed) -> str:
        """Return the traceparent of the audit, which its whole job keeps."""
        with self._store.read() as connection:
            return connection.execute(select(job.c.traceparent).where(job.c.id == debt.audit)).scalar() or ""

    def sign(self, debt: Owed) -> None:
        """Have a report made, store its files, and complete the audit; or end it, where it will never have one."""
        try:
            with tracing.span("seal", self._above(debt), audit=debt.audit):
                answer = self._signer.ask({"op": "seal", "audit": debt.audit, "token": debt.token})
        except SignerRefused as why:
            if why.code not in UNSIGNABLE:
                raise
            self._reject(debt, why)
            return
        files = _files(answer)
        keep(self._store, self._blobs, [file["sha256"] for file in files])
        try:
            for file in files:
                self._blobs.put(Path(answer["directory"]) / file["path"], file["sha256"])
        except (BlobError, OSError) as error:
            raise SignerRefused("REPORT_NOT_STORED", f"a report file cannot be stored: {error}") from error
        with self._store.begin() as connection:
            for file in files:
                _note_blob(connection, file)
            seal(connection, debt.audit, debt.token, SealedReport(files=files, key_id=str(answer["key_id"])))
            settle(connection, debt.id)
        log.info("completed", extra={"audit": debt.audit, "token": debt.token})

    def _reject(self, debt: Owed, why: SignerRefused) -> None:
        with self._store.begin() as connection:
            reject(connection, debt.audit, debt.token, why.code)
            settle(connection, debt.id)
        log.error("its record is never signed: %s", why, extra={"audit": debt.audit, "token": debt.token})

    def void(self, debt: Owed) -> None:
        """Have it written down that a registered audit ended without a report."""
        with self._store.read() as connection:
            row = connection.execute(select(audit.c.state, audit.c.state_reason).where(audit.c.id == debt.audit)).one()
        self._signer.ask({"op": "void", "audit": debt.audit, "reason": row.state_reason or row.state})
        with self._store.begin() as connection:
            if settle(connection, debt.id):  # another scheduler may have asked the signer too, which wrote it once
                journal.append(connection, "leaf", audit=debt.audit, detail={"leaf": "void"})

    def withdraw(self, debt: Owed) -> None:
        """Have it written down that a report was taken back."""
        with self._store.read() as connection:
            reason = withdrawals.reason_of(connection, debt.audit)
        self._signer.ask({"op": "withdraw", "audit": debt.audit, "reason": reason})
        with self._store.begin() as connection:
            withdrawals.note(connection, debt.audit)
            settle(connection, debt.id)
        log.info("withdrawn", extra={"audit": debt.audit})

    def tell(self, debt: Owed, why: Exception) -> None:
        """Write into the audit why it does not move."""
        if isinstance(why, SchedulerError):
            unusable = why.blob if isinstance(why, SignerRefused) else ""
            lost = bool(unusable) and self._is_lost(unusable)
            with self._store.begin() as connection:
                set_reason(connection, debt.audit, why.code)
                if lost and quarantine(connection, unusable):
                    log.error("blob %s is lost: it counts as missing until it is sent again", unusable)

    def _is_lost(self, digest: str) -> bool:
        """Look again at a blob that the signer could not use: its disk, its rights or its mount may be at fault."""
        with self._store.read() as connection:
            known = select(blob.c.quarantined_at).where(blob.c.sha256 == digest)
            if connection.execute(known).scalar() is not None:
                return False  # bytes are hashed once, not at each try
        try:
            if self._blobs.size(EMPTY_SHA256) is None:
                return False  # no blob at all is there: the place is away, and every blob will be back
            with self._blobs.open(digest) as file:
                found = hashlib.sha256()
                while piece := file.read(_CHUNK):
                    found.update(piece)
                return found.hexdigest() != digest
        except BlobError as error:
            return is_lost(error)
        except OSError:
            return False


class PublishEffect:
    """Knocking at the queue.

    Args:
        store: the database.
        knocker: the queue.
    """

    def __init__(self, store: Store, knocker: Knocker) -> None:
        self._store = store
        self._knocker = knocker

    def publish(self, debt: Owed) -> None:
        """Knock for a job that still is queued, and remember it."""
        with self._store.read() as connection:
            capability = capability_of(connection, debt.job)
        if capability is not None:
            self._knocker.publish(debt.job, capability)
        with self._store.begin() as connection:
            mark_published(connection, debt.job, knocked=capability is not None)
            settle(connection, debt.id)


def _registration(answer: Mapping[str, Any]) -> dict[str, Any]:
    told = answer.get("registration")
    if not isinstance(told, dict) or not is_sha256(told.get("request_sha256")) or not isinstance(told.get("seed"), int):
        raise SignerRefused("SIGNER_REFUSED", "the signer's registration has no request_sha256 or seed")
    return told


def _files(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    files = answer.get("files")
    if not isinstance(files, list) or not files or not answer.get("key_id") or not answer.get("directory"):
        raise SignerRefused("SIGNER_REFUSED", "the signer's seal names no directory, no files or no key")
    if not all(isinstance(file, dict) and _is_file(file) for file in files):
        raise SignerRefused("SIGNER_REFUSED", "a file of the signer's seal has no path, digest or size")
    return [{"path": file["path"], "sha256": file["sha256"], "size": file["size"]} for file in files]


def _is_file(file: Mapping[str, Any]) -> bool:
    named = check_path(file.get("path")) is None and is_sha256(file.get("sha256"))
    return named and isinstance(file.get("size"), int)


def _note_blob(connection: Connection, file: Mapping[str, Any]) -> None:
    # Two schedulers may do this at once; looking first and inserting then would race on PostgreSQL.
    insert_absent(connection, blob, {"sha256": file["sha256"], "size": file["size"], "stored_at": now_ms(connection)})
