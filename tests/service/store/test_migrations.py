from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, insert, select, text

from service.rules.consistency import Checker
from service.store import journal, quotas
from service.store.engine import StoreNotUsable, open_store
from service.store.migrations import _config, check_revision, difference, head, migrate
from service.store.outbox import owe
from service.store.tables import outbox


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


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/assay.db"


def test_migrated_tables_are_the_tables_of_the_code(url: str) -> None:
    migrate(url)
    store = open_store(url)
    assert difference(store) == []
    store.close()


def planted(connection: Connection) -> dict[str, dict[str, Any]]:
    """Insert two rows into every table that a database has; return the first of each."""
    found = MetaData()
    found.reflect(connection)
    told: dict[str, dict[str, Any]] = {}
    for table in found.sorted_tables:
        if table.name == "alembic_version":
            continue
        for n in (0, 1):
            row = {column.name: value_of(column, n) for column in table.columns}
            connection.execute(insert(table).values(**row))
            told.setdefault(table.name, row)
    return told


def value_of(column: Column[Any], n: int) -> Any:
    """Return what a column holds in the n-th row: the same everywhere, so that foreign keys find their rows."""
    kind = column.type.python_type
    if kind is bool:
        return bool(n)
    if kind is int:
        return 41 + n
    if kind is bytes:
        return b"bytes \x00\xff" + bytes([n])
    if column.name == "files_json":  # is read by a later migration
        return f'[{{"path":"x","sha256":"text{n}","size":{41 + n}}}]'
    return f"{'text'}{n}"


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005", "0006"])
def test_every_release_is_upgraded_with_its_data(url: str, revision: str) -> None:
    """What every table of an older release held is there afterwards, column by column."""
    store = open_store(url)
    with migrated_to(url, revision), store.begin() as connection:
        before = planted(connection)
    migrate(url)
    check_revision(url)
    assert difference(store) == []
    now = MetaData()
    with store.read() as connection:
        now.reflect(connection)
        for name, row in before.items():
            rows = connection.execute(select(*(now.tables[name].c[column] for column in row))).mappings().all()
            assert row in [dict(one) for one in rows], name
            assert len(rows) == 2
    store.close()


def test_a_new_row_goes_on_where_an_upgraded_database_counts(url: str) -> None:
    """Numbers that the database itself gives out do not begin again."""
    store = open_store(url)
    with migrated_to(url, "0004"), store.begin() as connection:
        key = audit_row(connection)
        for _ in range(3):
            connection.execute(
                text("INSERT INTO outbox (kind, audit, queued_at) VALUES ('sign', :key, 1)"), {"key": key}
            )
        connection.execute(text("DELETE FROM outbox"))
    migrate(url)
    with store.begin() as connection:
        owe(connection, "sign", key)
        assert connection.execute(select(outbox.c.id)).scalar_one() == 4
    store.close()


def audit_row(connection: Connection) -> str:
    """Insert an audit that every release can hold."""
    connection.execute(
        text(
            "INSERT INTO audit (id, tenant, principal, model_sha256, checks, request_sha256, submission, state,"
            " attempts_max, last_sequence, submitted_at) VALUES ('a','t','p','m','c','r',:none,'RUNNING',8,0,1)"
        ),
        {"none": b""},
    )
    return "a"


def test_a_forgotten_migration_is_seen(file: str, tmp_path: Path) -> None:
    """The positive control of the test above."""
    migrate(file)
    with sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute("ALTER TABLE job DROP COLUMN backoff_ms")
    raw.close()
    assert "backoff_ms" in str(difference(open_store(file)))


def test_migrating_twice_changes_nothing(url: str) -> None:
    migrate(url)
    migrate(url)
    check_revision(url)


def test_an_empty_database_is_refused_with_the_command_to_run(url: str) -> None:
    with pytest.raises(StoreNotUsable, match=r"revision none, .* run `assay-server migrate`"):
        check_revision(url)


def test_a_newer_database_is_refused_and_not_migrated_down(file: str, tmp_path: Path) -> None:
    migrate(file)
    with sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(StoreNotUsable, match="9999, which this release does not know: it is newer"):
        check_revision(file)


def test_history_is_linear() -> None:
    scripts = ScriptDirectory.from_config(_config())
    assert scripts.get_heads() == [head()]
    assert len(scripts.get_bases()) == 1


def test_charges_of_before_base_models_stay_as_they_are(file: str, tmp_path: Path) -> None:
    """Revision 0003 makes the table of charges anew on SQLite."""
    with migrated_to(file, "0002"), sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute("INSERT INTO output_charge VALUES ('a', 1, 'p', 'm', 40, 7)")
        raw.execute("INSERT INTO output_total VALUES ('m', 'p', 40, NULL)")
    raw.close()
    migrate(file)
    assert difference(open_store(file)) == []
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


def test_jobs_of_before_shards_stay_as_they_are(file: str, tmp_path: Path) -> None:
    with migrated_to(file, "0003"), sqlite3.connect(tmp_path / "assay.db") as raw:
        raw.execute(
            "INSERT INTO audit (id, tenant, principal, model_sha256, checks, request_sha256, submission, state,"
            " attempts_max, last_sequence, submitted_at) VALUES ('a','t','p','m','c','r','','RUNNING',8,0,1)"
        )
        raw.execute("INSERT INTO job (id, audit, kind, capability, state) VALUES ('a','a','whole','cpu','LEASED')")
    raw.close()
    migrate(file)
    assert difference(open_store(file)) == []
    with sqlite3.connect(tmp_path / "assay.db") as raw:
        assert raw.execute("SELECT id, state, shard, part_sha256 FROM job").fetchall() == [("a", "LEASED", 0, None)]
        assert raw.execute("SELECT count(*) FROM plan").fetchone() == (0,)
    raw.close()


def test_shards_are_said_to_postgresql_in_its_words() -> None:
    said = statements_of("0003:0004")
    assert "ALTER TABLE job ADD COLUMN part_sha256 VARCHAR(64)" in said
    assert "CREATE TABLE plan" in said
    assert "PRIMARY KEY (audit)" in said


def test_audits_of_before_the_journal_are_carried_over(file: str, tmp_path: Path) -> None:
    ids = ["a" * 32, "b" * 32]
    with migrated_to(file, "0004"), sqlite3.connect(tmp_path / "assay.db") as raw:
        for key in ids:
            raw.execute(
                "INSERT INTO audit (id, tenant, principal, model_sha256, checks, request_sha256, submission, state,"
                " attempts_max, last_sequence, submitted_at) VALUES (?,'t','p','m','c','r','','RUNNING',8,0,5)",
                (key,),
            )
    raw.close()
    migrate(file)
    store = open_store(file)
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


def test_bytes_that_were_sent_before_they_were_counted_are_counted(file: str, tmp_path: Path) -> None:
    with migrated_to(file, "0004"), sqlite3.connect(tmp_path / "assay.db") as raw:
        for n, (tenant, size) in enumerate((("t", 5000), ("t", 7), ("u", 11_000))):
            raw.execute("INSERT INTO blob (sha256, size, stored_at) VALUES (?,?,1)", (f"{n:064x}", size))
            raw.execute("INSERT INTO blob_grant (tenant, sha256, touched_at) VALUES (?,?,1)", (tenant, f"{n:064x}"))
    raw.close()
    migrate(file)
    store = open_store(file)
    with store.read() as connection:
        assert [quotas.stored_bytes(connection, tenant) for tenant in ("t", "u", "v")] == [9096, 11_000, 0]
    store.close()
