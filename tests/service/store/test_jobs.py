from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text

from service.rules.states import AuditState, CancelConfirmation, ExitClass, Outcome, Then
from service.store import consent, endings, gauges, jobs
from service.store import views as reads
from service.store.audits import SealedReport, cancel, register, seal, set_reason
from service.store.engine import Store, StoreFenced
from service.store.events import append_event, events_after
from service.store.jobs import Beat, Ending, Lease
from service.store.outbox import owed, settle
from service.store.tables import attempt, audit, job, result
from service.store.views import (
    leased_jobs,
    mark_published,
    oldest_queued,
    queued_by_capability,
    unpublished,
    view,
    views,
    waiting_jobs,
)
from tests.service.store.planting import audit_id, finished, leased, registered, registration, submit


def end(store: Store, held: Lease, exit_class: ExitClass, **options: object) -> Then:
    with store.begin() as connection:
        return endings.end(connection, held, Ending(exit_class=exit_class), **options)  # type: ignore[arg-type]


def requeue(store: Store, held: Lease) -> None:
    with store.begin() as connection:
        assert endings.end_waiting(connection, held.job, held.token)


def state(store: Store, key: str) -> tuple[str, str]:
    with store.read() as connection:
        audit_state = connection.execute(select(audit.c.state).where(audit.c.id == key)).scalar_one()
        return audit_state, connection.execute(select(job.c.state).where(job.c.id == key)).scalar_one()


def owed_kinds(store: Store) -> list[str]:
    with store.read() as connection:
        return [entry.kind for entry in owed(connection, ("register", "publish", "sign", "void"))]


def test_nothing_is_leased_before_it_is_registered(store: Store) -> None:
    with store.begin() as connection:
        key = submit(connection)
        assert jobs.lease(connection, key, "w") is None
        assert register(connection, key, registration(seed=41))
        assert not register(connection, key, registration(seed=42))  # the first registration stands
        held = jobs.lease(connection, key, "w")
    assert held is not None
    assert (held.seed, held.token, held.number) == (41, 1, 1)


def test_unknown_job_id_is_dropped(store: Store) -> None:
    with store.begin() as connection:
        assert jobs.lease(connection, "no such job", "w") is None


def test_duplicate_delivery_is_one_lease(store: Store) -> None:
    key = registered(store)
    taken = []
    for _ in range(10):
        with store.begin() as connection:
            taken.append(jobs.lease(connection, key, "w"))
    assert sum(held is not None for held in taken) == 1


def test_a_whole_life_is_told_gapless(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        assert jobs.reach_phase(connection, held, "sweep", 1, 4)
    finished(store, held)
    with store.begin() as connection:
        sealed = SealedReport(files=[{"path": "request.json", "sha256": "cd" * 32, "size": 1}], key_id="k")
        assert seal(connection, key, held.token, sealed)
        assert not seal(connection, key, held.token, sealed)  # a second scheduler
    with store.read() as connection:
        told = events_after(connection, key, 0)
        seen = view(connection, key)
    assert [event.sequence for event in told] == list(range(1, 10))
    assert [event.detail.get("state", event.kind) for event in told] == [
        "QUEUED",
        "registered",
        "RUNNING",
        "attempt_started",
        "phase_reached",
        "attempt_ended",
        "SIGNING",
        "phase_reached",
        "COMPLETED",
    ]
    assert [event.occurred_at for event in told] == sorted(event.occurred_at for event in told)
    assert seen is not None
    assert (seen.state, seen.outcome, seen.reports) == (AuditState.COMPLETED, "MEASURED", (1,))
    times = [seen.submitted_at, seen.registered_at, seen.started_at, seen.ended_at]
    assert times == sorted(times)  # type: ignore[type-var]
    assert owed_kinds(store) == ["publish", "sign"]


def test_zombie_worker_finalises_nothing(store: Store) -> None:
    key = registered(store)
    zombie = leased(store, key)
    with store.begin() as connection:
        assert endings.take_expired(connection, key, zombie.token, 0) is Then.WAIT
    requeue(store, zombie)
    fresh = leased(store, key, "w2")
    for late in (
        lambda: finished(store, zombie, record_sha256="ee" * 32),
        lambda: end(store, zombie, ExitClass.DRAINED),
    ):
        with pytest.raises(StoreFenced):
            late()
    with store.begin() as connection:
        assert jobs.beat(connection, zombie) is Beat.FENCED
        assert not jobs.reach_phase(connection, zombie, "sweep", 9, 9)
    finished(store, fresh)
    with pytest.raises(StoreFenced):
        finished(store, zombie)
    with store.read() as connection:
        assert connection.execute(select(result.c.token, result.c.sha256)).one() == (fresh.token, "ab" * 32)
        told = events_after(connection, key, 0)
        ends = connection.execute(select(attempt.c.n, attempt.c.exit_class).order_by(attempt.c.n)).all()
    assert ends == [(1, "WORKER_LOST"), (2, "OK")]
    assert not any(event.detail.get("done") == 9 for event in told)
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))


def test_a_worker_that_beats_is_not_taken(store: Store) -> None:
    held = leased(store, registered(store))
    with store.begin() as connection:
        assert jobs.beat(connection, held) is Beat.GO
        assert endings.take_expired(connection, held.job, held.token, 0) is None
        assert [pulse.beat for pulse in leased_jobs(connection)] == [1]
        assert endings.take_expired(connection, held.job, held.token + 1, 1) is None
        assert endings.take_expired(connection, "no such job", 1, 1) is None


def test_backoff_doubles_and_the_third_strike_fails(store: Store) -> None:
    key = registered(store)
    waits = []
    for _ in range(2):
        held = leased(store, key)
        assert end(store, held, ExitClass.HOST_FAULT, base_ms=100) is Then.WAIT
        with store.begin() as connection:
            waits += [waiting.backoff_ms for waiting in waiting_jobs(connection)]
            assert jobs.lease(connection, key, "w") is None  # nobody jumps the wait
        requeue(store, held)
    assert waits == [100, 200]
    assert end(store, leased(store, key), ExitClass.HOST_FAULT) is Then.FAIL
    with store.read() as connection:
        seen = view(connection, key)
    assert seen is not None
    assert (seen.state, seen.state_reason, seen.retryable) == (AuditState.FAILED, "HOST_FAULT", True)
    assert [tried.exit_class for tried in seen.attempts] == ["HOST_FAULT"] * 3
    assert owed_kinds(store)[-1] == "void"


def test_a_job_that_kills_workers_is_not_sent_for_ever(store: Store) -> None:
    key = registered(store)
    for _ in range(3):
        held = leased(store, key)
        with store.begin() as connection:
            then = endings.take_expired(connection, key, held.token, 0)
        if then is Then.WAIT:
            requeue(store, held)
    with store.read() as connection:
        seen = view(connection, key)
    assert seen is not None
    assert (seen.state, seen.state_reason, seen.retryable) == (AuditState.FAILED, "POISONED", False)


def test_one_lost_worker_poisons_nothing(store: Store) -> None:
    key = registered(store, attempts_max=1)
    held = leased(store, key)
    with store.begin() as connection:
        assert endings.take_expired(connection, key, held.token, 0) is Then.FAIL
    with store.read() as connection:
        seen = view(connection, key)
    assert seen is not None
    assert (seen.state, seen.state_reason, seen.retryable) == (AuditState.FAILED, "ATTEMPTS_EXHAUSTED", False)


def test_draining_costs_no_strike_but_attempts_are_capped(store: Store) -> None:
    key = registered(store, attempts_max=2)
    assert end(store, leased(store, key), ExitClass.DRAINED) is Then.REQUEUE
    held = leased(store, key)
    assert (held.strikes, held.tries) == (0, 2)
    assert end(store, held, ExitClass.ISOLATION_UNAVAILABLE) is Then.FAIL
    assert state(store, key) == ("FAILED", "DEAD")


def test_a_class_that_answers_cannot_end_without_a_result(store: Store) -> None:
    held = leased(store, registered(store))
    with pytest.raises(ValueError, match="call finalise"):
        end(store, held, ExitClass.TIME_LIMIT)
    with pytest.raises(ValueError, match="not being cancelled"):
        end(store, held, ExitClass.CANCELLED)
    assert state(store, held.job) == ("RUNNING", "LEASED")


def test_cancel_is_confirmed_only_when_the_cell_is_dead(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        assert cancel(connection, key) is AuditState.CANCELLING
        assert cancel(connection, key) is AuditState.CANCELLING
        assert jobs.beat(connection, held) is Beat.CANCEL
    with pytest.raises(StoreFenced):
        finished(store, held)
    with pytest.raises(StoreFenced):
        end(store, held, ExitClass.HOST_FAULT, confirmation=None)  # an unkillable cell confirms nothing
    assert state(store, key) == ("CANCELLING", "LEASED")
    assert end(store, held, ExitClass.CANCELLED) is Then.CANCEL
    with store.read() as connection:
        seen = view(connection, key)
    assert seen is not None
    assert (seen.state, seen.cancel_confirmation) == (AuditState.CANCELLED, CancelConfirmation.KILLED)
    assert state(store, key)[1] == "DROPPED"
    assert "sign" not in owed_kinds(store)


def test_cancel_of_a_lost_worker_is_confirmed_by_the_reaper(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        cancel(connection, key)
        assert endings.take_expired(connection, key, held.token, 0) is Then.CANCEL
        seen = view(connection, key)
    assert seen is not None
    assert (seen.state, seen.cancel_confirmation) == (AuditState.CANCELLED, CancelConfirmation.LEASE_EXPIRED)


@pytest.mark.parametrize("exit_class", [None, ExitClass.WORKER_LOST, ExitClass.DRAINED])
def test_cancel_without_a_cell_is_at_once(store: Store, exit_class: ExitClass | None) -> None:
    key = registered(store)
    if exit_class:
        end(store, leased(store, key), exit_class)
    with store.begin() as connection:
        assert cancel(connection, key) is AuditState.CANCELLED
        assert jobs.lease(connection, key, "w") is None
        seen = view(connection, key)
    assert seen is not None
    assert seen.cancel_confirmation == {None: "", "WORKER_LOST": "LEASE_EXPIRED", "DRAINED": "KILLED"}[exit_class]
    assert owed_kinds(store)[-1] == "void"


def test_cancelled_before_registration_is_voided_once_registered(store: Store) -> None:
    with store.begin() as connection:
        key = submit(connection)
        assert cancel(connection, key) is AuditState.CANCELLED
    assert owed_kinds(store) == ["register"]
    with store.begin() as connection:
        assert register(connection, key, registration())
        assert jobs.lease(connection, key, "w") is None
    assert owed_kinds(store) == ["register", "void"]


def test_cancel_after_the_result_is_too_late(store: Store) -> None:
    key = registered(store)
    finished(store, leased(store, key))
    with store.begin() as connection:
        assert cancel(connection, key) is None
        with pytest.raises(LookupError):
            cancel(connection, "f" * 32)
    assert state(store, key) == ("SIGNING", "DONE")


@pytest.mark.parametrize("rounds", [50, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_cancel_racing_finalise_has_one_winner(store: Store, rounds: int) -> None:
    chance, seen = random.Random(rounds), Counter[tuple[str, str]]()
    for n in range(rounds):
        held = leased(store, registered(store, n))
        gate = threading.Barrier(2)
        outcomes: list[str] = []
        delays = (chance.random() / 500, chance.random() / 500)

        def finish(
            held: Lease = held, gate: threading.Barrier = gate, out: list[str] = outcomes, wait: float = delays[0]
        ) -> None:
            gate.wait()
            threading.Event().wait(wait)
            try:
                finished(store, held)
                out.append("finalised")
            except StoreFenced:
                end(store, held, ExitClass.CANCELLED)

        def stop(
            held: Lease = held, gate: threading.Barrier = gate, out: list[str] = outcomes, wait: float = delays[1]
        ) -> None:
            gate.wait()
            threading.Event().wait(wait)
            with store.begin() as connection:
                if cancel(connection, held.audit) is not None:
                    out.append("cancelled")

        threads = [threading.Thread(target=finish), threading.Thread(target=stop)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1
        expected = {"finalised": ("SIGNING", "DONE"), "cancelled": ("CANCELLED", "DROPPED")}[outcomes[0]]
        assert state(store, held.audit) == expected
        seen[expected] += 1
    assert len(seen) == 2, f"the race was one-sided: {seen}"


def test_a_failed_finalise_leaves_nothing_behind(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    with store.begin() as connection:
        cancel(connection, key)
    with store.read() as connection:
        before = connection.execute(text("SELECT count(*) FROM event")).scalar_one()
    with pytest.raises(StoreFenced):
        finished(store, held)
    with store.read() as connection:
        assert connection.execute(select(result)).all() == []
        assert connection.execute(text("SELECT count(*) FROM event")).scalar_one() == before
        assert connection.execute(select(attempt.c.exit_class)).scalar_one() is None


def test_seal_needs_the_result_of_that_token(store: Store) -> None:
    key = registered(store)
    held = leased(store, key)
    sealed = SealedReport(files=[], key_id="k")
    with store.begin() as connection, pytest.raises(LookupError):
        seal(connection, key, held.token, sealed)
    finished(store, held)
    with store.begin() as connection, pytest.raises(LookupError):
        seal(connection, key, held.token + 1, sealed)


def test_a_waiting_reason_is_told_once_and_not_after_the_end(store: Store) -> None:
    with store.begin() as connection:
        key = submit(connection)
        assert set_reason(connection, key, "SIGNER_UNAVAILABLE")
        assert not set_reason(connection, key, "SIGNER_UNAVAILABLE")
        register(connection, key, registration())
        seen = view(connection, key)
        assert seen is not None
        assert seen.state_reason == ""
        cancel(connection, key)
        assert not set_reason(connection, key, "SIGNER_UNAVAILABLE")


def test_an_event_outside_the_table_is_refused(store: Store) -> None:
    with store.begin() as connection:
        key = submit(connection)
        with pytest.raises(ValueError, match="not in the table"):
            append_event(connection, key, "phase_reached", {"phase": "x", "text": "from inside"})
        with pytest.raises(ValueError, match="not in the table"):
            append_event(connection, key, "gossip", {})
        with pytest.raises(LookupError):
            append_event(connection, "f" * 32, "state_changed", {"state": "x", "reason": ""})
        assert [event.sequence for event in events_after(connection, key, 0)] == [1]


def test_events_are_gapless_under_many_writers(store: Store) -> None:
    key = registered(store)

    def write() -> None:
        for _ in range(25):
            with store.begin() as connection:
                append_event(connection, key, "phase_reached", {"phase": "sweep", "done": 0, "owed": 0, "job": "whole"})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        first = events_after(connection, key, 0)
        rest = events_after(connection, key, 100)
    assert [event.sequence for event in (*first, *rest)] == list(range(1, 103))


def test_loops_see_what_is_due(store: Store) -> None:
    with store.begin() as connection:
        submit(connection, 0)  # not registered: nobody may be told
    keys = [registered(store, n) for n in (1, 2)]
    registered(store, 3, capability="gpu-24g")
    with store.begin() as connection:
        assert queued_by_capability(connection) == {"cpu": 2, "gpu-24g": 1}
        assert set(oldest_queued(connection, "cpu", limit=5)) == set(keys)
        assert set(unpublished(connection, "cpu", older_ms=10_000, limit=5)) == set(keys)
        mark_published(connection, keys[0])
        assert unpublished(connection, "cpu", older_ms=10_000, limit=5) == (keys[1],)
        connection.execute(text("UPDATE job SET published_at = published_at + 3600000 WHERE id = :k"), {"k": keys[0]})
        assert len(unpublished(connection, "cpu", older_ms=10_000, limit=5)) == 2  # the clock was set back


def test_an_effect_is_settled_once(store: Store) -> None:
    with store.begin() as connection:
        submit(connection)
        (entry,) = owed(connection, ("register",))
        assert settle(connection, entry.id)
        assert not settle(connection, entry.id)


def test_a_late_settlement_deletes_no_other_debt(store: Store) -> None:
    """Two schedulers perform one debt; the slower one settles after the id could have been given away again."""
    with store.begin() as connection:
        submit(connection, 0)
        (entry,) = owed(connection, ("register",))
        assert settle(connection, entry.id)
        submit(connection, 1)
        assert not settle(connection, entry.id)
        assert [debt.audit for debt in owed(connection, ("register",))] == [audit_id(1)]


def test_views_keep_the_order_asked_for(store: Store) -> None:
    keys = [registered(store, n) for n in range(3)]
    with store.read() as connection:
        found = views(connection, [keys[2], audit_id(99), keys[0]])
    assert [seen.id for seen in found] == [keys[2], keys[0]]


def test_outcome_is_kept(store: Store) -> None:
    held = leased(store, registered(store))
    with store.begin() as connection:
        ending = Ending(exit_class=ExitClass.TIME_LIMIT, cells=({"stage": "check"},), note="signal 9")
        jobs.finalise(connection, held, ending, record_sha256="cd" * 32, outcome=Outcome.FAILED)
        row = connection.execute(select(attempt)).one()
        seen = view(connection, held.audit)
    assert (row.exit_class, row.cells_json, row.operator_note) == ("TIME_LIMIT", '[{"stage":"check"}]', "signal 9")
    assert row.result_sha256 == "cd" * 32
    assert seen is not None
    assert seen.outcome == "FAILED"


@pytest.mark.parametrize(
    "look",
    [
        reads.leased_jobs,
        reads.waiting_jobs,
        reads.queued_by_capability,
        lambda connection: reads.oldest_queued(connection, "cpu"),
        lambda connection: reads.unpublished(connection, "cpu", older_ms=1, limit=1),
    ],
)
def test_loops_read_what_lives_and_not_all_that_ever_was(sqlite: Store, look: Callable[[Connection], object]) -> None:
    said: list[tuple[str, Any]] = []
    with sqlite.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda _c, _k, what, values, *_: said.append((what, values)))
        look(connection)
        statement, values = said[-1]
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
    assert "ix_job_live" in plan


@pytest.mark.parametrize(
    "look",
    [
        gauges.read_gauges,
        lambda connection: consent.overdue(connection, wait_ms=1),
        lambda connection: consent.revoked_but_live(connection),
    ],
)
def test_no_look_at_the_service_reads_every_audit_or_job(sqlite: Store, look: Callable[[Connection], object]) -> None:
    """Operators look every few seconds, for years: a table of all that ended must not be read each time."""
    said: list[tuple[str, Any]] = []
    with sqlite.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda _c, _k, what, values, *_: said.append((what, values)))
        look(connection)
        asked = list(said)
        steps = [
            str(row[-1])
            for statement, values in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    assert steps
    assert not [step for step in steps if re.fullmatch(r"SCAN (audit|job|blob|result|report|event)", step)]
