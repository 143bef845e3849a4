"""What became of a schedule's due minutes: one row for each, in the transaction of the audit that it made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, text, update

from service.rules.pages import Position
from service.rules.schedules import FireOutcome, Overlap, ScheduleKey, request_id
from service.store import audits, journal, quotas, schedules
from service.store.schedules import ScheduleView
from service.store.submissions import NewAudit, Ticket, accept
from service.store.tables import audit
from service.store.tables_around import fire

_UNFINISHED = text("state NOT IN ('COMPLETED','CANCELLED','FAILED')")
"""Literally the condition of the index `ix_audit_unfinished`, or SQLite does not use it."""


@dataclass(frozen=True, kw_only=True)
class FireView:
    """What became of one due minute. Times are milliseconds since 1970."""

    due_at: int
    fired_at: int
    """When it was decided, by the scheduler's clock."""
    outcome: FireOutcome
    reason: str
    """Why it was refused; else empty."""
    audit: str | None
    """Id of the audit that was submitted."""


def decided(connection: Connection, key: ScheduleKey, after: int, until: int) -> frozenset[int]:
    """Return the due minutes after one moment and not after another that were decided."""
    found = select(fire.c.due_at).where(*_of(key), fire.c.due_at > after, fire.c.due_at <= until)
    return frozenset(connection.execute(found).scalars())


def page(connection: Connection, key: ScheduleKey, after: Position | None, limit: int) -> tuple[FireView, ...]:
    """Return a schedule's fires below a position, newest due minute first."""
    found = select(fire).where(*_of(key))
    if after is not None:
        found = found.where(fire.c.due_at < after.at)
    rows = connection.execute(found.order_by(fire.c.due_at.desc()).limit(limit))
    return tuple(
        FireView(
            due_at=row.due_at,
            fired_at=row.fired_at,
            outcome=FireOutcome(row.outcome),
            reason=row.reason,
            audit=row.audit,
        )
        for row in rows
    )


def unfinished(connection: Connection, key: ScheduleKey) -> tuple[str, ...]:
    """Return a schedule's audits that have not ended, also those that a caller ran beside the calendar."""
    found = select(audit.c.id).where(audit.c.tenant == key.tenant, _UNFINISHED, audit.c.schedule == key.id)
    return tuple(connection.execute(found.order_by(audit.c.submitted_at, audit.c.id)).scalars())


def note(connection: Connection, seen: ScheduleView, due_at: int, at: int, outcome: FireOutcome, why: str = "") -> bool:
    """Write down that a due minute made no audit.

    Args:
        connection: inside `Store.begin`.
        seen: the schedule as it was read.
        due_at: the due minute.
        at: the scheduler's clock.
        outcome: what became of it.
        why: the refusal's reason.

    Returns:
        False if the minute was decided before, or the schedule was changed: then nothing is written.
    """
    if not _is_open(connection, seen, due_at):
        return False
    _insert(connection, seen.key, due_at, at, outcome, why=why)
    return True


def submit(connection: Connection, seen: ScheduleView, due_at: int, at: int, new: NewAudit) -> FireOutcome | None:
    """Submit a due minute's audit and write the fire down with it; or write down that another one has not ended.

    Args:
        connection: inside `Store.begin`.
        seen: the schedule as it was read.
        due_at: the due minute.
        at: the scheduler's clock.
        new: the audit, as `Intake.prepare` made it.

    Returns:
        What became of it; None if the minute was decided before, or the schedule was changed.

    Raises:
        Refusal: as `submissions.accept`; the caller notes it after this transaction is undone.
    """
    quotas.lock(connection, seen.key.tenant)  # before the schedule and the audits: the order of whoever submits
    if not _is_open(connection, seen, due_at):
        return None
    live = unfinished(connection, seen.key)
    if live and seen.timing.overlap is Overlap.SKIP:
        _insert(connection, seen.key, due_at, at, FireOutcome.SKIPPED_OVERLAP)
        return FireOutcome.SKIPPED_OVERLAP
    if seen.timing.overlap is Overlap.REPLACE:
        for audit_id in _fired(connection, seen, live):
            audits.cancel(connection, audit_id)
    ticket = Ticket(
        principal=seen.principal,
        request_id=request_id(seen.key, due_at),
        content_sha256=hashlib.sha256(f"{seen.key}\n{due_at}".encode()).hexdigest(),
    )
    audit_id = accept_of(connection, seen.key, ticket, new)
    _insert(connection, seen.key, due_at, at, FireOutcome.SUBMITTED, audit_id=audit_id)
    return FireOutcome.SUBMITTED


def _fired(connection: Connection, seen: ScheduleView, live: tuple[str, ...]) -> tuple[str, ...]:
    """Return those audits that fires of this schedule made.

    Not what a caller ran beside the calendar, nor what an earlier schedule of the same id made: they are not this one's
    to cancel.
    """
    made = select(fire.c.audit).where(fire.c.audit.in_(live), *_of(seen.key), fire.c.fired_at >= seen.created_at)
    own = set(connection.execute(made).scalars())
    return tuple(one for one in live if one in own)


def accept_of(connection: Connection, key: ScheduleKey, ticket: Ticket, new: NewAudit) -> str:
    """Accept an audit as one of a schedule; return its id.

    Raises:
        Refusal: as `submissions.accept`.
    """
    audit_id = accept(connection, ticket, new, expired=lambda: False)
    connection.execute(update(audit).where(audit.c.id == audit_id).values(schedule=key.id))
    return audit_id


def _is_open(connection: Connection, seen: ScheduleView, due_at: int) -> bool:
    """Tell, with the schedule's row locked, whether a due minute still is to be decided."""
    now = schedules.find(connection, seen.key, lock=True)
    if now is None or now.revision != seen.revision or now.paused:
        return False
    return connection.execute(select(fire.c.due_at).where(*_of(seen.key), fire.c.due_at == due_at)).first() is None


def _insert(
    connection: Connection,
    key: ScheduleKey,
    due_at: int,
    at: int,
    outcome: FireOutcome,
    *,
    why: str = "",
    audit_id: str | None = None,
) -> None:
    connection.execute(
        insert(fire).values(
            tenant=key.tenant,
            schedule=key.id,
            due_at=due_at,
            fired_at=at,
            outcome=outcome,
            reason=why,
            audit=audit_id,
        )
    )
    told = {"schedule": str(key), "due_at": due_at, "outcome": str(outcome)}
    journal.append(connection, "fired", audit=audit_id or "", detail=told)


def _of(key: ScheduleKey) -> tuple[Any, ...]:
    return (fire.c.tenant == key.tenant, fire.c.schedule == key.id)
