"""The log of access in the database: one chain, whoever writes, each row in the transaction of the change it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from sqlalchemy import BigInteger, Connection, Select, func, insert, literal_column, select, text, true

from service.rules.access_log import FIRST, OBJECT_MAX, AccessRow, chained
from service.store.engine import Store, clock
from service.store.tables_around import access_log

PAGE = 1000
"""Rows that an export reads at a time: some 500 KiB."""

OK = "OK"
"""Outcome of a mutation."""

_LOCK = 0x6173_7361_7901
"""Key of PostgreSQL's advisory lock on the chain's end ("assay", 1). SQLite has one writer anyway."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """What one row tells."""

    principal: str
    method: str
    object: str
    outcome: str = OK
    times: int = 1


class Witness(Protocol):
    """Says what the running call's next transaction is to be logged as."""

    def due(self) -> Access | None:
        """Return what to write at the end of the transaction; None writes nothing."""

    def wrote(self, access: Access) -> None:
        """Hear that the transaction with this row was committed."""


def append(connection: Connection, *accesses: Access) -> None:
    """Write rows at the chain's end, in the caller's transaction and as its last statements.

    Last, because on PostgreSQL the end is locked from here to the commit: whoever holds it waits for nobody.

    Args:
        connection: inside `Store.begin`.
        accesses: what to write.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    found = connection.execute(_end(clock(connection))).one()
    seq, previous = (found.seq, found.sha256) if found.seq is not None else (0, FIRST)
    for one in accesses:
        seq += 1
        what = {**vars(one), "object": one.object[:OBJECT_MAX]}
        row = chained(seq=seq, at=found.now, previous=previous, what=what)
        connection.execute(_INSERT, vars(row))
        previous = row.sha256


_INSERT = insert(access_log)


@cache
def _end(now: str) -> Select[Any]:
    """Return the question for the chain's last row, and for the time; there is an answer to the latter in any case."""
    newest = select(access_log.c.seq, access_log.c.sha256).order_by(access_log.c.seq.desc()).limit(1).subquery()
    at = select(literal_column(f"({now})", BigInteger).label("now")).subquery()
    return select(at.c.now, newest.c.seq, newest.c.sha256).select_from(at.outerjoin(newest, true()))


def append_local(connection: Connection, command: str, name: str) -> None:
    """Write that a local command changed who may do what; the principal is empty: whoever has the database's files.

    Args:
        connection: inside `Store.begin`, in the transaction of the change.
        command: the command and its action, e.g. "principals add".
        name: what it changed.
    """
    append(connection, Access(principal="", method=f"assay-server {command}", object=name))


class RecordedStore(Store):
    """A store whose writing transactions leave a row each, where the running call says so.

    Args:
        inner: the store.
        witness: knows the running call.
    """

    def __init__(self, inner: Store, witness: Witness) -> None:
        self._inner, self._witness = inner, witness

    @property
    def dialect(self) -> str:
        """See `Store.dialect`."""
        return self._inner.dialect

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """See `Store.begin`; the row is written last, and undone with everything else."""
        with self._inner.begin() as connection:
            yield connection
            due = self._witness.due()
            if due is not None:
                append(connection, due)
        if due is not None:
            self._witness.wrote(due)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Store.read`."""
        with self._inner.read() as connection:
            yield connection

    def close(self) -> None:
        """See `Store.close`."""
        self._inner.close()


def rows(store: Store, *, page: int = PAGE) -> Iterator[AccessRow]:
    """Return the log as it is now, oldest first, read a page at a time."""
    with store.read() as connection:
        upto = connection.execute(select(func.coalesce(func.max(access_log.c.seq), 0))).scalar_one()
    after = -1
    while True:
        with store.read() as connection:
            found = connection.execute(
                select(access_log)
                .where(access_log.c.seq > after, access_log.c.seq <= upto)
                .order_by(access_log.c.seq)
                .limit(page)
            ).all()
        for row in found:
            yield AccessRow(**row._mapping)
        if len(found) < page:
            return
        after = found[-1].seq
