"""A PostgreSQL server of the tests' own: a Unix socket in a temporary folder, nothing durable, gone with the tests."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from service.store.migrations import migrate
from service.store.schema import metadata

WITHOUT = (
    "no PostgreSQL server was found: install postgresql-15 (Debian), or put the folder with initdb and postgres "
    "first in PATH; the same tests passed on SQLite"
)
"""Why a test is skipped."""

_FALLBACK = "/usr/lib/postgresql/15/bin"
"""Where Debian's package lays the server's programs, outside of PATH."""

_USER = 65_534
"""The server refuses to run as root."""

_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    folder: Path

    def url(self, name: str) -> str:
        """Return a database's address."""
        return f"postgresql+psycopg://assay@/{name}?host={self.folder}"

    def create(self, template: str = "template0") -> str:
        """Make a database; return its address."""
        global _made
        _made += 1
        name = f"d{os.getpid()}_{_made}"
        # Nothing here is durable, so a copy of files is a third of the price of a copy through the log.
        self._admin(f'CREATE DATABASE {name} TEMPLATE {template} ENCODING "UTF8" LOCALE "C" STRATEGY FILE_COPY')
        return self.url(name)

    def migrated(self) -> str:
        """Make a database of this release's revision; return its address."""
        return self.create(_template(self))

    def emptied(self) -> str:
        """Return the address of one and the same database of this release's revision, without a row and a guest.

        For tests that follow one another and leave its tables as they are: no copy, no cold catalogue.
        """
        url, connection = _kept(self)
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        tables = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
        connection.execute(text(f"{others} AND pid <> pg_backend_pid()"))
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
        return url

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected."""
        self._admin(f"DROP DATABASE IF EXISTS {_name(url)} WITH (FORCE)")

    def _admin(self, statement: str) -> None:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))


_made = 0


@functools.cache
def server() -> Server | None:
    """Return the server, started at the first call; None where none is installed."""
    programs = [shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_FALLBACK}") for name in ("initdb", "postgres")]
    if not all(programs):
        return None
    initdb, postgres = (str(one) for one in programs)
    folder = Path(tempfile.mkdtemp(prefix="assay-pg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if os.getuid() == 0:
        os.chown(folder, _USER, _USER)
    data = folder / "data"
    made = [initdb, "-D", str(data), "-U", "assay", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run([*_as_user(), *made], check=True, capture_output=True, cwd="/", timeout=_DEADLINE_S)
    settings = {
        "listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off", "full_page_writes": "off",
        "synchronous_commit": "off", "max_connections": "200", "shared_buffers": "32MB", "autovacuum": "off",
    }  # fmt: skip
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*_as_user(), postgres, "-D", str(data), *arguments], stdout=log, stderr=log, cwd="/"
        )
    atexit.register(_stop, process)
    found = Server(folder)
    _await(found, process)
    return found


@functools.cache
def _template(found: Server) -> str:
    url = found.create()
    migrate(url)
    return _name(url)


@functools.cache
def _kept(found: Server) -> tuple[str, Connection]:
    """One connection empties it again and again: a new one reads the whole catalogue first."""
    url = found.migrated()
    connection = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect()
    atexit.register(connection.close)
    return url, connection


def _name(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def _as_user() -> list[str]:
    """Run as nobody where we are root, and end with this process however it ends."""
    drop = [f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"] if os.getuid() == 0 else []
    return ["setpriv", *drop, "--pdeathsig", "QUIT"]


def _await(found: Server, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _DEADLINE_S
    engine = create_engine(found.url("postgres"), poolclass=NullPool)
    while True:
        try:
            engine.connect().close()
        except OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)  # nothing tells when it listens but trying
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGQUIT)
    process.wait(timeout=_DEADLINE_S)
