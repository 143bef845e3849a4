from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from service.queue.celery_queue import SETTINGS, CeleryKnocker, make_app
from service.queue.contract import QueueUnavailable
from tests.service.queue.conftest import RedisServer


class Child:
    """A process of `celery_child.py`."""

    def __init__(self, url: str, slots: int = 1, *capabilities: str) -> None:
        root = Path(__file__).parents[3]
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("celery_child.py")),
                url,
                str(slots),
                *capabilities,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'client'}"},
        )
        assert self.line() == "starting"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self, *, signum: signal.Signals | None = None) -> tuple[int, str, str]:
        if signum is not None:
            self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def start(redis_server: RedisServer) -> Iterator[Callable[[], Child]]:
    children: list[Child] = []

    def start_one() -> Child:
        children.append(Child(redis_server.url))
        return children[-1]

    yield start_one
    for child in children:
        child.kill()


def test_a_celery_worker_of_several_queues_empties_its_own_first(redis_server: RedisServer) -> None:
    knocker = CeleryKnocker(redis_server.url)
    for number in range(2):
        for capability in ("cpu", "gpu-24g", "gpu-80g"):
            knocker.publish(f"{capability}.{number}", capability)
    child = Child(redis_server.url, 1, "gpu-80g", "cpu", "gpu-24g")
    try:
        told = [child.line() for _ in range(6)]
    finally:
        child.kill()
    assert told == ["gpu-80g.0", "gpu-80g.1", "gpu-24g.0", "gpu-24g.1", "cpu.0", "cpu.1"]


def test_a_message_is_one_string_and_ends_at_a_worker(redis_server: RedisServer, start: Callable[[], Child]) -> None:
    knocker = CeleryKnocker(redis_server.url)
    assert knocker.depth("cpu") == 0
    knocker.publish("a" * 32, "cpu")
    knocker.publish("for another machine", "gpu-24g")
    assert (knocker.depth("cpu"), knocker.depth("gpu-24g")) == (1, 1)
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        assert client.llen("assay:cpu") == 1
    child = start()
    assert child.line() == "a" * 32
    assert knocker.depth("cpu") == 0
    code, out, err = child.end(signum=signal.SIGTERM)
    assert code == 0, err
    assert out.endswith("dropped 0\n")
    assert knocker.depth("gpu-24g") == 1
    knocker.close()


def test_a_body_that_is_no_string_is_dropped_and_counted(redis_server: RedisServer, start: Callable[[], Child]) -> None:
    app = make_app(redis_server.url)
    for args in ([7], [{"job": "x"}], [], ["a", "b"], ["x" * 41], ["nul\0"]):
        app.send_task("assay.attempt", args=args, queue="cpu")
    app.send_task("somebody.elses", args=["x"], queue="cpu")
    app.send_task("assay.attempt", args=["stop"], queue="cpu")
    child = start()
    assert child.line() == "stop"
    code, out, err = child.end()
    assert (code, out) == (0, "dropped 6\n"), err
    app.close()


def test_a_handler_that_raises_ends_the_process(redis_server: RedisServer, start: Callable[[], Child]) -> None:
    knocker = CeleryKnocker(redis_server.url)
    knocker.publish("raise", "cpu")
    child = start()
    assert child.line() == "raise"
    code, _, err = child.end()
    assert code == 1
    assert "ArithmeticError: a bug" in err
    knocker.close()


def test_sigterm_waits_for_the_running_body_and_takes_no_more(
    redis_server: RedisServer, start: Callable[[], Child]
) -> None:
    knocker = CeleryKnocker(redis_server.url)
    for name in ("slow1", "slow2"):
        knocker.publish(name, "cpu")
    child = start()
    assert child.line() == "slow1"
    code, out, err = child.end(signum=signal.SIGTERM)
    assert code == 0, err
    assert "slow1 done" in out
    assert "slow2" not in out
    assert knocker.depth("cpu") == 1  # left for another worker
    knocker.close()


def test_long_job_does_not_hold_short_ones(redis_server: RedisServer, start: Callable[[], Child]) -> None:
    """A busy worker must not have fetched the next messages: a second worker gets them."""
    knocker = CeleryKnocker(redis_server.url)
    knocker.publish("long1", "cpu")
    busy = start()
    assert busy.line() == "long1"
    for n in range(3):
        knocker.publish(f"short{n}", "cpu")
    other = start()
    assert {other.line() for _ in range(3)} == {"short0", "short1", "short2"}
    for child in (busy, other):
        assert child.end(signum=signal.SIGTERM)[0] == 0
    knocker.close()


def test_a_broker_that_is_away_is_told_within_seconds_and_found_again(
    redis_server: RedisServer, start: Callable[[], Child]
) -> None:
    knocker = CeleryKnocker(redis_server.url)
    knocker.publish("before", "cpu")
    child = start()
    assert child.line() == "before"
    redis_server.kill()
    begun = time.monotonic()
    with pytest.raises(QueueUnavailable):
        knocker.publish("lost", "cpu")
    with pytest.raises(QueueUnavailable):
        knocker.depth("cpu")
    assert time.monotonic() - begun < 5
    redis_server.start()  # empty
    heard = threading.Event()

    def knock() -> None:
        # A knock may be lost while the worker reconnects; as the reconciler does, knock again until it is heard.
        while not heard.wait(0.5):
            with contextlib.suppress(QueueUnavailable):
                knocker.publish("after", "cpu")

    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    assert child.line() == "after"
    heard.set()
    knocking.join()
    assert child.end(signum=signal.SIGTERM)[0] == 0
    knocker.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task_acks_late", False),
        ("worker_disable_prefetch", True),
        ("task_reject_on_worker_lost", False),
        ("task_ignore_result", True),
        ("accept_content", ["json"]),
        ("broker_connection_max_retries", None),
    ],
)
def test_late_ack_poison_loop(setting: str, value: object) -> None:
    """Late acknowledgement and reject-on-lost run a poisonous job again and again; the lease decides instead."""
    app = make_app("redis://localhost")
    assert SETTINGS[setting] == value
    assert app.conf[setting] == value
    assert app.conf.result_backend is None
