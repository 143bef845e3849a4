"""What the store alone guarantees: one result of an audit, one row of a request, a debt with its change or none."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select

from service.store import jobs
from service.store.engine import Store, StoreConflict
from service.store.tables import idempotency, result
from service.store.tables import job as job_table
from tests.service.store.planting import SHA, finished, leased, new_store, registered


@pytest.fixture
def store(tmp_path: Any) -> Any:
    opened = new_store(tmp_path)
    yield opened
    opened.close()


def test_a_second_result_of_an_audit_is_refused(store: Store) -> None:
    key = registered(store)
    finished(store, leased(store, key))
    with pytest.raises(StoreConflict), store.begin() as connection:
        connection.execute(insert(result).values(audit=key, token=2, sha256=SHA, finalised_at=0))


def test_a_second_row_of_a_request_is_refused(store: Store) -> None:
    row = {"principal": "p", "method": "SubmitAudit", "request_id": "r", "request_sha256": SHA, "stored_at": 0}
    with store.begin() as connection:
        connection.execute(insert(idempotency).values(**row, resource="one"))
    with pytest.raises(StoreConflict), store.begin() as connection:
        connection.execute(insert(idempotency).values(**row, resource="another"))


def test_a_result_whose_debt_is_not_written_is_undone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = leased(store, registered(store))

    def dies(*_arguments: Any, **_named: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(jobs, "owe", dies)
    with pytest.raises(MemoryError):
        finished(store, held)
    with store.read() as connection:
        assert connection.execute(select(result)).all() == []
        assert connection.execute(select(job_table.c.state)).scalar_one() == "LEASED"
