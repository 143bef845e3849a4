"""What is due of a schedule, from the last minute that was decided, the clock and the rows alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules.schedules import (
    Misfire,
    ScheduleKey,
    Timing,
    check_timing,
    jitter_ms,
    look,
    read_calendar,
    request_id,
)

KEY = ScheduleKey("acme", "nightly")
MINUTE = 60_000
START = int(datetime(2026, 3, 28, tzinfo=UTC).timestamp() * 1000)


def test_jitter_and_request_id_are_fixed_by_schedule_and_minute() -> None:
    """Pinned: another scheduler, or the next release, must come to the same, or a fire is submitted twice."""
    assert jitter_ms(KEY, START, 3600) == 2_216_000
    assert request_id(KEY, START) == "37b7ee52-70ac-4fb1-b6a5-f5796ac7e277"
    assert jitter_ms(KEY, START, 0) == 0


def test_request_ids_are_what_the_api_asks_of_callers() -> None:
    uuid4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    made = {
        request_id(key, START + step * MINUTE) for key in (KEY, ScheduleKey("bolt", "nightly")) for step in range(9)
    }
    assert len(made) == 18
    assert all(uuid4.fullmatch(one) for one in made)


def test_jitter_stays_within_its_bound_and_reaches_both_halves_of_it() -> None:
    found = [jitter_ms(KEY, START + step * MINUTE, 600) for step in range(500)]
    assert 0 <= min(found) < 60_000
    assert 540_000 < max(found) <= 600_000


@pytest.mark.parametrize("jitter_s", [-1, 3601])
def test_jitter_is_bounded(jitter_s: int) -> None:
    wrong = check_timing(Timing(cron="* * * * *", time_zone="UTC", jitter_s=jitter_s), START)
    assert [one.reason for one in wrong] == ["BAD_SCHEDULE"]


def test_a_clock_that_was_set_back_makes_nothing_due() -> None:
    timing = Timing(cron="* * * * *", time_zone="UTC")
    found = look(KEY, timing, considered_until=START, now=START - 3600_000)
    assert (found.fires, found.misfires, found.until) == ((), (), START)
    assert found.wake_at == START + MINUTE


TIMINGS = st.builds(
    Timing,
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 * * * *"]),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
    misfire=st.sampled_from(Misfire),
    jitter_s=st.sampled_from([0, 30, 600]),
)


@settings(max_examples=25, deadline=None)
@given(timing=TIMINGS, steps=st.lists(st.integers(-90, 400), min_size=1, max_size=12))
def test_however_the_clock_moves_each_minute_is_decided_at_most_once_and_none_is_left(
    timing: Timing, steps: list[int]
) -> None:
    """Steps are minutes between two looks: a scheduler that stands still, and a clock that is set back."""
    now, until = START, START
    rows: dict[int, str] = {}
    for step in [*steps, 400]:
        now = max(now + step * MINUTE, START)
        for _ in range(3):  # a look that stopped at a part is taken up
            decided = frozenset(due for due in rows if due > until)
            found = look(KEY, timing, considered_until=until, now=now, decided=decided)
            for kind, dues in (("fire", found.fires), ("skip", found.misfires)):
                for due in dues:
                    assert due not in rows, "decided twice"
                    rows[due] = kind
            assert found.until >= until
            until = found.until
        late = {due: now - due - jitter_ms(KEY, due, timing.jitter_s) for due in found.fires}
        assert len([due for due in late if late[due] > 300_000]) <= 1
    highest = max(rows, default=START)
    expected = [due for due in read_calendar(timing).between(START, until) if due <= highest]
    assert [due for due in sorted(rows) if due <= until] == [due for due in expected if due <= until]


@settings(max_examples=12, deadline=None)
@given(stood=st.integers(0, 1300), misfire=st.sampled_from(Misfire), jitter_s=st.sampled_from([0, 900]))
def test_of_a_standstill_one_late_fire_at_most_is_made_up_for(stood: int, misfire: Misfire, jitter_s: int) -> None:
    """1,300 minutes are three parts: the latest of all is made up for, not the latest of each part."""
    timing = Timing(cron="* * * * *", time_zone="UTC", misfire=misfire, jitter_s=jitter_s)
    now, until = START + stood * MINUTE, START
    late: list[int] = []
    decided: set[int] = set()
    for _ in range(4):
        found = look(KEY, timing, considered_until=until, now=now, decided=frozenset(decided))
        until = found.until
        decided |= {*found.fires, *found.misfires}
        late += [due for due in found.fires if now - due - jitter_ms(KEY, due, jitter_s) > 300_000]
    was_late = [
        due for due in range(START + MINUTE, now + 1, MINUTE) if now - due - jitter_ms(KEY, due, jitter_s) > 300_000
    ]
    assert late == (was_late[-1:] if misfire is Misfire.ONCE else [])
