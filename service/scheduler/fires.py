"""Fires of schedules: each due minute becomes one row, with the audit that it submits in the same transaction.

Nothing is remembered that matters: a scheduler that is killed at any point, a second one beside it, and a clock that is
set back find the rows that are there, and decide what is left.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

from assay.api.v1 import audits_pb2

from service.blobs import BlobError
from service.rules.access import Caller, authorise
from service.rules.cron import CronMalformed, TimeZoneUnknown
from service.rules.errors import Refusal, not_permitted
from service.rules.schedules import MISFIRE_MS, NEVER_MS, FireOutcome, Look, Overlap, look
from service.rules.submission import NONCE_BYTES
from service.rules.templates import audit_of
from service.store import fires, principals, schedules
from service.store.engine import Store, StoreConflict, StoreError, now_ms
from service.store.intake import Intake
from service.store.schedules import ScheduleView
from service.store.submissions import NewAudit

log = logging.getLogger("assay.scheduler")

FIRES_S = 1.0
"""Seconds between two looks at the clock; calendars speak of minutes."""

ADVANCE_MS = 3_600_000
"""Where nothing is due of a schedule, how far it was looked at is noted once an hour and not every minute: a
thousand schedules must not be a thousand commits a minute, and an hour is looked through in a millisecond."""

JUMP_MS = 3_600_000
"""A clock that moves so much more than time went by between two looks is not believed at once."""

JUMP_HOLD_S = 120.0
"""How long nothing is decided then. A wrong clock is mostly set back within it; after a right one, what was due
meanwhile still is in time."""

INTERNAL_WAIT_MS = 60_000
"""A schedule that failed in a way nobody foresaw is looked at again after so long; others are not kept waiting."""

SUBMIT = "/assay.api.v1.Audits/SubmitAudit"


class Fires:
    """Submits what calendars say.

    Args:
        store: the database.
        intake: what every submission is held against.
        misfire_ms: a fire that is later is a misfire.
        clock: milliseconds since 1970; by default the database's.
        passed: seconds by a clock that nobody sets.
    """

    def __init__(
        self,
        store: Store,
        intake: Intake,
        *,
        misfire_ms: int = MISFIRE_MS,
        clock: Callable[[], int] | None = None,
        passed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._intake = intake
        self._misfire_ms = misfire_ms
        self._clock = clock or self._database_clock
        self._wake: dict[tuple[str, int], int] = {}
        """(schedule, revision) -> nothing is due before: spares looking, decides nothing."""
        self._passed = passed
        self._looked: tuple[int, float] | None = None
        """What both clocks showed at the last look."""
        self._held_until = 0.0

    def step(self) -> None:
        """Decide whatever is due now."""
        with self._store.read() as connection:
            found = schedules.active(connection)
        self._wake = {key: at for one in found if (at := self._wake.get(key := (str(one.key), one.revision)))}
        for seen in found:
            now = self._clock()
            if self._is_held(now):
                return
            if now >= self._wake.get((str(seen.key), seen.revision), now):
                self._consider_alone(seen, now)

    def _is_held(self, now: int) -> bool:
        """Tell whether the clock jumped ahead so lately that it may be wrong: what is decided stays decided."""
        passed = self._passed()
        before, self._looked = self._looked, (now, passed)
        if before is not None:
            jumped = now - before[0] - (passed - before[1]) * 1000
            if jumped > JUMP_MS:
                log.error("the clock jumped ahead by %d s; no schedule fires for %d s", jumped / 1000, JUMP_HOLD_S)
                self._held_until = passed + JUMP_HOLD_S
            elif jumped < -JUMP_MS:
                self._held_until = passed
        return passed < self._held_until

    def _consider_alone(self, seen: ScheduleView, now: int) -> None:
        """Decide what is due of one schedule; what goes wrong in it alone stops no other, nor any other loop."""
        try:
            self._consider(seen, now)
        except StoreError:
            raise
        except Exception:
            log.exception("schedule %s cannot be looked at", seen.key)
            self._wake[str(seen.key), seen.revision] = now + INTERNAL_WAIT_MS

    def _database_clock(self) -> int:
        with self._store.read() as connection:
            return now_ms(connection)

    def _consider(self, seen: ScheduleView, now: int) -> None:
        """Decide what is due of one schedule, and note how far that is."""
        try:
            with self._store.read() as connection:
                decided = fires.decided(connection, seen.key, seen.considered_until, now)
            found = look(
                seen.key,
                seen.timing,
                considered_until=seen.considered_until,
                now=now,
                decided=decided,
                misfire_ms=self._misfire_ms,
            )
        except (CronMalformed, TimeZoneUnknown) as error:
            # It was understood when it was made: this machine's zones are older than the ones of then.
            log.error("schedule %s cannot be read here: %s", seen.key, error)
            self._wake[str(seen.key), seen.revision] = now + NEVER_MS
            return
        self._decide(seen, found, now)

    def _decide(self, seen: ScheduleView, found: Look, now: int) -> None:
        if found.misfires:
            with self._store.begin() as connection:
                for due_at in found.misfires:
                    fires.note(connection, seen, due_at, now, FireOutcome.SKIPPED_MISFIRE)
        for due_at in found.fires:
            try:
                outcome = self._fire(seen, due_at, now)
            except BlobError as error:
                # The disk or the bucket failed. The minute stays open, and is tried again at the next look.
                log.warning("schedule %s cannot fire now: %s", seen.key, error)
                return
            except StoreConflict as error:
                # Only where writers run side by side (PostgreSQL). Whether somebody decided this minute, or a row of
                # another was in the way, the next look sees: until then it is open.
                log.warning("schedule %s, due at %d, is tried again: %s", seen.key, due_at, error)
                return
            log.info("schedule %s, due at %d: %s", seen.key, due_at, outcome or "decided by somebody else")
        if found.misfires or found.fires or found.until - seen.considered_until >= ADVANCE_MS:
            with self._store.begin() as connection:
                schedules.advance(connection, seen, found.until)
        self._wake[str(seen.key), seen.revision] = found.wake_at

    def _fire(self, seen: ScheduleView, due_at: int, now: int) -> FireOutcome | None:
        """Submit one due minute; None if another scheduler, or a change of the schedule, was first."""
        with self._store.read() as connection:
            crowded = seen.timing.overlap is Overlap.SKIP and fires.unfinished(connection, seen.key)
        if crowded:
            return self._note(seen, due_at, now, FireOutcome.SKIPPED_OVERLAP)
        try:
            new = self._prepare(seen)
            with self._store.begin() as connection:
                return fires.submit(connection, seen, due_at, now, new)
        except Refusal as refusal:
            return self._note(seen, due_at, now, FireOutcome.REFUSED, refusal.reason)
        except (StoreError, BlobError):
            raise
        except Exception:
            log.exception("schedule %s, due at %d, cannot be submitted", seen.key, due_at)
            return self._note(seen, due_at, now, FireOutcome.REFUSED, "INTERNAL")

    def _note(
        self, seen: ScheduleView, due_at: int, now: int, outcome: FireOutcome, why: str = ""
    ) -> FireOutcome | None:
        with self._store.begin() as connection:
            return outcome if fires.note(connection, seen, due_at, now, outcome, why) else None

    def _prepare(self, seen: ScheduleView) -> NewAudit:
        """Make the template an audit, as SubmitAudit would for the schedule's principal now.

        Raises:
            Refusal: as SubmitAudit; NOT_PERMITTED where the principal has lost its role or its tenant.
        """
        caller = self._caller(seen)
        asked = audit_of(audits_pb2.Audit.FromString(seen.template), secrets.token_bytes(NONCE_BYTES))
        return self._intake.prepare(caller, self._intake.check(caller, asked))

    def _caller(self, seen: ScheduleView) -> Caller:
        with self._store.read() as connection:
            caller = principals.find_caller(connection, seen.principal)
        if caller is None or caller.tenant != seen.key.tenant:
            raise not_permitted()
        authorise(caller, SUBMIT)
        return caller
