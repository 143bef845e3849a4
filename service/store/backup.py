"""A copy of the database while it serves, and back into an empty place."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.store.engine import StoreNotUsable, open_store
from service.store.keeping import quarantine
from service.store.tables import blob
from service.store.uploads import EMPTY

DUMP_S = 6 * 3600
"""A dump that takes longer hangs; operators of such a database have other means."""


def back_up(url: str, out: Path) -> frozenset[str]:
    """Copy the database as it is at one moment; writers go on meanwhile.

    Args:
        url: its address.
        out: the file to write; it must not exist.

    Returns:
        The digests of all blobs that the copy calls present; what the living database says later is another matter.

    Raises:
        StoreNotUsable: it cannot be copied; the message says what to do.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        program = _found("pg_dump")
        with _snapshot(parsed) as (connection, name):
            held = _present(connection)
            _run(program, parsed, "--format=custom", "--no-owner", f"--snapshot={name}", f"--file={out}")
        out.chmod(0o600)
        return held
    out.touch(mode=0o600, exist_ok=False)
    try:
        with (
            closing(sqlite3.connect(f"file:{parsed.database}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(out)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE").fetchall()  # one file, nothing beside it
            found = target.execute("PRAGMA integrity_check").fetchall()
    except sqlite3.Error as error:
        raise StoreNotUsable(f"the database {parsed.database} cannot be copied: {error}") from error
    if found != [("ok",)]:
        raise StoreNotUsable(f"the database {parsed.database} is damaged: {found[0][0]}; restore an older backup")
    engine = create_engine(f"sqlite:///file:{out}?mode=ro&uri=true", poolclass=NullPool)
    with engine.connect() as connection:
        return _present(connection)


def present(url: str) -> frozenset[str]:
    """Return the digests of all blobs that a database calls present."""
    store = open_store(url)
    try:
        with store.read() as connection:
            return _present(connection)
    finally:
        store.close()


def call_missing(url: str, digests: Iterable[str]) -> None:
    """Note that these blobs are not there, so that their owners are asked for them instead of being promised them."""
    store = open_store(url)
    try:
        with store.begin() as connection:
            for digest in digests:
                quarantine(connection, digest)
    finally:
        store.close()


def require_empty(url: str) -> None:
    """Do nothing if there is no database, or one without tables.

    Raises:
        StoreNotUsable: something is there.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and Path(parsed.database).exists():
            raise StoreNotUsable(f"{parsed.database} exists: restore to an empty place, or move it away")
        return
    store = open_store(url)
    try:
        with store.read() as connection:
            if inspect(connection).get_table_names():
                raise StoreNotUsable(f"the database {parsed.database} has tables: restore into an empty one")
    finally:
        store.close()


def restore(url: str, dump: Path) -> None:
    """Make the database from a copy; call `require_empty` before.

    Raises:
        StoreNotUsable: it cannot be made; the message says what to do.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        _run(_found("pg_restore"), parsed, "--exit-on-error", "--single-transaction", "--no-owner", str(dump))
        return
    target = Path(str(parsed.database))
    aside = target.with_name(f".{target.name}.restoring")
    with dump.open("rb") as source, open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(target)


def _present(connection: Connection) -> frozenset[str]:
    there = (blob.c.doomed_at.is_(None), blob.c.quarantined_at.is_(None), blob.c.sha256 != EMPTY.sha256)
    return frozenset(connection.execute(select(blob.c.sha256).where(*there)).scalars())


@contextmanager
def _snapshot(url: URL) -> Iterator[tuple[Connection, str]]:
    """Hold one moment of a PostgreSQL database, and the name under which pg_dump finds it."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="REPEATABLE READ", hide_parameters=True)
    try:
        with engine.connect() as connection:
            # A dump takes hours, and this connection is idle meanwhile.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield connection, str(connection.execute(text("SELECT pg_export_snapshot()")).scalar_one())
    except DBAPIError as error:
        raise StoreNotUsable(f"the database {url.database} cannot be copied: {error.orig}") from error


def _found(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise StoreNotUsable(
            f"{program} is not installed here: install PostgreSQL's client programs (postgresql-client)"
        )
    return found


def _run(program: str, url: URL, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; the password travels in the environment, never in the arguments."""
    plain = url.set(drivername="postgresql", password=None).render_as_string()
    environment = dict(os.environ) | ({"PGPASSWORD": str(url.password)} if url.password else {})
    done = subprocess.run(
        [program, f"--dbname={plain}", *arguments],
        env=environment, capture_output=True, text=True, timeout=DUMP_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StoreNotUsable(f"{Path(program).name} failed: {done.stderr.strip()[-500:]}")
