"""Each due minute is decided once: across changes of the clocks, restarts, and two schedulers. No real clock."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from service.rules.schedules import Overlap, ScheduleKey
from service.scheduler.fires import Fires
from service.store import fires, quotas, schedules
from service.store.engine import StoreConflict
from service.store.schedules import Wanted
from tests.service.scheduler.calendars import KEY, Calendars, moment


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


def test_a_schedule_that_cannot_be_read_any_more_holds_no_other(house: Calendars) -> None:
    house.make("0 * * * *")
    house.make("0 * * * *", key=ScheduleKey("acme", "broken"))
    with house.store.begin() as connection:
        connection.execute(text("UPDATE schedule SET time_zone = 'Mars/Olympus' WHERE id = 'broken'"))
    house.run(house.scheduler(), "2026-03-28T01:00:01", step_s=600)
    assert house.told() == ["03-28 01:00 SUBMITTED"]


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


def test_a_fire_takes_the_tenants_lock_before_its_schedules_row(
    house: Calendars, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.make("* * * * *")
    loop = house.scheduler()
    order, find = list[str](), schedules.find

    def found(connection: Any, key: ScheduleKey, *, lock: bool = False) -> Any:
        order.append("schedule" if lock else "read")
        return find(connection, key, lock=lock)

    monkeypatch.setattr(quotas, "lock", lambda _connection, tenant: order.append(tenant))
    monkeypatch.setattr(schedules, "find", found)
    house.run(loop, "2026-03-28T00:01:01")
    assert order[:2] == [KEY.tenant, "schedule"]


def test_a_minute_whose_submission_met_another_writer_stays_open(
    house: Calendars, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conflict of two writers (PostgreSQL) says nothing about the minute: it is decided at the next look."""
    house.make("0 * * * *", overlap=Overlap.QUEUE)
    loop, real = house.scheduler(), fires.submit
    met: list[bool] = []

    def submit(*args: object) -> object:
        if not met:
            met.append(True)
            raise StoreConflict("a row of somebody else")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(fires, "submit", submit)
    house.run(loop, "2026-03-28T03:00:30", step_s=300)
    assert met
    assert house.told() == [f"03-28 0{hour}:00 SUBMITTED" for hour in (1, 2, 3)]
    assert house.audits() == 3


def test_a_clock_that_was_a_year_ahead_for_two_looks_decides_nothing(house: Calendars) -> None:
    house.make("* * * * *", overlap=Overlap.QUEUE)
    passed = [0.0]
    loop = Fires(house.store, house.intake(), clock=lambda: house.now, passed=lambda: passed[0])
    house.run(loop, "2026-03-28T00:01:01")
    before = house.now
    for _ in range(2):
        house.now += 365 * 24 * 3_600_000
        loop.step()
        house.now = before
        passed[0] += 1
        before += 1_000
    house.now = before
    house.run(loop, "2026-03-28T00:03:01")
    assert house.told() == [f"03-28 00:0{minute} SUBMITTED" for minute in (1, 2, 3)]


def test_a_clock_that_was_set_forward_for_good_is_believed_after_two_minutes(house: Calendars) -> None:
    house.make("0 * * * *", overlap=Overlap.QUEUE)
    passed = [0.0]
    loop = Fires(house.store, house.intake(), clock=lambda: house.now, passed=lambda: passed[0])
    loop.step()
    at(house, "2026-03-28T02:59:30")
    for _ in range(150):
        loop.step()
        passed[0] += 1
        house.now += 1_000
    assert house.told() == [
        "03-28 01:00 SKIPPED_MISFIRE",
        "03-28 02:00 SUBMITTED",
        "03-28 03:00 SUBMITTED",
    ]


@pytest.mark.parametrize("how", ["change", "resume"])
def test_a_schedule_muted_by_a_clock_that_was_ahead_fires_again_when_it_is_changed(house: Calendars, how: str) -> None:
    seen = house.make("* * * * *", overlap=Overlap.QUEUE)
    at(house, "2027-03-28T00:00")
    for _ in range(2):
        house.scheduler().step()
    at(house, "2026-03-28T00:10:10")
    loop = house.scheduler()
    loop.step()
    assert {line.split()[2] for line in house.told()} == {"SKIPPED_MISFIRE"}
    with house.store.begin() as connection:
        if how == "change":
            wanted = Wanted(principal="ada", template=seen.template, timing=seen.timing)
            schedules.change(connection, KEY, wanted, "", house.now)
        else:
            schedules.pause(connection, KEY)
            schedules.resume(connection, KEY, house.now)
    house.run(loop, "2026-03-28T00:13:10")
    assert [line for line in house.told() if "SUBMITTED" in line] == [
        f"03-28 00:{minute} SUBMITTED" for minute in (11, 12, 13)
    ]
