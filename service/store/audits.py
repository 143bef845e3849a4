"""Audits: register, cancel, seal. Each is one transaction that either moves the audit or changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from service.rules.states import AUDIT_ENDED, AuditState
from service.store import journal
from service.store.cancelling import confirmed_by, drop_waiting, still_leased
from service.store.engine import now_ms
from service.store.events import append_event
from service.store.jobs import lock_audit, move_audit
from service.store.outbox import owe
from service.store.tables import audit, job, report, report_file, result


def register(connection: Connection, audit_id: str, registration: Mapping[str, Any]) -> bool:
    """Store the signer's registration; from now on the audit may be leased. False if it was stored before.

    An audit that was cancelled meanwhile is registered all the same, because the signer has written it down, and
    is voided.
    """
    row = lock_audit(connection, audit_id)
    if row.registered_at is not None:
        return False
    connection.execute(
        update(audit)
        .where(audit.c.id == audit_id)
        .values(
            registered_at=max(now_ms(connection), row.submitted_at),
            registration_json=json.dumps(dict(registration), sort_keys=True, separators=(",", ":")),
            request_json=None,  # by now it is a blob
        )
    )
    set_reason(connection, audit_id, "")
    append_event(connection, audit_id, "registered", {"request_sha256": registration["request_sha256"]})
    journal.append(connection, "registered", audit=audit_id)
    if row.state == AuditState.QUEUED:
        for job_id in connection.execute(select(job.c.id).where(job.c.audit == audit_id)).scalars().all():
            owe(connection, "publish", audit_id, job=job_id)
    else:
        owe(connection, "void", audit_id)
    return True


def set_reason(connection: Connection, audit_id: str, reason: str) -> bool:
    """Say why an audit that lives does not move; an event is written only if the reason is new."""
    row = lock_audit(connection, audit_id)
    if row.state_reason == reason or row.state in AUDIT_ENDED:
        return False
    connection.execute(update(audit).where(audit.c.id == audit_id).values(state_reason=reason))
    append_event(connection, audit_id, "state_changed", {"state": row.state, "reason": reason})
    return True


def cancel(connection: Connection, audit_id: str, *, reason: str = "") -> AuditState | None:
    """Ask for an audit to stop.

    Args:
        connection: inside `Store.begin`.
        audit_id: the audit.
        reason: what `state_reason` says of it, where nobody asked: APPROVAL_EXPIRED, APPROVAL_REVOKED.

    Returns:
        CANCELLED if no cell can be running, CANCELLING if one must be killed first (also when it was asked
        before); None if it is too late: from SIGNING on the audit ends as it is.

    Raises:
        LookupError: no such audit.
    """
    row = lock_audit(connection, audit_id)
    state = AuditState(row.state)
    if state in (AuditState.CANCELLING, AuditState.CANCELLED):
        return state
    if state not in (AuditState.AWAITING_APPROVAL, AuditState.QUEUED, AuditState.RUNNING):
        return None
    journal.append(connection, "cancel_requested", audit=audit_id)
    drop_waiting(connection, audit_id)
    if still_leased(connection, audit_id):
        move_audit(connection, audit_id, AuditState.CANCELLING, cancel_requested=True, state_reason=reason)
        return AuditState.CANCELLING
    _cancel_now(connection, audit_id, row, reason)
    return AuditState.CANCELLED


def _cancel_now(connection: Connection, audit_id: str, row: Any, reason: str) -> None:
    move_audit(
        connection,
        audit_id,
        AuditState.CANCELLED,
        cancel_requested=True,
        state_reason=reason,
        cancel_confirmation=confirmed_by(connection, audit_id),
        ended_at=max(now_ms(connection), row.started_at or row.submitted_at),
    )
    if row.registered_at is not None:
        owe(connection, "void", audit_id)


@dataclass(frozen=True, kw_only=True)
class SealedReport:
    """What the signer handed over; the files lie in the blob store."""

    files: Sequence[Mapping[str, Any]]
    """[{"path", "sha256", "size"}] of the report directory."""
    key_id: str


def seal(connection: Connection, audit_id: str, token: int, sealed: SealedReport) -> bool:
    """Release a signed report and complete the audit; False if another scheduler was first.

    Raises:
        LookupError: the audit has no result with this token.
    """
    row = lock_audit(connection, audit_id)
    stored = connection.execute(select(result).where(result.c.audit == audit_id, result.c.token == token)).one_or_none()
    if stored is None:
        raise LookupError(f"audit {audit_id} has no result with token {token}")
    if row.state != AuditState.SIGNING:
        return False
    signed_at = max(now_ms(connection), stored.finalised_at)
    connection.execute(
        insert(report).values(
            audit=audit_id,
            n=1,
            files_json=json.dumps([dict(file) for file in sealed.files], sort_keys=True, separators=(",", ":")),
            key_id=sealed.key_id,
            signed_at=signed_at,
        )
    )
    parts = {(str(file["sha256"]), int(file["size"])) for file in sealed.files}
    rows = [{"sha256": sha256, "size": size, "audit": audit_id, "n": 1} for sha256, size in sorted(parts)]
    if rows:
        connection.execute(insert(report_file), rows)
    digests = [str(file["sha256"]) for file in sealed.files]
    journal.append(connection, "sealed", audit=audit_id, token=token, detail={"files": digests})
    journal.append(connection, "leaf", audit=audit_id, detail={"leaf": "report"})
    return move_audit(connection, audit_id, AuditState.COMPLETED, state_reason="", ended_at=signed_at)


def reject(connection: Connection, audit_id: str, token: int, reason: str) -> bool:
    """End an audit whose record no signer will ever sign; False if it is not waiting for that signature.

    What it measured is never told: nothing is released without a signed report. The log owes it a void leaf.
    """
    row = lock_audit(connection, audit_id)
    stored = connection.execute(select(result).where(result.c.audit == audit_id, result.c.token == token)).one_or_none()
    if stored is None or row.state != AuditState.SIGNING:
        return False
    ended_at = max(now_ms(connection), stored.finalised_at)
    told = {"state_reason": reason, "retryable": False, "outcome": "", "ended_at": ended_at}
    move_audit(connection, audit_id, AuditState.FAILED, **told)
    owe(connection, "void", audit_id)
    return True
