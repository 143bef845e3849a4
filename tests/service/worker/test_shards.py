"""Jobs of an audit in shards, with cells that are made by hand: plan, scan, combine."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from assay import canonical
from sqlalchemy import select

from sandbox.cell import Cancelled, Filled, OnStep, Order, Outcome
from sandbox.errors import CellFailed, CellRefused, ResultRejected
from sandbox.orders import check_order
from service.store import endings
from service.store.audits import cancel
from service.store.events import events_after
from service.store.shards import combine_id, plan_of, scanned, shard_id
from service.store.tables import attempt, audit, job, output_charge
from service.worker import shards
from service.worker.shards import PLAN_SLOTS, SCAN_SLOTS, parse_staged
from tests.service.worker.scripted import (
    OK,
    House,
    filled,
    until_cancelled,
)
from tests.service.worker.sharded import SHARDED, corpus, jobs_of, leaving, works


@pytest.fixture
def sharded(place: House) -> House:
    place.bench = replace(place.bench, catalogue=SHARDED)
    place.cell.script = works()
    return place


def classes(place: House, key: str) -> list[tuple[str, str | None, str | None]]:
    with place.store.read() as connection:
        rows = connection.execute(select(attempt).where(attempt.c.audit == key).order_by(attempt.c.n)).all()
    return [(row.job_label, row.exit_class, row.result_sha256) for row in rows]


def requests(place: House) -> list[dict[str, Any]]:
    return [json.loads(one.request) for one in place.cell.orders]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_plan_scans_and_combine_are_one_audit(sharded: House) -> None:
    key = corpus(sharded)
    sharded.attempt(key)
    for shard in (2, 0, 1):
        sharded.attempt(shard_id(key, shard))
    sharded.attempt(combine_id(key))
    plan, *scans, last = requests(sharded)
    assert plan["stage"] == "plan"
    assert plan["model"]["files"] == []
    assert [one["role"] for one in plan["data"]] == ["corpus", "corpus"]
    assert len({one["input"] for one in plan["data"]}) == 2  # one digest, two files
    assert [one["stage"] for one in scans] == ["scan"] * 3
    assert [one["shards"]["shard"] for one in scans] == [2, 0, 1]
    for one in scans:
        assert one["model"]["files"] == []
        assert (one["shards"]["check"], one["shards"]["parts"], one["shards"]["dead"]) == (0, [], [])
        assert one["shards"]["document"] == {"input": "plan.document", "sha256": sha(b"plan"), "size": 4}
        assert one["shards"]["carried"]["sha256"] == sha(b"vectors")
        assert one["seed"] == plan["seed"]
    assert last["stage"] == "combine"
    assert [one["path"] for one in last["model"]["files"]] == ["config.json", "model.safetensors"]
    assert last["shards"]["carried"] is None
    assert [one["sha256"] for one in last["shards"]["parts"]] == [sha(b"part %d" % n) for n in range(3)]
    assert classes(sharded, key) == [
        ("whole", "OK", sha(b"plan")),
        ("shard:2", "OK", sha(b"part 2")),
        ("shard:0", "OK", sha(b"part 0")),
        ("shard:1", "OK", sha(b"part 1")),
        ("combine", "OK", classes(sharded, key)[-1][2]),
    ]
    with sharded.store.read() as connection:
        assert connection.execute(select(audit.c.state).where(audit.c.id == key)).scalar_one() == "SIGNING"
    assert len(sharded.cell.readings) == 2  # the model is read for plan and answer, and for no scan


def test_no_scan_sees_the_model(sharded: House) -> None:
    key = corpus(sharded)
    sharded.attempt(key)
    sharded.attempt(shard_id(key, 1))
    names = {one.name for order in sharded.cell.orders for one in order.inputs}
    assert names == {"data.0", "data.1", "plan.document", "plan.carried"}
    assert [[slot.released for slot in order.slots] for order in sharded.cell.orders] == [[False, False], [False]]


@pytest.mark.parametrize("count", [0, 1])
def test_what_is_not_worth_shards_is_answered_at_once(sharded: House, count: int) -> None:
    key = corpus(sharded)
    sharded.cell.script = works(count)
    sharded.attempt(key)
    plan, whole = requests(sharded)
    assert (plan["stage"], "stage" in whole, "shards" in whole) == ("plan", False, False)
    assert jobs_of(sharded, key) == {"": "DONE"}


def test_a_check_without_its_corpus_needs_no_plan(sharded: House) -> None:
    key = sharded.submit(data_rows=[("pairs", b"{}")])
    sharded.attempt(key)
    assert [one.get("stage") for one in requests(sharded)] == [None]


def test_a_plan_that_carries_nothing_is_scanned_without(sharded: House) -> None:
    sharded.cell.script = works(carried=b"")
    key = corpus(sharded)
    sharded.attempt(key)
    sharded.attempt(shard_id(key, 0))
    assert requests(sharded)[-1]["shards"]["carried"] is None


def test_equal_orders_whoever_scans(sharded: House, tmp_path: Path) -> None:
    """The host's part of determinism: but for the nonce, a shard tried again gets the very order."""
    key = corpus(sharded)
    sharded.attempt(key)
    good, calls = sharded.cell.script, []

    def dies_once(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        calls.append(order)
        return replace(OK, ended="signalled", status=9) if len(calls) == 1 else good(order, on_step, cancelled)

    sharded.cell.script = dies_once
    sharded.attempt(shard_id(key, 1))
    with sharded.store.begin() as connection:
        token = connection.execute(select(job.c.token).where(job.c.id == shard_id(key, 1))).scalar_one()
        assert endings.end_waiting(connection, shard_id(key, 1), token)
    sharded.attempt(shard_id(key, 1), worker="w2", work_dir=tmp_path / "other")
    first, second = ({**json.loads(one.request), "nonce": ""} for one in calls)
    assert first == second
    assert [(label, ended) for label, ended, _ in classes(sharded, key)] == [
        ("whole", "OK"), ("shard:1", "CELL_CRASHED"), ("shard:1", "OK")
    ]  # fmt: skip


def test_a_dead_shard_is_named_to_the_cell_that_combines(sharded: House) -> None:
    key = corpus(sharded)
    sharded.attempt(key)
    good = sharded.cell.script
    sharded.cell.script = lambda *_: replace(OK, ended="killed", status=9, why="memory")
    sharded.attempt(shard_id(key, 1))
    sharded.cell.script = good
    for shard in (0, 2):
        sharded.attempt(shard_id(key, shard))
    assert jobs_of(sharded, key) == {"": "DONE", "-s0": "DONE", "-s1": "DEAD", "-s2": "DONE", "-c": "QUEUED"}
    sharded.attempt(combine_id(key))
    told = requests(sharded)[-1]["shards"]
    assert told["dead"] == [1]
    assert [one["sha256"] for one in told["parts"]] == [sha(b"part 0"), sha(b"part 2")]


def test_a_cancelled_scan_is_killed_and_writes_no_part(sharded: House) -> None:
    key = corpus(sharded)
    sharded.attempt(key)
    sharded.cell.script = until_cancelled
    threads = [sharded.start(shard_id(key, n), worker=f"w{n}", lease_s=0.6) for n in range(2)]
    import time

    while sum(state == "LEASED" for state in jobs_of(sharded, key).values()) < 2:
        time.sleep(0.01)
    with sharded.store.begin() as connection:
        assert cancel(connection, key) == "CANCELLING"
    for thread in threads:
        thread.join(20)
    with sharded.store.read() as connection:
        row = connection.execute(select(audit.c.state, audit.c.cancel_confirmation).where(audit.c.id == key)).one()
    assert tuple(row) == ("CANCELLED", "KILLED")
    assert jobs_of(sharded, key) == {"": "DONE", "-s0": "DROPPED", "-s1": "DROPPED", "-s2": "DROPPED"}


def test_only_progress_is_charged_for_plan_and_part(sharded: House) -> None:
    key = corpus(sharded)
    sharded.attempt(key)
    sharded.attempt(shard_id(key, 0))
    with sharded.store.read() as connection:
        charged = connection.execute(select(output_charge.c.token, output_charge.c.bytes)).all()
    assert sorted(charged) == [(1, 16), (2, 16)]


def test_a_host_fault_in_a_scan_is_tried_again(sharded: House) -> None:
    key = corpus(sharded)
    sharded.attempt(key)

    def fails(*_: object) -> Outcome:
        raise CellFailed("host_lost", "disk")

    sharded.cell.script = fails
    sharded.attempt(shard_id(key, 0))
    assert jobs_of(sharded, key)["-s0"] == "WAITING"


def test_events_tell_which_shard_is_read(sharded: House) -> None:
    key, work = corpus(sharded), sharded.cell.script

    def once_told(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        """Work when progress was written, which is another thread's and is dropped with an attempt that is over."""
        stage, written, deadline = json.loads(order.request)["stage"], set[str](), time.monotonic() + 30
        while stage not in written and time.monotonic() < deadline:
            with sharded.store.read() as connection:
                told = events_after(connection, key, 0, limit=500)
            jobs = {one.detail["job"] for one in told if one.kind == "phase_reached"}
            written = {"scan" if job.startswith("shard:") else "plan" for job in jobs}
            time.sleep(0.01)
        return work(order, on_step, cancelled)

    sharded.cell.script = once_told
    sharded.attempt(key)
    sharded.attempt(shard_id(key, 2))
    with sharded.store.read() as connection:
        found = events_after(connection, key, 0, limit=500)
        assert plan_of(connection, key) is not None
        assert len(scanned(connection, key).parts) == 1
    assert {one.detail["job"] for one in found if one.kind == "phase_reached"} == {"whole", "shard:2"}
    assert [one.detail for one in found if one.kind == "shard_done"] == [{"shard": 2, "done": 1, "of": 3}]


def test_the_caps_are_those_of_the_cells_side() -> None:
    """The service imports no check; both sides must mean the same."""
    from checks import sharding, stages
    from checks.documents import StagedFile
    from sandbox import orders

    ours = (shards.SHARDS_MAX, shards.DOCUMENT_MAX, shards.CARRIED_MAX, shards.PART_MAX)
    assert ours == (sharding.SHARDS_MAX, sharding.DOCUMENT_MAX, sharding.CARRIED_MAX, sharding.PART_MAX)
    names = (shards.DOCUMENT, shards.CARRIED, shards.PART)
    assert names == (stages.PLAN_DOCUMENT, stages.PLAN_CARRIED, stages.SCAN_PART)
    assert set(names) == set(StagedFile.model_fields["slot"].annotation.__args__)  # type: ignore[union-attr]
    assert max(ours[1:]) <= orders.KEPT_MAX


def test_the_cells_side_reads_our_orders(sharded: House) -> None:
    from checks.documents import read_order

    key = corpus(sharded)
    sharded.attempt(key)
    for shard in range(3):
        sharded.attempt(shard_id(key, shard))
    sharded.attempt(combine_id(key))
    read = [read_order(one.request) for one in sharded.cell.orders]
    assert [one.stage for one in read] == ["plan", "scan", "scan", "scan", "combine"]
    assert read[-1].shards is not None
    assert len(read[-1].shards.parts) == 3


NONCE = "5a" * 32
EMPTY = filled("plan.carried", b"")
PLAN = {"plan.document": b"plan", "plan.carried": b"more"}
HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an answer": (lambda d: d.update(answers=[{}]), "result_schema"),
    "a decision about a model that it never saw": (lambda d: d.update(ingest={"decisions": [{}]}), "result_schema"),
    "facts": (lambda d: d.update(facts={}), "result_schema"),
    "nothing staged": (lambda d: d.pop("staged"), "result_schema"),
    "staged is a list": (lambda d: d.update(staged=[]), "result_schema"),
    "an unknown key": (lambda d: d["staged"].update(note="x"), "result_schema"),
    "a host's key": (lambda d: d["staged"].update(seed=1), "host_field_claimed"),
    "shards as text": (lambda d: d["staged"].update(shards="3"), "result_schema"),
    "shards as truth": (lambda d: d["staged"].update(shards=True), "result_schema"),
    "fewer than no shards": (lambda d: d["staged"].update(shards=-1), "result_schema"),
    "too many shards": (lambda d: d["staged"].update(shards=513), "result_schema"),
    "files as an object": (lambda d: d["staged"].update(files={}), "result_schema"),
    "a file as text": (lambda d: d["staged"]["files"].__setitem__(0, "plan.document"), "result_schema"),
    "a slot as a number": (lambda d: d["staged"]["files"][0].update(slot=1), "unknown_slot"),
    "a slot of another stage": (lambda d: d["staged"]["files"][0].update(slot="scan.part"), "unknown_slot"),
    "a slot told twice": (lambda d: d["staged"]["files"][1].update(slot="plan.document"), "unknown_slot"),
    "filled and not told": (lambda d: d["staged"]["files"].pop(), "unknown_slot"),
    "another digest": (lambda d: d["staged"]["files"][0].update(sha256="0" * 64), "host_field_disagrees"),
    "another size": (lambda d: d["staged"]["files"][0].update(size=5), "host_field_disagrees"),
    "a size as text": (lambda d: d["staged"]["files"][0].update(size="4"), "host_field_disagrees"),
    "files of a plan that is none": (lambda d: d["staged"].update(shards=1), "unknown_slot"),
    "another nonce": (lambda d: d.update(nonce="00" * 32), "result_nonce"),
}


def plan_document(contents: dict[str, bytes]) -> tuple[dict[str, Any], list[Filled]]:
    slots = [filled(slot.name, contents.get(slot.name, b"")) for slot in PLAN_SLOTS]
    files = [{"slot": one.name, "sha256": one.sha256, "size": one.size} for one in slots if one.name in contents]
    return leaving(NONCE, shards=3, files=files), slots


@pytest.mark.parametrize("flaw", HOSTILE)
def test_a_hostile_plan_is_rejected(flaw: str) -> None:
    spoil, code = HOSTILE[flaw]
    told, slots = plan_document(PLAN)
    assert parse_staged(canonical.dumps(told), nonce=NONCE, slots=PLAN_SLOTS, filled=slots) is not None
    spoil(told)
    with pytest.raises(ResultRejected) as caught:
        parse_staged(canonical.dumps(told), nonce=NONCE, slots=PLAN_SLOTS, filled=slots)
    assert caught.value.code == code


def test_a_plan_told_and_not_there_is_rejected() -> None:
    told, _ = plan_document(PLAN)
    slots = [filled("plan.document", b""), filled("plan.carried", b"more")]
    with pytest.raises(ResultRejected) as caught:
        parse_staged(canonical.dumps(told), nonce=NONCE, slots=PLAN_SLOTS, filled=slots)
    assert caught.value.code == "result_missing"


def test_a_plan_without_a_document_is_rejected() -> None:
    told, slots = plan_document({"plan.carried": b"more"})
    with pytest.raises(ResultRejected) as caught:
        parse_staged(canonical.dumps(told), nonce=NONCE, slots=PLAN_SLOTS, filled=slots)
    assert caught.value.code == "result_missing"


@pytest.mark.parametrize("count", [0, 2])
def test_a_scan_leaves_one_part(count: int) -> None:
    part = filled("scan.part", b"part")
    files = [{"slot": part.name, "sha256": part.sha256, "size": part.size}]
    with pytest.raises(ResultRejected):
        parse_staged(
            canonical.dumps(leaving(NONCE, shards=count, files=files)), nonce=NONCE, slots=SCAN_SLOTS, filled=[part]
        )
    empty = canonical.dumps(leaving(NONCE, shards=1, files=[]))
    with pytest.raises(ResultRejected):
        parse_staged(empty, nonce=NONCE, slots=SCAN_SLOTS, filled=[filled("scan.part", b"")])


def test_a_rejected_plan_is_answered_and_a_rejected_part_buries_its_shard(sharded: House) -> None:
    key, other = corpus(sharded), corpus(sharded, 1)
    sharded.attempt(key)
    sharded.cell.script = lambda order, *_: replace(
        OK, result=canonical.dumps(leaving(order.nonce, shards=3, files=[]))
    )
    sharded.attempt(shard_id(key, 0))
    assert jobs_of(sharded, key)["-s0"] == "DEAD"
    sharded.attempt(other)
    assert jobs_of(sharded, other) == {"": "DONE"}
    assert [(label, ended) for label, ended, _ in classes(sharded, other)] == [("whole", "RESULT_REJECTED")]


def test_only_what_stays_in_the_service_may_be_large(sharded: House) -> None:
    key = corpus(sharded)
    sharded.attempt(key)
    (order,) = sharded.cell.orders
    check_order(order)
    released = tuple(replace(slot, released=True) for slot in order.slots)
    with pytest.raises(CellRefused, match="a slot of more than"):
        check_order(replace(order, slots=released))
