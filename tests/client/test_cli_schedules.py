"""`assay schedules`: what it sends, what it shows, and that a template is what was asked, nothing of what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc, schedules_pb2, schedules_pb2_grpc

from tests.client.conftest import Ran
from tests.client.fakes import abort
from tests.client.planted import certificates

AUDIT = "audits/" + "1" * 32
MODEL = "models/" + "ab" * 32


class Fake(schedules_pb2_grpc.SchedulesServicer, audits_pb2_grpc.AuditsServicer):
    """Keeps schedules by name; pages of one."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.stale = False

    def GetAudit(self, request: Any, context: grpc.ServicerContext) -> Any:
        fields: dict[str, Any] = {
            "name": AUDIT,
            "model": MODEL,
            "checks": [{"check": "checks/weigh", "version": "1.0", "parameters_json": "{}"}],
            "data": [{"role": "pairs", "blob": {"sha256": "cd" * 32, "size": 9}, "media_type": "application/jsonl"}],
            "nonce": b"n" * 32,
            "labels": {"team": "red"},
            "state": audits_pb2.Audit.STATE_COMPLETED,
            "reports": [AUDIT + "/reports/r1"],
            "request_sha256": "ef" * 32,
        }
        return audits_pb2.Audit(**fields)

    def CreateSchedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        if request.schedule.cron == "wrong":
            abort(
                context,
                "INVALID_ARGUMENT",
                "BAD_CRON",
                "schedule.cron: has 1 fields, not five.",
                violations={"schedule.cron": "has 1 fields, not five"},
            )
        made = schedules_pb2.Schedule()
        made.CopyFrom(request.schedule)
        made.name, made.etag = f"schedules/{request.schedule_id}", "one"
        made.next_fires.add(seconds=1_774_746_000)
        self.kept[made.name] = made
        return made

    def GetSchedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name not in self.kept:
            abort(context, "PERMISSION_DENIED", "NOT_PERMITTED")
        return self.kept[request.name]

    def UpdateSchedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        if self.stale:
            abort(context, "ABORTED", "ETAG_MISMATCH", "The schedule changed since it was read.")
        self.kept[request.schedule.name] = request.schedule
        return request.schedule

    def ListSchedules(self, request: Any, context: grpc.ServicerContext) -> Any:
        start, names = int(request.page_token or 0), list(self.kept)
        more = str(start + 1) if start + 1 < len(names) else ""
        listed = [self.kept[name] for name in names[start : start + 1]]
        return schedules_pb2.ListSchedulesResponse(schedules=listed, next_page_token=more)

    def DeleteSchedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        del self.kept[request.name]
        return schedules_pb2.DeleteScheduleResponse()

    def PauseSchedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.kept[request.name].paused = True
        return self.kept[request.name]

    def ResumeSchedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.kept[request.name].paused = False
        return self.kept[request.name]

    def RunSchedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        return audits_pb2.Audit(name=AUDIT, model=MODEL, schedule=request.name)

    def ListFires(self, request: Any, context: grpc.ServicerContext) -> Any:
        rows: list[Any] = [
            {"due_at": {"seconds": 1_774_746_000}, "outcome": 1, "audit": AUDIT},
            {"due_at": {"seconds": 1_774_659_600}, "outcome": 4, "reason": "NOT_PERMITTED\x1b[31m"},
            {"due_at": {"seconds": 1_774_573_200}, "outcome": 99},
        ]
        start = int(request.page_token or 0)
        more = str(start + 1) if start + 1 < len(rows) else ""
        return schedules_pb2.ListFiresResponse(fires=[rows[start]], next_page_token=more)


@pytest.fixture
def schedules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Fake, Callable[..., Ran]]]:
    from assay.cli.run import run

    folder = tmp_path / "fake"
    folder.mkdir()
    tls, fake = certificates(folder), Fake()  # type: ignore[abstract]  # calls that no command makes
    server = grpc.server(ThreadPoolExecutor(4))
    schedules_pb2_grpc.add_SchedulesServicer_to_server(fake, server)
    audits_pb2_grpc.add_AuditsServicer_to_server(fake, server)
    pair = (tls["key"].read_bytes(), tls["certificate"].read_bytes())
    credentials = grpc.ssl_server_credentials([pair], tls["ca"].read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    config = folder / "client.json"
    config.write_text(json.dumps({"address": f"127.0.0.1:{port}", **{name: file.name for name, file in tls.items()}}))

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        code = run(["schedules", *arguments, "--config", str(config)])
        seen = capsys.readouterr()
        return Ran(code, seen.out, seen.err)

    yield fake, call
    server.stop(0).wait()


WHEN = ("--cron", "30 2 * * *", "--zone", "Europe/Berlin")


@pytest.mark.parametrize(
    "words",
    [
        ("create", "nightly", *WHEN),
        ("create", "nightly", *WHEN, "--like", AUDIT, "--model", MODEL),
        ("create", "nightly", *WHEN, "--like", AUDIT, "--check", "weigh"),
        ("create", "nightly", *WHEN, "--model", MODEL),
        ("create", "nightly", *WHEN, "--like", AUDIT, "--label", "x"),
        ("create", "nightly", *WHEN, "--like", AUDIT, "--overlap", "both"),
        ("create", "nightly", *WHEN, "--like", AUDIT, "--misfire", "twice"),
        ("create", "nightly", "--cron", "wrong", "--zone", "UTC", "--like", AUDIT),
        ("update", "nightly"),
        ("show", "nowhere"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_made(schedules: Any, words: tuple[str, ...]) -> None:
    fake, assay = schedules
    ran = assay(*words)
    assert ran.code == 3, ran.err
    assert ran.err
    assert "Traceback" not in ran.err
    assert fake.kept == {}


def test_like_an_audit_asks_what_it_asked_and_carries_nothing_that_came_out(schedules: Any) -> None:
    fake, assay = schedules
    ran = assay("create", "nightly", *WHEN, "--like", AUDIT, "--label", "why=nightly", "--overlap", "replace", "--json")
    assert ran.code == 0, ran.err
    sent = fake.asked[0].schedule
    assert {field.name for field, _ in sent.template.ListFields()} == {"model", "checks", "data", "labels"}
    assert dict(sent.template.labels) == {"team": "red", "why": "nightly"}
    assert sent.template.checks[0].version == ""
    assert (sent.overlap, sent.misfire) == (
        schedules_pb2.Schedule.OVERLAP_REPLACE,
        schedules_pb2.Schedule.MISFIRE_ONCE,
    )
    told = json.loads(ran.out)
    assert (told["name"], told["next_fires"]) == ("schedules/nightly", ["2026-03-29T01:00:00.000Z"])
    assert "state" not in told["template"]


def test_pinned_versions_stay(schedules: Any) -> None:
    fake, assay = schedules
    assert assay("create", "nightly", *WHEN, "--like", AUDIT, "--pin").code == 0
    assert fake.asked[0].schedule.template.checks[0].version == "1.0"


def test_an_update_sends_the_rest_as_it_was_with_its_etag(schedules: Any) -> None:
    fake, assay = schedules
    assert assay("create", "nightly", *WHEN, "--like", AUDIT, "--jitter-s", "60").code == 0
    assert assay("update", "schedules/nightly", "--cron", "@daily").code == 0
    sent = fake.asked[-1].schedule
    assert (sent.cron, sent.time_zone, sent.jitter_s, sent.etag) == ("@daily", "Europe/Berlin", 60, "one")
    fake.stale = True
    ran = assay("update", "nightly", "--zone", "UTC")
    assert ran.code != 0
    assert "changed since it was read" in ran.err


def test_the_rest_of_a_schedules_life(schedules: Any) -> None:
    fake, assay = schedules
    for name in ("nightly", "weekly"):
        assert assay("create", name, *WHEN, "--like", AUDIT).code == 0
    listed = assay("list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["schedules/nightly", "schedules/weekly"]
    assert "next 2026-03-29 01:00 UTC" in listed[0]
    assert "paused" in assay("pause", "nightly").out
    assert "paused" in assay("list").out
    assert "paused" not in assay("resume", "nightly").out
    shown = assay("show", "nightly").out
    assert "30 2 * * *  in Europe/Berlin" in shown
    assert "weigh (as the service has it)" in shown
    run = assay("run", "nightly", "--request-id", "3b9a4f0e-6f5b-4c57-9b4e-0d6c0b1f2a3d")
    assert AUDIT in run.out
    assert fake.asked[-1].request_id == "3b9a4f0e-6f5b-4c57-9b4e-0d6c0b1f2a3d"
    assert assay("delete", "weekly").out == "Deleted schedules/weekly\n"
    assert list(fake.kept) == ["schedules/nightly"]


def test_fires_are_told_with_their_reason_and_words_of_a_newer_service_do_not_break_it(schedules: Any) -> None:
    _, assay = schedules
    ran = assay("fires", "nightly")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == f"2026-03-29 01:00 UTC  SUBMITTED        {AUDIT}"
    assert "REFUSED" in lines[1]
    assert "\x1b" not in ran.out
    assert "99" in lines[2]
    assert [one["outcome"] for one in json.loads(assay("fires", "nightly", "--json").out)] == [
        "SUBMITTED",
        "REFUSED",
        "99",
    ]
