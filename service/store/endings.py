"""How an attempt without a result ends: back-off, requeue, failure or cancellation, by worker or by reaper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update

from service.rules.states import (
    BACKOFF_BASE_MS,
    EXIT_RULES,
    STRIKES_MAX,
    AuditState,
    CancelConfirmation,
    ExitClass,
    JobKind,
    JobState,
    Then,
    backoff_ms,
    failure_reason,
    next_step,
)
from service.store import journal
from service.store.attempts import ended_as
from service.store.budget import charge_ending, models_of
from service.store.cancelling import confirmed_by, still_leased
from service.store.engine import StoreFenced, now_ms
from service.store.jobs import Ending, Lease, close_attempt, lock_audit, move_audit
from service.store.outbox import owe
from service.store.shards import bury
from service.store.tables import audit, job


def end(
    connection: Connection,
    held: Lease,
    ending: Ending,
    *,
    confirmation: CancelConfirmation | None = CancelConfirmation.KILLED,
    base_ms: int = BACKOFF_BASE_MS,
    strikes_max: int = STRIKES_MAX,
    lifted: bool = False,
) -> Then:
    """End a worker's own attempt without a result.

    Args:
        connection: inside `Store.begin`.
        held: the attempt's lease.
        ending: how it ended.
        confirmation: how the worker knows that its cell is dead; None if it does not, and then a cancelled audit
            is left for the reaper to confirm.
        base_ms: first back-off, in milliseconds.
        strikes_max: see `next_step`.
        lifted: see `next_step`.

    Raises:
        StoreFenced: the lease is over, or the audit is being cancelled and the cell may live.
    """
    lock_audit(connection, held.audit)
    row = _leased(connection, held.job, held.token)
    if row is None:
        raise StoreFenced(f"job {held.job}: the lease with token {held.token} is over")
    return _end(connection, row, ending, confirmation, base_ms, strikes_max=strikes_max, lifted=lifted)


def take_expired(
    connection: Connection,
    job_id: str,
    token: int,
    beat: int,
    *,
    base_ms: int = BACKOFF_BASE_MS,
    strikes_max: int = STRIKES_MAX,
    lifted: bool = False,
) -> Then | None:
    """End the attempt of a worker whose beats stopped; None if it beat again or ended meanwhile."""
    owner = connection.execute(select(job.c.audit).where(job.c.id == job_id)).scalar_one_or_none()
    if owner is None:
        return None
    lock_audit(connection, owner)
    row = _leased(connection, job_id, token)
    if row is None or row.beat != beat:
        return None
    journal.append(connection, "lease_expired", audit=owner, job=job_id, token=token)
    lost = Ending(exit_class=ExitClass.WORKER_LOST, note=f"worker {row.worker} stopped renewing its lease")
    expired = CancelConfirmation.LEASE_EXPIRED
    return _end(connection, row, lost, expired, base_ms, strikes_max=strikes_max, lifted=lifted)


def end_waiting(connection: Connection, job_id: str, token: int) -> bool:
    """Queue a job again after its back-off; False if it no longer waits there."""
    owner = connection.execute(select(job.c.audit).where(job.c.id == job_id)).scalar_one_or_none()
    if owner is None:
        return False
    lock_audit(connection, owner)  # in the order of every other writer, or two could wait for one another
    moved = connection.execute(
        update(job)
        .where(job.c.id == job_id, job.c.token == token, job.c.state == JobState.WAITING)
        .values(state=JobState.QUEUED, published_at=None)
        .returning(job.c.audit)
    ).scalar_one_or_none()
    if moved is not None:
        owe(connection, "publish", moved, job=job_id)
    return moved is not None


def _leased(connection: Connection, job_id: str, token: int) -> Row[Any] | None:
    held = select(job).where(job.c.id == job_id, job.c.token == token, job.c.state == JobState.LEASED)
    return connection.execute(held.with_for_update()).one_or_none()


def _end(
    connection: Connection,
    row: Row[Any],
    ending: Ending,
    confirmation: CancelConfirmation | None,
    base_ms: int,
    *,
    strikes_max: int,
    lifted: bool,
) -> Then:
    parent = connection.execute(select(audit).where(audit.c.id == row.audit)).one()
    then = next_step(
        ending.exit_class,
        strikes=row.strikes,
        attempt=row.attempt,
        attempts_max=parent.attempts_max,
        repeated=ended_as(connection, row.id, ending.exit_class),
        strikes_max=strikes_max,
        lifted=lifted,
    )
    if row.kind == JobKind.SHARD and then in (Then.FINALISE, Then.FAIL):
        then = Then.BURY
    if then is Then.FINALISE:
        raise ValueError(f"{ending.exit_class} ends with a result: call finalise")
    if parent.state == AuditState.CANCELLING:
        then = Then.CANCEL
    elif then is Then.CANCEL:
        raise ValueError(f"audit {row.audit} is not being cancelled")
    if then is Then.CANCEL and confirmation is None:
        raise StoreFenced(f"audit {row.audit}: cancelled, but nobody knows that its cell is dead")
    if then is Then.CANCEL and confirmation is CancelConfirmation.KILLED:
        journal.append(connection, "kill_confirmed", audit=row.audit, job=row.id, token=row.token)
    close_attempt(connection, row.id, row.token, ending)
    models = models_of(parent, ending.weights_sha256, ending.base_weights_sha256)
    charge_ending(connection, parent, row.token, ending.output_bytes, models)
    _APPLY[then](connection, _Over(row, parent, ending.exit_class, base_ms, strikes_max))
    return then


@dataclass(frozen=True)
class _Over:
    row: Row[Any]
    parent: Row[Any]
    exit_class: ExitClass
    base_ms: int
    strikes_max: int

    def set_job(self, connection: Connection, state: JobState, **values: Any) -> None:
        strikes = self.row.strikes + EXIT_RULES[self.exit_class].strike
        connection.execute(update(job).where(job.c.id == self.row.id).values(state=state, strikes=strikes, **values))

    def ended_at(self, connection: Connection) -> int:
        return max(now_ms(connection), int(self.parent.started_at or self.parent.submitted_at))


def _wait(connection: Connection, over: _Over) -> None:
    over.set_job(connection, JobState.WAITING, backoff_ms=backoff_ms(over.row.strikes, base_ms=over.base_ms))


def _requeue(connection: Connection, over: _Over) -> None:
    over.set_job(connection, JobState.QUEUED, published_at=None)
    owe(connection, "publish", over.row.audit, job=over.row.id)


def _fail(connection: Connection, over: _Over) -> None:
    rule = EXIT_RULES[over.exit_class]
    over.set_job(connection, JobState.DEAD)
    move_audit(
        connection,
        over.row.audit,
        AuditState.FAILED,
        state_reason=failure_reason(over.exit_class, strikes=over.row.strikes, strikes_max=over.strikes_max),
        retryable=rule.retryable,
        ended_at=over.ended_at(connection),
    )
    owe(connection, "void", over.row.audit)


def _cancel(connection: Connection, over: _Over) -> None:
    """Drop the job; the audit is cancelled when no other job of it has a cell that may live."""
    over.set_job(connection, JobState.DROPPED)
    if still_leased(connection, over.row.audit):
        return
    move_audit(
        connection,
        over.row.audit,
        AuditState.CANCELLED,
        cancel_confirmation=confirmed_by(connection, over.row.audit),
        ended_at=over.ended_at(connection),
    )
    owe(connection, "void", over.row.audit)


def _bury(connection: Connection, over: _Over) -> None:
    over.set_job(connection, JobState.DEAD)
    bury(connection, over.row)


_APPLY = {Then.WAIT: _wait, Then.REQUEUE: _requeue, Then.FAIL: _fail, Then.CANCEL: _cancel, Then.BURY: _bury}
