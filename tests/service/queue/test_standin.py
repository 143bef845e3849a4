"""Without its broker a Celery worker looks for jobs itself, and no slot of it minds two at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.queue.celery_queue import CelerySource
from service.queue.standin import SILENCE_S, BrokerWatch, StandIn
from service.store.jobs import lease
from service.worker.process import look_in
from tests.service.store.planting import new_store, registered


class Broker:
    """A broker that answers or does not, and a clock."""

    def __init__(self) -> None:
        self.answers, self.now = True, 1000.0

    def ask(self) -> bool:
        return self.answers

    def watch(self) -> BrokerWatch:
        return BrokerWatch(self.ask, clock=lambda: self.now)


@pytest.fixture
def broker() -> Broker:
    return Broker()


def turns(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.name == "assay.queue"]


def test_sixty_seconds_of_silence_start_the_polling_and_one_answer_ends_it(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = broker.watch()
    for silent_s, is_silent in ((0.0, False), (SILENCE_S - 0.1, False), (SILENCE_S, True), (9 * SILENCE_S, True)):
        broker.answers, broker.now = False, 1000.0 + silent_s
        watch.look()
        assert watch.is_silent is is_silent, silent_s
    broker.answers = True
    watch.look()
    watch.look()
    assert not watch.is_silent
    assert len(turns(caplog)) == 2  # one for each turn, however often it is looked
    assert "60 s" in turns(caplog)[0]


def test_a_broker_that_answers_now_and_then_is_not_silent(broker: Broker) -> None:
    watch = broker.watch()
    for _ in range(5):
        broker.answers = False
        broker.now += SILENCE_S - 1
        watch.look()
        assert not watch.is_silent
        broker.answers = True
        watch.look()


def test_a_broker_that_dies_again_and_again_is_stood_in_for_each_time(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = broker.watch()
    for _ in range(3):
        broker.answers = False
        watch.look()
        broker.now += SILENCE_S
        watch.look()
        assert watch.is_silent
        broker.answers = True
        watch.look()
        assert not watch.is_silent
    assert len(turns(caplog)) == 6


def test_a_broker_that_never_answered_is_stood_in_for_too(broker: Broker) -> None:
    broker.answers = False
    watch = broker.watch()
    broker.now += SILENCE_S
    watch.look()
    assert watch.is_silent


class Bench:
    """A Celery source whose broker is a fake and whose looks find what lies here."""

    def __init__(self, broker: Broker, look: Callable[[str], str | None], slots: int = 1) -> None:
        self.looked = threading.Event()

        def looking(capability: str) -> str | None:
            found = look(capability)
            self.looked.set()
            return found

        self.broker, self.watch = broker, broker.watch()
        self.source = CelerySource("redis://localhost", slots=slots)
        self.places = self.source.places
        self.stand_in = StandIn(self.watch, looking, ("cpu",), self.places, slots=slots, poll_s=0.01)
        self.thread: threading.Thread | None = None

    def start(self, handler: Callable[[str], None]) -> None:
        self.thread = threading.Thread(target=self.stand_in.run, args=(handler,))
        self.thread.start()

    def fall_silent(self) -> None:
        self.broker.answers = False
        self.broker.now += SILENCE_S
        self.watch.look()

    def stop(self) -> None:
        self.stand_in.stop()
        if self.thread is not None:
            self.thread.join(10)
            assert not self.thread.is_alive()


@pytest.fixture
def bench(broker: Broker) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(look: Callable[[str], str | None], slots: int = 1) -> Bench:
        made.append(Bench(broker, look, slots))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_while_the_broker_answers_the_database_is_left_alone(broker: Broker, bench: Callable[..., Bench]) -> None:
    handled = threading.Event()
    on = bench(lambda _capability: "job")
    on.start(lambda _job: handled.set())
    assert not on.looked.wait(0.1)
    on.fall_silent()
    assert handled.wait(5)
    broker.answers = True
    on.watch.look()
    on.looked.wait(0.05)  # one look may be under way
    on.looked.clear()
    assert not on.looked.wait(0.1)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_knock_after_the_outage_waits_for_the_cell_that_polling_began(
    bench: Callable[..., Bench], slots: int
) -> None:
    """One process never minds more cells than it has slots, whoever found their jobs."""
    waiting = [f"polled{number}" for number in range(slots)]
    at_once, most, lock = 0, 0, threading.Lock()
    full, free = threading.Semaphore(0), threading.Event()
    order: list[str] = []

    def handle(job: str) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            order.append(job)
        full.release()
        assert free.wait(10)
        with lock:
            at_once -= 1

    def look(_capability: str) -> str | None:
        with lock:
            return waiting.pop() if waiting else None

    on = bench(look, slots)
    on.start(handle)
    on.fall_silent()
    for _ in range(slots):
        assert full.acquire(timeout=5)
    knocked = threading.Thread(target=on.source.knocked, args=(handle, ("knocked",)))
    knocked.start()
    knocked.join(0.1)
    assert knocked.is_alive()
    assert "knocked" not in order
    free.set()
    knocked.join(5)
    assert not knocked.is_alive()
    assert (order[-1], most) == ("knocked", slots)


def test_polling_takes_no_job_beside_a_cell_that_a_knock_began(bench: Callable[..., Bench]) -> None:
    on = bench(lambda _capability: "polled")
    began, free, polled = threading.Event(), threading.Event(), threading.Event()

    def handle(job: str) -> None:
        if job == "polled":
            polled.set()
        else:
            began.set()
            assert free.wait(10)

    knocked = threading.Thread(target=on.source.knocked, args=(handle, ("knocked",)))
    knocked.start()
    assert began.wait(5)
    on.start(handle)
    on.fall_silent()
    assert not polled.wait(0.1)
    free.set()
    assert polled.wait(5)
    knocked.join(5)


def test_a_knock_that_waits_for_a_slot_is_let_go_when_the_worker_stops(bench: Callable[..., Bench]) -> None:
    on = bench(lambda _capability: None)
    told: list[str] = []
    with on.places.taken(wait=True) as has_place:
        assert has_place
        knocked = threading.Thread(target=on.source.knocked, args=(told.append, ("late",)))
        knocked.start()
        on.source.stop()
        knocked.join(5)
        assert not knocked.is_alive()
    assert told == []


def test_a_knock_for_a_job_that_was_polled_meanwhile_starts_nothing(
    broker: Broker, bench: Callable[..., Bench], tmp_path: Path
) -> None:
    store = new_store(tmp_path)
    job = registered(store)
    leased: list[str] = []
    done = threading.Event()

    def attempt(job_id: str) -> None:
        with store.begin() as connection:
            if lease(connection, job_id, "w"):
                leased.append(job_id)
        done.set()

    on = bench(look_in(store))
    on.start(attempt)
    on.fall_silent()
    assert done.wait(5)
    broker.answers = True
    on.watch.look()
    for _ in range(3):  # the broker kept it, and the reconciler knocked again
        on.source.knocked(attempt, (job,))
    assert leased == [job]
    store.close()


def test_what_a_polled_handler_raises_ends_the_run(bench: Callable[..., Bench]) -> None:
    on = bench(lambda _capability: "job")
    on.fall_silent()

    def handle(_job: str) -> None:
        raise ArithmeticError("a bug")

    with pytest.raises(ArithmeticError):
        on.stand_in.run(handle)
