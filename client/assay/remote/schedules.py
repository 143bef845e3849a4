"""Schedules of a service: audits that it submits again and again, by a calendar, and what became of each due minute."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from assay.api.v1 import audits_pb2, schedules_pb2
from assay.client_errors import refuse
from assay.remote import values, wire
from assay.remote.calls import Calls
from assay.remote.submission import to_audit

PAGE = 100

MISFIRES = ("SKIP", "ONCE")
"""What becomes of fires that are more than 300 s late."""

OVERLAPS = ("SKIP", "QUEUE", "REPLACE")
"""What becomes of a fire while an audit of the schedule has not ended."""

_LAST = 253_402_300_800
"""Seconds since 1970 of the year 10000, which a `datetime` cannot say."""

_INPUTS = (
    *("model", "base_model", "checks", "data", "policy", "waivers", "limits", "labels", "approvals", "access"),
    *("seed_mode", "seed", "first_report"),
)
"""What is asked of an audit besides its nonce, which each fire draws anew."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One schedule."""

    name: str
    """schedules/{id}; empty in the answer to a validation of none."""
    template: values.Audit
    """What each fire asks; of an audit it has the input fields alone."""
    cron: str
    time_zone: str
    misfire: str
    overlap: str
    jitter_s: int
    paused: bool
    etag: str
    created_at: datetime | None
    next_fires: tuple[datetime, ...]
    """At most 5; none while it is paused."""


@dataclass(frozen=True, kw_only=True)
class Fire:
    """What became of one due minute."""

    due_at: datetime | None
    """The minute that the calendar names."""
    fired_at: datetime | None
    outcome: str
    """SUBMITTED, SKIPPED_OVERLAP, SKIPPED_MISFIRE or REFUSED."""
    reason: str
    """Why it was refused; else empty."""
    audit: str
    """audits/{32 hex}; empty if none was submitted."""


class Schedules:
    """The schedules of the caller's tenant.

    Args:
        calls: the service.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def template(
        self,
        model: str,
        checks: Sequence[tuple[str, Mapping[str, Any]]],
        *,
        data: Sequence[values.DataInput] = (),
        base: str | None = None,
        limits: values.Limits | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> audits_pb2.Audit:
        """Return what each fire shall ask, of a model and data that the service has; arguments as of `submit`."""
        return to_audit(
            wire.model_name(model),
            checks,
            data,
            limits or values.Limits(),
            labels or {},
            b"",
            base=wire.model_name(base) if base else "",
        )

    def like(self, audit: str, *, pinned: bool = False) -> audits_pb2.Audit:
        """Return a template that asks what an audit asked.

        Args:
            audit: an audit of the caller's.
            pinned: ask the same versions of its checks for ever; by default those that the service has at each fire.
        """
        request = audits_pb2.GetAuditRequest(name=wire.audit_name(audit))
        found = self._calls.unary(self._calls.audits.GetAudit, request, patient=True)
        fields: Any = found  # the stubs know each field's name as a literal alone
        for name in {field.name for field in found.DESCRIPTOR.fields} - set(_INPUTS):
            fields.ClearField(name)
        if not pinned:
            for check in found.checks:
                check.version = ""
        return found

    def create(
        self,
        identifier: str,
        template: audits_pb2.Audit,
        *,
        cron: str,
        time_zone: str,
        misfire: str = "ONCE",
        overlap: str = "SKIP",
        jitter_s: int = 0,
        paused: bool = False,
        validate_only: bool = False,
    ) -> Schedule:
        """Make a schedule.

        Args:
            identifier: 4 to 63 of a-z, 0-9 and -.
            template: from `template` or `like`.
            cron: five fields, or @hourly, @daily, @weekly, @monthly.
            time_zone: IANA name.
            misfire: one of `MISFIRES`.
            overlap: one of `OVERLAPS`.
            jitter_s: each fire is delayed by up to so many seconds, always by the same.
            paused: make it, and let it wait for `resume`.
            validate_only: only judge it; nothing is made.

        Raises:
            ServerRefused: BAD_CRON, BAD_TIME_ZONE, BAD_SCHEDULE, SCHEDULE_EXISTS, TOO_MANY_SCHEDULES; for the
                template what `submit` would raise.
        """
        wanted = schedules_pb2.Schedule(
            template=template,
            cron=cron,
            time_zone=time_zone,
            misfire=_misfire(misfire),
            overlap=_overlap(overlap),
            jitter_s=jitter_s,
            paused=paused,
        )
        request = schedules_pb2.CreateScheduleRequest(
            schedule_id=identifier, schedule=wanted, validate_only=validate_only
        )
        return _schedule(self._calls.unary(self._calls.schedules.CreateSchedule, request))

    def get(self, name: str) -> Schedule:
        """Return one schedule."""
        return _schedule(self._get(name))

    def all(self) -> Iterator[Schedule]:
        """Yield every schedule, newest first, asking for pages as they are needed."""
        token = ""
        while True:
            request = schedules_pb2.ListSchedulesRequest(page_size=PAGE, page_token=token)
            page = self._calls.unary(self._calls.schedules.ListSchedules, request, patient=True)
            yield from (_schedule(one) for one in page.schedules)
            token = page.next_page_token
            if not token:
                return

    def update(
        self,
        name: str,
        *,
        template: audits_pb2.Audit | None = None,
        cron: str | None = None,
        time_zone: str | None = None,
        misfire: str | None = None,
        overlap: str | None = None,
        jitter_s: int | None = None,
    ) -> Schedule:
        """Change what is given and leave the rest; minutes that were due before are not made up for.

        Raises:
            ServerRefused: as `create`; ETAG_MISMATCH: somebody else changed it meanwhile.
        """
        wanted = self._get(name)
        if template is not None:
            wanted.template.CopyFrom(template)
        wanted.cron = wanted.cron if cron is None else cron
        wanted.time_zone = wanted.time_zone if time_zone is None else time_zone
        wanted.misfire = wanted.misfire if misfire is None else _misfire(misfire)
        wanted.overlap = wanted.overlap if overlap is None else _overlap(overlap)
        wanted.jitter_s = wanted.jitter_s if jitter_s is None else jitter_s
        request = schedules_pb2.UpdateScheduleRequest(schedule=wanted)
        return _schedule(self._calls.unary(self._calls.schedules.UpdateSchedule, request))

    def delete(self, name: str, *, etag: str = "") -> None:
        """Delete a schedule; its audits and fires stay.

        Args:
            name: the schedule.
            etag: delete it only as it was read; empty means any.
        """
        request = schedules_pb2.DeleteScheduleRequest(name=schedule_name(name), etag=etag)
        self._calls.unary(self._calls.schedules.DeleteSchedule, request)

    def run(self, name: str, *, request_id: str | None = None) -> values.Audit:
        """Submit the template now, beside the calendar.

        Args:
            name: the schedule.
            request_id: UUID4 text; the same id is the same audit. By default a new one.
        """
        request = schedules_pb2.RunScheduleRequest(name=schedule_name(name), request_id=request_id or str(uuid.uuid4()))
        return wire.audit(self._calls.unary(self._calls.schedules.RunSchedule, request, patient=True))

    def pause(self, name: str) -> Schedule:
        """Let a schedule not fire until it is resumed; pausing twice is fine."""
        request = schedules_pb2.PauseScheduleRequest(name=schedule_name(name))
        return _schedule(self._calls.unary(self._calls.schedules.PauseSchedule, request, patient=True))

    def resume(self, name: str) -> Schedule:
        """Let a schedule fire again; minutes that passed meanwhile are not made up for."""
        request = schedules_pb2.ResumeScheduleRequest(name=schedule_name(name))
        return _schedule(self._calls.unary(self._calls.schedules.ResumeSchedule, request, patient=True))

    def fires(self, name: str) -> Iterator[Fire]:
        """Yield what became of each due minute, newest first, asking for pages as they are needed."""
        token = ""
        while True:
            request = schedules_pb2.ListFiresRequest(parent=schedule_name(name), page_size=PAGE, page_token=token)
            page = self._calls.unary(self._calls.schedules.ListFires, request, patient=True)
            yield from (_fire(one) for one in page.fires)
            token = page.next_page_token
            if not token:
                return

    def _get(self, name: str) -> schedules_pb2.Schedule:
        request = schedules_pb2.GetScheduleRequest(name=schedule_name(name))
        return self._calls.unary(self._calls.schedules.GetSchedule, request, patient=True)


def schedule_name(text: str) -> str:
    """Return `schedules/{id}` of a name or of an id alone."""
    return text if "/" in text else f"schedules/{text}"


def _misfire(word: str) -> schedules_pb2.Schedule.Misfire.ValueType:
    if word.upper() not in MISFIRES:
        raise refuse(f"misfire {word}", f"is not one of {', '.join(MISFIRES)}")
    return schedules_pb2.Schedule.Misfire.Value(f"MISFIRE_{word.upper()}")


def _overlap(word: str) -> schedules_pb2.Schedule.Overlap.ValueType:
    if word.upper() not in OVERLAPS:
        raise refuse(f"overlap {word}", f"is not one of {', '.join(OVERLAPS)}")
    return schedules_pb2.Schedule.Overlap.Value(f"OVERLAP_{word.upper()}")


def _word(kind: Any, value: int, prefix: str) -> str:
    """Return an enumeration's word; one that this client does not know as its number."""
    return kind.Name(value).removeprefix(prefix) if value in kind.values() else str(value)


def _schedule(message: schedules_pb2.Schedule) -> Schedule:
    return Schedule(
        name=message.name,
        template=wire.audit(message.template),
        cron=message.cron,
        time_zone=message.time_zone,
        misfire=_word(schedules_pb2.Schedule.Misfire, message.misfire, "MISFIRE_"),
        overlap=_word(schedules_pb2.Schedule.Overlap, message.overlap, "OVERLAP_"),
        jitter_s=message.jitter_s,
        paused=message.paused,
        etag=message.etag,
        created_at=wire.moment(message, "created_at"),
        next_fires=tuple(one.ToDatetime(tzinfo=UTC) for one in message.next_fires if 0 <= one.seconds < _LAST),
    )


def _fire(message: schedules_pb2.Fire) -> Fire:
    return Fire(
        due_at=wire.moment(message, "due_at"),
        fired_at=wire.moment(message, "fired_at"),
        outcome=_word(schedules_pb2.Fire.Outcome, message.outcome, "OUTCOME_"),
        reason=message.reason,
        audit=message.audit,
    )
