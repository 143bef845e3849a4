from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from service.store.engine import StoreNotUsable, open_store
from service.store.migrations import check_revision, difference, head, migrate


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/assay.db"


def test_migrated_tables_are_the_tables_of_the_code(url: str) -> None:
    migrate(url)
    assert difference(open_store(url)) == []


def test_a_forgotten_migration_is_seen(url: str, tmp_path: Path) -> None:
    """The positive control of the test above."""
    migrate(url)
    with sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute("ALTER TABLE job DROP COLUMN backoff_ms")
    raw.close()
    assert "backoff_ms" in str(difference(open_store(url)))


def test_migrating_twice_changes_nothing(url: str) -> None:
    migrate(url)
    migrate(url)
    check_revision(url)


def test_an_empty_database_is_refused_with_the_command_to_run(url: str) -> None:
    with pytest.raises(StoreNotUsable, match=r"revision none, .* run `assay-server migrate`"):
        check_revision(url)


def test_a_newer_database_is_refused_and_not_migrated_down(url: str, tmp_path: Path) -> None:
    migrate(url)
    with sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(StoreNotUsable, match="9999, which this release does not know: it is newer"):
        check_revision(url)


def test_history_is_linear() -> None:
    from alembic.script import ScriptDirectory

    from service.store.migrations import _config

    scripts = ScriptDirectory.from_config(_config())
    assert scripts.get_heads() == [head()]
    assert len(scripts.get_bases()) == 1
