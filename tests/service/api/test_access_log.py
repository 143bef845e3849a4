"""Who did what and who was denied, as rows of one chain: no parameters, no credentials, no more rows than seconds."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from assay.api.v1 import (
    audits_pb2,
    audits_pb2_grpc,
    blobs_pb2,
    blobs_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    schedules_pb2,
    schedules_pb2_grpc,
)

from service.api import ledger
from service.main.access_log import check as check_command
from service.rules.access import ACCESS, MUTATIONS
from service.rules.access_log import AccessRow, check
from service.store import access_log
from service.store.access_log import rows
from service.store.engine import StoreBusy
from service.store.principals import disable_principal, put_principal
from tests.service.api.conftest import House, digest_of, told
from tests.service.plants.issuers import claims, token

SUBMIT = "/assay.api.v1.Audits/SubmitAudit"


def logged(house: House) -> list[AccessRow]:
    """Return the log without what local commands entered before, after checking that all of it holds together."""
    found = list(rows(house.store))
    assert check(found) == ()
    return [row for row in found if not row.method.startswith("assay-server ")]


def flushed(house: House) -> list[AccessRow]:
    """Return the rows of denials, those of the running second included."""
    assert house.served is not None
    house.served.denials.flush()
    return [row for row in logged(house) if row.outcome != access_log.OK]


async def test_each_change_leaves_one_row_that_names_it(house: House) -> None:
    request = await house.submission(checks=[{"check": "checks/weigh", "parameters_json": '{"draws": 77}'}])
    stub: Any = house.stub(audits_pb2_grpc.AuditsStub)
    before = len(logged(house))
    made = await stub.SubmitAudit(request)
    assert (await stub.SubmitAudit(request)).name == made.name  # changes nothing
    await stub.GetAudit(audits_pb2.GetAuditRequest(name=made.name))
    await stub.CancelAudit(audits_pb2.CancelAuditRequest(name=made.name))
    told_of = [(row.principal, row.method, row.object, row.outcome) for row in logged(house)[before:]]
    assert told_of == [
        ("ada", SUBMIT, made.name, "OK"),
        ("ada", "/assay.api.v1.Audits/CancelAudit", made.name, "OK"),
    ]
    assert "draws" not in "".join(row.line() for row in logged(house))


async def test_upload_leaves_one_row_when_it_is_whole(house: House) -> None:
    data = b"x" * (2 << 20)
    digest = digest_of(data)
    blob = f"blobs/sha256/{digest.sha256}/{digest.size}"
    stub: Any = house.stub(blobs_pb2_grpc.BlobsStub)
    first = blobs_pb2.WriteRequest(resource_name=f"uploads/{uuid.uuid4()}/{blob}", data=data[: 1 << 20])
    assert (await told(stub.Write(iter([first])))).reason == "UPLOAD_UNFINISHED"
    assert logged(house) == []
    last = blobs_pb2.WriteRequest(write_offset=1 << 20, data=data[1 << 20 :], finish_write=True)
    first.resource_name = f"uploads/{uuid.uuid4()}/{blob}"
    await stub.Write(iter([first, last]))
    assert [(row.method, row.object) for row in logged(house)] == [("/assay.api.v1.Blobs/Write", blob)]


async def test_refused_change_leaves_no_row(house: House) -> None:
    stub: Any = house.stub(audits_pb2_grpc.AuditsStub)
    request = await house.submission(nonce=b"short")
    before = len(logged(house))
    await told(stub.SubmitAudit(request))
    request = await house.submission()
    request.validate_only = True
    after = len(logged(house))  # sending the model again is a call of its own
    await stub.SubmitAudit(request)
    assert len(logged(house)) == after
    assert before <= after
    assert not [row for row in logged(house) if row.method == SUBMIT]


async def test_change_whose_row_cannot_be_written_is_not_made(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    request = await house.submission()

    def fail(*_arguments: Any) -> None:
        raise StoreBusy("planted")

    monkeypatch.setattr(access_log, "append", fail)
    stub: Any = house.stub(audits_pb2_grpc.AuditsStub)
    assert (await told(stub.SubmitAudit(request))).reason == "STORE_BUSY"
    monkeypatch.undo()
    assert not (await stub.ListAudits(audits_pb2.ListAuditsRequest())).audits


async def test_denials_of_one_second_share_a_row(house: House) -> None:
    made = await house.submit()
    stub: Any = house.stub(audits_pb2_grpc.AuditsStub, "ben")
    for _ in range(30):
        await told(stub.GetAudit(audits_pb2.GetAuditRequest(name=made.name)))
    for n in range(3):
        await told(stub.CancelAudit(audits_pb2.CancelAuditRequest(name=f"audits/{n:032x}")))
    await told(house.stub(models_pb2_grpc.ModelsStub, "ops").ListModels(models_pb2.ListModelsRequest()))
    await told(house.stub(models_pb2_grpc.ModelsStub, "stranger").ListModels(models_pb2.ListModelsRequest()))
    await told(house.stub(models_pb2_grpc.ModelsStub, "nobody").ListModels(models_pb2.ListModelsRequest()))
    found = {(row.principal, row.method.rpartition("/")[2], row.outcome): row for row in flushed(house)}
    assert {key: (row.times, row.object) for key, row in found.items()} == {
        ("ben", "GetAudit", "NOT_PERMITTED"): (30, made.name),
        ("ben", "CancelAudit", "NOT_PERMITTED"): (3, ""),  # of several objects none is named
        ("ops", "ListModels", "NOT_PERMITTED"): (1, ""),
        ("stranger", "ListModels", "NO_CREDENTIAL"): (1, ""),
        ("", "ListModels", "NO_CREDENTIAL"): (1, ""),
    }
    assert len(flushed(house)) == len(found)  # nothing is written twice


async def test_reaching_for_a_foreign_model_or_file_is_a_denial_whatever_its_code(house: House) -> None:
    foreign = await house.send_model("ada", b"of her own")
    request = await house.submission("ben")
    request.audit.model = foreign
    answer = await told(house.stub(audits_pb2_grpc.AuditsStub, "ben").SubmitAudit(request))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "UNKNOWN_MODEL")
    file = digest_of(b"a report file of ada's")
    asked = blobs_pb2.ReadRequest(resource_name=f"blobs/sha256/{file.sha256}/{file.size}")
    await told(house.stub(blobs_pb2_grpc.BlobsStub, "ben").Read(asked))
    assert [(row.principal, row.outcome, row.object) for row in flushed(house)] == [
        ("ben", "UNKNOWN_MODEL", foreign),
        ("ben", "BLOB_NOT_FOUND", asked.resource_name),
    ]


async def test_thief_of_many_names_writes_no_more_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert house.served is not None
    denials = house.served.denials
    for n in range(5_000):
        denials.note(ledger.Entry("/m", principal=f"p{n}"), "NO_CREDENTIAL")
    found = flushed(house)
    assert len(found) == ledger.KINDS_MAX + 1
    assert sum(row.times for row in found) == 5_000


async def test_denials_wait_for_a_store_that_is_busy(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert house.served is not None
    denials = house.served.denials
    denials.note(ledger.Entry("/m", principal="ben"), "NOT_PERMITTED")

    def fail(*_arguments: Any) -> None:
        raise StoreBusy("planted")

    monkeypatch.setattr(access_log, "append", fail)
    with pytest.raises(StoreBusy):
        denials.flush()
    monkeypatch.undo()
    denials.note(ledger.Entry("/m", principal="ben"), "NOT_PERMITTED")
    assert [(row.principal, row.times) for row in flushed(house)] == [("ben", 2)]


async def test_no_token_and_no_forged_name_reaches_the_log(house: House) -> None:
    text = token(claims(0, "ola"))
    stub: Any = house.stub(models_pb2_grpc.ModelsStub, "nobody")
    await told(stub.ListModels(models_pb2.ListModelsRequest(), metadata=(("authorization", f"Bearer {text}"),)))
    (row,) = flushed(house)
    assert (row.principal, row.outcome) == ("", "BAD_TOKEN")  # whom a bad token names is not known


async def test_every_mutation_of_the_table_is_recorded(house: House) -> None:
    """Schedules stand for the services that others wrote: the row comes from the store, not from their code."""
    stub: Any = house.stub(schedules_pb2_grpc.SchedulesStub)
    asked = (await house.submission()).audit
    asked.nonce = b""
    schedule = schedules_pb2.Schedule(template=asked, cron="@daily", time_zone="UTC")
    made = await stub.CreateSchedule(schedules_pb2.CreateScheduleRequest(schedule_id="nightly", schedule=schedule))
    await stub.PauseSchedule(schedules_pb2.PauseScheduleRequest(name=made.name))
    methods = [row.method.rpartition("/")[2] for row in logged(house)]
    assert methods[-2:] == ["CreateSchedule", "PauseSchedule"]
    assert [row.object for row in logged(house)][-2:] == ["schedules/nightly"] * 2
    assert {row.method for row in logged(house)} <= MUTATIONS <= ACCESS.keys()


async def test_local_commands_are_recorded_too(house: House) -> None:
    url = house.settings.database_url
    put_principal(url, "eve", tenant="acme", role="auditor")
    assert disable_principal(url, "eve")
    assert not disable_principal(url, "nobody-of-that-name")
    told_of = [(row.principal, row.method, row.object) for row in rows(house.store)][-2:]
    assert told_of == [
        ("", "assay-server principals add", "principals/eve"),
        ("", "assay-server principals disable", "principals/eve"),
    ]


async def test_command_tells_the_head_and_finds_a_cut(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    await house.submit()
    found = list(rows(house.store))
    assert check_command(found, None) == 0
    head = json.loads(capsys.readouterr().err)["head"]
    seq, _, sha256 = head.partition(":")
    assert (int(seq), sha256) == (found[-1].seq, found[-1].sha256)
    assert check_command(found[:-1], (int(seq), sha256)) == 1
    assert json.loads(capsys.readouterr().out) == {"rule": "head", "seq": found[-1].seq}
