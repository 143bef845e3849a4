"""Processes of a real tree die at named points, freeze and are knocked at, on either database; the journal holds."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from assay.client_errors import ServerRefused
from assay.errors import AssayError

from benchmarks.soak_tree import LEASE_S
from service.store.engine import StoreBusy
from tests.e2e.burning import burning
from tests.e2e.fire import REAPED_S, Fire, cells_of, parallel, wait

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

KINDS = ("postgresql", pytest.param("sqlite", marks=pytest.mark.slow))
"""The default run does three of these faults on PostgreSQL; on SQLite it has a soak of all kinds of them."""

HEAVY = pytest.mark.slow


@pytest.fixture(scope="module", params=KINDS)
def fire(request: pytest.FixtureRequest, model: Path) -> Iterator[Fire]:
    with burning(request.param, model) as made:
        yield made


POINTS = {
    "worker.before_lease": False,
    "worker.after_lease": True,
    "worker.before_finalise": True,
    "worker.after_commit": False,
}
"""Where a worker dies, and whether that costs an attempt."""


@pytest.mark.parametrize(
    "point", [one if one == "worker.after_lease" else pytest.param(one, marks=HEAVY) for one in POINTS]
)
def test_a_worker_that_dies_at_a_point_costs_no_audit(fire: Fire, point: str) -> None:
    fire.arm(point)
    audit = fire.submit()
    fire.met(point)
    fire.ends([audit], REAPED_S)
    assert fire.state(audit) == "COMPLETED"
    assert fire.lost_and_found(audit) if POINTS[point] else fire.classes(audit) == ["OK"]
    assert fire.told([audit])["finalised"] == 1


@HEAVY
def test_a_worker_killed_in_mid_cell_leaves_no_cell(fire: Fire) -> None:
    audit = fire.submit("slow 2")
    worker, cell = fire.in_cell(audit)
    assert cell in cells_of(fire.tree.data)
    os.kill(worker, signal.SIGKILL)
    wait(lambda: cell not in cells_of(fire.tree.data), "the cell dies with its worker", 5)
    fire.ends([audit], REAPED_S)
    assert fire.lost_and_found(audit)
    told = fire.told([audit], old_cells=len(cells_of(fire.tree.data)))
    assert (told["finalised"], told["old_cells"]) == (1, 0)
    assert told["lease_expired"] >= 1


@HEAVY
def test_a_supervisor_that_stood_still_is_fenced_and_its_cell_dies_first(fire: Fire) -> None:
    """A stopped worker's cell runs on; once the worker goes on it finds another's token, and kills before it writes."""
    audit = fire.submit("slow 12")
    worker, cell = fire.in_cell(audit)
    freeze(fire, worker)
    try:
        began = time.monotonic()
        wait(lambda: fire.holder(audit) not in (None, worker), "another worker has the job", REAPED_S)
        time.sleep(max(0.0, 2 * LEASE_S - (time.monotonic() - began)))  # 60 s of 30 s
        assert cell in cells_of(worker), "its cell was to be alive still"
    finally:
        os.kill(worker, signal.SIGCONT)
        fire.tree.stopped.discard(worker)
    wait(lambda: fenced(fire, audit), "the fence is in the journal", 10)
    assert cell not in cells_of(worker), "it wrote before its cell was dead"
    fire.ends([audit])
    assert fire.lost_and_found(audit)
    told = fire.told([audit])
    assert told["finalised"] == 1
    assert told["fenced"] >= 1


def freeze(fire: Fire, worker: int) -> None:
    """Stop a worker where it holds no lock: on SQLite there is one for all, and nobody can take it from a process."""
    while True:
        os.kill(worker, signal.SIGSTOP)
        try:
            with fire.impatient.begin() as connection:
                connection.exec_driver_sql("UPDATE job SET beat = beat WHERE state = 'LEASED'")
        except StoreBusy:
            os.kill(worker, signal.SIGCONT)
            time.sleep(0.1)
        else:
            fire.tree.stopped.add(worker)
            return


def fenced(fire: Fire, audit: str) -> bool:
    return bool(fire.tree.read(f"SELECT seq FROM journal WHERE audit = '{audit}' AND kind = 'fenced'"))


@HEAVY
@pytest.mark.parametrize("point", ["api.before_commit", "api.after_commit"])
def test_an_api_that_dies_round_the_commit_leaves_one_audit(fire: Fire, point: str) -> None:
    request_id = str(uuid.uuid4())
    fire.arm(point)
    with fire.another_client() as client, pytest.raises(AssayError):
        fire.submit(request_id=request_id, client=client)
    fire.met(point)
    before = len(fire.tree.states())
    audit = fire.submit(request_id=request_id)
    assert len(fire.tree.states()) - before == (1 if point == "api.before_commit" else 0)
    assert fire.submit(request_id=request_id) == audit
    fire.ends([audit])
    assert fire.told([audit])["audits"] == 1


@HEAVY
def test_twelve_knocks_are_one_run_and_no_death(fire: Fire) -> None:
    from service.queue.celery_queue import TASK, make_app

    audit = fire.submit("slow 2")
    fire.in_cell(audit)
    workers = fire.tree.alive("worker")
    bodies: list[object] = [*[audit] * 10, "f" * 32, {"no": "text"}, 7, "x" * 100]
    app = make_app(f"redis+socket://{fire.tree.data / 'run' / 'redis.sock'}")
    for body in bodies:
        app.send_task(TASK, args=[body], queue="cpu", ignore_result=True)
    app.close()
    after = fire.submit()
    fire.ends([audit, after])
    assert (fire.unstarved(audit), fire.unstarved(after)) == (["OK"], ["OK"])
    assert fire.tree.alive("worker") == workers
    told = fire.told([audit, after])
    assert told["leased"] - told["lease_expired"] == 2


@pytest.mark.parametrize("point", ["signer.after_seal", pytest.param("signer.after_register", marks=HEAVY)])
def test_a_signer_that_dies_before_it_replies_has_logged_once(fire: Fire, point: str, tmp_path: Path) -> None:
    fire.arm(point)
    audit = fire.submit()
    fire.met(point)
    fire.ends([audit])
    assert fire.state(audit) == "COMPLETED"
    fire.told([audit])
    fire.verified(audit, tmp_path / "report")
    assert leaves(fire, audit) == 1


def leaves(fire: Fire, audit: str) -> int:
    """Count an audit's leaves in the journal: of its report, or void."""
    return len(fire.tree.read(f"SELECT seq FROM journal WHERE audit = '{audit}' AND kind = 'leaf'"))


@HEAVY
def test_a_scheduler_that_dies_before_it_wrote_the_report_down_asks_again(fire: Fire) -> None:
    fire.arm("scheduler.before_completed")
    audit = fire.submit()
    fire.met("scheduler.before_completed")
    fire.ends([audit])
    assert fire.state(audit) == "COMPLETED"
    assert fire.told([audit])["completed"] == 1
    assert leaves(fire, audit) == 1


CELLS = {
    "crash 11": ["CELL_CRASHED", "CELL_CRASHED"],
    "oom": ["MEMORY_LIMIT"],
    "hang": ["TIME_LIMIT"],
    "forks 300": ["LIMIT_HIT"],
    "big": ["LIMIT_HIT"],
    "garbage": ["RESULT_REJECTED"],
}
"""Lines of a script, and how the attempts of their audits end."""


@HEAVY
def test_cells_that_misbehave_end_in_their_class_beside_neighbours_that_finish(fire: Fire) -> None:
    audits = {line: fire.submit(line, wall_s=3) for line in CELLS}
    neighbours = [fire.submit("slow 0.5") for _ in range(3)]
    fire.ends([*audits.values(), *neighbours])
    assert {line: fire.unstarved(audit) for line, audit in audits.items()} == CELLS
    assert {fire.state(audit) for audit in audits.values()} == {"COMPLETED"}  # a failed Answer is signed, too
    assert [fire.unstarved(one) for one in neighbours] == [["OK"]] * 3
    began = time.monotonic()
    after = fire.submit()
    wait(lambda: fire.classes(after), "the next lease", 5)
    waited = time.monotonic() - began
    fire.ends([after])
    told = fire.told([*audits.values(), *neighbours, after], next_lease_ms=int(waited * 1000))
    assert told["finalised"] == len(audits) + 4
    assert not cells_of(fire.tree.data)


def test_a_hundred_calls_of_one_id_are_one_audit(fire: Fire) -> None:
    request_id = str(uuid.uuid4())
    clients = [fire.another_client(timeout_s=60.0, patience_s=60.0) for _ in range(10)]  # over both APIs
    try:
        calls = parallel(100, lambda n: fire.submit(request_id=request_id, client=clients[n % 10]))
        with pytest.raises(ServerRefused) as refused:
            fire.submit("slow 0.5", request_id=request_id)
    finally:
        for client in clients:
            client.close()
    assert set(calls) == {calls[0]}
    assert refused.value.reason == "REQUEST_ID_REUSED"
    audit = str(calls[0])
    fire.ends([audit])
    told = fire.told([audit], replies=len(calls))
    assert (told["leased"] - told["lease_expired"], told["finalised"]) == (1, 1)


@HEAVY
def test_cancels_that_race_results_have_one_winner_each(fire: Fire) -> None:
    """The other end of the race whose 1,000 interleavings the store's own tests play."""
    audits = [fire.submit() for _ in range(12)]

    def cancel(n: int) -> object:
        time.sleep(n * 0.4)  # four run at a time, for some tenths of a second each
        return fire.client.cancel(f"audits/{audits[n]}")

    calls = parallel(len(audits), cancel)
    fire.ends(audits)
    states = [fire.state(one) for one in audits]
    assert set(states) <= {"CANCELLED", "COMPLETED"}
    for state, call in zip(states, calls, strict=True):
        if isinstance(call, ServerRefused):
            assert (call.reason, state) == ("ALREADY_FINISHED", "COMPLETED")
        else:
            assert state == "CANCELLED", f"a cancel that was accepted must win: {call}"
    fire.told(audits, cancelled=states.count("CANCELLED"))
