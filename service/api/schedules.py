"""The Schedules service: audits that are submitted again and again, by a calendar."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from assay.api.v1 import audits_pb2, schedules_pb2, schedules_pb2_grpc
from sqlalchemy import Connection

from service.api.backing import Backing
from service.api.guard import current_call
from service.api.render import audit_message, timestamp
from service.api.submit import Submitter
from service.rules import names, pages
from service.rules.access import Caller
from service.rules.cron import CronMalformed, TimeZoneUnknown
from service.rules.errors import Refusal, Violation, refuse_fields
from service.rules.pages import Position
from service.rules.schedules import Misfire, Overlap, ScheduleKey, Timing, check_timing, read_calendar
from service.rules.submission import NONCE_BYTES
from service.rules.templates import audit_of, check_template, in_template, template_of
from service.store import fires, schedules
from service.store.engine import now_ms
from service.store.fires import FireView
from service.store.schedules import ScheduleView, Wanted

T = TypeVar("T")

NEXT_FIRES = 5
"""As many of the next fires are told as show a weekly pattern."""

_MISFIRE = {
    schedules_pb2.Schedule.MISFIRE_UNSPECIFIED: Misfire.ONCE,
    schedules_pb2.Schedule.MISFIRE_SKIP: Misfire.SKIP,
    schedules_pb2.Schedule.MISFIRE_ONCE: Misfire.ONCE,
}
_OVERLAP = {
    schedules_pb2.Schedule.OVERLAP_UNSPECIFIED: Overlap.SKIP,
    schedules_pb2.Schedule.OVERLAP_SKIP: Overlap.SKIP,
    schedules_pb2.Schedule.OVERLAP_QUEUE: Overlap.QUEUE,
    schedules_pb2.Schedule.OVERLAP_REPLACE: Overlap.REPLACE,
}


class Schedules(schedules_pb2_grpc.SchedulesServicer):
    """See `protos/assay/api/v1/schedules.proto` for every method's contract."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._submitter = Submitter(backing)

    async def CreateSchedule(
        self, request: schedules_pb2.CreateScheduleRequest, context: Any
    ) -> schedules_pb2.Schedule:
        """Make a schedule, if its template would be accepted now."""
        caller = current_call().caller
        wrong = [] if names.is_client_id(request.schedule_id) else [_bad_id()]
        key = ScheduleKey(caller.tenant, request.schedule_id)

        def create() -> ScheduleView:
            now = self._now()
            wanted = self._wanted(caller, request.schedule, now, wrong)
            if request.validate_only:
                return _unsaved(key, wanted, now)
            with self._backing.store.begin() as connection:
                return schedules.create(connection, key, wanted, now)

        return self._message(await asyncio.to_thread(create))

    async def GetSchedule(self, request: schedules_pb2.GetScheduleRequest, context: Any) -> schedules_pb2.Schedule:
        """Read one schedule, with its next fires."""
        key = _key(request.name)
        return self._message(await self._read(lambda connection: _seen(connection, key)))

    async def ListSchedules(
        self, request: schedules_pb2.ListSchedulesRequest, context: Any
    ) -> schedules_pb2.ListSchedulesResponse:
        """List the tenant's schedules, newest first."""
        call = current_call()
        size = pages.page_size(request.page_size)
        question = (call.caller.principal, "ListSchedules")
        after = pages.unseal(self._backing.settings.page_key, question, request.page_token)
        found = await self._read(lambda connection: schedules.page(connection, call.scope, after, size + 1))
        messages = await asyncio.to_thread(lambda: [self._message(one) for one in found[:size]])
        reply = schedules_pb2.ListSchedulesResponse(schedules=messages)
        if len(found) > size:
            last = found[size - 1]
            reply.next_page_token = self._seal(question, Position(last.created_at, last.key.id))
        return reply

    async def UpdateSchedule(
        self, request: schedules_pb2.UpdateScheduleRequest, context: Any
    ) -> schedules_pb2.Schedule:
        """Replace a schedule, if its new template would be accepted now."""
        caller = current_call().caller
        key = _key(request.schedule.name)

        def replace() -> ScheduleView:
            now = self._now()
            with self._backing.store.read() as connection:
                _seen(connection, key)  # a foreign schedule is told before what is wrong with the request
            wanted = self._wanted(caller, request.schedule, now, [])
            with self._backing.store.begin() as connection:
                _seen(connection, key, lock=True)
                return schedules.change(connection, key, wanted, request.schedule.etag, now)

        return self._message(await asyncio.to_thread(replace))

    async def DeleteSchedule(
        self, request: schedules_pb2.DeleteScheduleRequest, context: Any
    ) -> schedules_pb2.DeleteScheduleResponse:
        """Delete a schedule; its audits and fires stay."""
        key = _key(request.name)

        def remove(connection: Connection) -> None:
            _seen(connection, key, lock=True)
            schedules.remove(connection, key, request.etag, now_ms(connection))

        await self._write(remove)
        return schedules_pb2.DeleteScheduleResponse()

    async def RunSchedule(self, request: schedules_pb2.RunScheduleRequest, context: Any) -> audits_pb2.Audit:
        """Submit the template now, as the caller."""
        caller = current_call().caller
        key = _key(request.name)

        def submit() -> audits_pb2.Audit:
            with self._backing.store.read() as connection:
                found = _seen(connection, key)
            asked = audit_of(audits_pb2.Audit.FromString(found.template), secrets.token_bytes(NONCE_BYTES))
            return audit_message(self._submitter.run(caller, request, asked, key))

        return await asyncio.to_thread(submit)

    async def PauseSchedule(self, request: schedules_pb2.PauseScheduleRequest, context: Any) -> schedules_pb2.Schedule:
        """Stop a schedule's fires."""
        key = _key(request.name)

        def pause(connection: Connection) -> ScheduleView:
            _seen(connection, key, lock=True)
            return schedules.pause(connection, key)

        return self._message(await self._write(pause))

    async def ResumeSchedule(
        self, request: schedules_pb2.ResumeScheduleRequest, context: Any
    ) -> schedules_pb2.Schedule:
        """Let a schedule fire again."""
        key = _key(request.name)

        def resume(connection: Connection) -> ScheduleView:
            _seen(connection, key, lock=True)
            return schedules.resume(connection, key, now_ms(connection))

        return self._message(await self._write(resume))

    async def ListFires(self, request: schedules_pb2.ListFiresRequest, context: Any) -> schedules_pb2.ListFiresResponse:
        """List what became of a schedule's due minutes, newest first."""
        key = _key(request.parent)
        size = pages.page_size(request.page_size)
        question = (current_call().caller.principal, "ListFires", request.parent)
        after = pages.unseal(self._backing.settings.page_key, question, request.page_token)

        def read(connection: Connection) -> tuple[FireView, ...]:
            _seen(connection, key)
            return fires.page(connection, key, after, size + 1)

        found = await self._read(read)
        reply = schedules_pb2.ListFiresResponse(fires=[_fire(one) for one in found[:size]])
        if len(found) > size:
            reply.next_page_token = self._seal(question, Position(found[size - 1].due_at, ""))
        return reply

    def _wanted(self, caller: Caller, asked: schedules_pb2.Schedule, now: int, wrong: list[Violation]) -> Wanted:
        """Return what is asked, if all of it is in order and the template would be accepted from this caller now.

        Raises:
            Refusal: every violation at once, or what SubmitAudit would refuse the template with.
        """
        timing, bad = _timing(asked, now)
        wrong = [*wrong, *bad, *check_template(asked.template)]
        template = template_of(asked.template)
        try:
            self._submitter.intake.check(caller, audit_of(template, bytes(NONCE_BYTES)))
        except Refusal as refusal:
            if not refusal.violations and not wrong:
                raise
            wrong += in_template(refusal.violations)
        if wrong:
            raise refuse_fields(wrong)
        return Wanted(
            principal=caller.principal,
            template=template.SerializeToString(deterministic=True),
            timing=timing,
            paused=asked.paused,
        )

    def _now(self) -> int:
        with self._backing.store.read() as connection:
            return now_ms(connection)

    async def _read(self, ask: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self._backing.store.read() as connection:
                return ask(connection)

        return await asyncio.to_thread(read)

    async def _write(self, change: Callable[[Connection], T]) -> T:
        def write() -> T:
            with self._backing.store.begin() as connection:
                return change(connection)

        return await asyncio.to_thread(write)

    def _seal(self, question: tuple[str, ...], last: Position) -> str:
        return pages.seal(self._backing.settings.page_key, question, last)

    def _message(self, view: ScheduleView) -> schedules_pb2.Schedule:
        message = schedules_pb2.Schedule(
            name=f"schedules/{view.key.id}",
            template=audits_pb2.Audit.FromString(view.template),
            cron=view.timing.cron,
            time_zone=view.timing.time_zone,
            misfire=schedules_pb2.Schedule.Misfire.Value(f"MISFIRE_{view.timing.misfire}"),
            overlap=schedules_pb2.Schedule.Overlap.Value(f"OVERLAP_{view.timing.overlap}"),
            jitter_s=view.timing.jitter_s,
            paused=view.paused,
            etag=view.etag,
            created_at=timestamp(view.created_at),
        )
        if not view.paused:
            message.next_fires.extend(timestamp(one) for one in _next(view, self._now()))
        return message


def _key(name: str) -> ScheduleKey:
    """Return a schedule of the caller's tenant; another tenant's of that id is never looked at."""
    return ScheduleKey(current_call().caller.tenant, names.schedule(name))


def _seen(connection: Connection, key: ScheduleKey, *, lock: bool = False) -> ScheduleView:
    """Return a schedule that the running call may touch."""
    return schedules.seen(connection, current_call().scope, key, lock=lock)


def _bad_id() -> Violation:
    return Violation("schedule_id", "is not 4 to 63 of [a-z0-9-]", "BAD_SCHEDULE")


def _timing(asked: schedules_pb2.Schedule, now: int) -> tuple[Timing, list[Violation]]:
    timing = Timing(
        cron=asked.cron,
        time_zone=asked.time_zone,
        misfire=_MISFIRE.get(asked.misfire, Misfire.ONCE),
        overlap=_OVERLAP.get(asked.overlap, Overlap.SKIP),
        jitter_s=asked.jitter_s,
    )
    wrong = check_timing(timing, now)
    for field, table in (("misfire", _MISFIRE), ("overlap", _OVERLAP)):
        if getattr(asked, field) not in table:
            wrong.append(Violation(f"schedule.{field}", f"{getattr(asked, field)} is none known", "BAD_SCHEDULE"))
    return timing, wrong


def _next(view: ScheduleView, now: int) -> tuple[int, ...]:
    try:
        return read_calendar(view.timing).after(max(now, view.considered_until), NEXT_FIRES)
    except (CronMalformed, TimeZoneUnknown):  # understood once, no longer here; the scheduler's log says so
        return ()


def _unsaved(key: ScheduleKey, wanted: Wanted, now: int) -> ScheduleView:
    return ScheduleView(
        key=key,
        principal=wanted.principal,
        template=wanted.template,
        timing=wanted.timing,
        paused=wanted.paused,
        considered_until=now,
        revision=1,
        created_at=now,
    )


def _fire(view: FireView) -> schedules_pb2.Fire:
    return schedules_pb2.Fire(
        due_at=timestamp(view.due_at),
        fired_at=timestamp(view.fired_at),
        outcome=schedules_pb2.Fire.Outcome.Value(f"OUTCOME_{view.outcome}"),
        reason=view.reason,
        audit=f"audits/{view.audit}" if view.audit else "",
    )
