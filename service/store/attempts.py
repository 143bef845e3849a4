"""Attempts: one row for each lease, numbered within the audit without a gap."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from service.rules.states import ExitClass, job_label
from service.store.tables import attempt


def ended_as(connection: Connection, job_id: str, exit_class: ExitClass) -> int:
    """Count a job's attempts that ended in a class."""
    return connection.execute(
        select(func.count()).where(attempt.c.job == job_id, attempt.c.exit_class == exit_class)
    ).scalar_one()


def next_number(connection: Connection, audit_id: str) -> int:
    """Return the number of an audit's next attempt; its row is locked."""
    highest = select(func.coalesce(func.max(attempt.c.n), 0)).where(attempt.c.audit == audit_id)
    return int(connection.execute(highest).scalar_one()) + 1


def insert_attempt(connection: Connection, taken: Row[Any], number: int, worker: str, started: int) -> None:
    """Write down that a job was leased."""
    connection.execute(
        insert(attempt).values(
            audit=taken.audit,
            n=number,
            job=taken.id,
            job_label=job_label(taken.kind, taken.shard),
            token=taken.token,
            worker=worker,
            started_at=started,
        )
    )
