"""Schedules: what one is, and what is due of it. Pure: the clock, the rows and the zone's rules are handed in.

Times are milliseconds since 1970. A fire is known by its due minute, the one that the calendar names; with jitter it
happens up to an hour later. Every due minute is decided once: submitted, skipped or refused, and that is a row.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from zoneinfo import ZoneInfo

from service.rules.cron import Cron, CronMalformed, TimeZoneUnknown, fires, next_fires, parse, time_zone
from service.rules.errors import Violation

MINUTE_MS = 60_000

MISFIRE_MS = 300_000
"""A fire that is later is a misfire (specs: service, section 12)."""

JITTER_MAX_S = 3600
"""Seconds (specs: service, section 12)."""

BATCH = 500
"""Due minutes that are decided at a time: after a long standstill each skipped one still becomes a row, in parts."""

SCHEDULES_MAX = 100
"""Schedules of one tenant: as many as it may have audits that have not ended."""

NEVER_MS = 24 * 3_600_000
"""A calendar that does not come within 5 years is looked at again after a day: the zone's rules may have changed."""


class Misfire(StrEnum):
    """What becomes of fires that are more than 300 s late."""

    SKIP = "SKIP"
    ONCE = "ONCE"
    """The latest of them is made up for."""


class Overlap(StrEnum):
    """What becomes of a fire while an audit of the schedule has not ended."""

    SKIP = "SKIP"
    QUEUE = "QUEUE"
    REPLACE = "REPLACE"
    """The audits that have not ended are cancelled, those of them that still can be."""


class FireOutcome(StrEnum):
    """What became of a due minute."""

    SUBMITTED = "SUBMITTED"
    SKIPPED_OVERLAP = "SKIPPED_OVERLAP"
    SKIPPED_MISFIRE = "SKIPPED_MISFIRE"
    REFUSED = "REFUSED"
    """SubmitAudit would have refused it, with the reason that stands beside it."""


@dataclass(frozen=True)
class ScheduleKey:
    """Which schedule. Ids are a tenant's own."""

    tenant: str
    id: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.id}"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When a schedule fires, and what becomes of late and crowded fires."""

    cron: str
    time_zone: str
    misfire: Misfire = Misfire.ONCE
    overlap: Overlap = Overlap.SKIP
    jitter_s: int = 0


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """A timing that was understood."""

    cron: Cron
    zone: ZoneInfo

    def after(self, moment: int, count: int) -> tuple[int, ...]:
        """Return the next due minutes after a moment, at most `count`, none later than 5 years."""
        return tuple(one * MINUTE_MS for one in next_fires(self.cron, self.zone, moment // MINUTE_MS, count))

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the due minutes after one moment and not after another, rising."""
        return (one * MINUTE_MS for one in fires(self.cron, self.zone, after // MINUTE_MS, until // MINUTE_MS))


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is to be done of a schedule now. Due minutes that were decided before are not named."""

    fires: tuple[int, ...]
    """To be fired, oldest first."""
    misfires: tuple[int, ...]
    """Too late, and not made up for."""
    until: int
    """When all of this is done, nothing up to here is open."""
    wake_at: int
    """Nothing is due before."""


def read_calendar(timing: Timing) -> Calendar:
    """Return the calendar of a timing that was stored, so was understood once.

    Raises:
        CronMalformed: it no longer is understood.
        TimeZoneUnknown: the zone is no longer known here.
    """
    return Calendar(cron=parse(timing.cron), zone=time_zone(timing.time_zone))


def check_timing(timing: Timing, now: int) -> list[Violation]:
    """Return what is wrong with when a schedule shall fire."""
    wrong: list[Violation] = []
    cron, zone = None, None
    try:
        cron = parse(timing.cron)
    except CronMalformed as error:
        wrong.append(Violation("schedule.cron", str(error), "BAD_CRON"))
    try:
        zone = time_zone(timing.time_zone)
    except TimeZoneUnknown as error:
        wrong.append(Violation("schedule.time_zone", str(error), "BAD_TIME_ZONE"))
    if cron is not None and not next_fires(cron, zone or ZoneInfo("UTC"), now // MINUTE_MS, 1):
        wrong.append(Violation("schedule.cron", "does not fire within 5 years", "BAD_CRON"))
    if not 0 <= timing.jitter_s <= JITTER_MAX_S:
        text = f"{timing.jitter_s} is outside 0 to {JITTER_MAX_S}"
        wrong.append(Violation("schedule.jitter_s", text, "BAD_SCHEDULE"))
    return wrong


def jitter_ms(key: ScheduleKey, due_at: int, jitter_s: int) -> int:
    """Return by how much a fire is delayed: the first 4 bytes of SHA-256 over schedule and minute, so always the same.

    Args:
        key: the schedule.
        due_at: the due minute.
        jitter_s: at most so many seconds.
    """
    return int.from_bytes(_digest(key, due_at)[:4], "big") % (jitter_s + 1) * 1000


def request_id(key: ScheduleKey, due_at: int) -> str:
    """Return the request id of a fire's submission: the same whoever fires it, and however often it is tried."""
    return str(uuid.UUID(bytes=_digest(key, due_at)[4:20], version=4))


def _digest(key: ScheduleKey, due_at: int) -> bytes:
    return hashlib.sha256(f"{key}\n{due_at}".encode()).digest()


def look(
    key: ScheduleKey,
    timing: Timing,
    *,
    considered_until: int,
    now: int,
    decided: frozenset[int] = frozenset(),
    misfire_ms: int = MISFIRE_MS,
) -> Look:
    """Say what is to be done of a schedule now.

    Args:
        key: the schedule.
        timing: when it fires.
        considered_until: every due minute up to here was decided.
        now: the clock. A clock that was set back only means that nothing is due.
        decided: due minutes after `considered_until` that have a row already.
        misfire_ms: a fire that is later is a misfire.

    Raises:
        CronMalformed, TimeZoneUnknown: see `read_calendar`.
    """
    calendar = read_calendar(timing)
    due = calendar.between(considered_until, now)
    batch = tuple(islice(due, BATCH))
    ready = {one: one + jitter_ms(key, one, timing.jitter_s) for one in batch}
    open_ = tuple(one for one in batch if one not in decided)
    late = [one for one in batch if now - ready[one] > misfire_ms]
    further = next(due, None)
    rest = () if further is None else chain((further,), due)  # read as far as the next late one, mostly the first
    later = any(now - one - jitter_ms(key, one, timing.jitter_s) > misfire_ms for one in rest)
    made_up = late[-1:] if timing.misfire is Misfire.ONCE and not later else []
    pending = [ready[one] for one in open_ if ready[one] > now]
    first_pending = min((one for one in open_ if ready[one] > now), default=None)
    until = batch[-1] if further is not None else max(now, considered_until)
    if first_pending is not None:
        until = min(until, first_pending - 1)
    coming = calendar.after(max(now, considered_until), 1) or (now + NEVER_MS,)
    return Look(
        fires=tuple(one for one in open_ if ready[one] <= now and (one not in late or one in made_up)),
        misfires=tuple(one for one in open_ if one in late and one not in made_up),
        until=until,
        wake_at=now if further is not None else min(*pending, coming[0]) if pending else coming[0],
    )
