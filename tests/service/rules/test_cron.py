"""Calendars: what is refused, the vectors of the specification, and an independent count of every minute of a year."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules import cron
from service.rules.cron import CronMalformed, TimeZoneUnknown, fires, next_fires, parse, time_zone

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",  # changes at local midnight
    "Asia/Kolkata",
    "Asia/Kathmandu",  # 45 minutes off the hour
    "Asia/Beirut",
    "Australia/Lord_Howe",  # changes by half an hour
    "Africa/Casablanca",  # changes twice round Ramadan
    "Pacific/Chatham",
)
EXPRESSIONS = (
    "* * * * *",
    "*/15 * * * *",
    "7 */2 * * *",
    "30 2 * * *",
    "0,30 0-3 * * *",
    "59 23 * * *",
    "0 0 * * *",
    "5 1-3/2 * * 0",
    "15 2 29 3 *",
    "0 9 13 * 5",
    "0 4 */3 * 1",
    "45 0,12,23 1,15 * 1-5",
)


def minute(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) // 60


def told(expression: str, zone: str, first: str, last: str) -> list[str]:
    """Fires from `first` to `last`, both included, as UTC texts."""
    found = fires(parse(expression), time_zone(zone), minute(first) - 1, minute(last))
    return [datetime.fromtimestamp(one * 60, UTC).strftime("%m-%d %H:%M") for one in found]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("@yearly", "no name"),
        ("@Daily", "no name"),
        ("60 * * * *", "minute field: '60'"),
        ("* 24 * * *", "hour field"),
        ("* * 0 * *", "day of month field"),
        ("* * * 13 *", "month field"),
        ("* * * * 8", "weekday field"),
        ("5-1 * * * *", "rising range"),
        ("*/0 * * * *", "step of 0"),
        ("5/10 * * * *", "write 5-59/10"),
        ("1,,2 * * * *", "minute field: ''"),
        ("* * * JAN *", "month field: 'JAN'"),
        ("*\t* * * *", "2 fields|4 fields"),
        ("\u0661 * * * *", "minute field"),
        ("-1 * * * *", "minute field"),
        ("1;rm * * * *", "minute field"),
        ("* " * 200, "characters"),
    ],
)
def test_no_calendar_is_guessed(text: str, says: str) -> None:
    with pytest.raises(CronMalformed, match=says):
        parse(text)


@pytest.mark.parametrize(
    "name",
    [
        *("", "Berlin", "europe/berlin", "Europe/Berlin ", "../etc/passwd", "/etc/localtime", "Europe/Berlin\0"),
        *("localtime", "posixrules", "right/Europe/Berlin", "posix/UTC", "Factory", "+02:00", "A" * 65),
    ],
)
def test_no_time_zone_is_guessed(name: str) -> None:
    with pytest.raises(TimeZoneUnknown):
        time_zone(name)


def test_fields_are_read_as_they_are_written() -> None:
    read = parse("0-59/20,5  */6 1-3 12 0,7,5-7")
    assert (read.minutes, read.hours, read.days, read.months) == ((0, 5, 20, 40), (0, 6, 12, 18), (1, 2, 3), (12,))
    assert read.weekdays == (0, 5, 6)
    assert (read.any_hour, read.either_day) == (True, True)
    for name, long in cron.NAMED.items():
        assert parse(name) == parse(long)


@pytest.mark.parametrize(
    ("expression", "zone", "first", "last", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-29", "2026-03-29T23:59", ["03-29 01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25", "2026-10-25T23:59", ["10-25 00:30"]),
        ("15 2 * * *", "America/New_York", "2026-03-08", "2026-03-08T23:59", ["03-08 07:00"]),
        ("0,30 1 * * *", "America/New_York", "2026-11-01", "2026-11-01T23:59", ["11-01 05:00", "11-01 05:30"]),
        ("30 1 * * *", "Europe/London", "2026-03-29", "2026-03-29T23:59", ["03-29 01:00"]),
        ("30 1 * * *", "Europe/London", "2026-10-25", "2026-10-25T23:59", ["10-25 00:30"]),
        ("30 12 * * *", "Asia/Kolkata", "2026-03-29", "2026-03-30T12:00", ["03-29 07:00", "03-30 07:00"]),
        ("0 9 13 * 5", "UTC", "2026-02-01", "2026-02-28T23:59", [f"02-{day} 09:00" for day in ("06", 13, 20, 27)]),
        # Two swallowed minutes and a minute that falls on the end of the gap are one fire.
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29", "2026-03-29T12:00", ["03-29 01:00", "03-29 01:30"]),
        # A whole local day is swallowed; its fire comes once, with the first minute after it.
        ("30 12 30 12 *", "Pacific/Apia", "2011-12-29", "2011-12-31T23:59", ["12-30 10:00"]),
    ],
)
def test_no_double_or_missed_fire_at_dst(
    expression: str, zone: str, first: str, last: str, expected: list[str]
) -> None:
    assert told(expression, zone, first, last) == expected


def test_every_hour_is_every_hour_of_a_short_and_of_a_long_day() -> None:
    assert len(told("0 * * * *", "Europe/Berlin", "2026-03-28T23:00", "2026-03-29T21:59")) == 23
    assert len(told("0 * * * *", "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T22:59")) == 25


def test_a_calendar_that_never_comes_ends_the_search() -> None:
    zone = time_zone("UTC")
    assert next_fires(parse("0 0 30 2 *"), zone, minute("2026-01-01"), 1) == ()
    assert next_fires(parse("0 0 29 2 *"), zone, minute("2026-01-01"), 1) == (minute("2028-02-29"),)
    assert next_fires(parse("* * * * *"), zone, minute("2026-01-01"), 0) == ()


def test_a_step_in_a_day_field_is_no_restriction_but_a_range_is() -> None:
    """As in crontab(5): what counts is whether the field begins with a star."""
    assert told("0 0 */10 * 1", "UTC", "2026-06-01", "2026-06-30") == ["06-01 00:00"]  # the 1st, 11th, 21st, a Monday
    assert (
        len(told("0 0 1-31/10 * 1", "UTC", "2026-06-01", "2026-06-30")) == 7
    )  # 1, 11, 21 and Mondays 1, 8, 15, 22, 29


# The independent count: every UTC minute is looked at, repeats are known by having been seen, and nobody asks `fold`.


@functools.cache
def _walls(zone: str, first: int, last: int) -> tuple[int, ...]:
    """Local wall-clock minutes, counted as if they were UTC, of each UTC minute from `first` to before `last`."""
    place = ZoneInfo(zone)
    base = datetime(1970, 1, 1, tzinfo=UTC)
    offsets = (
        (base + timedelta(minutes=one)).astimezone(place).utcoffset() or timedelta() for one in range(first, last)
    )
    return tuple(
        one + int(offset.total_seconds()) // 60 for one, offset in zip(range(first, last), offsets, strict=True)
    )


def _allowed(field: str, low: int, high: int) -> set[int]:
    allowed = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        left, _, right = span.partition("-")
        start = low if left == "*" else int(left)
        stop = high if left == "*" else int(right or left)
        allowed |= {one for one in range(low, high + 1) if start <= one <= stop and (one - start) % int(step or 1) == 0}
    return allowed


class Brute:
    """A second reading of section 12, kept as dull as possible."""

    def __init__(self, expression: str) -> None:
        fields = expression.split()
        self.fixed = not fields[1].startswith("*")
        self.one_of = not fields[2].startswith("*") and not fields[4].startswith("*")
        bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        self.sets = [_allowed(field, *bound) for field, bound in zip(fields, bounds, strict=True)]
        if 7 in self.sets[4]:
            self.sets[4].add(0)
        self.days: dict[int, bool] = {}

    def matches(self, wall: int) -> bool:
        if wall % 60 not in self.sets[0] or wall // 60 % 24 not in self.sets[1]:
            return False
        day = wall // 1440
        if day not in self.days:
            self.days[day] = self._day(day)
        return self.days[day]

    def _day(self, day: int) -> bool:
        when = datetime(1970, 1, 1) + timedelta(days=day)
        month_day, weekday = when.day in self.sets[2], int(when.strftime("%w")) in self.sets[4]
        fits = (month_day or weekday) if self.one_of else (month_day and weekday)
        return fits and when.month in self.sets[3]

    def fires(self, zone: str, first: int, last: int) -> list[int]:
        """Fires from `first` to before `last`; two days before `first` are looked at to know what is a repeat."""
        lead = 2 * 1440
        walls = _walls(zone, first - lead, last)
        found, latest = [], walls[0]
        for place, wall in enumerate(walls):
            now = first - lead + place
            swallowed = self.fixed and any(self.matches(one) for one in range(latest + 1, wall))
            plain = self.matches(wall) and (not self.fixed or wall > latest)
            if now >= first and place and (swallowed or plain):
                found.append(now)
            latest = max(latest, wall)
        return found


def changes(zone: str, year: int) -> list[int]:
    """The UTC hours of a year at which a zone changes its clocks."""
    hours = range(minute(f"{year}-01-01"), minute(f"{year + 1}-01-01"), 60)
    walls = [_walls(zone, one, one + 1)[0] for one in hours]
    return [hours[place] for place in range(1, len(walls)) if walls[place] - walls[place - 1] != 60]


WINDOWS = [
    (zone, first) for zone in ZONES for first in ([one - 1440 for one in changes(zone, 2026)] or [minute("2026-06-30")])
]
"""Two days round every change of the year; one window of a zone without any."""


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_brute_force_over_every_minute_round_each_change_agrees(expression: str) -> None:
    for zone, first in WINDOWS:
        mine = list(fires(parse(expression), time_zone(zone), first - 1, first + 2 * 1440 - 1))
        assert mine == Brute(expression).fires(zone, first, first + 2 * 1440), (zone, expression)


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
def test_a_brute_force_over_every_minute_of_a_year_agrees(zone: str) -> None:
    first, last = minute("2026-01-01"), minute("2027-01-01")
    for expression in EXPRESSIONS:
        mine = list(fires(parse(expression), time_zone(zone), first - 1, last - 1))
        assert mine == Brute(expression).fires(zone, first, last), expression


def _fields(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    ranges = st.tuples(numbers, numbers, st.integers(1, high)).map(lambda t: f"{min(t[:2])}-{max(t[:2])}/{t[2]}")
    stars = st.one_of(st.just("*"), st.integers(1, high).map(lambda step: f"*/{step}"))
    lists = st.lists(st.one_of(numbers.map(str), ranges), min_size=1, max_size=3).map(",".join)
    return st.one_of(stars, lists)


CRONS = st.tuples(_fields(0, 59), _fields(0, 23), _fields(1, 31), st.just("*"), _fields(0, 7)).map(" ".join)


@settings(max_examples=15, deadline=None)
@given(expression=CRONS, window=st.sampled_from(WINDOWS))
def test_any_calendar_agrees_with_the_brute_force_round_a_change(expression: str, window: tuple[str, int]) -> None:
    zone, first = window
    mine = list(fires(parse(expression), time_zone(zone), first - 1, first + 2 * 1440 - 1))
    assert mine == Brute(expression).fires(zone, first, first + 2 * 1440)


@settings(max_examples=8, deadline=None)
@given(expression=CRONS, window=st.sampled_from(WINDOWS), cut=st.integers(0, 2 * 1440))
def test_a_restart_at_any_minute_loses_and_doubles_nothing(expression: str, window: tuple[str, int], cut: int) -> None:
    zone, first = window
    calendar, place, last = parse(expression), time_zone(zone), first + 2 * 1440
    whole = list(fires(calendar, place, first, last))
    assert whole == [*fires(calendar, place, first, first + cut), *fires(calendar, place, first + cut, last)]
    assert whole == sorted(set(whole))
