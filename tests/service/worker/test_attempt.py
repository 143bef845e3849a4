from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from assay import canonical
from assay.predicate import ReportAnswer
from sqlalchemy import select

from sandbox.cell import Cancelled, CodeMount, OnStep, Order, Outcome
from sandbox.errors import CellFailed, CellRefused, ResultRejected
from service.rules.names import BlobName
from service.rules.states import AuditState
from service.store import budget, uploads
from service.store.audits import cancel
from service.store.endings import end_waiting, take_expired
from service.store.engine import StoreUnavailable
from service.store.events import events_after
from service.store.tables import attempt as attempt_table
from service.store.tables import job, output_charge, result
from service.store.views import AuditView, view
from service.worker.code import Guest
from service.worker.errors import WorkerClosed
from tests.service.worker.scripted import KILLED, OK, House, answer, document, good, until_cancelled


def seen(place: House, key: str) -> AuditView:
    with place.store.read() as connection:
        found = view(connection, key)
    assert found is not None
    return found


def classes(place: House, key: str) -> list[str | None]:
    return [tried.exit_class for tried in seen(place, key).attempts]


def record(place: House, key: str) -> dict[str, Any]:
    with place.store.read() as connection:
        digest = connection.execute(select(result.c.sha256).where(result.c.audit == key)).scalar_one()
    with place.blobs.open(digest) as stream:
        value: dict[str, Any] = json.load(stream)
    return value


def requeue(place: House, key: str) -> None:
    with place.store.begin() as connection:
        token = connection.execute(select(job.c.token).where(job.c.id == key)).scalar_one()
        assert end_waiting(connection, key, token)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ends_as(outcome: Outcome) -> Callable[[Order, OnStep, Cancelled], Outcome]:
    return lambda order, on_step, cancelled: outcome


def raises(error: BaseException) -> Callable[[Order, OnStep, Cancelled], Outcome]:
    def script(_order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
        raise error

    return script


def test_a_result_is_stored_with_what_the_host_measured(place: House) -> None:
    key = place.submit()
    place.attempt(key)
    found = seen(place, key)
    assert (found.state, found.outcome, classes(place, key)) == (AuditState.SIGNING, "MEASURED", ["OK"])
    stored = record(place, key)
    assert (stored["schema"], stored["audit"], stored["token"]) == ("assay-host-record/v1", key, 1)
    entry = place.bench.catalogue.entry("scripted")
    assert entry is not None
    (told,) = stored["answers"]
    assert (told["code_sha256"], told["catalogue_sha256"]) == (entry.code_sha256, entry.sha256)
    assert ReportAnswer.model_validate_json(json.dumps(told)).valid
    assert stored["sandbox"]["cells"][0]["statements"] == ["nothing_isolated"]
    assert stored["environment"]["packages"]["pydantic"]
    assert stored["environment"]["lock_sha256"] == canonical.sha256(stored["environment"]["packages"])
    assert not list(place.bench.work_dir.iterdir())


def test_the_signer_accepts_the_record(place: House) -> None:
    from service.signer.record import check_answers, parse

    key = place.submit()
    place.attempt(key)
    told = parse(canonical.dumps(record(place, key)))
    asked = [{"name": "scripted", "version": "1.0", "params": {"seeds": 3, "bold": True}}]
    assert check_answers(told, asked, place.bench.catalogue)  # type: ignore[arg-type]


def test_the_cell_gets_the_registered_order_and_read_only_inputs(place: House) -> None:
    looks: list[tuple[str, bytes, int]] = []

    def look(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        looks.extend((one.name, one.source.read_bytes(), one.source.stat().st_mode & 0o777) for one in order.inputs)
        looks.append(("folder", b"", order.inputs[0].source.parent.stat().st_mode & 0o777))
        return good(order, on_step, cancelled)

    place.cell.script = look
    key = place.submit()
    place.attempt(key, memory_bytes=2**30, threads=2)
    (order,) = place.cell.orders
    asked = json.loads(order.request)
    assert (asked["seed"], asked["threads"], asked["nonce"]) == (77, 2, order.nonce)
    assert asked["checks"] == [{"name": "scripted", "version": "1.0", "params": {"seeds": 3, "bold": True}}]
    assert [(file["path"], file["input"]) for file in asked["model"]["files"]] == [
        ("config.json", "ingest.config.json"),
        ("model.safetensors", "model.1.safetensors"),
    ]
    assert asked["model"]["tensors"]["input"] == "ingest.tensors.json"
    assert [(data["role"], data["input"]) for data in asked["data"]] == [("pairs", "data.0")]
    assert dict(order.limits) == {"wall_s": 60, "memory_bytes": 2**30}
    assert looks == [
        ("model.1.safetensors", b"weights", 0o444),
        ("ingest.config.json", b"{}", 0o444),
        ("ingest.tensors.json", b"{}", 0o444),
        ("data.0", b'{"a":1}\n', 0o444),
        ("folder", b"", 0o500),
    ]


def test_duplicate_delivery_is_one_run(place: House) -> None:
    key = place.submit()
    threads = [place.start(key) for _ in range(10)]
    for thread in threads:
        thread.join(20)
    assert len(place.cell.orders) == 1
    assert classes(place, key) == ["OK"]


def test_unknown_job_id_is_dropped(place: House) -> None:
    place.attempt("no such job\n{}")
    assert place.cell.orders == []


@pytest.mark.parametrize(
    ("outcome", "exit_class"),
    [
        (replace(KILLED, why="wall"), "TIME_LIMIT"),
        (replace(KILLED, why="cpu"), "TIME_LIMIT"),
        (replace(KILLED, why="memory"), "MEMORY_LIMIT"),
        (replace(KILLED, why="processes"), "LIMIT_HIT"),
        (replace(KILLED, why="output_cap"), "LIMIT_HIT"),
        (replace(KILLED, why="log_flood"), "LIMIT_HIT"),
        (replace(OK, result=b"{}"), "RESULT_REJECTED"),
        (replace(OK, result=b"\x80" * 9), "RESULT_REJECTED"),
    ],
)
def test_a_limit_is_answered_at_once(place: House, outcome: Outcome, exit_class: str) -> None:
    place.cell.script = ends_as(replace(outcome, log_tail="Traceback \x1b[31m secret"))
    key = place.submit()
    place.attempt(key)
    found = seen(place, key)
    assert (found.state, found.outcome, classes(place, key)) == (AuditState.SIGNING, "FAILED", [exit_class])
    stored = record(place, key)
    assert [(one["outcome"], one["reason"]) for one in stored["answers"]] == [("failed", exit_class)]
    assert (stored["ingest"], stored["facts"]) == (None, None)
    assert [cell["stage"] for cell in stored["sandbox"]["cells"]] == ["ingest", "check"]
    assert "Traceback" not in json.dumps(stored)
    with place.store.read() as connection:
        note = connection.execute(select(attempt_table.c.operator_note)).scalar_one()
    assert "Traceback \\x1b[31m secret" in note
    assert "check cell: " in note


@pytest.mark.parametrize(
    "outcome",
    [
        replace(OK, ended="signalled", status=11),
        replace(OK, status=1),
    ],
)
def test_a_crash_is_tried_once_more_and_then_answered(place: House, outcome: Outcome) -> None:
    place.cell.script = ends_as(outcome)
    key = place.submit()
    place.attempt(key)
    assert seen(place, key).state == AuditState.RUNNING
    requeue(place, key)
    place.attempt(key)
    assert classes(place, key) == ["CELL_CRASHED", "CELL_CRASHED"]
    assert (seen(place, key).state, seen(place, key).outcome) == (AuditState.SIGNING, "FAILED")


@pytest.mark.parametrize("left", [b"", None])
def test_a_good_exit_without_a_result_is_rejected_and_not_tried_again(place: House, left: bytes | None) -> None:
    place.cell.script = ends_as(replace(OK, result=left))
    key = place.submit()
    place.attempt(key)
    assert classes(place, key) == ["RESULT_REJECTED"]
    with place.store.read() as connection:
        assert "result_missing" in connection.execute(select(attempt_table.c.operator_note)).scalar_one()


def test_a_crash_that_passes_is_measured(place: House) -> None:
    place.cell.script = ends_as(replace(OK, ended="signalled", status=11))
    key = place.submit()
    place.attempt(key)
    requeue(place, key)
    place.cell.script = good
    place.attempt(key)
    assert classes(place, key) == ["CELL_CRASHED", "OK"]
    assert seen(place, key).outcome == "MEASURED"


@pytest.mark.parametrize(
    "error",
    [
        CellFailed("spawn_failed"),
        CellFailed("no_space"),
        OSError(28, "no space"),
        MemoryError(),
        CellRefused("input_digest", "model.0"),
    ],
)
def test_the_hosts_fault_is_tried_again(place: House, error: BaseException) -> None:
    place.cell.script = raises(error)
    key = place.submit()
    for n in range(3):
        if n:
            requeue(place, key)
        place.attempt(key)
    found = seen(place, key)
    assert (found.state, found.state_reason, found.retryable) == (AuditState.FAILED, "HOST_FAULT", True)
    assert classes(place, key) == ["HOST_FAULT"] * 3


def test_the_host_lost_the_cell(place: House) -> None:
    place.cell.script = ends_as(replace(KILLED, why="host_lost"))
    key = place.submit()
    place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]


def test_lost_isolation_closes_the_worker_and_costs_no_strike(place: House) -> None:
    place.cell.script = raises(CellRefused("userns_disabled"))
    key = place.submit()
    with pytest.raises(WorkerClosed, match="userns_disabled"):
        place.attempt(key)
    assert classes(place, key) == ["ISOLATION_UNAVAILABLE"]
    with place.store.read() as connection:
        assert connection.execute(select(job.c.state, job.c.strikes)).one() == ("QUEUED", 0)


def test_an_unkillable_cell_closes_the_worker_and_confirms_no_cancel(place: House) -> None:
    key = place.submit()

    def cancelled_but_alive(_order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
        with place.store.begin() as connection:
            cancel(connection, key)
        raise CellFailed("cell_unkillable")

    place.cell.script = cancelled_but_alive
    with pytest.raises(WorkerClosed, match="cell_unkillable"):
        place.attempt(key)
    assert (seen(place, key).state, classes(place, key)) == (AuditState.CANCELLING, [None])
    with place.store.begin() as connection:
        take_expired(connection, key, 1, 0)
    assert seen(place, key).cancel_confirmation == "LEASE_EXPIRED"


def test_a_bug_ends_the_process_and_the_attempt(place: House) -> None:
    place.cell.script = raises(ArithmeticError("a bug"))
    key = place.submit()
    with pytest.raises(ArithmeticError):
        place.attempt(key)
    assert classes(place, key) == ["HOST_FAULT"]


def test_cancel_is_confirmed(place: House) -> None:
    """CANCELLED is written only after the cell is dead."""
    states: list[AuditState] = []

    def hang(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        ended = until_cancelled(order, on_step, cancelled)
        states.append(seen(place, key).state)  # the cell dies here, not earlier
        return ended

    place.cell.script = hang
    key = place.submit()
    thread = place.start(key, lease_s=2.0)
    wait_for(lambda: seen(place, key).state == AuditState.RUNNING and bool(place.cell.orders))
    with place.store.begin() as connection:
        assert cancel(connection, key) is AuditState.CANCELLING
    thread.join(20)
    assert states == [AuditState.CANCELLING]
    found = seen(place, key)
    assert (found.state, found.cancel_confirmation) == (AuditState.CANCELLED, "KILLED")
    assert classes(place, key) == ["CANCELLED"]


def test_cancel_that_comes_with_the_result_wins(place: House) -> None:
    key = place.submit()

    def cancelled_at_the_end(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        with place.store.begin() as connection:
            cancel(connection, key)
        return good(order, on_step, cancelled)

    place.cell.script = cancelled_at_the_end
    place.attempt(key)
    assert (seen(place, key).state, classes(place, key)) == (AuditState.CANCELLED, ["CANCELLED"])
    with place.store.read() as connection:
        assert connection.execute(select(result)).all() == []


def test_draining_gives_the_job_back_without_a_strike(place: House) -> None:
    draining = threading.Event()
    place.cell.script = until_cancelled
    key = place.submit()
    thread = place.start(key, draining=draining.is_set)
    wait_for(lambda: bool(place.cell.orders))
    draining.set()
    thread.join(20)
    assert classes(place, key) == ["DRAINED"]
    place.attempt(key, draining=draining.is_set)  # a draining worker leases nothing
    assert classes(place, key) == ["DRAINED"]
    place.cell.script = good
    place.attempt(key)
    assert classes(place, key) == ["DRAINED", "OK"]


def test_a_fenced_worker_kills_its_cell_and_writes_nothing(place: House) -> None:
    fenced: list[bool] = []
    place.cell.script = until_cancelled
    key = place.submit()
    thread = place.start(key, lease_s=0.6, on_fenced=lambda: fenced.append(True))
    wait_for(lambda: bool(place.cell.orders))
    with place.store.begin() as connection:
        beat = connection.execute(select(job.c.beat)).scalar_one()
        take_expired(connection, key, 1, beat)
        before = len(events_after(connection, key, 0))
    thread.join(20)
    with place.store.read() as connection:
        assert len(events_after(connection, key, 0)) == before
    assert (classes(place, key), fenced) == (["WORKER_LOST"], [True])


def test_a_worker_that_cannot_beat_fences_itself(place: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off from the database it must kill its cell by its own clock, before the reaper may take the job."""
    lease_s, lasted = 0.9, []

    def hang(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        begun = time.monotonic()
        ended = until_cancelled(order, on_step, cancelled)
        lasted.append(time.monotonic() - begun)
        return ended

    def cut(*_arguments: object) -> None:
        raise StoreUnavailable("cut off")

    place.cell.script = hang
    monkeypatch.setattr("service.store.jobs.beat", cut)
    place.attempt(place.submit(), lease_s=lease_s)
    assert lease_s / 3 < lasted[0] < lease_s
    assert classes(place, place.cell.orders[0].inputs[0].source.parent.name.split("-")[0]) == [None]


def test_a_long_run_keeps_its_lease(place: House) -> None:
    def slow(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        deadline = time.monotonic() + 1.8  # three leases
        while time.monotonic() < deadline:
            assert not cancelled()
            time.sleep(0.01)
        return good(order, on_step, cancelled)

    place.cell.script = slow
    key = place.submit()
    place.attempt(key, lease_s=0.6)
    assert classes(place, key) == ["OK"]
    with place.store.read() as connection:
        assert connection.execute(select(job.c.beat)).scalar_one() >= 9


def test_progress_is_told_in_order_and_in_bounds(place: House) -> None:
    def steps(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        for step, done, owed in (("starting", 0, 1), ("sweep", 0, 2**70), ("sweep", -3, 9)):
            on_step(step, done, owed)
            time.sleep(0.05)
        return good(order, on_step, cancelled)

    place.cell.script = steps
    key = place.submit()
    place.attempt(key)
    with place.store.read() as connection:
        told = [event.detail for event in events_after(connection, key, 0) if event.kind == "phase_reached"]
    phases = list(dict.fromkeys(one["phase"] for one in told))
    assert phases[:4] == ["materialising", "ingesting", "starting", "sweep"]
    assert all(0 <= number < 2**31 for one in told for number in (one["done"], one["owed"]))


@pytest.mark.parametrize("which", [b"{}", b'{"a":1}\n'])
def test_a_corrupted_blob_never_reaches_a_cell(place: House, which: bytes) -> None:
    key = place.submit()
    place.blobs._bytes[place.put(which)] = which[::-1]
    place.attempt(key)
    assert (classes(place, key), place.cell.orders) == (["HOST_FAULT"], [])
    with place.store.read() as connection:
        assert "corrupt" in connection.execute(select(attempt_table.c.operator_note)).scalar_one()
    assert not list(place.bench.work_dir.iterdir())


@pytest.mark.parametrize("which", ["file", "manifest", "base", "data"])
def test_a_missing_blob_is_the_hosts_fault_and_is_asked_for_again(place: House, which: str) -> None:
    key = place.submit(base={"config.json": b"[]"})
    data = {"file": b"{}", "base": b"[]", "data": b'{"a":1}\n'}
    if which == "manifest":
        digest = place.put_model({"config.json": b"{}", "model.safetensors": b"weights"}).digest
    else:
        digest = place.put(data[which])
    name = BlobName(digest, place.blobs.size(digest) or 0)
    with place.store.begin() as connection:
        uploads.grant(connection, "t", name)
    place.blobs.delete(digest)
    place.attempt(key)
    assert (classes(place, key), place.cell.orders) == (["HOST_FAULT"], [])
    with place.store.read() as connection:
        assert uploads.missing(connection, "t", [name]) == (name,)


def test_other_code_than_the_catalogues_never_runs(place: House, tmp_path: Path) -> None:
    for folder in ("checks/scripted", "checks/runtime", "sandbox/reader", "assay"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "assay/result.py").write_text("pass\n")
    mounts = tuple(CodeMount(name=name, source=tmp_path / name) for name in ("checks", "sandbox", "assay"))
    key = place.submit()
    place.attempt(key, guest=Guest(code=mounts))
    assert (classes(place, key), place.cell.orders) == (["HOST_FAULT"], [])
    with place.store.read() as connection:
        note = connection.execute(select(attempt_table.c.operator_note)).scalar_one()
    assert "run `make catalogue`" in note


def test_the_code_digest_is_the_catalogues_own(tmp_path: Path) -> None:
    """Measured file by file from the mounts, it equals what the catalogue's generator computes over the project."""
    from sandbox.reader.digest import tree_sha256
    from service.worker.code import _files, digest_of

    names = [
        "checks/scripted/a.py", "checks/scripted/measured.json", "checks/check.py", "checks/runtime/plan.py",
        "checks/architectures.json", "sandbox/ingest.py", "sandbox/reader/names.py", "client/assay/result.py",
    ]  # fmt: skip
    for name in (*names, "checks/scripted/notes.md", "checks/other/b.py", "sandbox/cell.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    places = {"checks": "checks", "sandbox": "sandbox", "assay": "client/assay"}
    guest = Guest(code=tuple(CodeMount(name=name, source=tmp_path / source) for name, source in places.items()))
    assert digest_of(_files(guest, "scripted", ())) == tree_sha256(tmp_path, names)


def test_an_answer_over_the_output_budget_is_withheld_whole(place: House) -> None:
    key = place.submit(output_bytes=10)
    place.attempt(key)
    stored = record(place, key)
    assert [(one["outcome"], one["reason"]) for one in stored["answers"]] == [("refused", "output_budget")]
    assert (stored["ingest"], stored["facts"], classes(place, key)) == (None, None, ["OK"])


def test_a_model_that_does_not_load_is_a_signed_answer(place: House) -> None:
    """Read by one cell and refused by the next: the report has the decisions of both."""

    def refuse(order: Order, _on_step: OnStep, _cancelled: Cancelled) -> Outcome:
        refused = answer(
            outcome="refused",
            reason="ingest:load_missing_key",
            valid=False,
            measured=None,
            controls=[],
            findings=[],
        )
        decision = {
            "path": "config.json",
            "decision": "refused",
            "reason": "load_missing_key",
            "at": {"tensor": "wte"},
        }
        return replace(OK, result=canonical.dumps(document(order, answers=[refused], ingest={"decisions": [decision]})))

    place.cell.script = refuse
    key = place.submit()
    place.attempt(key)
    assert (classes(place, key), seen(place, key).outcome) == (["REFUSED"], "REFUSED")
    decisions = record(place, key)["ingest"]["decisions"]
    assert [(one["path"], one["decision"]) for one in decisions] == [
        ("config.json", "accepted"),
        ("model.safetensors", "accepted"),
        ("config.json", "refused"),
    ]


def test_a_rejected_result_raised_by_the_cell_is_answered(place: House) -> None:
    place.cell.script = raises(ResultRejected("result_missing"))
    key = place.submit()
    place.attempt(key)
    assert classes(place, key) == ["RESULT_REJECTED"]


def test_attempts_leave_no_thread_and_no_open_file(place: House) -> None:
    place.attempt(place.submit(0))
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for n in range(1, 6):
        place.attempt(place.submit(n))
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)


def test_an_answer_over_a_lifetime_cap_is_withheld_whole_and_stays_charged(place: House) -> None:
    first, second = place.submit(n=0), place.submit(n=1)
    place.attempt(first)
    assert {one["outcome"] for one in record(place, first)["answers"]} == {"measured"}
    with place.store.begin() as connection:
        model, spent = connection.execute(select(output_charge.c.model_sha256, output_charge.c.bytes)).one()
        budget.lower(connection, model_sha256=model, cap=2 * spent - 1)
    place.attempt(second)
    stored = record(place, second)
    assert [(one["outcome"], one["reason"]) for one in stored["answers"]] == [("refused", "output_budget")]
    with place.store.read() as connection:
        assert budget.charged(connection, model) == 2 * spent
