"""The failure matrix (specs: service, section 18): faults at named points, and the journal held against its rules.

`plants.matrix.ROWS` says which tests show which row of the matrix; these here do faults to one worker's own parts. The
counts that their journals have are printed when the last test of this file is over; `make failure-matrix` prints all.
"""

from __future__ import annotations

import ast
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import ProcessCell
from sandbox.cell import Cancelled, OnStep, Order, Outcome
from service.scheduler.leases import BackOff, Reaper
from service.store import audits, engine, jobs
from service.store.engine import Store
from service.store.journal import note_fenced
from service.store.outbox import owed, settle
from service.worker import scripted as rehearsal
from service.worker.attempt import Attempts
from tests.service.plants.dying import (
    KINDS,
    Clock,
    Dies,
    consistent,
    dies_after,
    dies_before,
    dies_in_the_cell,
    killed,
    on_disk,
    reap,
)
from tests.service.plants.matrix import ROWS, tell
from tests.service.store.planting import SHA, finished, leased, registered
from tests.service.worker.scripted import House, good, house

HERE = Path(__file__).parents[1]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_matrix_has_its_tests(row: str) -> None:
    for name in ROWS[row].tests:
        file, _, function = name.partition("::")
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        assert function in {
            one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        }


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> Iterator[dict[str, Counter[str]]]:
    """Collects what the journal of each fault says, and prints it as a table at the end."""
    rows = Told()
    yield rows
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    if terminal is None:  # a worker of pytest-xdist
        return
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        terminal.ensure_newline()
        for name, counts in rows.items():
            terminal.write_line(f"{name}: " + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))


class Told(dict[str, Counter[str]]):
    """What the journal of each fault says, by fault; told on as it comes."""

    def __setitem__(self, name: str, counts: Counter[str]) -> None:
        kind = name.partition(": ")[0]
        assert kind in ("sqlite", "postgresql")
        super().__setitem__(name, counts)
        tell(kind, Counter({"violations": 0, **counts}))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with on_disk(request.param, tmp_path) as made:
        yield made


POINTS: Mapping[str, tuple[Dies, str, list[str]]] = {
    "before the lease": (dies_before, "lease", ["OK"]),
    "after the lease": (dies_after, "lease", ["WORKER_LOST", "OK"]),
    "in the cell": (dies_in_the_cell, "", ["WORKER_LOST", "OK"]),
    "before it finalises": (dies_before, "finalise", ["WORKER_LOST", "OK"]),
    "after the commit": (dies_after, "finalise", ["OK"]),
}
"""Where a worker is killed, and how the audit's attempts end then."""


@pytest.mark.parametrize("point", POINTS)
def test_entry_of_killed_worker_is_recovered(place: House, point: str, told: dict[str, Counter[str]]) -> None:
    kill, step, classes = POINTS[point]
    key = place.submit()
    killed(place, kill, jobs, step, lambda house: house.attempt(key))
    reap(place.store)
    place.attempt(key)
    with place.store.read() as connection:
        found = connection.exec_driver_sql("SELECT exit_class FROM attempt ORDER BY n").scalars().all()
        assert connection.exec_driver_sql("SELECT count(*) FROM result").scalar_one() == 1
    assert found == classes
    counts = consistent(place.store, place.blobs)
    assert counts["finalised"] == 1
    told[f"{place.store.dialect}: worker killed {point}"] = counts


def test_a_frozen_supervisor_is_fenced_and_kills_its_cell_first(place: House, told: dict[str, Counter[str]]) -> None:
    """Its process stands still for longer than L; another finishes; then it goes on, and may write nothing."""
    key, order_of_things = place.submit(), list[str]()
    frozen, thaw = threading.Event(), threading.Event()

    def freezes(_order: Order, _on_step: OnStep, cancelled: Cancelled) -> Outcome:
        frozen.set()
        assert thaw.wait(20)
        deadline = time.monotonic() + 20
        while not cancelled():  # as the supervisor of a real cell asks, ten times a second
            assert time.monotonic() < deadline, "nobody killed the cell"
            time.sleep(0.01)
        order_of_things.append("cell killed")
        return replace(good(_order, _on_step, cancelled), ended="killed", status=9, why="cancelled", result=None)

    place.cell.script = freezes
    fenced = lambda: order_of_things.append("fenced")  # noqa: E731
    # A beat comes only when the process runs again: L is long for its own clock, and over for the reaper's.
    thread = place.start(key, lease_s=1.8, on_fenced=fenced)
    assert frozen.wait(20)
    with place.store.begin() as connection:  # what the reaper does, after L without a beat by its own clock
        token, beats = connection.exec_driver_sql("SELECT token, beat FROM job").one()
    take(place.store, key, token, beats)
    place.cell.script = good
    reap(place.store)
    place.attempt(key)
    thaw.set()
    thread.join(20)
    assert order_of_things == ["cell killed", "fenced"]
    counts = consistent(place.store, place.blobs)
    assert (counts["fenced"], counts["finalised"], counts["leased"]) == (1, 1, 2)
    told[f"{place.store.dialect}: supervisor frozen"] = counts


def take(store: Store, key: str, token: int, beats: int) -> None:
    """Take a job as the reaper would; the worker may beat in between, as its thread is not really frozen."""
    from service.store.endings import take_expired

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with store.begin() as connection:
            if take_expired(connection, key, token, beats, base_ms=1) is not None:
                return
            beats = connection.exec_driver_sql("SELECT beat FROM job").scalar_one()
    raise AssertionError("the job was never taken")


def test_a_full_blob_store_costs_an_attempt_and_no_audit(place: House, told: dict[str, Counter[str]]) -> None:
    from service.blobs import NoSpace

    key, put = place.submit(), place.blobs.put

    def full(source: Any, digest: str) -> None:
        raise NoSpace("the blob store's disk is full; free space and try again")

    place.blobs.put = full  # type: ignore[method-assign]
    place.attempt(key)
    place.blobs.put = put  # type: ignore[method-assign]
    clock = Clock()
    back_off = BackOff(place.store, clock=clock)
    back_off.step()
    clock.now += 1
    back_off.step()
    place.attempt(key)
    counts = consistent(place.store, place.blobs)
    assert (counts["ended"], counts["finalised"]) == (2, 1)
    told[f"{place.store.dialect}: blob store full"] = counts


def test_a_lock_held_for_a_third_of_the_lease_loses_no_lease(place: House, told: dict[str, Counter[str]]) -> None:
    """10 s of 30 s; here 1 s of 3 s. No beat gets through meanwhile, and the next one does."""
    key, running = place.submit(), threading.Event()

    def slow(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        running.set()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert not cancelled(), "the lease was given up"
            time.sleep(0.02)
        return good(order, on_step, cancelled)

    place.cell.script = slow
    thread = place.start(key, lease_s=3.0)
    assert running.wait(20)
    with place.store.begin() as connection:
        if place.store.dialect == "postgresql":  # which has no one lock of all writers
            connection.exec_driver_sql("LOCK TABLE job IN EXCLUSIVE MODE")
        time.sleep(1.0)  # the fault itself
    thread.join(20)
    counts = consistent(place.store, place.blobs)
    assert (counts["leased"], counts["finalised"], counts["lease_expired"]) == (1, 1, 0)
    told[f"{place.store.dialect}: write lock held"] = counts


def test_a_store_that_stays_busy_at_the_end_does_not_end_the_worker(place: House) -> None:
    """A neighbour froze with the lock in its hand: found by a soak, where the other slots lost their leases with it."""
    key, begin = place.submit(), place.store.begin

    def busy() -> Any:
        raise engine.StoreBusy("another writer holds the database; call again")

    def locks(order: Order, on_step: OnStep, cancelled: Cancelled) -> Outcome:
        place.store.begin = busy  # type: ignore[method-assign]
        return good(order, on_step, cancelled)

    place.cell.script = locks
    place.attempt(key, lease_s=0.9)
    place.store.begin = begin  # type: ignore[method-assign]
    place.cell.script = good
    reap(place.store)
    place.attempt(key)
    counts = consistent(place.store, place.blobs)
    assert (counts["lease_expired"], counts["finalised"], counts["fenced"]) == (1, 1, 0)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_jumps_an_hour_reaps_nothing_early(
    place: House, monkeypatch: pytest.MonkeyPatch, hours: int, told: dict[str, Counter[str]]
) -> None:
    key, clock = registered(place.store), Clock()
    reaper = Reaper(place.store, lease_s=30, clock=clock)
    held = leased(place.store, key)
    reaper.step()
    kind = place.store.dialect
    monkeypatch.setitem(engine.CLOCKS, kind, engine.CLOCKS[kind] + f" + {hours * 3_600_000}")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    clock.now += 29
    reaper.step()
    with place.store.begin() as connection:
        assert jobs.beat(connection, held) is jobs.Beat.GO
    finished(place.store, held)
    with place.store.begin() as connection:
        sealed = audits.SealedReport(files=[{"path": "report", "sha256": SHA, "size": 1}], key_id="k")
        assert audits.seal(connection, key, held.token, sealed)
        for debt in owed(connection, ("sign",)):
            settle(connection, debt.id)
        moments = connection.exec_driver_sql(
            "SELECT submitted_at, registered_at, started_at, ended_at FROM audit"
        ).one()
    assert list(moments) == sorted(moments), "a step is earlier than the one before"
    told[f"{place.store.dialect}: clock {hours:+} h"] = consistent(place.store)


CELLS: Mapping[str, list[str]] = {
    "ok": ["OK"],
    "refuse": ["REFUSED"],
    "slow 0.1": ["OK"],
    "crash 11": ["CELL_CRASHED", "CELL_CRASHED"],
    "oom": ["MEMORY_LIMIT"],
    "hang": ["TIME_LIMIT"],
    "big": ["LIMIT_HIT"],
    "garbage": ["RESULT_REJECTED"],
}
"""Lines of a script, and how attempts at an audit end then."""


@pytest.mark.parametrize("line", CELLS)
def test_memoryerror_frees_slot(place: House, tmp_path: Path, line: str, told: dict[str, Counter[str]]) -> None:
    """A scripted cell in a real process ends in its class, an audit follows it at once, and nothing of it is left."""
    script = tmp_path / "script"
    script.write_text(f"# one line\n{line}\n", encoding="utf-8")
    cell = Scripted(rehearsal.read_script(script), tmp_path)
    bench = replace(place.bench, cell=cell)
    key = place.submit()
    began = time.monotonic()
    for _ in CELLS[line]:
        Attempts(bench).attempt(key)
        reap(place.store)
    with place.store.read() as connection:
        assert connection.exec_driver_sql("SELECT exit_class FROM attempt ORDER BY n").scalars().all() == CELLS[line]
    cell.inner.close()
    place.attempt(place.submit(1))
    assert time.monotonic() - began < 30
    counts = consistent(place.store, place.blobs)
    assert counts["finalised"] == 2
    told[f"{place.store.dialect}: cell: {line}"] = counts


class Scripted:
    """Reads the model as the planted cell does, and measures by a script in a real process."""

    def __init__(self, script: tuple[rehearsal.Line, ...], folder: Path) -> None:
        self.inner = rehearsal.ScriptedCell(
            ProcessCell(unsafe=True, work_dir=folder), script, {"scripted": "too_few_items"}
        )
        self._reads = house(None, folder).cell  # type: ignore[arg-type]

    def prove(self) -> Any:
        return self.inner.prove()

    def run(self, order: Order, **named: Any) -> Outcome:
        if order.kind == "ingest":
            return self._reads.run(order, **named)
        limits = {**order.limits, "wall_s": 2} if "hang" in str(self.inner._script) else order.limits
        return self.inner.run(replace(order, limits=limits), **named)


def test_a_fence_is_written_only_where_the_lease_is_over(place: House) -> None:
    held = leased(place.store, registered(place.store))
    with place.store.begin() as connection:
        assert not note_fenced(connection, audit=held.audit, job=held.job, token=held.token)
    assert consistent(place.store)["fenced"] == 0
    reap(place.store)
    with place.store.begin() as connection:
        assert note_fenced(connection, audit=held.audit, job=held.job, token=held.token)
    assert consistent(place.store)["fenced"] == 1


BAD_SCRIPTS = ("", "sleep", "crash", "crash 99", "ok 3", "slow -1", "slow nan", "slow soon", "rm -rf /")


@pytest.mark.parametrize("text", BAD_SCRIPTS)
def test_a_script_that_is_none_is_refused_by_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "script").write_text(text, encoding="utf-8")
    with pytest.raises(rehearsal.ScriptRefused, match="script"):
        rehearsal.read_script(tmp_path / "script")
