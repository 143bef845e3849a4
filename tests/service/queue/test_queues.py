"""What every queue must do, on the two that need no broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.queue.contract import is_job_id
from service.queue.memory import MemoryQueue
from service.queue.polling import PollingQueue
from service.store.engine import open_store
from service.store.jobs import lease
from service.worker.process import look_in
from tests.service.store.planting import audit_id, new_store, registered, submit


def serve(source: MemoryQueue | PollingQueue, handler: Callable[[str], None]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            source.run(handler)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_memory_queue_serves_its_capability_only() -> None:
    queue, told = MemoryQueue("cpu"), []
    for n in range(3):
        queue.publish(f"job{n}", "cpu")
    queue.publish("other", "gpu-24g")

    def handle(job_id: str) -> None:
        told.append(job_id)
        if len(told) == 3:
            queue.stop()

    serve(queue, handle)
    assert told == ["job0", "job1", "job2"]
    assert (queue.depth("cpu"), queue.depth("gpu-24g")) == (0, 1)


def test_a_larger_worker_takes_lesser_jobs_while_its_own_queue_is_empty() -> None:
    queue = MemoryQueue("gpu-80g", also=("gpu-24g", "cpu"))
    told: list[str] = []
    for capability in ("cpu", "gpu-24g", "gpu-80g", "gpu-80g"):
        queue.publish(f"{capability} {len(told)}", capability)

    def handle(job_id: str) -> None:
        told.append(job_id.split()[0])
        if len(told) == 4:
            queue.stop()

    serve(queue, handle)
    assert told == ["gpu-80g", "gpu-80g", "gpu-24g", "cpu"]


def test_a_polling_worker_looks_at_its_own_queue_first() -> None:
    waiting = {"gpu-80g": ["own"], "cpu": ["lesser"]}
    told: list[str] = []
    queue = PollingQueue(
        lambda word: next(iter(waiting.get(word, [])), None), "gpu-80g", also=("gpu-24g", "cpu"), poll_s=0.01
    )

    def handle(job_id: str) -> None:
        told.append(job_id)
        waiting["gpu-80g" if job_id == "own" else "cpu"].remove(job_id)
        if len(told) == 2:
            queue.stop()

    serve(queue, handle)
    assert told == ["own", "lesser"]


def test_slots_run_side_by_side() -> None:
    queue = MemoryQueue("cpu", slots=2)
    both = threading.Barrier(2)
    for n in range(2):
        queue.publish(f"job{n}", "cpu")

    def handle(_job_id: str) -> None:
        both.wait(5)  # breaks if the second job had to wait for the first
        queue.stop()

    serve(queue, handle)


def test_a_handler_that_raises_ends_the_run() -> None:
    queue = MemoryQueue("cpu", slots=2)
    queue.publish("job", "cpu")

    def handle(_job_id: str) -> None:
        raise ArithmeticError("a bug")

    with pytest.raises(ArithmeticError):
        serve(queue, handle)


def test_polling_finds_the_oldest_registered_job_once(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.begin() as connection:
        submit(connection, 0)  # not registered
    keys = [registered(store, n) for n in (1, 2)]
    registered(store, 3, capability="gpu-24g")
    queue, told = PollingQueue(look_in(store), "cpu", slots=2, poll_s=0.02), []

    def handle(job_id: str) -> None:
        with store.begin() as connection:
            if lease(connection, job_id, "w"):
                told.append(job_id)
        if len(told) == 2:
            queue.stop()

    serve(queue, handle)
    assert sorted(told) == sorted(keys)
    assert audit_id(0) not in told


def test_polling_does_not_spin_on_a_job_nobody_can_lease(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    registered(store)
    queue, looks = PollingQueue(look_in(store), "cpu", poll_s=0.05), []

    def refuse(_job_id: str) -> None:
        looks.append(time.monotonic())
        if len(looks) == 6:
            queue.stop()

    serve(queue, refuse)
    assert looks[-1] - looks[0] >= 5 * 0.05 * 0.8


def test_polling_outlives_a_database_that_is_away(tmp_path: Path) -> None:
    look = look_in(open_store(f"sqlite:///{tmp_path}/absent/assay.db"))
    assert look("cpu") is None


@pytest.mark.parametrize("body", [7, None, "", "x" * 41, "nul\0", "ü", ["a"], b"a"])
def test_only_short_printable_text_is_a_job_id(body: object) -> None:
    assert not is_job_id(body)
    assert is_job_id("0123456789abcdef" * 2)
