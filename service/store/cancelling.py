"""What must be known before a cancelled audit says so: that no cell of any of its jobs lives, and how it is known."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from service.rules.states import CancelConfirmation, ExitClass, JobState
from service.store.tables import attempt, job


def still_leased(connection: Connection, audit_id: str) -> bool:
    """Say whether a worker holds a job of the audit, so that a cell of it may live."""
    held = select(job.c.id).where(job.c.audit == audit_id, job.c.state == JobState.LEASED).limit(1)
    return connection.execute(held).first() is not None


def drop_waiting(connection: Connection, audit_id: str) -> None:
    """Drop the jobs of an audit that nobody holds; what is done stays done."""
    waiting = (JobState.QUEUED, JobState.WAITING)
    connection.execute(
        update(job).where(job.c.audit == audit_id, job.c.state.in_(waiting)).values(state=JobState.DROPPED)
    )


def confirmed_by(connection: Connection, audit_id: str) -> str:
    """Return how the cells of an audit are known to be dead; empty if there never was one.

    Of each job the last attempt counts. One that only the end of its lease tells about is the weaker word, and holds
    for the audit.
    """
    last: dict[str, str | None] = {}
    rows = select(attempt.c.job, attempt.c.exit_class).where(attempt.c.audit == audit_id).order_by(attempt.c.n)
    for row in connection.execute(rows):
        last[row.job] = row.exit_class
    if not last:
        return ""
    lost = ExitClass.WORKER_LOST in last.values()
    return CancelConfirmation.LEASE_EXPIRED if lost else CancelConfirmation.KILLED
