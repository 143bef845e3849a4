"""The database's revisions: one linear history, applied by a command and never by a process that serves."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from service.store import tables, tables_around  # noqa: F401 - imported, so that the metadata knows every table
from service.store.engine import Store, StoreNotUsable, open_store
from service.store.schema import metadata

COMMAND = "assay-server migrate"
"""What an operator runs; printed by a process that finds another revision."""

_LOCK = 0x61737361
"""PostgreSQL advisory lock round a migration ("assa"): two starting servers must not both migrate."""


def migrate(url: str) -> None:
    """Bring a database to this release's revision, creating it if it is empty; one transaction.

    Raises:
        StoreError: the database cannot be used.
    """
    store = open_store(url)
    try:
        with store.begin() as connection:
            if store.dialect == "postgresql":
                # A revision may rewrite a table, and waits for whoever migrates already.
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        store.close()


def check_revision(url: str) -> None:
    """Refuse a database that is not at exactly this release's revision.

    Raises:
        StoreNotUsable: it is older, newer or empty; the message tells the command to run.
    """
    store = open_store(url)
    try:
        found, expected = revision(store), head()
    finally:
        store.close()
    if found == expected:
        return
    if found is not None and found not in _known():
        raise StoreNotUsable(
            f"the database is at revision {found}, which this release does not know: it is newer. "
            "Install the release that wrote it, or restore a backup"
        )
    raise StoreNotUsable(
        f"the database is at revision {found or 'none'}, this release needs {expected}: run `{COMMAND}`"
    )


def revision(store: Store) -> str | None:
    """Return a database's revision; None if it has none."""
    with store.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """Return this release's revision."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None  # the release ships at least one revision
    return found


def difference(store: Store) -> list[object]:
    """Return what `tables.py` says and the database does not have, or the other way round; empty if they agree."""
    with store.read() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config
