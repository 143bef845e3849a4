"""Connections to the database: one writer at a time on SQLite, autocommit reads, the database's own clock.

StoreError                 the root of this package
 |- StoreBusy              another writer held the lock for longer than `busy_ms`; call again
 |- StoreConflict          a unique or foreign key refused the row
 |- StoreFenced            the caller's lease is over or its audit is being cancelled; its transaction is undone
 |- StoreUnavailable       the database cannot be reached or written
 `- StoreNotUsable         wrong address, network file system or revision: an operator must act
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from service.store.location import refuse_network_file_system

BUSY_MS_API = 3_000
"""Specs: service, section 7: a caller hears UNAVAILABLE rather than wait longer."""

BUSY_MS = 10_000
"""Everywhere else."""

STATEMENT_LOCKS = 10
"""Times `busy_ms` that a statement may take on PostgreSQL: 30 s in the API, as long as a unary call."""

GONE_S = 15
"""After so long without an answer of the other side's kernel a connection to PostgreSQL is over, on both sides: a
partition holds neither a thread here nor a lock there for longer."""

STATEMENT_MAX = 120
"""Characters of a failed statement that are told; its values are parameters and not in it."""

_WRITER = "assay_writer"
"""Execution option that marks a connection whose transaction will write."""


class StoreError(Exception):
    """Root of the store's errors."""


class StoreBusy(StoreError):
    """Another writer held the lock for longer than `busy_ms`; call again."""


class StoreConflict(StoreError):
    """A unique or foreign key refused the row."""


class StoreFenced(StoreError):
    """The caller's lease is over, or its audit is being cancelled; its transaction is undone."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, read or written."""


class StoreNotUsable(StoreError):
    """The address, its file system or its revision is wrong; the message says what an operator must do."""


class Store:
    """One database. Threads share it; each `begin` or `read` takes a connection of its own."""

    def __init__(self, engine: Engine, *, busy_ms: int = BUSY_MS) -> None:
        # On SQLite a connection that begins nothing is in autocommit anyway; switching costs a PRAGMA for each read.
        own = engine.dialect.name != "sqlite"
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT") if own else engine
        self._writer = engine.execution_options(**{_WRITER: True})
        self._engine = engine
        # SQLite's own waiting is a sleep between tries, and whoever sleeps longest goes last: 100 clients at once, and
        # one in a hundred was refused. So the threads of one process queue up here, and only the first of them tries.
        self._turn = threading.Lock() if not own else None
        self._busy_s = busy_ms / 1000

    @property
    def dialect(self) -> str:
        """The database's kind: "sqlite" or "postgresql"."""
        return self._engine.dialect.name

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that writes; it commits at the end of the block and rolls back on an exception.

        Raises:
            StoreBusy: the write lock was not free within `busy_ms`, or the threads before this one took as long.
            StoreConflict: a constraint refused a row and the block did not catch `IntegrityError` itself.
            StoreUnavailable: anything else that the database reported.
        """
        with self._in_turn(), _translated(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=self._busy_s):
            raise StoreBusy("another writer holds the database; call again")
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a connection for reads; each statement sees the newest committed state.

        Raises:
            StoreUnavailable: what the database reported.
        """
        with _translated(), self._reader.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close idle connections."""
        self._engine.dispose()


def open_store(url: str, *, busy_ms: int = BUSY_MS) -> Store:
    """Open a database; nothing is created and no revision is checked (see `migrations.check_revision`).

    Args:
        url: SQLAlchemy address, "sqlite:////absolute/path" or "postgresql+psycopg://...".
        busy_ms: how long a writer waits for the lock, in milliseconds.

    Raises:
        StoreNotUsable: the address is malformed, of another kind, in memory, or on a network file system.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreNotUsable("database_url is not an address: write sqlite:////absolute/path/assay.db") from error
    if parsed.get_backend_name() == "postgresql":
        # READ COMMITTED: every step is one conditional statement, so nothing needs a snapshot.
        return Store(
            create_engine(
                parsed,
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args=_patience(busy_ms),
                pool_size=8,
                max_overflow=56,
                pool_timeout=30,
            )
        )
    if parsed.get_backend_name() != "sqlite" or not parsed.database or not Path(parsed.database).is_absolute():
        raise StoreNotUsable("database_url must be sqlite:////absolute/path or postgresql+psycopg://host/name")
    refuse_network_file_system(Path(parsed.database), StoreNotUsable)
    engine = create_engine(
        parsed,
        hide_parameters=True,  # they are callers' texts and secrets, and an exception's text goes to the log
        connect_args={"timeout": busy_ms / 1000},
        pool_size=8,
        max_overflow=56,
        pool_timeout=30,
        pool_use_lifo=True,  # the connection that was used last still has its pages and statements
    )
    _set_up_sqlite(engine, busy_ms)
    return Store(engine, busy_ms=busy_ms)


def _patience(busy_ms: int) -> dict[str, object]:
    """Return how long PostgreSQL is waited for: for a lock as long as on SQLite, and for nothing else without end."""
    settings = {
        "lock_timeout": busy_ms,
        "statement_timeout": STATEMENT_LOCKS * busy_ms,
        # The server's side of GONE_S; on a Unix socket it takes no notice of these.
        "tcp_keepalives_idle": GONE_S // 3,
        "tcp_keepalives_interval": GONE_S // 3,
        "tcp_keepalives_count": 2,
        "tcp_user_timeout": 1000 * GONE_S,
    }
    return {
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "connect_timeout": max(2, busy_ms // 1000),
        "keepalives": 1,
        "keepalives_idle": GONE_S // 3,
        "keepalives_interval": GONE_S // 3,
        "keepalives_count": 2,
        "tcp_user_timeout": 1000 * GONE_S,
    }


def now_ms(connection: Connection) -> int:
    """Return the database's clock, in milliseconds since 1970."""
    return int(connection.execute(_asked(clock(connection))).scalar_one())


def clock(connection: Connection) -> str:
    """Return the SQL that asks the database's clock; in parentheses it stands for the moment within a statement."""
    return CLOCKS[connection.dialect.name]


@cache
def _asked(sql: str) -> TextClause:
    return text(sql)


CLOCKS = {
    # unixepoch('subsec') silently gives NULL before SQLite 3.42.
    "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    # now() is the transaction's start; a step's time is the statement's.
    "postgresql": "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def _set_up_sqlite(engine: Engine, busy_ms: int) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver begins deferred transactions, which fail at once on upgrade
        for pragma in (
            f"busy_timeout={busy_ms}",
            "journal_mode=WAL",
            "synchronous=FULL",  # NORMAL may drop the last commits on power loss
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITER):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    # From None: the driver may quote the row (PostgreSQL's DETAIL), and a chain of exceptions is logged whole.
    except IntegrityError as error:
        raise StoreConflict(f"the database refused a row: {_told(error)}") from None
    except OperationalError as error:
        if _is_locked(error.orig):
            raise StoreBusy("another writer holds the database; call again") from error
        raise StoreUnavailable(f"the database failed: {_told(error)}") from None
    except DBAPIError as error:
        raise StoreUnavailable(f"the database failed: {_told(error)}") from None


def _told(error: DBAPIError) -> str:
    """Return what failed in which statement, without a value of either."""
    primary = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    statement = " ".join((error.statement or "").split())[:STATEMENT_MAX]
    return f"{primary or error.orig}" + (f" in: {statement}" if statement else "")


_BUSY_STATES = ("55P03", "40P01", "40001")
"""PostgreSQL's lock_not_available, deadlock_detected and serialization_failure: undone, and worth another try."""


def _is_locked(error: Any) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(error, "sqlstate", None) in _BUSY_STATES
