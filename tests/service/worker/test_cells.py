"""An attempt's two cells: which runs, on what, and what the host writes when the first one dies, lies or refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from assay import canonical
from sqlalchemy import select

from sandbox.cell import Cancelled, OnStep, Order, Outcome, Proof
from sandbox.errors import CellRefused, ResultRejected
from sandbox.ingest import SLOTS
from service.rules.states import CELL_STEPS, AuditState
from service.store.audits import cancel
from service.store.tables import attempt as attempt_table
from service.store.tables import job
from service.worker.errors import WorkerClosed
from tests.service.worker.scripted import KILLED, OK, SEAL, House, filled, good, read, reads, until_cancelled
from tests.service.worker.test_attempt import classes, record, requeue, seen, wait_for

INGEST = replace(SEAL, stage="ingest")
REFUSAL = {"path": "config.json", "decision": "refused", "reason": "config_key_forbidden", "at": {"key": "auto_map"}}


def says(**changes: Any) -> Callable[[Order, OnStep, Cancelled], Outcome]:
    """An ingest cell that fills its slots and says something else."""
    return lambda order, on_step, cancelled: replace(
        reads(order, on_step, cancelled), result=canonical.dumps(read(order, **changes))
    )


def swaps(**contents: bytes) -> Callable[[Order, OnStep, Cancelled], Outcome]:
    """An ingest cell that fills its slots with something else."""
    named = {name.replace("_json", ".json"): content for name, content in contents.items()}

    def script(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        outcome = reads(order, on_step, cancelled)
        return replace(outcome, slots=tuple(filled(o.name, named.get(o.name, o.content)) for o in outcome.slots))

    return script


def note(place: House) -> str:
    with place.store.read() as connection:
        return str(connection.execute(select(attempt_table.c.operator_note)).scalars().all()[-1])


def test_both_seals_and_both_usages_are_kept(place: House) -> None:
    key = place.submit()
    place.attempt(key)
    assert [cell["stage"] for cell in record(place, key)["sandbox"]["cells"]] == ["ingest", "check"]
    with place.store.read() as connection:
        cells = json.loads(connection.execute(select(attempt_table.c.cells_json)).scalar_one())
    assert [(cell["stage"], cell["usage"]["processes_peak"]) for cell in cells] == [("ingest", 1), ("check", 1)]


def test_the_cell_that_reads_gets_the_model_and_nothing_that_is_asked(place: House) -> None:
    place.attempt(place.submit(), memory_bytes=2**40)
    (order,) = place.cell.readings
    asked = json.loads(order.request)
    assert set(asked) == {"schema", "nonce", "files"}
    assert (asked["schema"], asked["nonce"]) == ("assay-ingest-order/v1", order.nonce)
    assert [(one["path"], one["input"]) for one in asked["files"]] == [
        ("config.json", "model.0"),
        ("model.safetensors", "model.1.safetensors"),
    ]
    assert [one.name for one in order.inputs] == ["model.0", "model.1.safetensors", "architectures.json"]
    assert [(mount.name, (mount.source / "ingest.py").exists()) for mount in order.code] == [("sandbox", True)]
    assert {slot.name: slot.max_bytes for slot in order.slots} == dict(SLOTS)
    assert not any(slot.released for slot in order.slots)
    assert (order.kind, order.module, order.arguments, order.steps) == ("ingest", "sandbox.ingest", (), ())
    assert dict(order.limits) == {"wall_s": 60, "memory_bytes": 2 * 2**30}


def test_both_cells_have_nonces_of_their_own_and_one_set_of_held_inputs(place: House) -> None:
    place.attempt(place.submit())
    assert place.cell.readings[0].nonce != place.cell.orders[0].nonce
    first, second = place.cell.held
    assert first is second
    assert first is not None
    for order in (*place.cell.readings, *place.cell.orders):
        names = {one.name for one in order.inputs if first.path(one) is not None}
        assert "model.1.safetensors" in names
        assert names == {one.name for one in order.inputs if not one.name.startswith("ingest.")}
    assert not list(place.bench.work_dir.iterdir())


def test_the_first_cell_is_over_before_the_second_is_planned(place: House) -> None:
    told: list[str] = []

    def reading(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        outcome = reads(order, on_step, cancelled)
        assert place.cell.orders == []
        told.append("read")
        return outcome

    place.cell.reads = reading
    place.attempt(place.submit())
    assert (told, len(place.cell.orders)) == (["read"], 1)


def test_the_second_cell_gets_the_weights_as_they_were_sent_and_the_other_files_as_they_were_passed_on(
    place: House,
) -> None:
    seen_bytes: dict[str, bytes] = {}

    def look(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        seen_bytes.update({one.name: one.source.read_bytes() for one in order.inputs})
        return good(order, on_step, cancelled)

    place.cell.script = look
    place.cell.reads = swaps(config_json=b"canonical", tensors_json=b"table")
    place.attempt(place.submit())
    assert seen_bytes == {
        "model.1.safetensors": b"weights",
        "ingest.config.json": b"canonical",
        "ingest.tensors.json": b"table",
        "data.0": b'{"a":1}\n',
    }
    model = json.loads(place.cell.orders[0].request)["model"]
    digests = {one["input"]: one["sha256"] for one in (*model["files"], model["tensors"])}
    assert digests == {name: hashlib.sha256(data).hexdigest() for name, data in seen_bytes.items() if name != "data.0"}


def test_a_refused_model_is_answered_without_a_second_cell(place: House) -> None:
    place.cell.reads = says(refused=True, decisions=[REFUSAL], more=4)
    key = place.submit()
    place.attempt(key)
    assert place.cell.orders == []
    assert (classes(place, key), seen(place, key).outcome) == (["REFUSED"], "REFUSED")
    stored = record(place, key)
    (told,) = stored["answers"]
    assert (told["outcome"], told["reason"]) == ("refused", "ingest:config_key_forbidden")
    assert told["skipped"] == [{"item": "config.json", "reason": "config_key_forbidden"}]
    assert stored["ingest"]["decisions"] == [
        REFUSAL,
        {"path": None, "decision": "dropped", "reason": "ingest_limit", "at": {"line": 4}},
    ]
    assert [cell["stage"] for cell in stored["sandbox"]["cells"]] == ["ingest"]


def test_the_signer_accepts_the_refusal(place: House) -> None:
    from service.signer.record import check_answers, parse

    place.cell.reads = says(refused=True, decisions=[REFUSAL])
    key = place.submit()
    place.attempt(key)
    asked = [{"name": "scripted", "version": "1.0", "params": {"seeds": 3, "bold": True}}]
    assert check_answers(parse(canonical.dumps(record(place, key))), asked, place.bench.catalogue)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "exit_class"),
    [
        (replace(KILLED, why="wall", seal=INGEST), "TIME_LIMIT"),
        (replace(KILLED, why="cpu", seal=INGEST), "TIME_LIMIT"),
        (replace(KILLED, why="memory", seal=INGEST), "MEMORY_LIMIT"),
        (replace(KILLED, why="processes", seal=INGEST), "LIMIT_HIT"),
        (replace(KILLED, why="output_cap", seal=INGEST), "LIMIT_HIT"),
        (replace(KILLED, why="log_flood", seal=INGEST), "LIMIT_HIT"),
    ],
)
def test_a_limit_of_the_first_cell_is_the_attempts_end(place: House, outcome: Outcome, exit_class: str) -> None:
    place.cell.reads = lambda order, on_step, cancelled: outcome
    key = place.submit()
    place.attempt(key)
    assert place.cell.orders == []
    assert (seen(place, key).outcome, classes(place, key)) == ("FAILED", [exit_class])
    stored = record(place, key)
    assert [(one["outcome"], one["reason"]) for one in stored["answers"]] == [("failed", exit_class)]
    assert [cell["stage"] for cell in stored["sandbox"]["cells"]] == ["ingest"]
    assert "ingest cell: killed" in note(place)


def test_a_crash_of_the_first_cell_is_tried_once_more(place: House) -> None:
    place.cell.reads = lambda order, on_step, cancelled: replace(OK, status=1, seal=INGEST)
    key = place.submit()
    place.attempt(key)
    assert seen(place, key).state == AuditState.RUNNING
    requeue(place, key)
    place.cell.reads = reads
    place.attempt(key)
    assert (classes(place, key), seen(place, key).outcome) == (["CELL_CRASHED", "OK"], "MEASURED")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (says(nonce="00" * 32), "result_nonce"),
        (says(schema="assay-cell-result/v1"), "result_schema"),
        (says(refused=True), "result_schema"),
        (says(decisions=[REFUSAL]), "result_schema"),
        (says(seal={}), "host_field_claimed"),
        (swaps(config_json=b""), "result_missing"),
        (swaps(tensors_json=b""), "result_missing"),
        (swaps(tokenizer_json=b"{}"), "unknown_slot"),
        (swaps(config_json=b"x" * (SLOTS["config.json"] + 1)), "slot_too_large"),
    ],
)
def test_a_first_cell_that_lies_is_not_believed_and_there_is_no_second(
    place: House, script: Callable[..., Outcome], code: str
) -> None:
    place.cell.reads = script
    key = place.submit()
    place.attempt(key)
    assert (place.cell.orders, classes(place, key)) == ([], ["RESULT_REJECTED"])
    assert f"ingest cell: {code}" in note(place)
    stored = record(place, key)
    assert (stored["ingest"], [one["reason"] for one in stored["answers"]]) == (None, ["RESULT_REJECTED"])


def test_a_document_of_another_run_is_not_believed(place: House) -> None:
    """An older run's document, nonce and all, replayed in the next attempt."""
    place.submit(0)
    documents: list[bytes | None] = []

    def keep(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        outcome = reads(order, on_step, cancelled)
        documents.append(outcome.result)
        return replace(outcome, result=documents[0])

    place.cell.reads = keep
    place.attempt(place.submit(1))
    key = place.submit(2)
    place.attempt(key)
    assert classes(place, key) == ["RESULT_REJECTED"]
    assert "result_nonce" in note(place)


def test_a_slot_that_the_sandbox_rejects_is_the_attempts_end(place: House) -> None:
    def rejected(_order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
        raise ResultRejected("slot_not_regular", "config.json")

    place.cell.reads = rejected
    key = place.submit()
    place.attempt(key)
    assert (place.cell.orders, classes(place, key)) == ([], ["RESULT_REJECTED"])
    assert "ingest cell: slot_not_regular" in note(place)


@pytest.mark.parametrize("word", ["accepted", "dropped"])
def test_the_second_cell_may_not_decide_what_the_first_decided(place: House, word: str) -> None:
    from tests.service.worker.scripted import document

    decision = {"path": "config.json", "decision": word, "reason": None, "at": None}
    place.cell.script = lambda order, on_step, cancelled: replace(
        OK, result=canonical.dumps(document(order, ingest={"decisions": [decision]}))
    )
    key = place.submit()
    place.attempt(key)
    assert classes(place, key) == ["RESULT_REJECTED"]
    assert "check cell: result_schema at ingest.decisions.0" in note(place)


def test_what_the_first_cell_says_is_charged_too(place: House) -> None:
    """A subverted first cell could carry the weights out in the names that it reports."""
    loud = [
        {"path": "config.json", "decision": "dropped", "reason": "config_key_unknown", "at": {"key": f"{n:0128d}x"}}
        for n in range(100)
    ]
    place.cell.reads = says(decisions=loud)
    key = place.submit(output_bytes=4096)
    place.attempt(key)
    stored = record(place, key)
    assert [(one["outcome"], one["reason"]) for one in stored["answers"]] == [("refused", "output_budget")]
    assert stored["ingest"] is None
    place.cell.reads = reads
    quiet = place.submit(1, output_bytes=4096)
    place.attempt(quiet)
    assert [one["outcome"] for one in record(place, quiet)["answers"]] == ["measured"]


def test_a_refusal_over_the_budget_is_withheld_whole(place: House) -> None:
    place.cell.reads = says(refused=True, decisions=[REFUSAL | {"at": {"key": "x" * 100}}])
    key = place.submit(output_bytes=50)
    place.attempt(key)
    stored = record(place, key)
    assert [(one["reason"], one["skipped"]) for one in stored["answers"]] == [("output_budget", [])]
    assert stored["ingest"] is None


def test_a_cancel_kills_the_first_cell(place: House) -> None:
    place.cell.reads = until_cancelled
    key = place.submit()
    thread = place.start(key, lease_s=0.6)
    wait_for(lambda: bool(place.cell.readings))
    with place.store.begin() as connection:
        assert cancel(connection, key) is AuditState.CANCELLING
    thread.join(20)
    assert (seen(place, key).state, classes(place, key)) == (AuditState.CANCELLED, ["CANCELLED"])
    assert place.cell.orders == []


def test_a_cancel_between_the_cells_starts_no_second(place: House) -> None:
    key = place.submit()

    def cancelled_at_its_end(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        outcome = reads(order, on_step, cancelled)
        with place.store.begin() as connection:
            cancel(connection, key)
        wait_for(cancelled)  # the pulse has heard it; this cell ended by itself all the same
        return outcome

    place.cell.reads = cancelled_at_its_end
    place.attempt(key, lease_s=0.6)
    assert (place.cell.orders, classes(place, key)) == ([], ["CANCELLED"])


def test_a_first_cell_that_takes_long_keeps_its_lease(place: House) -> None:
    from time import monotonic, sleep

    def slow(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        deadline = monotonic() + 2.5  # two leases and a half
        while monotonic() < deadline:
            assert not cancelled()
            sleep(0.01)
        return reads(order, on_step, cancelled)

    place.cell.reads = slow
    key = place.submit()
    place.attempt(key, lease_s=1.0)  # a shorter one is over before a busy machine's first write
    assert classes(place, key) == ["OK"]
    with place.store.read() as connection:
        assert connection.execute(select(job.c.beat)).scalar_one() >= 6


def test_the_steps_that_a_cell_may_tell_are_those_of_its_program() -> None:
    from checks.run import STEPS

    assert CELL_STEPS == STEPS


def not_armed(_order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
    raise CellRefused("not_armed", "the shim said nothing in time")


@pytest.mark.parametrize("which", ["reads", "script"])
def test_an_order_that_alone_cannot_be_armed_strikes_its_job_and_keeps_the_worker(place: House, which: str) -> None:
    """One tenant's slow start would else close worker after worker, and no other job would be done."""
    setattr(place.cell, which, not_armed)
    key = place.submit()
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]
    assert "others are armed here" in note(place)
    with place.store.read() as connection:
        assert connection.execute(select(job.c.state, job.c.strikes)).one() == ("WAITING", 1)
    for _ in range(2):
        requeue(place, key)
        place.attempt(key)
    assert seen(place, key).state == AuditState.FAILED


def test_a_host_on_which_no_cell_is_armed_closes_its_worker(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def nor_here() -> Proof:
        raise CellRefused("selfcheck_open", "network")

    monkeypatch.setattr(place.cell, "prove", nor_here)
    place.cell.reads = not_armed
    key = place.submit()
    with pytest.raises(WorkerClosed, match="said nothing in time"):
        place.attempt(key)
    assert classes(place, key) == ["ISOLATION_UNAVAILABLE"]


def test_the_cell_that_reads_gets_only_the_paths_of_files_that_are_never_read(
    place: House,
) -> None:
    kept = [f"LICENSE.{number:05}" for number in range(1000)] + ["README.md", "added_tokens.json"]
    key = place.submit(files={"config.json": b"{}", "model.safetensors": b"weights", **dict.fromkeys(kept, b"x")})
    place.attempt(key)
    (order,) = place.cell.readings
    told = json.loads(order.request)["files"]
    assert {one["path"] for one in told} == {*kept, "config.json", "model.safetensors"}
    assert {tuple(one) for one in told if one["path"] in kept} == {("path",)}
    assert len(order.inputs) == 3
    assert classes(place, key) == ["OK"]
