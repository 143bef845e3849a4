from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from service.blobs import BlobFault, LocalBlobs, MemoryBlobs
from service.queue.contract import QueueUnavailable
from service.queue.memory import MemoryQueue
from service.rules.approvals import REVOKED
from service.rules.states import AuditState, ExitClass, Then
from service.scheduler.effects import PublishEffect, SignerEffects
from service.scheduler.errors import SignerRefused, SignerUnavailable
from service.scheduler.leases import BackOff, Reaper, Watch
from service.scheduler.loops import Loop, run_loops
from service.scheduler.process import SchedulerSettings, schedule
from service.scheduler.reconciler import Reconciler
from service.scheduler.relay import Relay
from service.scheduler.signer_client import SignerClient
from service.store import jobs
from service.store.audits import cancel
from service.store.endings import end
from service.store.engine import Store, StoreBusy
from service.store.events import events_after
from service.store.jobs import Ending
from service.store.outbox import Kind, owed
from service.store.tables import audit, blob, job, report
from service.store.views import AuditView, mark_published, view
from tests.service.store.planting import SHA, audit_id, finished, leased, new_store, registered, registration, submit

ALL: tuple[Kind, ...] = ("register", "publish", "sign", "void", "withdraw")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store(tmp_path)
    yield opened
    opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeSigner:
    """Answers in the signer's words; `trouble` is raised instead while it is set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Mapping[str, Any]] = []
        self.trouble: Exception | None = None

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(question)
        if self.trouble is not None:
            raise self.trouble
        if question["op"] == "register":
            return {"ok": True, "registration": registration()}
        if question["op"] in ("void", "withdraw"):
            return {"ok": True}
        (self.folder / "request.json").write_bytes(b"report")
        files = [{"path": "request.json", "sha256": hashlib.sha256(b"report").hexdigest(), "size": 6}]
        return {"ok": True, "directory": str(self.folder), "files": files, "key_id": "k", "composed_at": "x"}


class DeadQueue:
    def publish(self, job_id: str, capability: str) -> None:
        raise QueueUnavailable("away")

    def depth(self, capability: str) -> int | None:
        raise QueueUnavailable("away")


def seen(store: Store, key: str) -> AuditView:
    with store.read() as connection:
        found = view(connection, key)
    assert found is not None
    return found


def debts(store: Store) -> list[str]:
    with store.read() as connection:
        return [debt.kind for debt in owed(connection, ALL)]


def wait_for(condition: Callable[[], bool], patience_s: float = 15) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sweep(relay: Relay) -> None:
    relay.step()
    wait_for(lambda: not relay._busy)


def signing(store: Store, signer: FakeSigner, clock: Clock | None = None) -> Relay:
    effects = SignerEffects(store, MemoryBlobs(), signer)
    kinds: dict[Kind, Any] = {"register": effects.register, "sign": effects.sign, "void": effects.void}
    kinds["withdraw"] = effects.withdraw
    return Relay(store, kinds, width=2, on_failure=effects.tell, clock=clock or Clock())


def test_reaper_frees_a_dead_workers_job_and_both_attempts_are_recorded(store: Store) -> None:
    key, clock = registered(store), Clock()
    reaper, back_off = Reaper(store, lease_s=30, backoff_base_ms=100, clock=clock), BackOff(store, clock=clock)
    leased(store, key)
    for _ in range(2):
        reaper.step()
        clock.now += 29
    assert [tried.exit_class for tried in seen(store, key).attempts] == [None]
    clock.now += 2
    reaper.step()
    back_off.step()
    clock.now += 0.09
    back_off.step()
    with store.read() as connection:
        assert connection.execute(select(job.c.state)).scalar_one() == "WAITING"
    clock.now += 0.02
    back_off.step()
    finished(store, leased(store, key, "w2"))
    assert [(tried.number, tried.exit_class) for tried in seen(store, key).attempts] == [(1, "WORKER_LOST"), (2, "OK")]
    assert "publish" in debts(store)


def test_a_fresh_reaper_takes_nothing_for_its_first_lease(store: Store) -> None:
    leased(store, registered(store))
    clock = Clock()
    reaper = Reaper(store, lease_s=30, clock=clock)
    clock.now += 10_000  # long after it was made, but it has looked at nothing yet
    reaper.step()
    clock.now += 29
    reaper.step()
    with store.read() as connection:
        assert connection.execute(select(job.c.state)).scalar_one() == "LEASED"


def test_a_beating_worker_is_never_taken(store: Store) -> None:
    held, clock = leased(store, registered(store)), Clock()
    reaper = Reaper(store, lease_s=30, clock=clock)
    for _ in range(20):
        reaper.step()
        clock.now += 25
        with store.begin() as connection:
            assert jobs.beat(connection, held) is jobs.Beat.GO
    assert [tried.exit_class for tried in seen(store, held.audit).attempts] == [None]


def test_a_new_lease_is_not_aged_by_the_old_one() -> None:
    clock = Clock()
    watch = Watch(clock)
    watch.ages({"job": (1, 0)})
    clock.now += 29
    assert watch.ages({"job": (2, 0)}) == {"job": 0}
    assert watch.ages({}) == {}
    clock.now += 29
    assert watch.ages({"job": (2, 0)}) == {"job": 0}


def test_registration_comes_before_the_knock(store: Store, tmp_path: Path) -> None:
    signer, queue = FakeSigner(tmp_path), MemoryQueue()
    with store.begin() as connection:
        key = submit(connection)
    knocking = Relay(store, {"publish": PublishEffect(store, queue).publish})
    sweep(knocking)
    assert queue.depth("cpu") == 0
    sweep(signing(store, signer))
    sweep(knocking)
    assert (queue.depth("cpu"), debts(store)) == (1, [])
    assert seen(store, key).registered_at is not None
    with store.read() as connection:
        assert connection.execute(select(job.c.published_at)).scalar_one() is not None


def test_an_effect_interrupted_before_its_debt_was_deleted_happens_again_harmlessly(
    store: Store, tmp_path: Path
) -> None:
    signer = FakeSigner(tmp_path)
    with store.begin() as connection:
        submit(connection)
        debt = owed(connection, ("register",))[0]
    effects = SignerEffects(store, MemoryBlobs(), signer)
    effects.register(debt)
    effects.register(debt)
    with store.read() as connection:
        assert [event.kind for event in events_after(connection, debt.audit, 0)].count("registered") == 1
    assert debts(store) == ["publish"]


def test_without_a_signer_nothing_is_leased_and_the_audit_says_why(store: Store, tmp_path: Path) -> None:
    signer, clock = FakeSigner(tmp_path), Clock()
    signer.trouble = SignerUnavailable("nobody")
    with store.begin() as connection:
        key = submit(connection)
    relay = signing(store, signer, clock)
    for _ in range(5):
        sweep(relay)
    assert len(signer.asked) == 1  # not again before the pause is over
    assert seen(store, key).state_reason == "SIGNER_UNAVAILABLE"
    clock.now += 1
    sweep(relay)
    assert len(signer.asked) == 2
    with store.begin() as connection:
        assert jobs.lease(connection, key, "w") is None
        told = [event.detail for event in events_after(connection, key, 1)]
    assert told == [{"state": "QUEUED", "reason": "SIGNER_UNAVAILABLE"}]  # told once, not at every try
    signer.trouble = None
    clock.now += 60
    sweep(relay)
    assert seen(store, key).state_reason == ""


def test_a_refused_seal_stays_signing_and_completes_when_the_cause_is_gone(store: Store, tmp_path: Path) -> None:
    signer, clock = FakeSigner(tmp_path), Clock()
    held = leased(store, registered(store))
    finished(store, held)
    signer.trouble = SignerRefused("CLOCK_SKEW", "wait")
    relay = signing(store, signer, clock)
    for _ in range(3):
        sweep(relay)
        clock.now += 60
    assert (seen(store, held.audit).state, seen(store, held.audit).state_reason) == (AuditState.SIGNING, "CLOCK_SKEW")
    signer.trouble = None
    sweep(relay)
    found = seen(store, held.audit)
    assert (found.state, found.state_reason, found.reports) == (AuditState.COMPLETED, "", (1,))
    with store.read() as connection:
        assert connection.execute(select(report.c.key_id)).scalar_one() == "k"
        assert connection.execute(select(blob.c.size)).scalar_one() == 6
    assert {"op": "seal", "audit": held.audit, "token": held.token} in signer.asked


@pytest.mark.parametrize(
    ("stored", "lost"), [(None, True), (b"rotten", True), (b"weights", False)], ids=["missing", "rotten", "whole"]
)
def test_what_the_signer_cannot_use_is_asked_of_its_owner_again(
    store: Store, tmp_path: Path, stored: bytes | None, lost: bool
) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    blobs, signer, clock = LocalBlobs(tmp_path / "blobs"), FakeSigner(tmp_path), Clock()
    with store.begin() as connection:
        connection.execute(insert(blob).values(sha256=digest, size=7, stored_at=1))
    if stored is not None:
        blobs.put(b"weights", digest)
        blobs.path(digest).chmod(0o600)
        blobs.path(digest).write_bytes(stored)
    with store.begin() as connection:
        key = submit(connection)
    signer.trouble = SignerRefused("BLOB_CORRUPT", "model file model.safetensors", blob=digest)
    effects = SignerEffects(store, blobs, signer)
    sweep(Relay(store, {"register": effects.register}, width=1, on_failure=effects.tell, clock=clock))
    assert seen(store, key).state_reason == "BLOB_CORRUPT"
    with store.read() as connection:
        assert (connection.execute(select(blob.c.quarantined_at)).scalar_one() is not None) is lost


def test_a_place_without_any_blob_asks_nobody(store: Store, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    blobs, signer = LocalBlobs(tmp_path / "blobs"), FakeSigner(tmp_path)
    with store.begin() as connection:
        connection.execute(insert(blob).values(sha256=digest, size=7, stored_at=1))
    (tmp_path / "blobs").rename(tmp_path / "away")
    with store.begin() as connection:
        submit(connection)
    signer.trouble = SignerRefused("BLOB_MISSING", "model file model.safetensors", blob=digest)
    effects = SignerEffects(store, blobs, signer)
    sweep(Relay(store, {"register": effects.register}, width=1, on_failure=effects.tell, clock=Clock()))
    with store.read() as connection:
        assert connection.execute(select(blob.c.quarantined_at)).scalar_one() is None


def test_an_audit_whose_record_is_refused_fails_and_is_voided(store: Store, tmp_path: Path) -> None:
    signer = FakeSigner(tmp_path)
    held = leased(store, registered(store))
    finished(store, held)
    signer.trouble = SignerRefused("RECORD_REJECTED", "the composed report would not verify: V10")
    clock = Clock()
    relay = signing(store, signer, clock)
    sweep(relay)
    found = seen(store, held.audit)
    assert (found.state, found.state_reason, found.retryable) == (AuditState.FAILED, "RECORD_REJECTED", False)
    assert (found.outcome, found.reports) == ("", ())  # nothing that was measured is told
    assert debts(store) == ["publish", "void"]
    signer.trouble = None
    clock.now += 60
    sweep(relay)
    assert {"op": "void", "audit": held.audit, "reason": "RECORD_REJECTED"} in signer.asked
    assert debts(store) == ["publish"]
    assert [one["op"] for one in signer.asked].count("seal") == 1


def test_what_was_registered_is_knocked_for_without_another_sweep(store: Store, tmp_path: Path) -> None:
    queue = MemoryQueue()
    effects = SignerEffects(store, MemoryBlobs(), FakeSigner(tmp_path))
    knocking = Relay(store, {"publish": PublishEffect(store, queue).publish})
    with store.begin() as connection:
        key = submit(connection)
    sweep(Relay(store, {"register": effects.register}, on_success=knocking.step))
    wait_for(lambda: not debts(store))
    knocking.close()
    with store.read() as connection:
        assert connection.execute(select(job.c.published_at).where(job.c.id == key)).scalar_one() is not None


class ReadingSigner(FakeSigner):
    """Reads the request where the signer does, when it is asked to register it."""

    def __init__(self, folder: Path, blobs: MemoryBlobs) -> None:
        super().__init__(folder)
        self.blobs = blobs
        self.read: list[bytes] = []

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        with self.blobs.open(ASKED_SHA) as file:
            self.read.append(file.read())
        return super().ask(question)


ASKED = b'{"what":"was asked"}'
ASKED_SHA = hashlib.sha256(ASKED).hexdigest()


def accepted(store: Store) -> str:
    with store.begin() as connection:
        key = submit(connection, request_sha256=ASKED_SHA)
        connection.execute(update(audit).values(request_json=ASKED))
    return key


def test_signer_finds_the_request_that_a_submission_left_in_its_row(store: Store, tmp_path: Path) -> None:
    accepted(store)
    blobs = MemoryBlobs()
    signer, clock = ReadingSigner(tmp_path, blobs), Clock()
    signer.trouble = SignerUnavailable("away")
    effects = SignerEffects(store, blobs, signer)
    relay = Relay(store, {"register": effects.register}, on_failure=effects.tell, clock=clock)
    sweep(relay)
    with store.read() as connection:  # killed here, the next scheduler begins anew from the row
        assert connection.execute(select(audit.c.request_json)).scalar_one() == ASKED
    signer.trouble = None
    clock.now += 60
    sweep(relay)
    assert signer.read == [ASKED, ASKED]
    with store.read() as connection:
        assert connection.execute(select(audit.c.request_json)).scalar_one() is None
        assert connection.execute(select(blob.c.size).where(blob.c.sha256 == ASKED_SHA)).scalar_one() == len(ASKED)


def test_request_that_no_disk_takes_is_owed_still(store: Store, tmp_path: Path) -> None:
    class Full(MemoryBlobs):
        def put(self, source: Path | bytes, digest: str) -> None:
            raise BlobFault("no space left")

    key, signer = accepted(store), FakeSigner(tmp_path)
    effects = SignerEffects(store, Full(), signer)
    sweep(Relay(store, {"register": effects.register}, on_failure=effects.tell, clock=Clock()))
    assert signer.asked == []
    assert (seen(store, key).state_reason, debts(store)) == ("REQUEST_NOT_STORED", ["register"])


def test_a_report_file_that_is_not_what_the_signer_said_is_not_released(store: Store, tmp_path: Path) -> None:
    class Lying(FakeSigner):
        def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
            answer = super().ask(question)
            (self.folder / "request.json").write_bytes(b"other")
            return answer

    held = leased(store, registered(store))
    finished(store, held)
    sweep(signing(store, Lying(tmp_path)))
    found = seen(store, held.audit)
    assert (found.state, found.state_reason, found.reports) == (AuditState.SIGNING, "REPORT_NOT_STORED", ())


@pytest.mark.parametrize(
    "files",
    [[], None, [{"path": "../key.pem", "sha256": SHA, "size": 1}], [{"path": "a", "sha256": "x", "size": 1}], [7]],
)
def test_a_seal_that_names_no_honest_files_is_refused(store: Store, tmp_path: Path, files: Any) -> None:
    class Odd(FakeSigner):
        def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
            return {"ok": True, "directory": str(self.folder), "files": files, "key_id": "k"}

    held = leased(store, registered(store))
    finished(store, held)
    sweep(signing(store, Odd(tmp_path)))
    assert seen(store, held.audit).state_reason == "SIGNER_REFUSED"


def test_a_cancelled_audit_is_voided(store: Store, tmp_path: Path) -> None:
    signer = FakeSigner(tmp_path)
    key = registered(store)
    with store.begin() as connection:
        cancel(connection, key)
    relay = signing(store, signer)
    sweep(relay)
    sweep(relay)
    assert {"op": "void", "audit": key, "reason": "CANCELLED"} in signer.asked
    assert "void" not in debts(store)


def test_a_revoked_approval_is_told_to_the_log_although_a_cell_had_to_be_killed_first(
    store: Store, tmp_path: Path
) -> None:
    signer = FakeSigner(tmp_path)
    held = leased(store, registered(store))
    with store.begin() as connection:
        assert cancel(connection, held.audit, reason=REVOKED) is AuditState.CANCELLING
    with store.begin() as connection:
        assert end(connection, held, Ending(exit_class=ExitClass.CANCELLED)) is Then.CANCEL
    sweep(signing(store, signer))
    assert {"op": "void", "audit": held.audit, "reason": REVOKED} in signer.asked


def test_a_slow_audit_does_not_hold_the_others(store: Store) -> None:
    release, done = threading.Event(), []
    with store.begin() as connection:
        slow, fast = submit(connection, 0), submit(connection, 1)

    def perform(debt: Any) -> None:
        if debt.audit == slow:
            release.wait(10)
        done.append(debt.audit)

    relay = Relay(store, {"register": perform}, width=2)
    relay.step()
    relay.step()  # the debt under way is not started again
    wait_for(lambda: done == [fast])
    release.set()
    wait_for(lambda: slow in done)
    relay.close()
    assert done.count(slow) == 1


def test_an_unexpected_exception_ends_the_relay(store: Store) -> None:
    with store.begin() as connection:
        submit(connection)

    def perform(_debt: Any) -> None:
        raise ArithmeticError("a bug")

    relay = Relay(store, {"register": perform})
    sweep(relay)
    with pytest.raises(ArithmeticError):
        relay.step()


def test_a_broker_that_lost_everything_is_told_again(store: Store) -> None:
    keys = [registered(store, n) for n in range(3)]
    with store.begin() as connection:
        mark_published(connection, keys[0])
    empty, patient = MemoryQueue(), MemoryQueue()
    Reconciler(store, patient, older_s=3600).step()
    assert patient.depth("cpu") == 2  # the one that was knocked for a moment ago is left alone
    time.sleep(0.01)
    for _ in range(3):
        Reconciler(store, empty, older_s=0.001).step()
        assert empty.depth("cpu") == 3  # as many knocks as jobs: a broker cannot be flooded


def test_a_broker_that_is_away_ends_nothing(store: Store) -> None:
    registered(store)
    Reconciler(store, DeadQueue()).step()
    clock = Clock()
    relay = Relay(store, {"publish": PublishEffect(store, DeadQueue()).publish}, clock=clock)
    sweep(relay)
    assert debts(store)[-1] == "publish"


def test_a_loop_that_dies_takes_the_others_down() -> None:
    stop, steps = threading.Event(), []

    def die() -> None:
        raise ArithmeticError("a bug")

    with pytest.raises(ArithmeticError):
        run_loops(
            [Loop(name="a", every_s=0.01, step=lambda: steps.append(1)), Loop(name="b", every_s=0.01, step=die)], stop
        )
    assert stop.is_set()


def test_a_busy_database_is_tried_again() -> None:
    stop, tries = threading.Event(), []

    def step() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise StoreBusy("held")
        stop.set()

    run_loops([Loop(name="a", every_s=0.001, step=step)], stop)
    assert len(tries) == 3


@contextmanager
def listening(path: Path, reply: bytes) -> Iterator[list[bytes]]:
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        thread.join(5)


def test_the_signer_is_asked_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    with listening(path, b'{"ok":true,"registration":{}}\n') as heard:
        assert SignerClient(path).ask({"op": "register", "audit": "a"}) == {"ok": True, "registration": {}}
    assert heard == [b'{"audit":"a","op":"register"}\n']


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        (b"", SignerUnavailable, "SIGNER_UNAVAILABLE"),
        (b"[]\n", SignerUnavailable, "SIGNER_UNAVAILABLE"),
        (b'{"ok":1}\n', SignerUnavailable, "SIGNER_UNAVAILABLE"),
        (b'{"ok":true,"ok":false}\n', SignerUnavailable, "SIGNER_UNAVAILABLE"),
        (b'{"ok":false,"code":"STALE_TOKEN","message":"m"}\n', SignerRefused, "STALE_TOKEN"),
        (b'{"ok":false,"code":"not a code\\n"}\n', SignerRefused, "SIGNER_REFUSED"),
    ],
)
def test_a_signer_that_does_not_say_yes(tmp_path: Path, reply: bytes, error: type[Exception], code: str) -> None:
    path = tmp_path / "signer.sock"
    with listening(path, reply), pytest.raises(error) as caught:
        SignerClient(path).ask({"op": "void", "audit": "a", "reason": "r"})
    assert caught.value.code == code  # type: ignore[attr-defined]


def test_nobody_at_the_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SignerUnavailable):
        SignerClient(tmp_path / "absent.sock").ask({"op": "register", "audit": "a"})


def test_two_schedulers_do_one_schedulers_work(store: Store, tmp_path: Path) -> None:
    """Both run every loop on one database: each audit is registered, leased and completed once."""
    with store.begin() as connection:
        for n in range(4):
            submit(connection, n)
    queue, stop, ran = MemoryQueue(slots=2), threading.Event(), []
    settings = SchedulerSettings(
        database_url="", blob_dir=tmp_path, broker_url=None, signer_socket=tmp_path, lease_s=30.0, reconcile_s=0.2
    )

    def handle(job_id: str) -> None:
        with store.begin() as connection:
            held = jobs.lease(connection, job_id, "w")
        if held is not None:
            ran.append(job_id)
            finished(store, held)

    def run_one(n: int) -> None:
        (tmp_path / str(n)).mkdir()
        signer = FakeSigner(tmp_path / str(n))
        schedule(settings, store=store, blobs=MemoryBlobs(), signer=signer, knocker=queue, stop=stop)

    threads = [threading.Thread(target=run_one, args=(n,)) for n in range(2)]
    threads.append(threading.Thread(target=queue.run, args=(handle,)))
    for thread in threads:
        thread.start()
    wait_for(lambda: all(seen(store, audit_id(n)).state == AuditState.COMPLETED for n in range(4)), 30)
    stop.set()
    queue.stop()
    for thread in threads:
        thread.join(10)
    assert sorted(ran) == sorted(audit_id(n) for n in range(4))
    with store.read() as connection:
        for n in range(4):
            told = events_after(connection, audit_id(n), 0)
            assert [event.sequence for event in told] == list(range(1, len(told) + 1))
            assert [event.detail.get("state") for event in told].count("COMPLETED") == 1
