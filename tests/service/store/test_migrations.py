from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.rules.consistency import Checker
from service.store import journal
from service.store.engine import StoreNotUsable, open_store
from service.store.migrations import _config, check_revision, difference, head, migrate


@contextmanager
def migrated_to(url: str, revision: str) -> Iterator[None]:
    """Bring a database to an older release's revision."""
    store = open_store(url)
    with store.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    store.close()
    yield


def statements_of(revisions: str) -> str:
    """Return what an upgrade would say to PostgreSQL, without one."""
    told = io.StringIO()
    script = ScriptDirectory.from_config(_config())
    first, last = revisions.split(":")
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": told})
    with Operations.context(context):
        for step in reversed(list(script.walk_revisions(first, last))):
            if step.revision != first:
                step.module.upgrade()
    return told.getvalue()


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
    scripts = ScriptDirectory.from_config(_config())
    assert scripts.get_heads() == [head()]
    assert len(scripts.get_bases()) == 1


def test_charges_of_before_base_models_stay_as_they_are(url: str, tmp_path: Path) -> None:
    """Revision 0003 makes the table of charges anew on SQLite."""
    with migrated_to(url, "0002"), sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute("INSERT INTO output_charge VALUES ('a', 1, 'p', 'm', 40, 7)")
        raw.execute("INSERT INTO output_total VALUES ('m', 'p', 40, NULL)")
    raw.close()
    migrate(url)
    assert difference(open_store(url)) == []
    with sqlite3.connect(tmp_path / "assay.db") as raw:
        assert raw.execute("SELECT * FROM output_charge").fetchall() == [("a", 1, "p", "m", 40, 7)]
        raw.execute("INSERT INTO output_charge VALUES ('a', 1, 'p', 'base', 40, 7)")
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute("INSERT INTO output_charge VALUES ('a', 1, 'q', 'm', 1, 8)")
    raw.close()


def test_the_key_of_charges_grows_in_place_on_postgresql() -> None:
    said = statements_of("0002:0003")
    assert "ALTER TABLE audit ADD COLUMN base_sha256 VARCHAR(64)" in said
    assert "ALTER TABLE output_charge DROP CONSTRAINT pk_output_charge" in said
    assert "ADD CONSTRAINT pk_output_charge PRIMARY KEY (audit, token, model_sha256)" in said


def test_jobs_of_before_shards_stay_as_they_are(url: str, tmp_path: Path) -> None:
    with migrated_to(url, "0003"), sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute(
            "INSERT INTO audit (id, tenant, principal, model_sha256, checks, request_sha256, submission, state,"
            " attempts_max, last_sequence, submitted_at) VALUES ('a','t','p','m','c','r','','RUNNING',8,0,1)"
        )
        raw.execute("INSERT INTO job (id, audit, kind, capability, state) VALUES ('a','a','whole','cpu','LEASED')")
    raw.close()
    migrate(url)
    assert difference(open_store(url)) == []
    with sqlite3.connect(tmp_path / "assay.db") as raw:
        assert raw.execute("SELECT id, state, shard, part_sha256 FROM job").fetchall() == [("a", "LEASED", 0, None)]
        assert raw.execute("SELECT count(*) FROM plan").fetchone() == (0,)
    raw.close()


def test_shards_are_said_to_postgresql_in_its_words() -> None:
    said = statements_of("0003:0004")
    assert "ALTER TABLE job ADD COLUMN part_sha256 VARCHAR(64)" in said
    assert "CREATE TABLE plan" in said
    assert "PRIMARY KEY (audit)" in said


def test_audits_of_before_the_journal_are_carried_over(url: str, tmp_path: Path) -> None:
    ids = ["a" * 32, "b" * 32]
    with migrated_to(url, "0004"), sqlite3.connect(tmp_path / "assay.db") as raw:
        for key in ids:
            raw.execute(
                "INSERT INTO audit (id, tenant, principal, model_sha256, checks, request_sha256, submission, state,"
                " attempts_max, last_sequence, submitted_at) VALUES (?,'t','p','m','c','r','','RUNNING',8,0,5)",
                (key,),
            )
    raw.close()
    migrate(url)
    store = open_store(url)
    with store.begin() as connection:
        journal.append(connection, "failed", audit=ids[0], detail={"reason": "HOST_FAULT"})
    found = list(journal.entries(store))
    store.close()
    assert [(one.kind, one.audit, one.sequence, one.at) for one in found[:2]] == [
        ("carried_over", key, 1, 5) for key in ids
    ]
    assert found[2].sequence == 2
    checker = Checker()
    assert [violation for one in found for violation in checker.feed(one)] == []
