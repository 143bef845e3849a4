"""What becomes of a due minute: late, crowded, refused, delayed, or left open. No real clock."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import select, text

from service.blobs import BlobsAway, MemoryBlobs
from service.rules import schedules as rules
from service.rules.schedules import Misfire, Overlap, ScheduleKey
from service.scheduler.effects import SignerEffects
from service.store import fires, journal, schedules
from service.store.keeping import quarantine
from service.store.outbox import owed
from service.store.principals import disable_principal, put_principal
from service.store.submissions import Ticket
from service.store.tables import audit
from service.store.views import view
from tests.service.scheduler.calendars import KEY, Calendars, moment
from tests.service.scheduler.test_scheduler import FakeSigner
from tests.service.store.planting import finished, leased


def at(house: Calendars, text: str) -> None:
    house.now = moment(text)


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [
        (Misfire.SKIP, ["SKIPPED_MISFIRE"] * 3),
        (Misfire.ONCE, ["SKIPPED_MISFIRE", "SKIPPED_MISFIRE", "SUBMITTED"]),
    ],
)
def test_a_standstill_makes_up_for_at_most_the_latest(house: Calendars, misfire: Misfire, expected: list[str]) -> None:
    house.make("0 * * * *", misfire=misfire)
    at(house, "2026-03-28T03:05:01")
    house.scheduler().step()
    house.scheduler().step()
    assert [line.split()[2] for line in house.told()] == expected


def test_five_minutes_late_is_in_time(house: Calendars) -> None:
    house.make("0 * * * *", misfire=Misfire.SKIP)
    at(house, "2026-03-28T01:05:00")
    house.scheduler().step()
    assert house.told() == ["03-28 01:00 SUBMITTED"]


def test_a_long_standstill_is_written_down_whole_in_parts(house: Calendars, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours stood still: each minute is a row, one late one alone was submitted, no step decided more than 50."""
    monkeypatch.setattr(rules, "BATCH", 50)
    house.make("* * * * *", overlap=Overlap.QUEUE)
    at(house, "2026-03-28T02:00:00")
    loop, sizes = house.scheduler(), []
    for _ in range(4):
        loop.step()
        sizes.append(len(house.told()))
    assert sizes == [50, 100, 120, 120]
    assert [line.split()[2] for line in house.told()] == ["SKIPPED_MISFIRE"] * 113 + ["SUBMITTED"] * 7
    assert house.audits() == 7  # the latest misfire, and the six minutes that are not late yet


def test_what_has_not_ended_is_not_run_beside(house: Calendars) -> None:
    house.make("0 * * * *", overlap=Overlap.SKIP)
    loop = house.scheduler()
    house.run(loop, "2026-03-28T02:00:01", step_s=300)
    house.end_audits()
    house.run(loop, "2026-03-28T03:00:01", step_s=300)
    assert house.told() == ["03-28 01:00 SUBMITTED", "03-28 02:00 SKIPPED_OVERLAP", "03-28 03:00 SUBMITTED"]


def test_a_replaced_audit_is_cancelled_with_the_fire_that_replaces_it(house: Calendars) -> None:
    house.make("0 * * * *", overlap=Overlap.REPLACE)
    house.run(house.scheduler(), "2026-03-28T02:00:01", step_s=300)
    with house.store.read() as connection:
        states = {row.id: row.state for row in connection.execute(select(audit.c.id, audit.c.state))}
        newest, oldest = (one.audit for one in fires.page(connection, KEY, None, 2))
    assert (states[oldest], states[newest]) == ("CANCELLED", "QUEUED")


def states(house: Calendars) -> dict[str, str]:
    with house.store.read() as connection:
        return {row.id: row.state for row in connection.execute(select(audit.c.id, audit.c.state))}


def test_replacing_cancels_no_audit_of_an_earlier_schedule_of_the_same_id(house: Calendars) -> None:
    """Ada's schedule is deleted, its audit runs on; a new one of that name is somebody else's."""
    house.make("0 * * * *", overlap=Overlap.REPLACE)
    house.run(house.scheduler(), "2026-03-28T01:00:01", step_s=300)
    (hers,) = states(house)
    with house.store.begin() as connection:
        schedules.remove(connection, KEY, "", house.now)
    house.now += 1_000
    house.make("0 * * * *", overlap=Overlap.REPLACE)
    house.run(house.scheduler(), "2026-03-28T02:00:01", step_s=300)
    assert len(states(house)) == 2
    assert states(house)[hers] == "QUEUED"


def test_replacing_cancels_no_audit_that_a_caller_ran_beside_the_calendar(house: Calendars) -> None:
    seen = house.make("0 * * * *", overlap=Overlap.REPLACE)
    house.run(house.scheduler(), "2026-03-28T01:00:01", step_s=300)
    (fired,) = states(house)
    new = house.scheduler()._prepare(seen)
    ticket = Ticket(principal="ada", request_id="11111111-1111-4111-8111-111111111111", content_sha256="ab" * 32)
    with house.store.begin() as connection:
        beside = fires.accept_of(connection, KEY, ticket, new)
    house.run(house.scheduler(), "2026-03-28T02:00:01", step_s=300)
    assert (states(house)[fired], states(house)[beside]) == ("CANCELLED", "QUEUED")


def test_a_template_that_cannot_be_read_is_refused_and_stops_no_other_schedule(house: Calendars) -> None:
    house.make("0 * * * *", key=ScheduleKey("acme", "broken"))
    house.make("0 * * * *")
    with house.store.begin() as connection:
        connection.execute(text("UPDATE schedule SET template = x'ff' WHERE id = 'broken'"))
    house.run(house.scheduler(), "2026-03-28T02:00:01", step_s=600)
    assert house.told(ScheduleKey("acme", "broken")) == [f"03-28 0{hour}:00 REFUSED INTERNAL" for hour in (1, 2)]
    assert house.told()[0] == "03-28 01:00 SUBMITTED"


def test_a_schedule_whose_look_fails_unforeseen_stops_no_other_and_no_loop(
    house: Calendars, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.make("0 * * * *", key=ScheduleKey("acme", "broken"))
    house.make("0 * * * *")
    real = fires.decided

    def decided(connection: Any, key: ScheduleKey, *more: int) -> Any:
        return real(connection, key, *more) if key == KEY else 1 / 0

    monkeypatch.setattr(fires, "decided", decided)
    house.run(house.scheduler(), "2026-03-28T01:00:01", step_s=600)
    assert house.told() == ["03-28 01:00 SUBMITTED"]


def test_a_lost_role_and_a_disabled_principal_are_refused_with_the_reason(house: Calendars) -> None:
    house.make("0 * * * *")
    loop = house.scheduler()
    put_principal(house.url, "ada", tenant="acme", role="operator")
    house.run(loop, "2026-03-28T01:00:01", step_s=600)
    put_principal(house.url, "ada", tenant="other", role="auditor")
    house.run(loop, "2026-03-28T02:00:01", step_s=600)
    put_principal(house.url, "ada", tenant="acme", role="auditor")
    disable_principal(house.url, "ada")
    house.run(loop, "2026-03-28T03:00:01", step_s=600)
    assert house.told() == [f"03-28 0{hour}:00 REFUSED NOT_PERMITTED" for hour in (1, 2, 3)]
    put_principal(house.url, "ada", tenant="acme", role="auditor")
    house.run(loop, "2026-03-28T04:00:01", step_s=600)
    assert house.told()[-1] == "03-28 04:00 SUBMITTED"


def test_what_submit_would_refuse_is_refused_with_its_reason(house: Calendars) -> None:
    """A check that this release no longer has, as after an update of the server."""
    gone = house.template(checks=[{"check": "checks/gone"}])
    house.make("0 * * * *", template=gone)
    house.run(house.scheduler(), "2026-03-28T01:00:01", step_s=600)
    assert house.told() == ["03-28 01:00 REFUSED UNKNOWN_CHECK"]
    assert house.audits() == 0


def test_a_model_that_lost_a_file_is_refused_and_not_tried_every_night(house: Calendars) -> None:
    house.make("0 * * * *", overlap=Overlap.QUEUE)
    loop = house.scheduler()
    house.run(loop, "2026-03-28T01:00:01", step_s=600)
    with house.store.begin() as connection:
        quarantine(connection, hashlib.sha256(b"weights").hexdigest())
    house.run(loop, "2026-03-28T02:00:01", step_s=600)
    assert house.told() == ["03-28 01:00 SUBMITTED", "03-28 02:00 REFUSED MISSING_BLOBS"]
    assert house.audits() == 1


def test_an_ended_approval_is_refused(house: Calendars) -> None:
    """Of a foreign model without an approval a fire does not wait: it is refused, as SubmitAudit is."""
    foreign = house.template(model=f"models/{'cd' * 32}")
    house.make("0 * * * *", template=foreign)
    house.run(house.scheduler(), "2026-03-28T01:00:01", step_s=600)
    assert house.told() == ["03-28 01:00 REFUSED UNKNOWN_MODEL"]


def test_a_paused_schedule_makes_up_for_nothing(house: Calendars) -> None:
    house.make("0 * * * *")
    with house.store.begin() as connection:
        schedules.pause(connection, KEY)
        schedules.pause(connection, KEY)
    loop = house.scheduler()
    house.run(loop, "2026-03-28T03:30", step_s=600)
    with house.store.begin() as connection:
        schedules.resume(connection, KEY, house.now)
        schedules.resume(connection, KEY, house.now)
    house.run(loop, "2026-03-28T04:30", step_s=600)
    assert house.told() == ["03-28 04:00 SUBMITTED"]


def test_jitter_delays_a_fire_always_by_the_same_and_survives_a_restart(house: Calendars) -> None:
    house.make("0 * * * *", jitter_s=3600, overlap=Overlap.QUEUE)
    house.run(house.scheduler(), "2026-03-28T06:00", step_s=600)
    house.run(house.scheduler(), "2026-03-28T12:00", step_s=600)
    with house.store.read() as connection:
        found = fires.page(connection, KEY, None, 100)
    late = [one.fired_at - one.due_at - rules.jitter_ms(KEY, one.due_at, 3600) for one in found]
    assert len({one.due_at for one in found}) == len(found) >= 10
    assert all(0 <= one < 600_000 for one in late), "by the next look after the minute and its own delay"
    assert len({rules.jitter_ms(KEY, one.due_at, 3600) for one in found}) == len(found)


def test_blobs_that_are_away_leave_the_minute_open(house: Calendars) -> None:
    class Away(MemoryBlobs):
        def open(self, digest: str) -> Any:
            raise BlobsAway("nobody answers")

        def size(self, digest: str) -> int | None:
            raise BlobsAway("nobody answers")

    house.make("0 * * * *")
    working, house.blobs = house.blobs, Away()
    loop = house.scheduler()
    at(house, "2026-03-28T01:00:01")
    loop.step()
    assert house.told() == []
    house.blobs = working
    house.scheduler().step()
    assert house.told() == ["03-28 01:00 SUBMITTED"]


def test_a_fire_is_in_the_journal_once_with_its_audit(house: Calendars) -> None:
    house.make("0 * * * *")
    house.run(house.scheduler(), "2026-03-28T02:00:01", step_s=600)
    fired = [one for one in journal.entries(house.store) if one.kind == "fired"]
    assert [one.detail["outcome"] for one in fired] == ["SUBMITTED", "SKIPPED_OVERLAP"]
    assert [bool(one.audit) for one in fired] == [True, False]
    assert fired[0].detail["schedule"] == "acme/nightly"


def test_overlap_reads_the_index_of_unfinished_audits(house: Calendars) -> None:
    """With a million finished audits a fire must not read them all."""
    with house.store.read() as connection:
        plan = connection.execute(
            text(
                "EXPLAIN QUERY PLAN SELECT id FROM audit WHERE tenant = 'acme' "
                "AND state NOT IN ('COMPLETED','CANCELLED','FAILED') AND schedule = 'nightly'"
            )
        ).all()
    assert "ix_audit_unfinished" in str(plan)


def test_a_fire_is_registered_run_and_signed_like_any_audit_and_then_the_next_one_fires(house: Calendars) -> None:
    """The rooms of a whole service in memory: what a calendar submits goes the way of what a caller submits."""
    house.make("0 * * * *")
    loop = house.scheduler()
    signing = SignerEffects(house.store, house.blobs, FakeSigner(house.folder))
    effects = {"register": signing.register, "sign": signing.sign}

    def relay() -> None:
        with house.store.read() as connection:
            debts = owed(connection, ("register", "sign"))
        for debt in debts:
            effects[debt.kind](debt)

    for hour in (1, 2):
        house.run(loop, f"2026-03-28T0{hour}:00:01", step_s=1200)
        with house.store.read() as connection:
            (newest,) = fires.page(connection, KEY, None, 1)
        assert newest.audit is not None
        relay()
        finished(house.store, leased(house.store, newest.audit))
        relay()
        with house.store.read() as connection:
            seen = view(connection, newest.audit)
        assert seen is not None
        assert (seen.state, seen.schedule, seen.reports) == ("COMPLETED", "nightly", (1,))
    assert house.told() == ["03-28 01:00 SUBMITTED", "03-28 02:00 SUBMITTED"]
