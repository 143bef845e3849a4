"""Calendars: five fields or a short name, and the UTC minutes at which they fire (specs: service, section 12).

Fires are the UTC minutes whose local time matches, with two corrections where the hour field does not begin with `*`:

1. matching local minutes that a gap swallows fire once, at the first minute after the gap;
2. of a local minute that comes twice only the first fires.

Pure: minutes are counted from 1970 in UTC, and no clock is read.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

TEXT_MAX = 256
"""Characters of an expression; sixty listed minutes take 170."""

HORIZON_DAYS = 5 * 366
"""A calendar that does not fire for 5 years is a mistake (specs: service, section 12). The 29th of February comes
within it until 2096."""

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
"""Names that are understood, and what they mean."""

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_PART = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_NO_PLACES = frozenset({"localtime", "posixrules", "Factory"})
"""Files of a zone folder that name no place: the first is whatever the machine is set to."""

_HOUR = 60
_DAY = 24 * _HOUR
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LAST_DAY = date(9000, 1, 1).toordinal() - _EPOCH_DAY
"""Far from the last day that a `datetime` can say, in every zone."""


class CronMalformed(ValueError):
    """The text is no calendar; the message names field and part, and what may stand there."""


class TimeZoneUnknown(ValueError):
    """No IANA time zone has this name."""


@dataclass(frozen=True, kw_only=True)
class Cron:
    """A calendar: which values of a local time it fires at."""

    minutes: tuple[int, ...]
    """Rising, each once; so are the others."""
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """0 is Sunday."""
    any_hour: bool
    """The hour field begins with `*`: then every UTC minute that matches fires, and a swallowed one does not."""
    either_day: bool
    """Neither day field begins with `*`: then a day that fits one of them fits; else it must fit both."""

    def on_day(self, day: date) -> bool:
        """Tell whether it fires on a local date."""
        if day.month not in self.months:
            return False
        fits, weekday_fits = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return fits or weekday_fits if self.either_day else fits and weekday_fits

    def at(self, local: datetime) -> bool:
        """Tell whether it fires at a local minute."""
        return local.minute in self.minutes and local.hour in self.hours and self.on_day(local.date())


def parse(text: str) -> Cron:
    """Read a calendar.

    Raises:
        CronMalformed: what is wrong with it, and where.
    """
    if len(text) > TEXT_MAX:
        raise CronMalformed(f"has {len(text)} characters, at most {TEXT_MAX} are read")
    if text.startswith("@") and text not in NAMED:
        raise CronMalformed(f"is no name that is known; write five fields or one of {', '.join(NAMED)}")
    fields = NAMED.get(text, text).split(" ")
    fields = [field for field in fields if field]
    if len(fields) != len(_FIELDS):
        raise CronMalformed(f"has {len(fields)} fields, not five: minute hour day-of-month month weekday")
    read = [_values(field, *kind) for field, kind in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = (tuple(sorted(values)) for values in read)
    return Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=tuple(sorted({weekday % 7 for weekday in weekdays})),
        any_hour=fields[1].startswith("*"),
        either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )


def _values(field: str, kind: str, lowest: int, highest: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        read = _PART.fullmatch(part)
        if read is None or not part.isascii():
            raise CronMalformed(
                f"{kind} field: {_shown(part)} is not *, a number, a range a-b, or one of these with /step"
            )
        first, last, step = (int(one) if one else None for one in read.groups())
        if first is not None and last is None and step is not None:
            raise CronMalformed(f"{kind} field: {_shown(part)} steps from one number; write {first}-{highest}/{step}")
        start = lowest if first is None else first
        end = (highest if first is None else start) if last is None else last
        if not lowest <= start <= end <= highest:
            raise CronMalformed(f"{kind} field: {_shown(part)} is not a rising range inside {lowest} to {highest}")
        if step == 0:
            raise CronMalformed(f"{kind} field: {_shown(part)} has a step of 0")
        found.update(range(start, end + 1, step or 1))
    return found


def _shown(part: str) -> str:
    return ascii(part[:40])


@functools.cache
def _known_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NO_PLACES


def time_zone(name: str) -> ZoneInfo:
    """Return the IANA time zone of this name.

    Raises:
        TimeZoneUnknown: there is none.
    """
    if len(name) > 64 or not _ZONE.fullmatch(name) or name not in _known_zones():
        raise TimeZoneUnknown("is no IANA time zone, e.g. Europe/Berlin or UTC")
    return ZoneInfo(name)


def fires(cron: Cron, zone: ZoneInfo, after: int, until: int) -> Iterator[int]:
    """Yield the minutes at which a calendar fires, rising.

    Args:
        cron: the calendar.
        zone: where its local times are.
        after: minutes since 1970; the first that may fire is the next one.
        until: the last minute that may fire.

    The work is proportional to the days that pass, some microseconds for each on which nothing fires.
    """
    for day in range((after + 1) // _DAY, min(until // _DAY, _LAST_DAY) + 1):
        if any(cron.on_day(date.fromordinal(_EPOCH_DAY + day + near)) for near in (-1, 0, 1)):  # any zone's date then
            for hour in range(day * _DAY, (day + 1) * _DAY, _HOUR):
                yield from (minute for minute in _in_hour(cron, zone, hour) if after < minute <= until)


def next_fires(cron: Cron, zone: ZoneInfo, after: int, count: int) -> tuple[int, ...]:
    """Return the next minutes at which a calendar fires, at most `count`, none later than 5 years after `after`."""
    found = fires(cron, zone, after, after + HORIZON_DAYS * _DAY)
    return tuple(minute for _, minute in zip(range(count), found, strict=False))


def _in_hour(cron: Cron, zone: ZoneInfo, hour: int) -> Iterator[int]:
    """Yield the fires of one UTC hour that begins at minute `hour`."""
    begin, end = _local(zone, hour - 1), _local(zone, hour + _HOUR - 1)
    if begin.utcoffset() != end.utcoffset():
        yield from _in_changed_hour(cron, zone, hour)
        return
    first = begin + timedelta(minutes=1)  # wall-clock arithmetic; the offset holds through the hour
    for minute in sorted((one - first.minute) % _HOUR for one in cron.minutes):
        local = first + timedelta(minutes=minute)
        fits = local.hour in cron.hours and cron.on_day(local.date())
        if fits and (cron.any_hour or not _local(zone, hour + minute).fold):
            yield hour + minute


def _in_changed_hour(cron: Cron, zone: ZoneInfo, hour: int) -> Iterator[int]:
    """Yield the fires of an hour in which, or at the start of which, the clocks are changed."""
    for minute in range(hour, hour + _HOUR):
        before, local = _wall(zone, minute - 1), _local(zone, minute)
        gap = int((local.replace(tzinfo=None) - before) / timedelta(minutes=1)) - 1
        swallowed = not cron.any_hour and any(cron.at(before + timedelta(minutes=1 + one)) for one in range(gap))
        if swallowed or (cron.at(local) and (cron.any_hour or not local.fold)):
            yield minute


def _local(zone: ZoneInfo, minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC).astimezone(zone)


def _wall(zone: ZoneInfo, minute: int) -> datetime:
    return _local(zone, minute).replace(tzinfo=None)
