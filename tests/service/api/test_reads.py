"""Reads in the log of access: one row for a principal, a method and a minute, and never one for each read."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc, capabilities_pb2, capabilities_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.api import ledger
from service.api.server import drain
from service.rules.access import ACCESS, MUTATIONS, READS
from service.rules.access_log import AccessRow, check, read_line
from service.store import access_log
from service.store.access_log import rows
from service.store.engine import StoreBusy
from tests.service.api.conftest import House, Told, told, told_by

GET, WATCH = "GetAudit", "WatchAudit"


def logged(house: House) -> list[AccessRow]:
    found = list(rows(house.store))
    assert check(found) == ()
    return found


def written(house: House) -> dict[tuple[str, str], AccessRow]:
    """Return the rows of reads by principal and method, those of the running minute included."""
    assert house.served is not None
    house.served.reads.flush()
    found = [row for row in logged(house) if row.method in READS and row.outcome == access_log.OK]
    by_key = {(row.principal, row.method.rpartition("/")[2]): row for row in found}
    assert len(by_key) == len(found)
    return by_key


def test_each_method_is_a_read_or_a_mutation() -> None:
    ours = {method for method in ACCESS if method.startswith("/assay.api.")}
    assert ours == READS | MUTATIONS
    assert not READS & MUTATIONS


async def test_reads_of_one_minute_share_a_row_and_change_none(house: House) -> None:
    first, second = await house.submit(), await house.submit()
    ada, ola = (house.stub(audits_pb2_grpc.AuditsStub, name) for name in ("ada", "ola"))
    before = len(logged(house))
    for _ in range(20):
        await ada.GetAudit(audits_pb2.GetAuditRequest(name=first.name))
    await ola.GetAudit(audits_pb2.GetAuditRequest(name=first.name))
    await ola.GetAudit(audits_pb2.GetAuditRequest(name=second.name))
    await ada.ListAudits(audits_pb2.ListAuditsRequest())
    assert len(logged(house)) == before  # a read waits for no row
    found = written(house)
    assert {key: (row.times, row.object) for key, row in found.items() if key[1] in (GET, "ListAudits")} == {
        ("ada", GET): (20, first.name),
        ("ola", GET): (2, ""),  # of several objects none is named
        ("ada", "ListAudits"): (1, ""),
    }
    assert written(house) == found  # nothing is written twice
    assert all(read_line(row.line().encode()) == row for row in found.values())  # export and check take them


async def test_read_does_not_wait_for_a_log_that_cannot_be_written(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await house.submit()
    stub = house.stub(audits_pb2_grpc.AuditsStub)

    def fail(*_arguments: Any) -> None:
        raise StoreBusy("planted")

    monkeypatch.setattr(access_log, "append", fail)
    await stub.GetAudit(audits_pb2.GetAuditRequest(name=made.name))
    assert house.served is not None
    with pytest.raises(StoreBusy):
        house.served.reads.flush()
    monkeypatch.undo()
    await stub.GetAudit(audits_pb2.GetAuditRequest(name=made.name))
    assert written(house)["ada", GET].times == 2  # kept, and counted on


async def test_refused_read_is_its_denial_and_not_a_read_too(house: House) -> None:
    made = await house.submit()
    ben = house.stub(audits_pb2_grpc.AuditsStub, "ben")
    assert (await told(ben.GetAudit(audits_pb2.GetAuditRequest(name=made.name)))).reason == "NOT_PERMITTED"
    assert (await told(ben.WatchAudit(audits_pb2.WatchAuditRequest(name=made.name)))).reason == "NOT_PERMITTED"
    assert (await told(ben.GetAudit(audits_pb2.GetAuditRequest(name="x")))).reason == "BAD_RESOURCE_NAME"
    assert not [key for key in written(house) if key[0] == "ben"]
    assert house.served is not None
    house.served.denials.flush()
    denied = [row.method.rpartition("/")[2] for row in logged(house) if row.principal == "ben"]
    assert sorted(denied) == [GET, WATCH]


async def test_stream_that_is_broken_off_was_read(house: House) -> None:
    """Who cancels before the end has read all the same."""
    made = await house.submit()
    call = house.stub(audits_pb2_grpc.AuditsStub).WatchAudit(audits_pb2.WatchAuditRequest(name=made.name))
    await call.read()
    call.cancel()
    assert house.served is not None
    await house.served.stop(None)  # waits until its handler has ended
    assert written(house)["ada", WATCH].object == made.name


async def told_rest(call: Any) -> Told:
    with pytest.raises(grpc.RpcError) as caught:
        await _read_all(call)
    return told_by(caught.value)


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_reads_are_written_when_the_server_drains(house: House) -> None:
    made = await house.submit()
    call = house.stub(audits_pb2_grpc.AuditsStub).WatchAudit(audits_pb2.WatchAuditRequest(name=made.name))
    await call.read()
    assert house.served is not None
    assert house.backing is not None
    await drain(house.served, house.backing, 5.0)
    assert [row.principal for row in logged(house) if row.method.endswith(WATCH)] == ["ada"]
    assert (await told_rest(call)).reason == "SHUTTING_DOWN"


async def test_health_is_no_read_of_anybodys(house: House) -> None:
    health: Any = health_pb2_grpc.HealthStub(house.channel())
    await health.Check(health_pb2.HealthCheckRequest())
    capable: Any = capabilities_pb2_grpc.CapabilitiesStub(house.channel())
    await capable.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest())
    assert list(written(house)) == [("ada", "GetCapabilities")]


async def test_a_minute_of_many_readers_is_one_transaction_of_bounded_length(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert house.served is not None
    reads, begun = house.served.reads, []
    for n in range(3 * ledger.READ_KINDS_MAX):
        reads.note(ledger.Entry("/assay.api.v1.Audits/GetAudit", principal=f"p{n}"))
    begin = house.store.begin

    @contextmanager
    def counted() -> Any:
        begun.append(1)
        with begin() as connection:
            yield connection

    monkeypatch.setattr(house.store, "begin", counted)
    assert (reads.flush(), len(begun)) == (ledger.READ_KINDS_MAX + 1, 1)
    assert sum(row.times for row in logged(house) if row.outcome == "OK" and not row.object.startswith("pr")) == (
        3 * ledger.READ_KINDS_MAX
    )
