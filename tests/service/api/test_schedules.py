"""Schedules over the wire: bad input first, then a schedule's life; its fires by the scheduler's own loop."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc, schedules_pb2, schedules_pb2_grpc

from service.rules.schedules import SCHEDULES_MAX
from service.rules.templates import INPUT_FIELDS
from service.scheduler.fires import Fires
from service.store.engine import now_ms
from service.store.intake import Intake
from tests.service.api.access_world import Owner
from tests.service.api.conftest import CATALOGUE, House, told
from tests.service.api.consenting import acme_model

Schedule = schedules_pb2.Schedule
WEIGH = [audits_pb2.CheckRequest(check="checks/weigh")]
GONE = [audits_pb2.CheckRequest(check="checks/gone")]
MINUTE = 60_000


def stub(house: House, principal: str = "ada") -> Any:
    return house.stub(schedules_pb2_grpc.SchedulesStub, principal)


async def wanted(house: House, **changes: Any) -> schedules_pb2.Schedule:
    template = audits_pb2.Audit(model=await house.send_model(), checks=WEIGH)
    fields: dict[str, Any] = {"template": template, "cron": "0 * * * *", "time_zone": "Europe/Berlin", **changes}
    return Schedule(**fields)


async def create(house: House, identifier: str = "nightly", **changes: Any) -> Any:
    request = schedules_pb2.CreateScheduleRequest(schedule_id=identifier, schedule=await wanted(house, **changes))
    return await stub(house).CreateSchedule(request)


BAD: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"cron": ""}, "BAD_CRON", "schedule.cron"),
    ({"cron": "61 * * * *"}, "BAD_CRON", "schedule.cron"),
    ({"cron": "0 0 30 2 *"}, "BAD_CRON", "schedule.cron"),
    ({"time_zone": ""}, "BAD_TIME_ZONE", "schedule.time_zone"),
    ({"time_zone": "Mars/Olympus"}, "BAD_TIME_ZONE", "schedule.time_zone"),
    ({"jitter_s": 3601}, "BAD_SCHEDULE", "schedule.jitter_s"),
    ({"jitter_s": -1}, "BAD_SCHEDULE", "schedule.jitter_s"),
    ({"misfire": 9}, "BAD_SCHEDULE", "schedule.misfire"),
    ({"overlap": 9}, "BAD_SCHEDULE", "schedule.overlap"),
)


async def test_bad_schedules_are_refused_by_field(house: House) -> None:
    for changes, reason, field in BAD:
        refused = await told(create(house, **changes))
        assert (refused.code, refused.reason, refused.metadata["field"]) == ("INVALID_ARGUMENT", reason, field)


async def test_an_id_is_checked_like_every_other_field(house: House) -> None:
    for identifier in ("", "abc", "a" * 64, "Nightly", "a/bcd", "..%2f"):
        refused = await told(create(house, identifier))
        assert (refused.reason, refused.metadata["field"]) == ("BAD_SCHEDULE", "schedule_id"), identifier


async def test_everything_wrong_is_told_at_once_with_the_templates_own_paths(house: House) -> None:
    template = audits_pb2.Audit(model=await house.send_model(), checks=GONE, nonce=b"n" * 32)
    refused = await told(create(house, cron="x", time_zone="y", template=template))
    fields = [one.field for one in refused.details["BadRequest"].field_violations]
    assert fields == [
        "schedule.cron",
        "schedule.time_zone",
        "schedule.template.nonce",
        "schedule.template.checks[0].check",
    ]


async def test_owner_neither_reads_nor_deletes_an_auditors_schedule_on_a_foreign_model(house: House) -> None:
    """As it reads no audit of it. The schedule is of its own tenant; the model is not."""
    owner = Owner("acme", "ola")
    owner.enter(house)
    name = await acme_model(house)
    await owner.approve(house, name, "bolt")
    template = audits_pb2.Audit(model=name, checks=WEIGH)
    asked = Schedule(template=template, cron="0 3 * * *", time_zone="UTC")
    created = schedules_pb2.CreateScheduleRequest(schedule_id="foreign", schedule=asked)
    made = await stub(house, "ben").CreateSchedule(created)
    own = Schedule(template=audits_pb2.Audit(model=await house.send_model("ben"), checks=WEIGH), cron="0 3 * * *",
                   time_zone="UTC")  # fmt: skip
    await stub(house, "ben").CreateSchedule(schedules_pb2.CreateScheduleRequest(schedule_id="ours", schedule=own))
    bea, run = stub(house, "bea"), str(uuid.uuid4())
    calls: tuple[Callable[[str], Any], ...] = (
        lambda name: bea.GetSchedule(schedules_pb2.GetScheduleRequest(name=name)),
        lambda name: bea.UpdateSchedule(
            schedules_pb2.UpdateScheduleRequest(schedule=Schedule(name=name, template=own.template))
        ),
        lambda name: bea.RunSchedule(schedules_pb2.RunScheduleRequest(name=name, request_id=run)),
        lambda name: bea.PauseSchedule(schedules_pb2.PauseScheduleRequest(name=name)),
        lambda name: bea.ResumeSchedule(schedules_pb2.ResumeScheduleRequest(name=name)),
        lambda name: bea.ListFires(schedules_pb2.ListFiresRequest(parent=name)),
        lambda name: bea.DeleteSchedule(schedules_pb2.DeleteScheduleRequest(name=name)),
    )  # fmt: skip
    for call in calls:
        foreign, absent = await told(call(made.name)), await told(call("schedules/absent-one"))
        assert (foreign.reason, foreign.raw) == ("NOT_PERMITTED", absent.raw)
    listed = await bea.ListSchedules(schedules_pb2.ListSchedulesRequest(page_size=1))
    assert ([one.name for one in listed.schedules], listed.next_page_token) == (["schedules/ours"], "")
    assert (await bea.GetSchedule(schedules_pb2.GetScheduleRequest(name="schedules/ours"))).name == "schedules/ours"
    assert len((await stub(house, "ben").ListSchedules(schedules_pb2.ListSchedulesRequest())).schedules) == 2


async def test_a_template_is_held_against_what_a_submission_is(house: House) -> None:
    template = audits_pb2.Audit(model=f"models/{'ab' * 32}", checks=WEIGH)
    assert (await told(create(house, template=template))).reason == "UNKNOWN_MODEL"
    assert (await told(create(house, template=audits_pb2.Audit()))).reason == "BAD_RESOURCE_NAME"


async def test_validate_only_writes_nothing(house: House) -> None:
    request = schedules_pb2.CreateScheduleRequest(
        schedule_id="nightly", schedule=await wanted(house), validate_only=True
    )
    told_back = await stub(house).CreateSchedule(request)
    assert len(told_back.next_fires) == 5
    assert (await stub(house).ListSchedules(schedules_pb2.ListSchedulesRequest())).schedules == []


async def test_a_schedule_lives_and_keeps_its_etag_until_it_is_changed(house: House) -> None:
    made = await create(house, jitter_s=60)
    assert (made.name, made.misfire, made.overlap) == (
        "schedules/nightly",
        Schedule.MISFIRE_ONCE,
        Schedule.OVERLAP_SKIP,
    )
    steps = {
        second.seconds - first.seconds for first, second in zip(made.next_fires, made.next_fires[1:], strict=False)
    }
    assert steps == {3600}
    assert made == await stub(house).GetSchedule(schedules_pb2.GetScheduleRequest(name=made.name))
    assert (await told(create(house))).reason == "SCHEDULE_EXISTS"

    changed = Schedule()
    changed.CopyFrom(made)
    changed.cron = "@daily"
    update = schedules_pb2.UpdateScheduleRequest(schedule=changed)
    after = await stub(house).UpdateSchedule(update)
    assert (after.cron, after.jitter_s) == ("@daily", 60)
    assert after.etag != made.etag
    assert (await told(stub(house).UpdateSchedule(update))).reason == "ETAG_MISMATCH"
    stale = schedules_pb2.DeleteScheduleRequest(name=made.name, etag=made.etag)
    assert (await told(stub(house).DeleteSchedule(stale))).code == "ABORTED"
    await stub(house).DeleteSchedule(schedules_pb2.DeleteScheduleRequest(name=made.name, etag=after.etag))
    assert (await told(stub(house).GetSchedule(schedules_pb2.GetScheduleRequest(name=made.name)))).reason == (
        "NOT_PERMITTED"
    )
    assert (await create(house)).cron == "0 * * * *"


async def test_pausing_and_resuming_twice_is_ok(house: House) -> None:
    name = (await create(house)).name
    for _ in range(2):
        paused = await stub(house).PauseSchedule(schedules_pb2.PauseScheduleRequest(name=name))
        assert paused.paused
        assert paused.next_fires == []
    for _ in range(2):
        resumed = await stub(house).ResumeSchedule(schedules_pb2.ResumeScheduleRequest(name=name))
        assert not resumed.paused
        assert len(resumed.next_fires) == 5


async def test_a_foreign_schedule_and_an_absent_one_read_the_same(house: House) -> None:
    name = (await create(house)).name
    calls: dict[str, Callable[..., Any]] = {
        "GetSchedule": schedules_pb2.GetScheduleRequest,
        "DeleteSchedule": schedules_pb2.DeleteScheduleRequest,
        "PauseSchedule": schedules_pb2.PauseScheduleRequest,
        "ResumeSchedule": schedules_pb2.ResumeScheduleRequest,
        "RunSchedule": lambda name: schedules_pb2.RunScheduleRequest(name=name, request_id=str(uuid.uuid4())),
        "ListFires": lambda name: schedules_pb2.ListFiresRequest(parent=name),
        "UpdateSchedule": lambda name: schedules_pb2.UpdateScheduleRequest(schedule=Schedule(name=name)),
    }
    for method, request in calls.items():
        foreign, absent = [
            await told(getattr(stub(house, "ben"), method)(request(name=one))) for one in (name, "schedules/not-there")
        ]
        assert foreign.reason == "NOT_PERMITTED", method
        assert foreign.raw == absent.raw, method
    assert (await stub(house, "ben").ListSchedules(schedules_pb2.ListSchedulesRequest())).schedules == []


async def test_two_tenants_have_ids_of_their_own(house: House) -> None:
    await create(house)
    template = audits_pb2.Audit(model=await house.send_model("ben"), checks=WEIGH)
    theirs = Schedule(template=template, cron="@daily", time_zone="UTC")
    request = schedules_pb2.CreateScheduleRequest(schedule_id="nightly", schedule=theirs)
    assert (await stub(house, "ben").CreateSchedule(request)).cron == "@daily"
    mine = await stub(house).GetSchedule(schedules_pb2.GetScheduleRequest(name="schedules/nightly"))
    assert mine.cron == "0 * * * *"


async def test_running_a_schedule_now_is_once_per_request_id(house: House) -> None:
    name = (await create(house)).name
    request = schedules_pb2.RunScheduleRequest(name=name, request_id=str(uuid.uuid4()))
    first = await stub(house).RunSchedule(request)
    again = await stub(house).RunSchedule(request)
    assert (first.name, first.schedule) == (again.name, name)
    assert len(first.nonce) == 32
    other = await create(house, "weekly")
    request.name = other.name
    assert (await told(stub(house).RunSchedule(request))).reason == "REQUEST_ID_REUSED"
    request.request_id = "x"
    assert (await told(stub(house).RunSchedule(request))).reason == "BAD_REQUEST_ID"


async def test_pages_of_schedules_and_of_fires_are_whole(house: House) -> None:
    for number in range(3):
        await create(house, f"every-hour-{number}", overlap=Schedule.OVERLAP_QUEUE)
    seen: list[str] = []
    token = ""
    while True:
        page = await stub(house).ListSchedules(schedules_pb2.ListSchedulesRequest(page_size=2, page_token=token))
        seen += [one.name for one in page.schedules]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"schedules/every-hour-{number}" for number in (2, 1, 0)]

    with house.store.read() as connection:
        clock = [now_ms(connection)]
    intake = Intake(store=house.store, blobs=house.blobs, catalogue=CATALOGUE)
    loop = Fires(house.store, intake, clock=lambda: clock[0])
    for _ in range(3):
        clock[0] += 60 * MINUTE
        loop.step()
    fires: list[schedules_pb2.Fire] = []
    while True:
        asked = schedules_pb2.ListFiresRequest(parent=seen[0], page_size=2, page_token=token)
        page = await stub(house).ListFires(asked)
        fires += page.fires
        token = page.next_page_token
        if not token:
            break
    assert [one.outcome for one in fires] == [schedules_pb2.Fire.OUTCOME_SUBMITTED] * 3
    assert fires == sorted(fires, key=lambda one: one.due_at.seconds, reverse=True)
    audit = fires[0].audit
    found = await house.stub(audits_pb2_grpc.AuditsStub).GetAudit(audits_pb2.GetAuditRequest(name=audit))
    assert found.schedule == seen[0]
    assert len(found.nonce) == 32


async def test_a_tenant_has_only_so_many(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SCHEDULES_MAX == 100
    monkeypatch.setattr("service.store.schedules.SCHEDULES_MAX", 1)
    await create(house)
    refused = await told(create(house, "weekly"))
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_SCHEDULES")
    assert len((await stub(house).ListSchedules(schedules_pb2.ListSchedulesRequest())).schedules) == 1


async def test_a_template_keeps_every_input_field_and_no_output_field(house: House) -> None:
    """A field that SubmitAudit reads and a template loses would make the fire another audit than the one that was
    checked."""
    request = await house.submission()
    request.validate_only = True
    accepted = await house.stub(audits_pb2_grpc.AuditsStub).SubmitAudit(request)
    assert {field.name for field, _ in accepted.ListFields()} - {"nonce", "queue_estimate"} <= set(INPUT_FIELDS)
    template = (await wanted(house)).template
    template.state, template.request_sha256 = audits_pb2.Audit.STATE_COMPLETED, "aa" * 32
    template.labels["team"] = "red"
    made = await create(house, template=template)
    assert {field.name for field, _ in made.template.ListFields()} == {"model", "checks", "labels"}
