"""Each due minute is decided once: across changes of the clocks, restarts, and two schedulers. No real clock."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from service.blobs import MemoryBlobs, NoSpace
from service.rules import schedules as rules
from service.rules.schedules import Misfire, Overlap, ScheduleKey
from service.scheduler.fires import Fires
from service.store import fires, journal, schedules
from service.store.principals import disable_principal, put_principal
from service.store.schedules import Wanted
from service.store.tables import audit
from tests.service.scheduler.calendars import KEY, Calendars, calendars, moment
from tests.service.store.planting import new_store


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    new_store(folder).close()
    return folder / "assay.db"


@pytest.fixture
def house(tmp_path: Path, empty: Path) -> Iterator[Calendars]:
    shutil.copy(empty, tmp_path / "assay.db")
    with calendars(tmp_path, "2026-03-28T00:00") as made:
        yield made


def at(house: Calendars, text: str) -> None:
    house.now = moment(text)


def test_a_gap_of_the_clocks_loses_no_fire_and_doubles_none_though_the_scheduler_is_restarted(house: Calendars) -> None:
    """Half past two does not exist on 29 March in Berlin. A new loop for every hour knows nothing of the one before."""
    at(house, "2026-03-28T01:10:10")
    house.make("30 2 * * *", "Europe/Berlin", overlap=Overlap.QUEUE)
    for hour in range(2, 50):
        house.run(house.scheduler(), f"2026-03-{28 + hour // 24}T{hour % 24:02}:10:10", step_s=1200)
    assert house.told() == [f"03-{day} {time} SUBMITTED" for day, time in ((28, "01:30"), (29, "01:00"), (30, "00:30"))]
    assert house.audits() == 3


def test_a_repeated_hour_fires_once_though_the_scheduler_is_restarted_in_it(house: Calendars) -> None:
    at(house, "2026-10-24T20:00")
    house.make("30 2 * * *", "Europe/Berlin", overlap=Overlap.QUEUE)
    house.run(house.scheduler(), "2026-10-25T00:30:10", step_s=600)
    house.run(house.scheduler(), "2026-10-25T01:29:50", step_s=120)  # local 02:29:50 for the second time
    house.run(house.scheduler(), "2026-10-26T03:00", step_s=1200)
    assert house.told() == ["10-25 00:30 SUBMITTED", "10-26 01:30 SUBMITTED"]
    assert house.audits() == 2


def test_new_york_springs_and_falls_without_a_double_or_missed_fire(house: Calendars) -> None:
    at(house, "2026-03-08T05:00:10")
    house.make("15 2 * * *", "America/New_York", overlap=Overlap.QUEUE)
    house.run(house.scheduler(), "2026-03-09T08:00", step_s=900)
    assert house.told() == ["03-08 07:00 SUBMITTED", "03-09 06:15 SUBMITTED"]
    autumn = ScheduleKey("acme", "autumn")
    at(house, "2026-11-01T04:00:10")
    with house.store.begin() as connection:
        schedules.pause(connection, KEY)
    house.make("0,30 1 * * *", "America/New_York", key=autumn, overlap=Overlap.QUEUE)
    house.run(house.scheduler(), "2026-11-01T09:00", step_s=900)
    assert house.told(autumn) == ["11-01 05:00 SUBMITTED", "11-01 05:30 SUBMITTED"]


def test_every_hour_is_twentyfive_on_the_long_day(house: Calendars) -> None:
    at(house, "2026-10-24T21:45:10")
    house.make("0 * * * *", "Europe/Berlin", overlap=Overlap.QUEUE)
    house.run(house.scheduler(), "2026-10-25T22:50", step_s=900)
    assert house.audits() == 25


def test_a_scheduler_that_is_restarted_within_the_minute_fires_it_once(house: Calendars) -> None:
    house.make("* * * * *", overlap=Overlap.QUEUE)
    for second in range(55, 65):
        at(house, f"2026-03-28T00:{second // 60:02}:{second % 60:02}")
        house.scheduler().step()
        house.scheduler().step()
    assert house.told() == ["03-28 00:01 SUBMITTED"]
    assert house.audits() == 1


def test_a_scheduler_killed_between_audit_and_note_left_neither(
    house: Calendars, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit and its fire are one transaction: whatever dies in it, the next scheduler finds an open minute."""
    house.make("* * * * *")
    at(house, "2026-03-28T00:01:05")
    real = fires._insert

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fires, "_insert", killed)
    with pytest.raises(KeyboardInterrupt):
        house.scheduler().step()
    assert house.audits() == 0
    monkeypatch.setattr(fires, "_insert", real)
    house.scheduler().step()
    assert house.told() == ["03-28 00:01 SUBMITTED"]
    assert house.audits() == 1


def test_a_scheduler_killed_before_it_noted_how_far_it_came_doubles_nothing(
    house: Calendars, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.make("* * * * *", overlap=Overlap.QUEUE)
    at(house, "2026-03-28T00:03:05")
    with monkeypatch.context() as patched:
        patched.setattr(schedules, "advance", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            house.scheduler().step()
    assert house.audits() == 3
    house.scheduler().step()
    assert house.audits() == 3


def test_a_clock_that_steps_back_at_a_fire_fires_nothing_twice(house: Calendars) -> None:
    house.make("*/5 * * * *", overlap=Overlap.QUEUE)
    loop = house.scheduler()
    house.run(loop, "2026-03-28T00:10:01")
    at(house, "2026-03-27T23:10:00")  # an hour back
    house.run(loop, "2026-03-28T00:09")
    house.run(house.scheduler(), "2026-03-28T00:15:01")
    assert house.told() == [f"03-28 00:{minute:02} SUBMITTED" for minute in (5, 10, 15)]
    assert house.audits() == 3


def test_two_schedulers_on_one_database_fire_each_minute_once(house: Calendars) -> None:
    """Both look at the same instant, again and again; what each submits is counted, not assumed."""
    house.make("* * * * *", overlap=Overlap.QUEUE)
    loops = [house.scheduler(house.another_process()) for _ in range(2)]
    together = threading.Barrier(2)
    failures: list[BaseException] = []

    def work(loop: Fires) -> None:
        try:
            for _ in range(8):
                together.wait(30)
                loop.step()
                if together.wait(30) == 0:
                    house.now += 60_000
        except BaseException as failure:
            failures.append(failure)
            together.abort()

    house.now += 60_000
    threads = [threading.Thread(target=work, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert house.told() == [f"03-28 00:0{minute} SUBMITTED" for minute in range(1, 9)]
    assert house.audits() == 8


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


def test_a_schedule_changed_at_the_fire_is_not_fired_by_what_it_was(house: Calendars) -> None:
    """The loop has read the schedule when a caller changes it: the row's revision decides, not the loop."""
    seen = house.make("0 * * * *")
    at(house, "2026-03-28T01:00:01")
    with house.store.begin() as connection:
        schedules.change(
            connection, KEY, Wanted(principal="ada", template=seen.template, timing=seen.timing), "", house.now
        )
    loop = house.scheduler()
    assert loop._fire(seen, moment("2026-03-28T01:00"), house.now) is None
    assert house.audits() == 0


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


def test_a_full_disk_leaves_the_minute_open(house: Calendars) -> None:
    class Full(MemoryBlobs):
        def put(self, source: object, digest: str) -> None:
            raise NoSpace("full")

    house.make("0 * * * *")
    working, house.blobs = house.blobs, Full()
    loop = house.scheduler()
    at(house, "2026-03-28T01:00:01")
    house.blobs.open = working.open  # type: ignore[method-assign]
    loop.step()
    assert house.told() == []
    house.blobs = working
    house.scheduler().step()
    assert house.told() == ["03-28 01:00 SUBMITTED"]


def test_a_schedule_that_cannot_be_read_any_more_holds_no_other(house: Calendars) -> None:
    house.make("0 * * * *")
    house.make("0 * * * *", key=ScheduleKey("acme", "broken"))
    with house.store.begin() as connection:
        connection.execute(text("UPDATE schedule SET time_zone = 'Mars/Olympus' WHERE id = 'broken'"))
    house.run(house.scheduler(), "2026-03-28T01:00:01", step_s=600)
    assert house.told() == ["03-28 01:00 SUBMITTED"]


def test_a_fire_is_in_the_journal_once_with_its_audit(house: Calendars) -> None:
    house.make("0 * * * *")
    house.run(house.scheduler(), "2026-03-28T02:00:01", step_s=600)
    fired = [one for one in journal.entries(house.store) if one.kind == "fired"]
    assert [one.detail["outcome"] for one in fired] == ["SUBMITTED", "SKIPPED_OVERLAP"]
    assert [bool(one.audit) for one in fired] == [True, False]
    assert fired[0].detail["schedule"] == "acme/nightly"


def test_a_quiet_schedule_is_not_written_every_minute(house: Calendars) -> None:
    house.make("0 0 1 1 *")
    loop, changes = house.scheduler(), set()
    for _ in range(130):
        house.now += 60_000
        loop._wake.clear()  # looks every time, as a restarted scheduler would
        loop.step()
        with house.store.read() as connection:
            found = schedules.find(connection, KEY)
        assert found is not None
        changes.add(found.considered_until)
    assert len(changes) == 3


def test_a_deleted_schedule_keeps_its_fires_and_its_name_may_be_used_again(house: Calendars) -> None:
    house.make("*/5 * * * *", overlap=Overlap.QUEUE)
    loop = house.scheduler()
    house.run(loop, "2026-03-28T00:05:01")
    with house.store.begin() as connection:
        schedules.remove(connection, KEY, "", house.now)
    house.run(loop, "2026-03-28T00:12")
    house.now = moment("2026-03-28T00:04:30")  # and the clock is wrong when it is made anew
    house.make("*/5 * * * *", overlap=Overlap.QUEUE)
    house.run(loop, "2026-03-28T00:11")
    assert house.told() == ["03-28 00:05 SUBMITTED", "03-28 00:10 SUBMITTED"]
    assert house.audits() == 2


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
