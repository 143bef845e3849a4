"""The log of access in the database: one chain whoever writes, in the transaction of the change or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from sqlalchemy import delete, update

from service.rules.access_log import check
from service.store.access_log import Access, RecordedStore, append, rows
from service.store.engine import Store
from service.store.tables import token_use
from service.store.tables_around import access_log


def access(n: int, principal: str = "ada") -> Access:
    return Access(principal=principal, method="/assay.api.v1.Audits/SubmitAudit", object=f"audits/{n}")


class Always:
    """A witness of a call that changes one thing in each transaction."""

    def __init__(self) -> None:
        self.n = 0
        self.committed: list[Access] = []

    def due(self) -> Access | None:
        self.n += 1
        return access(self.n)

    def wrote(self, access: Access) -> None:
        self.committed.append(access)


def test_row_is_written_with_its_change_or_not_at_all(store: Store) -> None:
    witness = Always()
    recorded = RecordedStore(store, witness)
    with recorded.begin() as connection:
        connection.execute(token_use.insert().values(token_sha256="a", expires_at=1))
    with pytest.raises(ZeroDivisionError), recorded.begin() as connection:
        raise ZeroDivisionError
    found = list(rows(recorded))
    assert [row.object for row in found] == ["audits/1"]
    assert [one.object for one in witness.committed] == ["audits/1"]
    assert check(found) == ()


def test_change_is_undone_where_its_row_cannot_be_written(store: Store) -> None:
    class Wrong(Always):
        def due(self) -> Access | None:
            raise RuntimeError("no row")

    recorded = RecordedStore(store, Wrong())
    with pytest.raises(RuntimeError), recorded.begin() as connection:
        connection.execute(token_use.insert().values(token_sha256="a", expires_at=1))
    with store.read() as connection:
        assert connection.execute(token_use.select()).all() == []


def test_threads_keep_one_chain(store: Store) -> None:
    def write(principal: str) -> None:
        for n in range(20):
            with store.begin() as connection:
                append(connection, access(n, principal))

    writers = [threading.Thread(target=write, args=(f"p{n}",)) for n in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    found = list(rows(store, page=7))
    assert (len(found), check(found)) == (80, ())


WRITER = """
import sys
from service.store.access_log import Access, append
from service.store.engine import open_store
store = open_store(sys.argv[1])
for n in range(60):
    with store.begin() as connection:
        append(connection, Access(principal=sys.argv[2], method="/m", object=f"audits/{n}"))
"""


def test_two_processes_keep_one_chain(store: Store) -> None:
    url = store._engine.url.render_as_string(hide_password=False)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, name]) for name in ("one", "two")]
    assert [one.wait(60) for one in writers] == [0, 0]
    found = list(rows(store))
    assert (len(found), check(found)) == (120, ())
    assert {row.principal for row in found} == {"one", "two"}


def test_changed_database_is_found(sqlite: Store) -> None:
    with sqlite.begin() as connection:
        append(connection, *(access(n) for n in range(6)))
    with sqlite.begin() as connection:
        connection.execute(update(access_log).where(access_log.c.seq == 2).values(principal="eve"))
        connection.execute(delete(access_log).where(access_log.c.seq == 4))
    assert [(one.rule, one.seq) for one in check(rows(sqlite))] == [("altered", 2), ("gap", 5), ("unlinked", 5)]
