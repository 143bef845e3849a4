"""Jobs: lease, beat, finalise, end. Every write of a worker carries its fencing token (specs: service, section 8).

Every transaction here locks the audit's row first, so that on PostgreSQL two of them queue up instead of
deadlocking; SQLite has one writer anyway and ignores the clause.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, select, update

from service.rules.states import AUDIT_ENDED, AUDIT_STEPS, AuditState, ExitClass, JobKind, JobState, Outcome, job_label
from service.store import budget, journal
from service.store.attempts import ended_as, insert_attempt, next_number
from service.store.budget import CAPS, Caps, Withheld
from service.store.engine import StoreFenced, now_ms
from service.store.events import append_event
from service.store.outbox import owe
from service.store.owing import owe_deliveries
from service.store.quotas import charge_attempt
from service.store.tables import attempt, audit, job, result


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's right to one job, until its token or its beats end."""

    job: str
    audit: str
    label: str
    """How the report names the job: whole, shard:k or combine."""
    kind: JobKind
    shard: int
    """Which of the plan's shards; 0 of a job that is none."""
    token: int
    """Fencing token: grows with every lease of the job, and is the audit's no other lease has."""
    number: int
    """The attempt's number within the audit, gapless from 1."""
    tries: int
    """Attempts of this job so far, this one included."""
    attempts_max: int
    strikes: int
    """Infrastructure failures of the job before this attempt."""
    crashes: int
    """Earlier attempts of the job that ended as CELL_CRASHED."""
    request_sha256: str
    """Digest of request.json."""
    seed: int
    """The registered seed."""
    traceparent: str = ""
    """Of the span that submitted the audit; empty where nobody traces."""


class Beat(StrEnum):
    """What a worker hears when it renews its lease."""

    GO = "go"
    CANCEL = "cancel"
    """Kill the cell, then end the attempt as CANCELLED."""
    FENCED = "fenced"
    """The lease is over: kill the cell and write nothing more."""


def lease(connection: Connection, job_id: str, worker: str) -> Lease | None:
    """Take a job, if it is queued and its audit is registered and not being cancelled.

    Args:
        connection: inside `Store.begin`.
        job_id: what the queue delivered; unknown, duplicate and late ids are harmless.
        worker: the worker's name, for operators.

    Returns:
        The lease, or None: drop the message.
    """
    owner = connection.execute(select(job.c.audit).where(job.c.id == job_id)).scalar_one_or_none()
    if owner is None:
        return None
    parent = lock_audit(connection, owner)
    number = next_number(connection, owner)
    taken = connection.execute(
        update(job)
        .where(
            job.c.id == job_id,
            job.c.state == JobState.QUEUED,
            exists().where(
                audit.c.id == job.c.audit,
                audit.c.registered_at.is_not(None),
                audit.c.state.in_((AuditState.QUEUED, AuditState.RUNNING)),
            ),
        )
        # The attempt's number in its audit: what is charged or stored under a token is told apart from other jobs'.
        .values(state=JobState.LEASED, attempt=job.c.attempt + 1, token=number, beat=0, worker=worker)
        .returning(job)
    ).one_or_none()
    if taken is None:
        return None
    started = max(now_ms(connection), parent.registered_at)
    insert_attempt(connection, taken, number, worker, started)
    label = job_label(taken.kind, taken.shard)
    if parent.state == AuditState.QUEUED:
        move_audit(connection, owner, AuditState.RUNNING, started_at=started)
    append_event(connection, owner, "attempt_started", {"job": label, "number": number})
    journal.append(connection, "leased", audit=owner, job=job_id, token=taken.token)
    return Lease(
        job=job_id,
        audit=owner,
        label=label,
        kind=JobKind(taken.kind),
        shard=taken.shard,
        token=taken.token,
        number=number,
        tries=taken.attempt,
        attempts_max=parent.attempts_max,
        strikes=taken.strikes,
        crashes=ended_as(connection, job_id, ExitClass.CELL_CRASHED),
        request_sha256=parent.request_sha256,
        seed=int(json.loads(parent.registration_json)["seed"]),
        traceparent=taken.traceparent,
    )


def beat(connection: Connection, held: Lease) -> Beat:
    """Renew a lease and hear whether to go on."""
    renewed = connection.execute(
        update(job)
        .where(job.c.id == held.job, job.c.token == held.token, job.c.state == JobState.LEASED)
        .values(beat=job.c.beat + 1)
    ).rowcount
    if not renewed:
        return Beat.FENCED
    asked = connection.execute(select(audit.c.cancel_requested).where(audit.c.id == held.audit)).scalar_one()
    return Beat.CANCEL if asked else Beat.GO


def reach_phase(connection: Connection, held: Lease, phase: str, done: int, owed: int) -> bool:
    """Write a progress event; False if the lease is over."""
    lock_audit(connection, held.audit)
    if not _holds(connection, held):
        return False
    detail = {"phase": phase, "done": done, "owed": owed, "job": held.label}
    append_event(connection, held.audit, "phase_reached", detail)
    return True


SEALING = {"phase": "sealing", "done": 0, "owed": 1}
"""Told by the transaction that owes the report: what is left of the audit is the signer's, which writes no event."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What the host knows of an attempt that is over."""

    exit_class: ExitClass
    cells: tuple[dict[str, Any], ...] = ()
    """Seals and usage, measured by the host."""
    note: str = ""
    """Last signal and standard error, for operators only; control characters escaped."""
    output_bytes: int = 0
    """What may have left is charged, whatever becomes of it; 0 when nothing was shown."""
    weights_sha256: str = ""
    """What is charged for it (`service.rules.manifest.weights_sha256`); empty while the manifest was not read."""
    base_weights_sha256: str = ""
    """The same of the base model; empty also where the audit names none."""


def finalise(
    connection: Connection,
    held: Lease,
    ending: Ending,
    *,
    record_sha256: str,
    outcome: Outcome,
    withheld: Withheld | None = None,
    caps: Caps = CAPS,
) -> bool:
    """Store the result of a job under its lease; once, or not at all.

    The records' blobs are stored before. A cancel that came first wins. An accepted result is charged here.

    Args:
        connection: inside `Store.begin`.
        held: the attempt's lease.
        ending: how it ended, and what the result is charged.
        record_sha256: the host's record.
        outcome: what it says.
        withheld: what is stored instead when the charge is over a cap; needed where there is a charge.
        caps: the service's lifetime caps.

    Returns:
        Whether `record_sha256` was stored, and not what is stored instead.

    Raises:
        StoreFenced: the lease is over or the audit is no longer RUNNING; the transaction must be undone.
        ValueError: there is a charge, and nothing to store instead.
    """
    if ending.output_bytes and withheld is None:
        raise ValueError("a result that is charged needs a record to be stored instead of it")
    parent = lock_audit(connection, held.audit)
    finish_job(connection, held)
    models = budget.models_of(parent, ending.weights_sha256, ending.base_weights_sha256)
    fits = budget.charge_ending(connection, parent, held.token, ending.output_bytes, models, caps)
    if withheld is not None and not fits:
        record_sha256, outcome = withheld.record_sha256, withheld.outcome
    ended = close_attempt(connection, held.job, held.token, ending, result_sha256=record_sha256)
    if not move_audit(connection, held.audit, AuditState.SIGNING, outcome=outcome, state_reason=""):
        raise StoreFenced(f"audit {held.audit} is no longer running")
    append_event(connection, held.audit, "phase_reached", SEALING | {"job": held.label})
    connection.execute(
        insert(result).values(
            audit=held.audit,
            token=held.token,
            sha256=record_sha256,
            finalised_at=ended,
            **budget.lifetimes(connection, parent, models, caps),
        )
    )
    told = {"result_sha256": record_sha256}
    journal.append(connection, "finalised", audit=held.audit, job=held.job, token=held.token, detail=told)
    owe(connection, "sign", held.audit, job=held.job, token=held.token)
    return fits


def finish_job(connection: Connection, held: Lease, **values: Any) -> None:
    """Move a leased job to DONE, under its token.

    Raises:
        StoreFenced: the lease is over; the transaction must be undone.
    """
    finished = connection.execute(
        update(job)
        .where(job.c.id == held.job, job.c.token == held.token, job.c.state == JobState.LEASED)
        .values(state=JobState.DONE, **values)
    ).rowcount
    if not finished:
        raise StoreFenced(f"job {held.job}: the lease with token {held.token} is over")


def lock_audit(connection: Connection, audit_id: str) -> Row[Any]:
    """Return an audit's row, locked until the transaction ends.

    Raises:
        LookupError: no such audit.
    """
    row = connection.execute(select(audit).where(audit.c.id == audit_id).with_for_update()).one_or_none()
    if row is None:
        raise LookupError(f"no audit {audit_id}")
    return row


def move_audit(connection: Connection, audit_id: str, to: AuditState, **values: Any) -> bool:
    """Move an audit by a legal step and write the event; False if it is not where the step begins."""
    moved = connection.execute(
        update(audit)
        .where(audit.c.id == audit_id, audit.c.state.in_(sources_of(to)))
        .values(state=to, **values)
        .returning(audit.c.state_reason)
    ).one_or_none()
    if moved is None:
        return False
    append_event(connection, audit_id, "state_changed", {"state": to.value, "reason": moved.state_reason})
    if to in AUDIT_ENDED:
        why = {} if to is AuditState.COMPLETED else {"reason": moved.state_reason}
        journal.append(connection, to.value.lower(), audit=audit_id, detail=why)
    owe_deliveries(connection, audit_id, to)
    return True


def sources_of(to: AuditState) -> tuple[AuditState, ...]:
    """Return the states from which a step leads to `to`."""
    return tuple(state for state, steps in AUDIT_STEPS.items() if to in steps)


def close_attempt(
    connection: Connection, job_id: str, token: int, ending: Ending, *, result_sha256: str | None = None
) -> int:
    """Write the end of an attempt and its event; return the time of the end.

    Raises:
        StoreFenced: the attempt has an end already.
    """
    row = connection.execute(
        select(attempt).where(attempt.c.job == job_id, attempt.c.token == token, attempt.c.ended_at.is_(None))
    ).one_or_none()
    if row is None:
        raise StoreFenced(f"job {job_id}: the attempt with token {token} has ended")
    ended = max(now_ms(connection), row.started_at)
    connection.execute(
        update(attempt)
        .where(attempt.c.audit == row.audit, attempt.c.n == row.n)
        .values(
            ended_at=ended,
            exit_class=ending.exit_class,
            cells_json=json.dumps(ending.cells, sort_keys=True, separators=(",", ":")),
            operator_note=ending.note,
            result_sha256=result_sha256,
        )
    )
    charge_attempt(connection, job_id, started=row.started_at, ended=ended)
    detail = {"job": row.job_label, "number": row.n, "exit_class": ending.exit_class.value}
    append_event(connection, row.audit, "attempt_ended", detail)
    told = {"class": ending.exit_class.value}
    journal.append(connection, "ended", audit=row.audit, job=job_id, attempt=row.n, token=token, detail=told)
    return int(ended)


def _holds(connection: Connection, held: Lease) -> bool:
    found = select(job.c.id).where(job.c.id == held.job, job.c.token == held.token, job.c.state == JobState.LEASED)
    return connection.execute(found).one_or_none() is not None
