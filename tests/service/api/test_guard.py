"""The door: who may enter, what an unreadable or failing call hears, and what the server serves besides."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from assay.api.v1 import (
    audits_pb2,
    audits_pb2_grpc,
    capabilities_pb2,
    capabilities_pb2_grpc,
    checks_pb2,
    checks_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import update

from service.api import directory, guard
from service.api.server import SERVICES, NotReady, build, require_rows
from service.rules.access import ACCESS
from service.rules.states import AuditState
from service.store.events import append_event
from service.store.principals import disable_principal, put_principal
from service.store.tables import audit
from tests.service.api.conftest import CATALOGUE, House, told, told_by
from tests.service.api.finish import complete, set_state


def _capabilities(channel: grpc.aio.Channel) -> Any:
    stub: Any = capabilities_pb2_grpc.CapabilitiesStub(channel)
    return stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest())


async def test_capabilities_publish_limits_and_isolation(house: House) -> None:
    reply = await _capabilities(house.channel())
    assert (reply.api_version, reply.digest_function) == ("1.0", "sha256")
    assert reply.catalogue_sha256 == CATALOGUE.sha256
    assert (reply.batch_bytes_max, reply.find_missing_max) == (3 << 20, 1000)
    assert reply.isolation == "none"
    assert "start a worker" in reply.isolation_detail
    house.settings.isolation_file.write_text(json.dumps({"isolation": "bubblewrap", "detail": ""}))
    assert (await _capabilities(house.channel())).isolation == "bubblewrap"
    house.settings.isolation_file.write_text("{")
    assert "unreadable" in (await _capabilities(house.channel())).isolation_detail


@pytest.mark.parametrize("principal", ["stranger", "nobody", "odd", "server"])
async def test_certificate_without_an_enabled_principal_is_no_credential(house: House, principal: str) -> None:
    """Unknown to the database, without our URI, with a role that does not exist."""
    answer = await told(_capabilities(house.channel(principal)))
    assert (answer.code, answer.reason) == ("UNAUTHENTICATED", "NO_CREDENTIAL")


async def test_no_certificate_no_connection(house: House) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await _capabilities(house.channel(None))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_disabled_principal_is_out_and_its_streams_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CACHE_S", 0.0)
    monkeypatch.setattr(guard, "RECHECK_S", 0.0)
    made = await house.submit()
    stub = house.stub(audits_pb2_grpc.AuditsStub)
    call = stub.WatchAudit(audits_pb2.WatchAuditRequest(name=made.name))
    await call.read()
    assert disable_principal(house.settings.database_url, "ada")
    with pytest.raises(grpc.RpcError) as caught:
        await _read_all(call)
    assert told_by(caught.value).reason == "NO_CREDENTIAL"
    assert (await told(_capabilities(house.channel()))).reason == "NO_CREDENTIAL"


@pytest.mark.parametrize(("tenant", "role"), [("bolt", "auditor"), ("acme", "owner"), ("house", "operator")])
async def test_stream_goes_on_only_as_who_the_caller_is_by_now(
    house: House, monkeypatch: pytest.MonkeyPatch, tenant: str, role: str
) -> None:
    """Moved to another tenant, or given another role: what it may not read any more, it is not told either."""
    monkeypatch.setattr(directory, "CACHE_S", 0.0)
    monkeypatch.setattr(guard, "RECHECK_S", 0.0)
    made = await house.submit()
    with house.store.begin() as connection:  # of a foreign model, as if its owner had approved
        connection.execute(update(audit).values(model_tenant="bolt"))
    call = house.stub(audits_pb2_grpc.AuditsStub).WatchAudit(audits_pb2.WatchAuditRequest(name=made.name))
    await call.read()
    put_principal(house.settings.database_url, "ada", tenant=tenant, role=role)
    name = made.name.removeprefix("audits/")
    for number in range(3):  # one may be on its way when the stream is let in again
        with house.store.begin() as connection:
            append_event(connection, name, "approval_used", {"approval": "x", "used": number, "max_runs": 9})
    set_state(house, made.name, AuditState.CANCELLED)
    if role == "operator":
        kinds = [event.WhichOneof("event") for event in await _read_all(call) if event.sequence]
        assert kinds[-3:] == [None, None, "state_changed"]
        return
    with pytest.raises(grpc.RpcError) as caught:
        await _read_all(call)
    assert told_by(caught.value).reason == "NOT_PERMITTED"


async def _read_all(call: Any) -> list[Any]:
    found = []
    while (event := await call.read()) is not grpc.aio.EOF:
        found.append(event)
    return found


def test_every_method_of_every_proto_has_a_row() -> None:
    require_rows(SERVICES)
    protos = Path(audits_pb2.__file__).parent.glob("*_pb2.py")
    served = {service.file.name for service in SERVICES}
    assert served == {f"assay/api/v1/{file.name.removesuffix('_pb2.py')}.proto" for file in protos}


async def test_method_without_a_row_stops_the_start(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {method: row for method, row in ACCESS.items() if not method.endswith("CancelAudit")}
    monkeypatch.setattr("service.rules.access.ACCESS", short)
    assert house.backing is not None
    with pytest.raises(NotReady, match=r"Audits/CancelAudit"):
        build(house.backing)
    stub = house.stub(audits_pb2_grpc.AuditsStub)
    answer = await told(stub.CancelAudit(audits_pb2.CancelAuditRequest(name=f"audits/{'0' * 32}")))
    assert answer.reason == "NOT_PERMITTED"


async def test_unreadable_message_is_the_callers_fault(house: House) -> None:
    call: Any = house.channel().unary_unary("/assay.api.v1.Audits/GetAudit")
    for body in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):
        answer = await told(call(body))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")


async def test_server_fault_is_an_incident_and_never_a_traceback(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: Any) -> None:
        raise ZeroDivisionError("secret path /etc/assay")

    monkeypatch.setattr("service.api.audits.sees_audit", fail)
    stub = house.stub(audits_pb2_grpc.AuditsStub)
    with caplog.at_level(logging.ERROR, "assay.api"):
        answer = await told(stub.GetAudit(audits_pb2.GetAuditRequest(name=f"audits/{'0' * 32}")))
    assert (answer.code, answer.reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in answer.raw.decode("utf-8", "replace")
    assert answer.metadata["incident"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_lost_database_is_unavailable(house: House) -> None:
    stub = house.stub(audits_pb2_grpc.AuditsStub)
    await stub.ListAudits(audits_pb2.ListAuditsRequest())
    house.store.close()
    database = Path(house.settings.database_url.removeprefix("sqlite:///"))
    for file in database.parent.glob("assay.db*"):
        file.unlink()
    database.mkdir()
    answer = await told(stub.ListAudits(audits_pb2.ListAuditsRequest()))
    assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")


async def test_compressed_message_is_refused(house: House) -> None:
    channel = house.channel(compression=grpc.Compression.Gzip)
    stub: Any = models_pb2_grpc.ModelsStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        await stub.GetModel(models_pb2.GetModelRequest(name="models/" + "0" * 4000))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_message_above_four_mebibytes_is_refused(house: House) -> None:
    stub = house.stub(models_pb2_grpc.ModelsStub)
    with pytest.raises(grpc.RpcError) as caught:
        await stub.GetModel(models_pb2.GetModelRequest(name="m" * (4 << 20)))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_reflection_lists_every_service(house: House) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(house.channel())
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    replies = [reply async for reply in call]
    names = {one.name for one in replies[0].list_services_response.service}
    assert {service.full_name for service in SERVICES} <= names
    assert "grpc.health.v1.Health" in names


async def test_reflection_is_off_unless_configured(house: House) -> None:
    await house.stop()
    await house.start(reflection=False)
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(house.channel())
    with pytest.raises(grpc.RpcError) as caught:
        await stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest()])).read()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_health_serves_only_with_store_and_blobs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = house.stub(health_pb2_grpc.HealthStub)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", "assay.api.v1.Audits"):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == serving
    folder = house.settings.blob_dir / "incoming"
    folder.rename(folder.with_name("gone"))
    assert house.served is not None
    assert not await house.served.health.probe()
    reply = await stub.Check(health_pb2.HealthCheckRequest())
    assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
    folder.with_name("gone").rename(folder)
    assert await house.served.health.probe()
    monkeypatch.setattr(house.served.health, "_head", "another revision")
    assert not await house.served.health.probe()


async def test_checks_are_the_catalogue(house: House) -> None:
    stub = house.stub(checks_pb2_grpc.ChecksStub)
    listed = (await stub.ListChecks(checks_pb2.ListChecksRequest())).checks
    assert [one.name for one in listed] == ["checks/weigh", "checks/probe", "checks/hold", "checks/arrays"]
    assert json.loads(listed[0].params_schema_json)["properties"]["draws"]["minimum"] == 10
    assert not listed[0].HasField("power")
    one = await stub.GetCheck(checks_pb2.GetCheckRequest(name="checks/probe"))
    assert one == listed[1]
    assert one.power == checks_pb2.Measured(estimate=0.93, low=0.9, high=0.95, n=400, at="planted 0.1")
    answer = await told(stub.GetCheck(checks_pb2.GetCheckRequest(name="checks/nope")))
    assert (answer.code, answer.reason) == ("NOT_FOUND", "UNKNOWN_CHECK")


async def test_reports_are_named_once_they_are_signed(house: House) -> None:
    stub = house.stub(reports_pb2_grpc.ReportsStub)
    made = await house.submit()
    name = f"{made.name}/reports/r1"
    answer = await told(stub.GetReport(reports_pb2.GetReportRequest(name=name)))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "NOT_SIGNED_YET")
    assert not (await stub.ListReports(reports_pb2.ListReportsRequest(parent=made.name))).reports
    file = complete(house, made.name, {"report.sigstore.json": b"signed", "request.json": b"{}"})
    report = await stub.GetReport(reports_pb2.GetReportRequest(name=name))
    assert [one.path for one in report.files] == ["report.sigstore.json", "request.json"]
    assert report.files[0].sha256 == file.sha256
    assert report.key_id == "f" * 64
    listed = await stub.ListReports(reports_pb2.ListReportsRequest(parent=made.name))
    assert list(listed.reports) == [report]


async def test_foreign_absent_and_impossible_reports_read_the_same(house: House) -> None:
    made = await house.submit("ada")
    complete(house, made.name, {"report.sigstore.json": b"signed"})
    stub = house.stub(reports_pb2_grpc.ReportsStub, "ben")
    absent = f"audits/{'0' * 32}"
    answers = {
        (await told(stub.GetReport(reports_pb2.GetReportRequest(name=f"{audit}/reports/r1")))).raw
        for audit in (made.name, absent)
    }
    answers |= {
        (await told(stub.ListReports(reports_pb2.ListReportsRequest(parent=audit)))).raw
        for audit in (made.name, absent)
    }
    own = house.stub(reports_pb2_grpc.ReportsStub)
    answers.add((await told(own.GetReport(reports_pb2.GetReportRequest(name=f"{made.name}/reports/r2")))).raw)
    assert len(answers) == 1
