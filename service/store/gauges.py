"""How much waits, and for how long: numbers for operators, each from one query over rows that live.

What has ended is never looked at, however much there is: the conditions are those of the partial indexes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from service.rules.states import AuditState, JobState
from service.store.engine import now_ms
from service.store.tables import audit, job, outbox, result
from service.store.tables_around import delivery
from service.store.views import LIVE, UNFINISHED


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A number of things of one kind, and since when the oldest waits."""

    count: int
    oldest_s: float
    """Age in seconds, 0 where nothing waits; never below 0, whatever clocks did."""


@dataclass(frozen=True, kw_only=True)
class Gauges:
    """One look at the database; its parts are read one after the other, so they may differ by a moment."""

    jobs: Mapping[tuple[str, str], int]
    """(capability, state) -> jobs that live."""
    queued: Mapping[str, Waiting]
    """Capability -> jobs that could be leased now; age since their audit was submitted."""
    audits: Mapping[str, int]
    """State -> audits that have not ended."""
    signing: Waiting
    """Results that are not signed."""
    outbox: Mapping[str, Waiting]
    """Kind -> effects that are owed."""
    deliveries: Waiting
    """Calls to receivers that are owed."""
    reasons: Mapping[str, int]
    """`state_reason` -> audits that wait because of it."""


def read_gauges(connection: Connection) -> Gauges:
    """Read all of them; inside `Store.read`."""
    now = now_ms(connection)
    return Gauges(
        jobs=_jobs(connection),
        queued=_queued(connection, now),
        audits=_audits(connection),
        signing=_signing(connection, now),
        outbox=_outbox(connection, now),
        deliveries=_deliveries(connection, now),
        reasons=_reasons(connection),
    )


def _waiting(count: int, oldest: int | None, now: int) -> Waiting:
    return Waiting(count=count, oldest_s=0.0 if oldest is None else max(0, now - oldest) / 1000)


def _jobs(connection: Connection) -> dict[tuple[str, str], int]:
    found = select(job.c.capability, job.c.state, func.count()).where(LIVE).group_by(job.c.capability, job.c.state)
    return {(row[0], row[1]): row[2] for row in connection.execute(found)}


def _queued(connection: Connection, now: int) -> dict[str, Waiting]:
    found = (
        select(job.c.capability, func.count(), func.min(audit.c.submitted_at))
        .join(audit, audit.c.id == job.c.audit)
        .where(LIVE, job.c.state == JobState.QUEUED, audit.c.registered_at.is_not(None))
        .group_by(job.c.capability)
    )
    return {row[0]: _waiting(row[1], row[2], now) for row in connection.execute(found)}


def _audits(connection: Connection) -> dict[str, int]:
    found = select(audit.c.state, func.count()).where(UNFINISHED).group_by(audit.c.state)
    return {row[0]: row[1] for row in connection.execute(found)}


def _signing(connection: Connection, now: int) -> Waiting:
    found = (
        select(func.count(), func.min(result.c.finalised_at))
        .join(audit, audit.c.id == result.c.audit)
        .where(UNFINISHED, audit.c.state == AuditState.SIGNING)
    )
    row = connection.execute(found).one()
    return _waiting(row[0], row[1], now)


def _outbox(connection: Connection, now: int) -> dict[str, Waiting]:
    found = select(outbox.c.kind, func.count(), func.min(outbox.c.queued_at)).group_by(outbox.c.kind)
    return {row[0]: _waiting(row[1], row[2], now) for row in connection.execute(found)}


def _deliveries(connection: Connection, now: int) -> Waiting:
    found = select(func.count(), func.min(delivery.c.created_at)).where(delivery.c.state == "PENDING")
    row = connection.execute(found).one()
    return _waiting(row[0], row[1], now)


def _reasons(connection: Connection) -> dict[str, int]:
    found = (
        select(audit.c.state_reason, func.count())
        .where(UNFINISHED, audit.c.state_reason != "")
        .group_by(audit.c.state_reason)
    )
    return {row[0]: row[1] for row in connection.execute(found)}
