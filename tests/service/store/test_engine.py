from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import StatementError

from service.store.engine import (
    Store,
    StoreBusy,
    StoreConflict,
    StoreError,
    StoreNotUsable,
    StoreUnavailable,
    now_ms,
    open_store,
)
from service.store.jobs import lock_audit
from service.store.location import NETWORK_FILE_SYSTEMS, file_system_of
from service.store.migrations import migrate
from service.store.tables import event, principal
from service.store.tables_around import webhook
from tests.service.store.planting import new_store, registered


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10_000)]
)
def test_every_connection_is_durable_and_waits(sqlite: Store, pragma: str, value: object) -> None:
    with sqlite.begin() as writer, sqlite.read() as reader:
        for connection in (writer, reader):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value


def test_reader_turned_writer_does_not_fail_at_once(sqlite: Store) -> None:
    """A deferred transaction that read and then writes gets "database is locked" without any wait."""
    registered(sqlite)
    failures: list[BaseException] = []

    def read_then_write() -> None:
        try:
            for _ in range(20):
                with sqlite.begin() as connection:
                    before = connection.execute(text("SELECT beat FROM job")).scalar_one()
                    connection.execute(text("UPDATE job SET beat = :next"), {"next": before + 1})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read_then_write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with sqlite.read() as connection:
        assert connection.execute(text("SELECT beat FROM job")).scalar_one() == 80  # no update was lost


@pytest.mark.slow
def test_a_lock_of_postgresql_is_busy_after_its_budget(postgres_url: str) -> None:
    store, impatient = open_store(postgres_url), open_store(postgres_url, busy_ms=50)
    key = registered(store)
    with store.begin() as holder:
        lock_audit(holder, key)
        with pytest.raises(StoreBusy), impatient.begin() as connection:
            lock_audit(connection, key)
    with impatient.begin() as connection:
        lock_audit(connection, key)
    store.close()
    impatient.close()


@pytest.mark.slow
def test_two_writers_that_wait_for_each_other_are_busy_and_not_broken(postgres_url: str) -> None:
    """PostgreSQL ends one of the two; whoever called does so again."""
    store = open_store(postgres_url)
    keys = [registered(store, n) for n in range(2)]
    both, outcomes = threading.Barrier(2), list[str]()

    def cross(first: str, second: str) -> None:
        try:
            with store.begin() as connection:
                lock_audit(connection, first)
                both.wait()
                lock_audit(connection, second)
            outcomes.append("done")
        except StoreBusy:
            outcomes.append("busy")

    threads = [threading.Thread(target=cross, args=pair) for pair in (keys, keys[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert sorted(outcomes) == ["busy", "done"]


@pytest.mark.slow
def test_a_server_that_is_gone_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable), open_store("postgresql+psycopg://a@/b?host=/nowhere").read() as connection:
        now_ms(connection)


def test_a_held_lock_is_busy_and_not_a_driver_error(tmp_path: Path) -> None:
    impatient = new_store(tmp_path, busy_ms=50)
    with impatient.begin(), pytest.raises(StoreBusy), impatient.begin():
        pytest.fail("two writers at once")


SECRET = "whsec_planted"


def _everything_told(store: Store, statement: Any) -> str:
    """Run a statement that fails, and return all that a log would hold of it."""
    with pytest.raises(StoreError) as caught, store.begin() as connection:
        connection.execute(statement)
    return "".join(traceback.format_exception(caught.value))


def test_failing_statement_tells_the_log_no_secret(store: Store) -> None:
    row = {"tenant": "acme", "id": "w", "url": "u", "signing": "v1", "secret": SECRET.encode(), "created_at": 1}
    told = _everything_told(store, insert(webhook).values({**row, "url": None}))  # PostgreSQL quotes the failing row
    told += _everything_told(store, text("INSERT INTO absent VALUES (:secret)").bindparams(secret=SECRET))
    assert "INSERT INTO webhook" in told
    assert SECRET not in told
    assert SECRET.encode().hex() not in told


def test_unwritable_database_tells_the_log_no_secret(sqlite: Store) -> None:
    with sqlite.begin() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
        with pytest.raises(StatementError) as caught:
            connection.execute(text("INSERT INTO principal VALUES (:id)").bindparams(id=SECRET))
        connection.exec_driver_sql("PRAGMA query_only=OFF")
    assert SECRET not in str(caught.value)


def test_postgresql_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver is told is what both kernels and the server are told: nothing here can cut a cable."""
    seen: dict[str, Any] = {}

    def connect(*_arguments: Any, **told: Any) -> None:
        seen.update(told)
        raise psycopg.OperationalError("no")

    monkeypatch.setattr(psycopg, "connect", connect)
    with pytest.raises(StoreUnavailable), open_store("postgresql+psycopg://a@b/c", busy_ms=3000).read():
        pytest.fail("connected")
    assert (seen["tcp_user_timeout"], seen["keepalives"]) == (15_000, 1)
    assert seen["keepalives_idle"] + seen["keepalives_count"] * seen["keepalives_interval"] <= 15
    assert {"statement_timeout=30000", "tcp_user_timeout=15000"} <= set(seen["options"].split())


@pytest.mark.slow
def test_statement_that_never_ends_is_ended(postgres_url: str) -> None:
    store = open_store(postgres_url, busy_ms=10)
    with pytest.raises(StoreUnavailable, match="statement timeout"), store.read() as connection:
        connection.execute(text("SELECT pg_sleep(60)"))
    store.close()


def test_no_driver_exception_leaks(store: Store, tmp_path: Path) -> None:
    twice = [{"id": "p", "tenant": "t", "role": "auditor"}] * 2
    with pytest.raises(StoreConflict), store.begin() as connection:
        connection.execute(insert(principal), twice)
    with pytest.raises(StoreConflict), store.begin() as connection:
        connection.execute(
            insert(event).values(audit="f" * 32, sequence=1, kind="registered", detail_json="{}", occurred_at=1)
        )
    with pytest.raises(StoreUnavailable), store.read() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))
    with pytest.raises(StoreUnavailable), open_store(f"sqlite:///{tmp_path}/absent/a.db").read() as connection:
        now_ms(connection)
    (tmp_path / "broken.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable), open_store(f"sqlite:///{tmp_path}/broken.db").read() as connection:
        now_ms(connection)


def test_an_exception_undoes_the_block(store: Store) -> None:
    def write_then_fail() -> None:
        with store.begin() as connection:
            connection.execute(insert(principal).values(id="p", tenant="t", role="auditor"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_then_fail()
    with store.read() as connection:
        assert connection.execute(principal.select()).all() == []


@pytest.mark.parametrize(
    "url", ["", "assay.db", "sqlite://", "sqlite:///relative.db", "mysql://host/name", "sqlite:///:memory:"]
)
def test_an_address_that_cannot_be_shared_is_refused(url: str) -> None:
    with pytest.raises(StoreNotUsable, match="database_url"):
        open_store(url)


def test_clock_is_the_databases_and_in_milliseconds(store: Store) -> None:
    asked = {"sqlite": "SELECT strftime('%s','now')", "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())"}
    with store.read() as connection:
        first, other = now_ms(connection), connection.execute(text(asked[store.dialect])).scalar_one()
    assert abs(first / 1000 - int(other)) <= 2


def test_a_network_file_system_is_found_by_the_deepest_mount() -> None:
    table = (
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "40 21 0:50 / /srv/shared rw - nfs4 server:/x rw\n"
        "41 40 8:2 / /srv/shared/local rw - ext4 /dev/sdb rw\n"
    )
    assert file_system_of(Path("/srv/shared/deep"), table) == ("nfs4", "/srv/shared")
    assert file_system_of(Path("/srv/shared/local/deep"), table) == ("ext4", "/srv/shared/local")
    assert file_system_of(Path("/srv/other"), table) == ("ext4", "/")
    assert "nfs4" in NETWORK_FILE_SYSTEMS


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.location.file_system_of", lambda folder, table: ("fuse.sshfs", "/mnt"))
    with pytest.raises(StoreNotUsable, match=r"/mnt \(fuse.sshfs\)"):
        open_store(f"sqlite:///{tmp_path}/a.db")


@pytest.mark.parametrize("count", [12, pytest.param(600, marks=pytest.mark.slow)])
def test_leases_of_processes_are_unique(url: str, count: int) -> None:
    """Processes race for jobs: each job is leased exactly once and nobody sees a locked database."""
    migrate(url)
    store = open_store(url)
    keys = [registered(store, n) for n in range(count)]
    program = (
        "import sys; from service.store.engine import open_store; from service.store.jobs import lease\n"
        "store = open_store(sys.argv[1])\n"
        "for key in sys.stdin.read().split():\n"
        "    with store.begin() as connection:\n"
        "        if lease(connection, key, 'w'): print(key)\n"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", program, url], stdin=-1, stdout=-1, stderr=-1, text=True)
        for _ in range(2 if count < 600 else 6)
    ]
    taken: list[str] = []
    with ThreadPoolExecutor(len(racers)) as pool:
        for racer, (said, failed) in zip(
            racers, pool.map(lambda one: one.communicate(" ".join(keys)), racers), strict=True
        ):
            assert failed == ""
            assert racer.returncode == 0
            taken += said.split()
    assert sorted(taken) == sorted(keys)
    with store.read() as connection:
        assert set(connection.execute(text("SELECT token FROM job")).scalars()) == {1}
    store.close()


def test_a_database_can_be_migrated_by_two_servers_at_once(url: str) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            migrate(url)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_readers_do_not_wait_for_a_writer(store: Store) -> None:
    with store.begin() as writer:
        writer.execute(insert(principal).values(id="p", tenant="t", role="auditor"))
        writer.execute(update(principal).values(disabled=True))
        with store.read() as reader:
            assert reader.execute(principal.select()).all() == []  # the last committed state, at once


def test_sqlite_is_as_new_as_the_clock_and_returning_need() -> None:
    assert sqlite3.sqlite_version_info >= (3, 35)
