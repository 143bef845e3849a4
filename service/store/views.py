"""Audits as a caller sees them: one frozen value from a few reads, and what loops need to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    Select,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)

from service.rules.states import AuditState, JobState
from service.store import journal
from service.store.engine import now_ms
from service.store.tables import attempt, audit, job, report, result

LIVE = job.c.state.in_([literal_column(f"'{state}'") for state in ("QUEUED", "LEASED", "WAITING")])
"""The partial index's own condition, word for word: by a bound parameter SQLite cannot know that the index fits, and
would read every job that ever was."""

UNFINISHED = text("audit.state NOT IN ('COMPLETED','CANCELLED','FAILED')")
"""Likewise of `ix_audit_unfinished`."""


NOT_QUEUED = -1
"""The queue's estimate for an audit of which no job could be leased now."""


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    """One attempt, without the operator's note."""

    job: str
    """whole, shard:k or combine"""
    number: int
    started_at: int
    ended_at: int | None
    exit_class: str | None


@dataclass(frozen=True, kw_only=True)
class AuditView:
    """One audit in its current state. Times are milliseconds since 1970; None means not yet."""

    id: str
    tenant: str
    principal: str
    submission: bytes
    """The accepted request, a serialised assay.api.v1.Audit."""
    request_sha256: str
    state: AuditState
    state_reason: str
    retryable: bool
    outcome: str
    """MEASURED, INCONCLUSIVE, REFUSED or FAILED; empty before the result is stored."""
    cancel_confirmation: str
    last_sequence: int
    submitted_at: int
    registered_at: int | None
    started_at: int | None
    ended_at: int | None
    attempts: tuple[AttemptView, ...]
    reports: tuple[int, ...]
    """Numbers of the signed reports."""
    schedule: str = ""
    """Id of the schedule that it is of; empty where a caller submitted it."""
    record_sha256: str = ""
    """The host's record; empty before there is a result."""
    queue_estimate: int = NOT_QUEUED
    """Jobs in line before its next one."""


def view(connection: Connection, audit_id: str) -> AuditView | None:
    """Return one audit, or None."""
    return next(iter(views(connection, (audit_id,))), None)


def views(connection: Connection, ids: Sequence[str]) -> tuple[AuditView, ...]:
    """Return audits in the order of `ids`, without those that do not exist; five reads at most, whatever their number.

    Nothing is asked about attempts of audits that nobody could lease yet, nor about reports of those not complete, nor
    about the queue where none of them waits in it.
    """
    rows = {row.id: row for row in connection.execute(_AUDITS, {"ids": list(ids)})}
    tries: dict[str, list[AttemptView]] = {}
    began = [row.id for row in rows.values() if row.state not in _NEW]
    for row in connection.execute(_ATTEMPTS, {"ids": began}) if began else ():
        tries.setdefault(row.audit, []).append(_attempt(row))
    numbers: dict[str, list[int]] = {}
    done = [row.id for row in rows.values() if row.state == AuditState.COMPLETED]
    for row in connection.execute(_REPORTS, {"ids": done}) if done else ():
        numbers.setdefault(row.audit, []).append(row.n)
    lined = [row.id for row in rows.values() if row.registered_at is not None and row.state in _LEASABLE]
    places = _places(connection, lined) if lined else {}
    return tuple(
        _view(rows[key], tuple(tries.get(key, ())), tuple(numbers.get(key, ())), places.get(key, NOT_QUEUED))
        for key in ids
        if key in rows
    )


def _places(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Count the jobs that workers of each audit's queue take before its next one, if none is added and none is lost.

    Queues have no priorities: each is taken in the order of `oldest_queued`, and the relay knocks at Redis in it.
    """
    queued = connection.execute(_IN_LINE, {"ids": list(ids)}).scalars().all()
    if not queued:
        return {}
    return {row.audit: row.place - 1 for row in connection.execute(_PLACES, {"ids": list(queued)})}


_NEW = (AuditState.AWAITING_APPROVAL, AuditState.QUEUED)
"""No step leads back to these, and the first lease leads out of them."""

_LEASABLE = (AuditState.QUEUED, AuditState.RUNNING)

_IDS: BindParameter[Sequence[str]] = bindparam("ids", expanding=True)
_SEEN = [column for column in audit.c if column.name not in ("request_json", "registration_json")]
_AUDITS: Select[Any] = (
    select(*_SEEN, result.c.sha256.label("record_sha256"))
    .join(result, result.c.audit == audit.c.id, isouter=True)
    .where(audit.c.id.in_(_IDS))
)
_IN_LINE = select(job.c.audit).distinct().where(job.c.audit.in_(_IDS), LIVE, job.c.state == JobState.QUEUED)
_LINE = (
    select(
        job.c.audit,
        func.row_number().over(partition_by=job.c.capability, order_by=(audit.c.submitted_at, job.c.id)).label("place"),
    )
    .join(audit, audit.c.id == job.c.audit)
    .where(LIVE, job.c.state == JobState.QUEUED, audit.c.registered_at.is_not(None))
    .subquery()
)
_PLACES = (
    select(_LINE.c.audit, func.min(_LINE.c.place).label("place")).where(_LINE.c.audit.in_(_IDS)).group_by(_LINE.c.audit)
)
_ATTEMPTS = select(attempt).where(attempt.c.audit.in_(_IDS)).order_by(attempt.c.n)
_REPORTS = select(report.c.audit, report.c.n).where(report.c.audit.in_(_IDS)).order_by(report.c.n)


def _attempt(row: Row[Any]) -> AttemptView:
    return AttemptView(
        job=row.job_label,
        number=row.n,
        started_at=row.started_at,
        ended_at=row.ended_at,
        exit_class=row.exit_class,
    )


def _view(row: Row[Any], attempts: tuple[AttemptView, ...], reports: tuple[int, ...], place: int) -> AuditView:
    return AuditView(
        id=row.id,
        tenant=row.tenant,
        principal=row.principal,
        submission=row.submission,
        request_sha256=row.request_sha256,
        state=AuditState(row.state),
        state_reason=row.state_reason,
        retryable=row.retryable,
        outcome=row.outcome,
        cancel_confirmation=row.cancel_confirmation,
        last_sequence=row.last_sequence,
        submitted_at=row.submitted_at,
        registered_at=row.registered_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempts=attempts,
        reports=reports,
        schedule=row.schedule,
        record_sha256=row.record_sha256 or "",
        queue_estimate=place,
    )


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """A leased job as the reaper sees it; a job that lives changes `beat`, one that was leased again `token`."""

    job: str
    token: int
    beat: int


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that backs off."""

    job: str
    token: int
    backoff_ms: int


def leased_jobs(connection: Connection) -> tuple[Pulse, ...]:
    """Return every leased job."""
    rows = connection.execute(select(job.c.id, job.c.token, job.c.beat).where(LIVE, job.c.state == JobState.LEASED))
    return tuple(Pulse(job=row.id, token=row.token, beat=row.beat) for row in rows)


def waiting_jobs(connection: Connection) -> tuple[Waiting, ...]:
    """Return every job that backs off."""
    rows = connection.execute(
        select(job.c.id, job.c.token, job.c.backoff_ms).where(LIVE, job.c.state == JobState.WAITING)
    )
    return tuple(Waiting(job=row.id, token=row.token, backoff_ms=row.backoff_ms) for row in rows)


def queued_by_capability(connection: Connection) -> dict[str, int]:
    """Count the jobs that could be leased now, by capability."""
    rows = connection.execute(
        select(job.c.capability, func.count())
        .join(audit, audit.c.id == job.c.audit)
        .where(LIVE, job.c.state == JobState.QUEUED, audit.c.registered_at.is_not(None))
        .group_by(job.c.capability)
    )
    return {row[0]: row[1] for row in rows}


def oldest_queued(connection: Connection, capability: str, *, limit: int = 1) -> tuple[str, ...]:
    """Return the jobs that were submitted first among those that could be leased now.

    On PostgreSQL jobs that another poller is looking at are passed over; SQLite has no such clause, and there the
    lease itself decides.
    """
    found = (
        select(job.c.id)
        .join(audit, audit.c.id == job.c.audit)
        .where(LIVE, job.c.state == JobState.QUEUED, job.c.capability == capability, audit.c.registered_at.is_not(None))
        .order_by(audit.c.submitted_at, job.c.id)
        .limit(limit)
    )
    return tuple(connection.execute(found.with_for_update(skip_locked=True, of=job)).scalars())


def unpublished(connection: Connection, capability: str, *, older_ms: int, limit: int) -> tuple[str, ...]:
    """Return queued jobs that nobody knocked for within `older_ms`, oldest first."""
    now = now_ms(connection)
    found = (
        select(job.c.id)
        .join(audit, audit.c.id == job.c.audit)
        .where(
            LIVE,
            job.c.state == JobState.QUEUED,
            job.c.capability == capability,
            audit.c.registered_at.is_not(None),
            or_(
                job.c.published_at.is_(None),
                job.c.published_at <= now - older_ms,
                job.c.published_at > now + older_ms,  # the clock was set back since
            ),
        )
        .order_by(audit.c.submitted_at, job.c.id)
        .limit(limit)
    )
    return tuple(connection.execute(found).scalars())


def mark_published(connection: Connection, *job_ids: str, knocked: bool = True) -> None:
    """Remember that the queue was knocked at for jobs.

    Args:
        connection: inside `Store.begin`.
        job_ids: the jobs, some hundreds at most.
        knocked: False where nobody needed to be told any more; the journal then says nothing.
    """
    found = connection.execute(_OWNERS, {"ids": list(job_ids)})
    owners = {row.id: row.audit for row in found}
    for job_id in job_ids if knocked else ():
        if job_id in owners:
            # First, because it locks the audit's row, as every other writer does before it locks a job's.
            journal.append(connection, "published", audit=owners[job_id], job=job_id)
    connection.execute(_PUBLISHED, {"ids": list(owners), "now": now_ms(connection)})


_OWNERS = select(job.c.id, job.c.audit).where(job.c.id.in_(_IDS))
_PUBLISHED = update(job).where(job.c.id.in_(_IDS)).values(published_at=bindparam("now"))


def capability_of(connection: Connection, job_id: str) -> str | None:
    """Return the capability of a job that still is queued, else None: nobody needs to be told."""
    return connection.execute(
        select(job.c.capability).where(job.c.id == job_id, job.c.state == JobState.QUEUED)
    ).scalar_one_or_none()
