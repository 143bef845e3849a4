"""Real worker processes, killed at bad moments, beside real loops of the scheduler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from assay import canonical
from sqlalchemy import select

from sandbox.cell import CodeMount
from service.blobs import LocalBlobs
from service.queue.celery_queue import CeleryKnocker
from service.queue.contract import Knocker
from service.queue.polling import PollingKnocker
from service.rules.states import AuditState
from service.scheduler.process import SchedulerSettings, schedule
from service.store.engine import Store
from service.store.tables import job, result
from service.store.views import AuditView, view
from service.worker.backends import kill_bound_of
from service.worker.code import Guest
from service.worker.process import WorkerSettings, check_lease
from tests.service.queue.conftest import RedisServer, redis_server
from tests.service.scheduler.test_scheduler import FakeSigner
from tests.service.store.planting import new_store
from tests.service.worker.scripted import House, ScriptedCell, catalogue, good, house
from tests.service.worker.worker_child import LEASE_S, SILENCE_S

__all__ = ["redis_server"]

ROOT = Path(__file__).parents[3]


class Stage:
    """A database, blobs, a scheduler in threads, and worker processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: Store = new_store(folder)
        self.house: House = house(self.store, folder)
        (folder / "catalogue.json").write_bytes(
            canonical.dumps({"schema": "assay-catalogue/v1", "checks": [dict(one.raw) for one in catalogue().checks]})
        )
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._children: list[subprocess.Popen[str]] = []
        self.blobs = LocalBlobs(folder / "blobs")

    def schedule(self, knocker: Knocker) -> None:
        settings = SchedulerSettings(
            database_url="",
            blob_dir=self.folder,
            broker_url=None,
            signer_socket=self.folder,
            lease_s=LEASE_S,
            backoff_base_ms=50,
            reconcile_s=0.5,
        )
        rooms = {"store": self.store, "blobs": self.blobs, "signer": FakeSigner(self.folder), "knocker": knocker}
        thread = threading.Thread(target=schedule, args=(settings,), kwargs={**rooms, "stop": self._stop})
        thread.start()
        self._threads.append(thread)

    def worker(self, script: str, broker: str = "") -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker_child.py")), str(self.folder), broker, script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
        )
        self._children.append(child)
        return child

    def submit(self, n: int = 0) -> str:
        key = self.house.submit(n)
        for digest in self.house.blobs.digests():
            self.blobs.put(self.house.blobs.path(digest), digest)
        return key

    def seen(self, key: str) -> AuditView:
        with self.store.read() as connection:
            found = view(connection, key)
        assert found is not None
        return found

    def close(self) -> None:
        self._stop.set()
        for child in self._children:
            child.kill()
            child.communicate()
        for thread in self._threads:
            thread.join(10)
        self.store.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def ended(child: subprocess.Popen[str], *, signum: signal.Signals | None = None) -> tuple[int, str, str]:
    if signum is not None:
        child.send_signal(signum)
    out, err = child.communicate(timeout=20)
    return child.returncode, out, err


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("dispatcher", ["polling", "celery"])
def test_a_worker_killed_mid_cell_costs_one_attempt_and_the_audit_ends_once(
    stage: Stage, dispatcher: str, request: pytest.FixtureRequest
) -> None:
    server: RedisServer | None = request.getfixturevalue("redis_server") if dispatcher == "celery" else None
    broker = server.url if server else ""
    stage.schedule(CeleryKnocker(broker) if server else PollingKnocker())
    key = stage.submit()
    doomed = stage.worker("hang", broker)
    assert (line(doomed), line(doomed)) == ("ready", "in the cell")
    doomed.kill()
    assert list((stage.folder / "work").iterdir())
    second = stage.worker("good", broker)
    assert line(second) == "ready"
    wait_for(lambda: stage.seen(key).state == AuditState.COMPLETED)
    assert [tried.exit_class for tried in stage.seen(key).attempts] == ["WORKER_LOST", "OK"]
    with stage.store.read() as connection:
        assert connection.execute(select(result.c.token)).scalar_one() == 2
    assert not list((stage.folder / "work").iterdir())  # what the killed worker left is gone
    code, out, err = ended(second, signum=signal.SIGTERM)
    assert (code, "ended" in out) == (0, True), err
    texts = [json.loads(one)["text"] for one in err.splitlines() if one.startswith("{")]
    assert any(text.startswith("finalised as OK") for text in texts)


@pytest.mark.slow
def test_a_worker_whose_broker_dies_again_and_again_polls_each_time_and_runs_each_job_once(
    stage: Stage, redis_server: RedisServer
) -> None:
    stage.schedule(CeleryKnocker(redis_server.url))
    worker = stage.worker("good", redis_server.url)
    assert line(worker) == "ready"
    keys: list[str] = []

    def all_completed() -> bool:
        return all(stage.seen(key).state == AuditState.COMPLETED for key in keys)

    for _ in range(2):
        redis_server.kill()
        keys.extend([stage.submit(len(keys)), stage.submit(len(keys) + 1)])
        wait_for(all_completed)
        redis_server.start()  # empty; whatever was owed to it is knocked now, for jobs that have ended
        keys.append(stage.submit(len(keys)))
        wait_for(all_completed)
        time.sleep(SILENCE_S / 6)  # for the worker to hear it too
    assert [[tried.exit_class for tried in stage.seen(key).attempts] for key in keys] == [["OK"]] * 6
    redis_server.kill()
    keys.append(stage.submit(len(keys)))
    wait_for(all_completed)
    code, out, err = ended(worker, signum=signal.SIGTERM)  # without a broker, and while it polls
    assert (code, "ended" in out) == (0, True), err
    texts = [json.loads(one)["text"] for one in err.splitlines() if one.startswith("{")]
    assert sum("looked for in the database" in text for text in texts) in (2, 3)
    assert "Traceback" not in err


@pytest.mark.parametrize("dispatcher", ["polling", "celery"])
def test_sigterm_kills_the_cell_gives_the_job_back_and_exits_zero(
    stage: Stage, dispatcher: str, request: pytest.FixtureRequest
) -> None:
    server: RedisServer | None = request.getfixturevalue("redis_server") if dispatcher == "celery" else None
    broker = server.url if server else ""
    stage.schedule(CeleryKnocker(broker) if server else PollingKnocker())
    key = stage.submit()
    worker = stage.worker("hang", broker)
    assert (line(worker), line(worker)) == ("ready", "in the cell")
    code, out, err = ended(worker, signum=signal.SIGTERM)
    assert (code, "ended" in out) == (0, True), err
    assert [tried.exit_class for tried in stage.seen(key).attempts] == ["DRAINED"]
    with stage.store.read() as connection:
        assert connection.execute(select(job.c.state, job.c.strikes)).one() == ("QUEUED", 0)


def test_without_isolation_the_worker_does_not_start_and_the_layer_is_named(stage: Stage) -> None:
    key = stage.submit()
    code, out, err = ended(stage.worker("unproven"))
    assert (code, out) == (1, "")  # never ready; the command line makes it a 2, see tests/service/main
    assert "IsolationMissing: bwrap_missing" in err
    assert stage.seen(key).attempts == ()
    told = json.loads((stage.folder / "isolation.json").read_text())
    assert told["isolation"] == "none"
    assert told["detail"].startswith("bwrap_missing")


def test_isolation_lost_while_working_ends_the_process(stage: Stage) -> None:
    key = stage.submit()
    worker = stage.worker("refuse")
    code, _, err = ended(worker)
    assert code == 1
    assert "userns_disabled" in err
    assert json.loads((stage.folder / "isolation.json").read_text())["isolation"] == "none"
    assert [tried.exit_class for tried in stage.seen(key).attempts] == ["ISOLATION_UNAVAILABLE"]


def test_beside_an_unkillable_cell_nothing_is_leased_until_somebody_looks(stage: Stage) -> None:
    key = stage.submit()
    worker = stage.worker("unkillable")
    wait_for(lambda: [tried.exit_class for tried in stage.seen(key).attempts] == ["HOST_FAULT"])
    wait_for(lambda: "cell_unkillable" in (stage.folder / "isolation.json").read_text())
    assert worker.poll() is None
    assert ended(worker, signum=signal.SIGTERM)[0] == 0


def test_a_worker_refuses_a_database_of_another_revision(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "assay.db").rename(tmp_path / "moved.db")
    code, _, err = ended(stage.worker("good"))
    assert code == 1
    assert "run `assay-server migrate`" in err


def test_a_lease_shorter_than_the_kill_is_refused(tmp_path: Path) -> None:
    def settings(lease_s: float, kill_bound_s: float) -> WorkerSettings:
        cell = ScriptedCell(good)
        cell.kill_bound_s = kill_bound_s
        return WorkerSettings(
            database_url="",
            blob_dir=tmp_path,
            work_dir=tmp_path,
            broker_url=None,
            slots=1,
            cell=cell,
            guest=Guest(code=(CodeMount(name="checks", source=tmp_path),)),
            isolation_file=tmp_path / "x",
            lease_s=lease_s,
        )

    check_lease(settings(30.0, 5.0))
    check_lease(settings(1.5, 0.25))
    with pytest.raises(ValueError, match=r"lease_s: 6.0 s is shorter than 30 s, six times the 5 s"):
        check_lease(settings(6.0, kill_bound_of(object())))  # one that does not tell takes what the sandbox promises
