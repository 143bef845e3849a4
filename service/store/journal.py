"""The journal: what happened to every audit, in order, each entry in the transaction of the change that it tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, Row, bindparam, func, insert, literal, select, text

from service.rules.journal import Entry, check_detail
from service.rules.states import JobState
from service.store.engine import Store, clock
from service.store.tables import audit as audits
from service.store.tables import job as jobs
from service.store.tables_around import journal

PAGE = 1000
"""Entries that an export reads at a time: some 300 KiB."""


def append(
    connection: Connection,
    kind: str,
    *,
    audit: str = "",
    job: str = "",
    attempt: int = 0,
    token: int = 0,
    detail: dict[str, Any] | None = None,
) -> None:
    """Write an entry in the caller's transaction.

    The audit's row is locked first, as every writer of an audit does, so its entries queue up and have no gap.

    Args:
        connection: inside `Store.begin`, in the transaction of the change.
        kind: a key of `rules.journal.KINDS`.
        audit: whose life it belongs to; empty for what belongs to none.
        job: with what is about one job.
        attempt: its number within the audit; 0 takes the token, which is the same number.
        token: the lease's.
        detail: exactly the keys of the kind.

    Raises:
        JournalMalformed: unknown kind, or a detail that the kind does not have.
    """
    told = detail or {}
    check_detail(kind, told)
    if audit and connection.dialect.name != "sqlite":  # which has one writer at a time anyway
        connection.execute(_LOCK, {"of": audit}).one_or_none()
    row = {
        "of": audit,
        "audit": audit,
        "job": job,
        "attempt": attempt or token,
        "token": token,
        "kind": kind,
        "detail_json": json.dumps(told, separators=(",", ":"), sort_keys=True),
    }
    connection.execute(_insert(bool(audit), clock(connection)), row)


_LOCK = select(audits.c.id).where(audits.c.id == bindparam("of")).with_for_update()


@cache
def _insert(counted: bool, now: str) -> Insert:
    """Return the statement that writes an entry; those of audits are counted, each audit's on its own."""
    last = select(func.coalesce(func.max(journal.c.sequence), 0)).where(journal.c.audit == bindparam("of"))
    sequence = last.scalar_subquery() + 1 if counted else literal(0)
    return insert(journal).values(sequence=sequence, at=text(f"({now})"))


def note_fenced(connection: Connection, *, audit: str, job: str, token: int) -> bool:
    """Write down that a worker found its lease over; False if the lease is its own still, and then nothing is written.

    Args:
        connection: inside `Store.begin`.
        audit: of the job.
        job: the job that was leased.
        token: of that lease.
    """
    held = select(jobs.c.id).where(jobs.c.id == job, jobs.c.token == token, jobs.c.state == JobState.LEASED)
    if connection.execute(held).one_or_none() is not None:
        return False
    append(connection, "fenced", audit=audit, job=job, token=token)
    return True


def entries(store: Store, *, page: int = PAGE) -> Iterator[Entry]:
    """Return the whole journal of one moment, oldest first, read a page at a time."""
    with store.read() as connection:
        if connection.dialect.name == "postgresql":
            # A number is drawn before its transaction commits, so what commits while pages are read lies between and
            # behind them: half a transaction would be exported. On SQLite writers commit in the order of numbers.
            connection.execution_options(isolation_level="REPEATABLE READ")
        after, upto = 0, connection.execute(select(func.coalesce(func.max(journal.c.seq), 0))).scalar_one()
        while True:
            rows = connection.execute(
                select(journal).where(journal.c.seq > after, journal.c.seq <= upto).order_by(journal.c.seq).limit(page)
            ).all()
            yield from map(_entry, rows)
            if len(rows) < page:
                return
            after = rows[-1].seq


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        seq=row.seq,
        audit=row.audit,
        sequence=row.sequence,
        job=row.job,
        attempt=row.attempt,
        token=row.token,
        kind=row.kind,
        at=row.at,
        detail=json.loads(row.detail_json),
    )
