"""Audits in shards: nothing is lost or finished twice, and the last shard, whichever it is, queues the combine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import insert, select

from service.rules.names import BlobName
from service.rules.states import CancelConfirmation, ExitClass, Outcome, Then
from service.store import endings, jobs
from service.store.audits import cancel
from service.store.engine import Store, StoreConflict, StoreFenced
from service.store.events import events_after
from service.store.jobs import Beat, Ending, Lease
from service.store.outbox import owed
from service.store.shards import Plan, combine_id, plan_of, scanned, shard_id, store_part, store_plan
from service.store.tables import audit, job, output_charge
from service.store.views import capability_of, leased_jobs, view
from tests.service.store.planting import leased, new_store, registered

OK = Ending(exit_class=ExitClass.OK)
DOCUMENT, CARRIED = BlobName("d0" * 32, 10), BlobName("ca" * 32, 20)


def part(shard: int) -> BlobName:
    return BlobName(f"{shard:02x}" * 32, 100 + shard)


def plan(store: Store, held: Lease, count: int = 3, ending: Ending = OK) -> None:
    with store.begin() as connection:
        store_plan(connection, held, ending, Plan(shards=count, document=DOCUMENT, carried=CARRIED))


def finish(store: Store, held: Lease, *, found: BlobName | None = None, ending: Ending = OK) -> None:
    with store.begin() as connection:
        store_part(connection, held, ending, found or part(held.shard))


def end(store: Store, held: Lease, exit_class: ExitClass, confirmation: CancelConfirmation | None = None) -> Then:
    with store.begin() as connection:
        told = confirmation or CancelConfirmation.KILLED
        return endings.end(connection, held, Ending(exit_class=exit_class), confirmation=told)


def planned(store: Store, count: int = 3, **values: Any) -> str:
    key = registered(store, **values)
    plan(store, leased(store, key), count)
    return key


def states(store: Store, key: str) -> dict[str, str]:
    with store.read() as connection:
        rows = connection.execute(select(job.c.id, job.c.state).where(job.c.audit == key))
        return {row.id.removeprefix(key): row.state for row in rows}


def audit_state(store: Store, key: str) -> str:
    with store.read() as connection:
        return str(connection.execute(select(audit.c.state).where(audit.c.id == key)).scalar_one())


def told(store: Store, key: str, *kinds: str) -> list[dict[str, object]]:
    with store.read() as connection:
        found = events_after(connection, key, 0, limit=1000)
    assert [one.sequence for one in found] == list(range(1, len(found) + 1))
    return [dict(one.detail) for one in found if one.kind in kinds]


def lost(store: Store, held: Lease) -> Then | None:
    with store.begin() as connection:
        return endings.take_expired(connection, held.job, held.token, 0)


def test_a_plan_is_told_before_any_shard_can_be_leased(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        assert jobs.lease(connection, shard_id(key, 0), "w") is None
    plan(store, held, 3)
    assert states(store, key) == {"": "DONE", "-s0": "QUEUED", "-s1": "QUEUED", "-s2": "QUEUED"}
    assert audit_state(store, key) == "RUNNING"
    assert told(store, key, "planned") == [{"plan_sha256": DOCUMENT.sha256, "shards": 3}]
    with store.read() as connection:
        assert plan_of(connection, key) == Plan(shards=3, document=DOCUMENT, carried=CARRIED)
        assert {one.job for one in owed(connection, ("publish",))} >= {shard_id(key, n) for n in range(3)}
        assert capability_of(connection, shard_id(key, 2)) == "cpu"


@pytest.mark.parametrize("count", [0, 1])
def test_one_shard_is_no_reason_for_jobs_of_its_own(store: Store, count: int) -> None:
    held = leased(store, registered(store))
    with pytest.raises(ValueError, match="no jobs of its own"):
        plan(store, held, count)


def test_a_whole_life_in_shards(store: Store) -> None:
    key = planned(store, 2)
    for shard in (1, 0):
        finish(store, leased(store, shard_id(key, shard), f"w{shard}"))
    assert states(store, key) == {"": "DONE", "-s0": "DONE", "-s1": "DONE", "-c": "QUEUED"}
    with store.read() as connection:
        assert scanned(connection, key).parts == (part(0), part(1))  # in the plan's order, whoever was first
    last = leased(store, combine_id(key))
    assert (last.label, last.number, last.token) == ("combine", 4, 4)
    with store.begin() as connection:
        assert jobs.finalise(connection, last, OK, record_sha256="ee" * 32, outcome=Outcome.MEASURED)
    with store.read() as connection:
        seen = view(connection, key)
    assert seen is not None
    assert [(one.job, one.number) for one in seen.attempts] == [
        ("whole", 1), ("shard:1", 2), ("shard:0", 3), ("combine", 4)
    ]  # fmt: skip
    assert told(store, key, "shard_done") == [
        {"shard": 1, "done": 1, "of": 2}, {"shard": 0, "done": 2, "of": 2}
    ]  # fmt: skip
    assert seen.state == "SIGNING"


def test_a_plan_is_made_once_whatever_is_sent_again(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    plan(store, held)
    with pytest.raises(StoreFenced):  # the worker did not hear that its commit arrived
        plan(store, held)
    assert len(states(store, key)) == 4
    assert len(told(store, key, "planned")) == 1


def test_shards_that_lie_there_already_are_not_inserted_beside(store: Store) -> None:
    """Whatever brought them there: the index refuses, and the transaction leaves nothing."""
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        row = {"id": "other", "audit": key, "kind": "shard", "shard": 1, "capability": "cpu", "state": "QUEUED"}
        connection.execute(insert(job).values(row))
    with pytest.raises(StoreConflict):
        plan(store, held)
    assert states(store, key) == {"": "LEASED", "other": "QUEUED"}
    assert told(store, key, "planned") == []


def test_a_finished_shard_is_not_finished_twice(store: Store) -> None:
    key = planned(store)
    held = leased(store, shard_id(key, 0))
    finish(store, held)
    with pytest.raises(StoreFenced):
        finish(store, held, found=part(9))
    with store.begin() as connection:
        assert jobs.lease(connection, shard_id(key, 0), "w2") is None  # never computed again
    with store.read() as connection:
        assert scanned(connection, key).parts == (part(0),)
    assert len(told(store, key, "shard_done")) == 1


def test_a_late_token_stores_no_part(store: Store) -> None:
    key = planned(store)
    zombie = leased(store, shard_id(key, 1))
    assert lost(store, zombie) is Then.WAIT
    with store.begin() as connection:
        assert endings.end_waiting(connection, zombie.job, zombie.token)
    fresh = leased(store, shard_id(key, 1), "w2")
    assert fresh.token > zombie.token
    with pytest.raises(StoreFenced):
        finish(store, zombie, found=part(9))
    with store.begin() as connection:
        assert jobs.beat(connection, zombie) is Beat.FENCED
        assert jobs.beat(connection, fresh) is Beat.GO
    finish(store, fresh)
    with store.read() as connection:
        assert scanned(connection, key).parts == (part(1),)


def test_tokens_of_one_audit_are_never_equal(store: Store) -> None:
    """Charges and results are kept by audit and token: two jobs with one token would collide."""
    key = planned(store)
    held = [leased(store, shard_id(key, n), f"w{n}") for n in range(3)]
    shown = Ending(exit_class=ExitClass.OK, output_bytes=16)
    for one in held:
        finish(store, one, ending=shown)
    assert len({one.token for one in held}) == 3
    with store.read() as connection:
        charged = connection.execute(select(output_charge.c.token, output_charge.c.bytes)).all()
    assert sorted(charged) == [(2, 16), (3, 16), (4, 16)]  # progress alone: no part is charged


@pytest.mark.parametrize("together", [finish, lambda store, held: end(store, held, ExitClass.MEMORY_LIMIT)])
def test_two_last_shards_that_end_at_once_queue_one_combine(
    tmp_path: Path, together: Callable[[Store, Lease], object]
) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        first, second = new_store(folder), None
        try:
            second = new_store(folder)
            key = planned(first, 2)
            held = [leased(first, shard_id(key, n), f"w{n}") for n in range(2)]
            line = threading.Barrier(2)

            def work(store: Store, one: Lease, line: threading.Barrier = line) -> None:
                line.wait(10)
                together(store, one)

            threads = [threading.Thread(target=work, args=pair) for pair in zip((first, second), held, strict=True)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert states(first, key)["-c"] == "QUEUED"
            with first.read() as connection:
                knocks = [one.job for one in owed(connection, ("publish",)) if one.job == combine_id(key)]
            assert knocks == [combine_id(key)]
        finally:
            first.close()
            if second is not None:
                second.close()


ANSWERED_AT_ONCE = (ExitClass.MEMORY_LIMIT, ExitClass.LIMIT_HIT, ExitClass.TIME_LIMIT, ExitClass.RESULT_REJECTED)


@pytest.mark.parametrize("exit_class", ANSWERED_AT_ONCE)
def test_a_shard_over_its_limits_is_dead_and_the_others_go_on(store: Store, exit_class: ExitClass) -> None:
    key = planned(store, 2)
    assert end(store, leased(store, shard_id(key, 1)), exit_class) is Then.BURY
    assert audit_state(store, key) == "RUNNING"
    assert told(store, key, "shard_dead") == [{"shard": 1, "dead": 1, "of": 2}]
    finish(store, leased(store, shard_id(key, 0)))
    assert states(store, key) == {"": "DONE", "-s0": "DONE", "-s1": "DEAD", "-c": "QUEUED"}
    with store.read() as connection:
        found = scanned(connection, key)
    assert (found.parts, found.dead) == ((part(0),), (1,))


def test_a_crashed_shard_is_tried_once_more_and_a_lost_one_three_times(store: Store) -> None:
    key = planned(store, 2)
    ends: dict[int, list[Then | None]] = {0: [], 1: []}
    for shard, exit_class in ((0, ExitClass.CELL_CRASHED), (1, ExitClass.WORKER_LOST)):
        while not ends[shard] or ends[shard][-1] is Then.WAIT:
            held = leased(store, shard_id(key, shard))
            ends[shard].append(
                lost(store, held) if exit_class is ExitClass.WORKER_LOST else end(store, held, exit_class)
            )
            with store.begin() as connection:
                endings.end_waiting(connection, held.job, held.token)
    assert ends == {0: [Then.WAIT, Then.BURY], 1: [Then.WAIT, Then.WAIT, Then.BURY]}
    assert (audit_state(store, key), states(store, key)["-c"]) == ("RUNNING", "QUEUED")  # all dead: it answers so


def test_draining_gives_a_shard_back(store: Store) -> None:
    key = planned(store, 2)
    held = leased(store, shard_id(key, 0))
    assert end(store, held, ExitClass.DRAINED) is Then.REQUEUE
    assert leased(store, shard_id(key, 0), "w2").tries == 2


def test_attempts_are_capped_per_job_and_not_per_audit(store: Store) -> None:
    key = planned(store, 4, attempts_max=2)
    for shard in range(4):
        assert end(store, leased(store, shard_id(key, shard)), ExitClass.DRAINED) is Then.REQUEUE
        finish(store, leased(store, shard_id(key, shard)))
    assert states(store, key)["-c"] == "QUEUED"


def test_cancel_with_two_leased_shards_waits_for_both_cells(store: Store) -> None:
    key = planned(store, 4)
    finish(store, leased(store, shard_id(key, 3)))
    first, second = (leased(store, shard_id(key, n), f"w{n}") for n in range(2))
    with store.begin() as connection:
        assert cancel(connection, key) == "CANCELLING"
    assert states(store, key) == {"": "DONE", "-s0": "LEASED", "-s1": "LEASED", "-s2": "DROPPED", "-s3": "DONE"}
    with store.begin() as connection:
        assert [jobs.beat(connection, one) for one in (first, second)] == [Beat.CANCEL, Beat.CANCEL]
        assert jobs.lease(connection, shard_id(key, 2), "w3") is None
    assert end(store, first, ExitClass.CANCELLED) is Then.CANCEL
    assert audit_state(store, key) == "CANCELLING"  # one cell may live
    with pytest.raises(StoreFenced):
        finish(store, second)
    assert end(store, second, ExitClass.CANCELLED) is Then.CANCEL
    with store.read() as connection:
        seen = view(connection, key)
        voids = owed(connection, ("void",))
    assert seen is not None
    assert (seen.state, seen.cancel_confirmation, len(voids)) == ("CANCELLED", "KILLED", 1)
    assert "-c" not in states(store, key)


@pytest.mark.parametrize("first", ["lost", "killed"])
def test_one_lost_cell_is_the_word_for_the_whole_cancel(store: Store, first: str) -> None:
    key = planned(store, 2)
    held = [leased(store, shard_id(key, n), f"w{n}") for n in range(2)]
    with store.begin() as connection:
        cancel(connection, key)
    for one, how in zip(held, (first, "killed" if first == "lost" else "lost"), strict=True):
        then = lost(store, one) if how == "lost" else end(store, one, ExitClass.CANCELLED)
        assert then is Then.CANCEL
    with store.read() as connection:
        seen = view(connection, key)
    assert seen is not None
    assert (seen.state, seen.cancel_confirmation) == ("CANCELLED", "LEASE_EXPIRED")


def test_cancel_between_shards_is_at_once(store: Store) -> None:
    key = planned(store, 2)
    finish(store, leased(store, shard_id(key, 0)))
    with store.begin() as connection:
        assert cancel(connection, key) == "CANCELLED"
    assert states(store, key) == {"": "DONE", "-s0": "DONE", "-s1": "DROPPED"}


def test_a_cancel_that_comes_before_the_plan_wins(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        cancel(connection, key)
    with pytest.raises(StoreFenced):
        plan(store, held)
    assert states(store, key) == {"": "LEASED"}
    assert end(store, held, ExitClass.CANCELLED) is Then.CANCEL


class Interleavings(RuleBasedStateMachine):
    """Workers that lease, finish, crash, drain and vanish, in any order; an oracle that knows what must be."""

    COUNT = 4

    @initialize()
    def start(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = new_store(Path(self.folder.name))
        self.key = planned(self.store, self.COUNT)
        self.held: list[Lease] = []
        self.over: dict[int, str] = {}
        self.late: list[Lease] = []

    @rule(shard=st.integers(0, COUNT - 1))
    def take(self, shard: int) -> None:
        with self.store.begin() as connection:
            got = jobs.lease(connection, shard_id(self.key, shard), "w")
        busy = any(one.shard == shard for one in self.held)
        assert (got is not None) == (shard not in self.over and not busy)
        if got is not None:
            self.held.append(got)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["finish", "drain", "limit", "lost", "crash"]))
    def leave(self, which: int, how: str) -> None:
        one = self.held.pop(which % len(self.held))
        then: Then | None = None
        if how == "finish":
            finish(self.store, one)
            self.over[one.shard] = "DONE"
        elif how == "lost":
            then = lost(self.store, one)
        else:
            classes = {"drain": ExitClass.DRAINED, "limit": ExitClass.TIME_LIMIT, "crash": ExitClass.CELL_CRASHED}
            then = end(self.store, one, classes[how])
        if then is Then.BURY:
            self.over[one.shard] = "DEAD"
        if then is Then.WAIT:
            with self.store.begin() as connection:
                assert endings.end_waiting(connection, one.job, one.token)
        self.late.append(one)

    @precondition(lambda self: self.late)
    @rule(which=st.integers(0, 9))
    def come_late(self, which: int) -> None:
        zombie = self.late[which % len(self.late)]
        with pytest.raises(StoreFenced):
            finish(self.store, zombie, found=part(99))

    @invariant()
    def nothing_is_lost_and_nothing_twice(self) -> None:
        if not hasattr(self, "store"):
            return
        found = states(self.store, self.key)
        for shard in range(self.COUNT):
            leased_now = any(one.shard == shard for one in self.held)
            assert found[f"-s{shard}"] == self.over.get(shard, "LEASED" if leased_now else "QUEUED")
        combines = [state for name, state in found.items() if name == "-c"]
        assert len(combines) == (len(self.over) == self.COUNT)
        with self.store.read() as connection:
            assert {one.job for one in leased_jobs(connection)} == {one.job for one in self.held}
            parts = scanned(connection, self.key).parts
        assert parts == tuple(part(n) for n in range(self.COUNT) if self.over.get(n) == "DONE")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=6, stateful_step_count=20, deadline=None)
