"""Submitting: all or nothing, once, and everything that is wrong at once."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import grpc
import pytest
from assay import request as request_format
from assay.api.v1 import audits_pb2, audits_pb2_grpc
from sqlalchemy import Table, func, select

from service.api import directory
from service.rules.states import AuditState
from service.store import submissions
from service.store.engine import open_store
from service.store.principals import put_principal
from service.store.tables import audit, blob_grant, event, idempotency, job, outbox
from service.store.tables import model as model_table
from tests.service.api.conftest import QUICK, House, digest_of, told
from tests.service.api.finish import set_state

State = audits_pb2.Audit.State


def _stub(house: House, principal: str = "ada") -> Any:
    return house.stub(audits_pb2_grpc.AuditsStub, principal)


def _count(house: House, table: Table) -> int:
    with house.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _nothing_created(house: House) -> bool:
    return not any(_count(house, table) for table in (audit, job, event, outbox, idempotency))


async def test_accepted_audit_has_all_its_rows_and_its_request(house: House) -> None:
    pairs = await house.send(b'{"a":1}\n')
    asked = await house.submission(
        checks=[{"check": "checks/probe", "parameters_json": '{"alpha": 0.010}'}, {"check": "checks/weigh"}],
        data=[{"role": "pairs", "blob": pairs}],
        labels={"team": "red"},
    )
    made = await _stub(house).SubmitAudit(asked)
    assert made.state == State.STATE_QUEUED
    assert made.last_sequence == 1
    assert made.labels == {"team": "red"}
    assert json.loads(made.checks[0].parameters_json) == {"alpha": "0.01", "layers": "all", "threshold": "0.5"}
    assert json.loads(made.checks[1].parameters_json) == {"draws": 100}
    assert (made.limits.attempts_max, made.limits.output_bytes, made.limits.wall_s) == (8, 65536, 3600)
    stored = request_format.parse(house.request(made))
    assert stored["audit"] == made.name.removeprefix("audits/")
    assert stored["nonce"] == asked.audit.nonce.hex()
    assert stored["data"] == [{"role": "pairs", "sha256": pairs.sha256}]
    assert stored["checks"][0]["params"]["alpha"] == "0.01"
    with house.store.read() as connection:
        owed = connection.execute(select(outbox.c.kind, outbox.c.audit)).all()
        granted = connection.execute(select(blob_grant.c.sha256)).scalars().all()
        jobs = connection.execute(select(job.c.id, job.c.kind, job.c.state, job.c.capability)).all()
    assert [tuple(row) for row in owed] == [("register", stored["audit"])]
    assert [tuple(row) for row in jobs] == [(stored["audit"], "whole", "QUEUED", "cpu")]
    assert made.request_sha256 not in granted
    assert await _stub(house).GetAudit(audits_pb2.GetAuditRequest(name=made.name)) == made
    assert _count(house, model_table) == 1


async def test_hundred_parallel_submissions_of_one_id_are_one_audit(house: House) -> None:
    asked = await house.submission()
    channel = house.channel()
    await channel.channel_ready()  # the limit of 32 streams is known now; the rest waits instead of being refused
    stub: Any = audits_pb2_grpc.AuditsStub(channel)
    await stub.ListAudits(audits_pb2.ListAuditsRequest())
    replies = await asyncio.gather(*(stub.SubmitAudit(asked) for _ in range(100)))
    assert len({reply.name for reply in replies}) == 1
    assert [_count(house, table) for table in (audit, job, event, outbox, idempotency)] == [1] * 5


async def test_repeated_call_returns_the_current_state(house: House) -> None:
    asked = await house.submission()
    made = await _stub(house).SubmitAudit(asked)
    set_state(house, made.name, AuditState.RUNNING)
    asked.request_id = asked.request_id.upper()
    again = await _stub(house).SubmitAudit(asked)
    assert (again.name, again.state) == (made.name, State.STATE_RUNNING)
    assert again.etag != made.etag


async def test_repeated_call_reads_no_audit_that_is_the_callers_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "CACHE_S", 0.0)
    asked = await house.submission()
    made = await _stub(house).SubmitAudit(asked)
    put_principal(house.settings.database_url, "ada", tenant="acme", role="owner")
    assert (await _stub(house).SubmitAudit(asked)).name == made.name
    put_principal(house.settings.database_url, "ada", tenant="bolt", role="auditor")
    assert (await told(_stub(house).SubmitAudit(asked))).reason == "NOT_PERMITTED"
    assert _count(house, audit) == 1


async def test_request_id_with_other_content_is_refused(house: House) -> None:
    asked = await house.submission()
    await _stub(house).SubmitAudit(asked)
    asked.audit.labels["x"] = "y"
    answer = await told(_stub(house).SubmitAudit(asked))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert _count(house, audit) == 1


async def test_one_request_id_of_two_principals_is_two_audits(house: House) -> None:
    one, two = await house.submission("ada"), await house.submission("ben")
    two.request_id = one.request_id
    names = {(await _stub(house, who).SubmitAudit(asked)).name for who, asked in (("ada", one), ("ben", two))}
    assert len(names) == 2


async def test_refused_request_may_be_corrected_under_the_same_id(house: House) -> None:
    asked = await house.submission(checks=[{"check": "checks/wiegh"}])
    assert (await told(_stub(house).SubmitAudit(asked))).reason == "UNKNOWN_CHECK"
    assert _nothing_created(house)
    asked.audit.checks[0].check = "checks/weigh"
    assert (await _stub(house).SubmitAudit(asked)).name


async def test_validate_only_writes_nothing_and_says_the_same(house: House) -> None:
    asked = await house.submission()
    asked.validate_only = True
    reply = await _stub(house).SubmitAudit(asked)
    assert (reply.name, reply.state) == ("", State.STATE_UNSPECIFIED)
    assert json.loads(reply.checks[0].parameters_json) == {"draws": 100}
    asked.audit.nonce = b"short"
    assert (await told(_stub(house).SubmitAudit(asked))).reason == "BAD_NONCE"
    assert _nothing_created(house)
    assert _count(house, model_table) == 0


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"checks": []}, "BAD_CHECKS", "0 checks"),
        ({"checks": [{"check": "checks/weigh"}] * 65}, "BAD_CHECKS", "65 checks"),
        ({"checks": [{"check": "checks/no_such"}]}, "UNKNOWN_CHECK", "no_such"),
        ({"checks": [{"check": "weigh"}]}, "UNKNOWN_CHECK", "checks[0].check"),
        ({"checks": [{"check": "checks/weigh", "version": "9.9"}]}, "UNKNOWN_CHECK", "version 1.0"),
        ({"checks": [{"check": "checks/weigh", "parameters_json": '{"drawz":5}'}]}, "BAD_PARAMETERS", "'draws'"),
        ({"checks": [{"check": "checks/weigh", "parameters_json": '{"draws":5}'}]}, "BAD_PARAMETERS", "minimum 10"),
        ({"checks": [{"check": "checks/weigh", "parameters_json": "[]"}]}, "BAD_PARAMETERS", "one JSON object"),
        ({"data": [{"role": "pairs", "blob": digest_of(b"")}]}, "BAD_DATA_ROLE", "no asked check needs"),
        ({"checks": [{"check": "checks/probe"}]}, "BAD_DATA_ROLE", "'probe' needs data of role 'pairs'"),
        ({"limits": {"attempts_max": 21}}, "BAD_LIMITS", "attempts_max"),
        ({"limits": {"output_bytes": 65537}}, "BAD_LIMITS", "output_bytes"),
        ({"limits": {"wall_s": -1}}, "BAD_LIMITS", "wall_s"),
        ({"nonce": b"short"}, "BAD_NONCE", "5 bytes"),
        ({"labels": {"UPPER": "x"}}, "BAD_LABEL", "UPPER"),
        ({"labels": {"bell": "\a"}}, "BAD_LABEL", "printable"),
        ({"labels": {f"l{number}": "" for number in range(17)}}, "BAD_LABEL", "17 labels"),
        ({"model": "models/x"}, "BAD_RESOURCE_NAME", "models/{64 hex}"),
        ({"model": f"models/{'0' * 64}"}, "UNKNOWN_MODEL", "manifest first"),
    ],
)
async def test_bad_audit_is_refused_and_nothing_is_created(
    house: House, changes: dict[str, Any], reason: str, words: str
) -> None:
    answer = await told(_stub(house).SubmitAudit(await house.submission(**changes)))
    assert answer.reason == reason
    assert words in answer.message
    assert _nothing_created(house)


async def test_all_violations_are_told_at_once(house: House) -> None:
    asked = await house.submission(
        checks=[{"check": "checks/nope"}, {"check": "checks/weigh", "parameters_json": '{"drawz":1,"x":2}'}],
        nonce=b"",
        limits={"wall_s": 100_000},
        labels={"B": "x"},
    )
    answer = await told(_stub(house).SubmitAudit(asked))
    told_of = {(one.field, one.reason) for one in answer.details["BadRequest"].field_violations}
    assert told_of == {
        ("audit.checks[0].check", "UNKNOWN_CHECK"),
        ("audit.checks[1].parameters_json.drawz", "BAD_PARAMETERS"),
        ("audit.checks[1].parameters_json.x", "BAD_PARAMETERS"),
        ("audit.limits.wall_s", "BAD_LIMITS"),
        ("audit.nonce", "BAD_NONCE"),
        ("audit.labels", "BAD_LABEL"),
    }
    assert answer.metadata["violation_count"] == "6"


async def test_many_violations_are_cut_and_counted(house: House) -> None:
    many = json.dumps({f"parameter_number_{number}": number for number in range(500)})
    asked = await house.submission(checks=[{"check": "checks/weigh", "parameters_json": many}])
    answer = await told(_stub(house).SubmitAudit(asked))
    assert answer.metadata["violation_count"] == "500"
    assert 10 <= len(answer.details["BadRequest"].field_violations) <= 40


async def test_foreign_words_are_never_echoed_raw(house: House) -> None:
    asked = await house.submission(checks=[{"check": "checks/\x1b[31mred\u202e"}])
    answer = await told(_stub(house).SubmitAudit(asked))
    assert answer.message.isprintable()
    assert answer.message.isascii()


LINE_END = "024e3c51-b0c9-476a-b57b-190e93edec8d\n"


@pytest.mark.parametrize("request_id", ["", "1", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", LINE_END])
async def test_request_id_is_a_uuid4(house: House, request_id: str) -> None:
    asked = await house.submission()
    asked.request_id = request_id
    answer = await told(_stub(house).SubmitAudit(asked))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_REQUEST_ID")


async def test_missing_data_blob_is_named(house: House) -> None:
    absent = digest_of(b"not sent")
    asked = await house.submission(checks=[{"check": "checks/probe"}], data=[{"role": "pairs", "blob": absent}])
    answer = await told(_stub(house).SubmitAudit(asked))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "MISSING_BLOBS")
    assert answer.details["PreconditionFailure"].violations[0].subject == f"blobs/sha256/{absent.sha256}/8"
    assert _nothing_created(house)


async def test_foreign_and_absent_models_are_unknown_in_the_same_bytes(house: House) -> None:
    foreign = await house.send_model("ada", seed=b" ")
    answers = []
    for model in (foreign, f"models/{'0' * 64}"):
        asked = await house.submission("ben", model=model)
        answers.append(await told(_stub(house, "ben").SubmitAudit(asked)))
    assert answers[0].raw == answers[1].raw
    assert answers[0].code == "FAILED_PRECONDITION"


async def test_expired_deadline_creates_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's time runs out while the rows are written: the last question before the commit rolls them back."""
    accept, gone = submissions.accept, []

    def slowly(*arguments: Any, expired: Any) -> str:
        while not expired():
            gone.append(1)
            time.sleep(0.01)
        return accept(*arguments, expired=expired)

    monkeypatch.setattr(submissions, "accept", slowly)
    asked = await house.submission()
    with pytest.raises(grpc.RpcError) as caught:
        await _stub(house).SubmitAudit(asked, timeout=0.3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.sleep(0.2)
    assert gone
    assert _nothing_created(house)
    monkeypatch.undo()
    assert (await _stub(house).SubmitAudit(asked, timeout=5)).name


async def test_call_without_deadline_gets_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.stop()
    await house.start(limits=replace(QUICK, unary_s=0.5))
    asked = await house.submission()
    accept = submissions.accept

    def slowly(*arguments: Any, expired: Any) -> str:
        while not expired():
            time.sleep(0.01)
        return accept(*arguments, expired=expired)

    monkeypatch.setattr(submissions, "accept", slowly)
    answer = await told(_stub(house).SubmitAudit(asked))
    assert (answer.code, answer.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
    await asyncio.sleep(0.1)
    assert _nothing_created(house)


async def test_busy_store_is_unavailable_with_a_delay(house: House) -> None:
    asked = await house.submission()
    house.store.close()
    impatient = open_store(house.settings.database_url, busy_ms=100)
    await house.stop()
    holder, house.store = house.store, impatient
    await house.start()
    with holder.begin():
        answer = await told(_stub(house).SubmitAudit(asked))
    holder.close()
    assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_BUSY")
    assert answer.details["RetryInfo"].retry_delay.seconds == 1
    assert (await _stub(house).SubmitAudit(asked)).name
