"""What a caller sees of an audit beyond its row: its place in line, and the record it came to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from service.api.render import audit_message
from service.rules.access import Shown
from service.store.engine import Store
from service.store.views import AuditView, oldest_queued, view, views
from tests.service.store.planting import SHA, finished, leased, registered, submit


def seen(store: Store, key: str) -> AuditView:
    with store.read() as connection:
        found = view(connection, key)
    assert found is not None
    return found


def test_audit_that_is_not_in_line_does_not_claim_to_be_the_next_one(store: Store) -> None:
    with store.begin() as connection:
        unregistered = submit(connection, 1)
    running = registered(store, 2)
    held = leased(store, running)
    assert [seen(store, one).queue_estimate for one in (unregistered, running)] == [-1, -1]
    finished(store, held)
    assert seen(store, running).queue_estimate == -1


def test_estimate_is_the_place_in_the_order_in_which_workers_take_jobs(store: Store) -> None:
    for n in range(6):
        registered(store, n, capability="cpu" if n % 3 else "gpu-24g")
    with store.begin() as connection:
        submit(connection, 6)  # nobody may lease it yet
    for capability, count in (("cpu", 4), ("gpu-24g", 2)):
        with store.read() as connection:
            line = oldest_queued(connection, capability, limit=10)
        assert [seen(store, one).queue_estimate for one in line] == list(range(count))
    leased(store, line[0])
    assert seen(store, line[1]).queue_estimate == 0


def test_a_page_of_audits_costs_the_same_reads_whatever_its_length(store: Store) -> None:
    keys = [registered(store, n) for n in range(12)]
    told: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        told.append(statement)

    counts = []
    with store.read() as connection:
        event.listen(connection.engine, "before_cursor_execute", note)
        for page in (keys[:2], keys):
            told.clear()
            assert sorted(one.queue_estimate for one in views(connection, page))[-1] >= len(page) - 1
            counts.append(len(told))
        event.remove(connection.engine, "before_cursor_execute", note)
    assert counts == [3, 3]


def test_digest_of_the_result_is_told_to_those_who_may_see_results(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    assert audit_message(seen(store, key)).result_digest == ""
    finished(store, held)
    found = seen(store, key)
    told = {shown: audit_message(found, shown=shown) for shown in Shown}
    assert {shown: one.result_digest for shown, one in told.items()} == {
        shown: SHA if shown is Shown.ALL else "" for shown in Shown
    }
    assert {one.queue_estimate for one in told.values()} == {-1}


def test_sealing_is_told_once_with_the_result(store: Store) -> None:
    from service.store.events import events_after

    key = registered(store)
    finished(store, leased(store, key))
    with store.read() as connection:
        told = [one for one in events_after(connection, key, 0) if one.kind == "phase_reached"]
    assert [dict(one.detail) for one in told] == [{"phase": "sealing", "done": 0, "owed": 1, "job": "whole"}]
