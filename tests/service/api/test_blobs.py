"""Grants, not existence: what a tenant has not sent does not exist for it, whatever others have sent."""

from __future__ import annotations

import os
from typing import Any

import grpc
import pytest
from assay.api.v1 import blobs_pb2, blobs_pb2_grpc
from sqlalchemy import select

from service.rules.names import BlobName
from service.store import uploads
from service.store.listings import ReportFile
from service.store.tables import blob
from tests.service.api.conftest import House, blob_of, digest_of, told
from tests.service.api.finish import complete


async def _missing(house: House, principal: str, *digests: blobs_pb2.Digest) -> Any:
    stub = house.stub(blobs_pb2_grpc.BlobsStub, principal)
    return await stub.FindMissingBlobs(blobs_pb2.FindMissingBlobsRequest(digests=digests))


async def test_only_what_was_sent_is_present(house: House) -> None:
    sent, absent = digest_of(b"here"), digest_of(b"not here")
    await house.send(b"here")
    wrong_size = blobs_pb2.Digest(sha256=sent.sha256, size=5)
    reply = await _missing(house, "ada", sent, absent, wrong_size, digest_of(b""), absent)
    assert list(reply.missing) == [absent, wrong_size]


async def test_digest_probe_reveals_nothing(house: House) -> None:
    foreign, absent = digest_of(b"ada's secret"), digest_of(b"nobody's")
    await house.send(b"ada's secret", "ada")
    assert list((await _missing(house, "ben", foreign)).missing) == [foreign]
    assert list((await _missing(house, "ben", absent)).missing) == [absent]
    stub = house.stub(blobs_pb2_grpc.BlobsStub, "ben")
    replies = [
        await told(stub.Read(blobs_pb2.ReadRequest(resource_name=f"blobs/sha256/{one.sha256}/{one.size}")))
        for one in (foreign, absent)
    ]
    assert replies[0].raw == replies[1].raw
    # Even with the bytes' digest known, an upload must bring all the bytes.
    name = f"uploads/0b7a1f9c-9a2b-4c3d-8e4f-000000000001/blobs/sha256/{foreign.sha256}/{foreign.size}"
    first = blobs_pb2.WriteRequest(resource_name=name, finish_write=True)
    assert (await told(stub.Write(iter([first])))).reason == "DIGEST_MISMATCH"


async def test_find_missing_names_the_bad_digest(house: House) -> None:
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    bad = [digest_of(b""), blobs_pb2.Digest(sha256="ABC", size=1), blobs_pb2.Digest(sha256="0" * 64, size=-1)]
    answer = await told(stub.FindMissingBlobs(blobs_pb2.FindMissingBlobsRequest(digests=bad)))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_DIGEST")
    fields = [one.field for one in answer.details["BadRequest"].field_violations]
    assert fields == ["digests[1]", "digests[2]"]
    many = [digest_of(b"")] * 1001
    answer = await told(stub.FindMissingBlobs(blobs_pb2.FindMissingBlobsRequest(digests=many)))
    assert answer.reason == "TOO_MANY"
    assert "1000" in answer.message


async def test_each_blob_of_a_batch_is_judged_alone(house: House) -> None:
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    good, wrong, short = digest_of(b"good"), digest_of(b"promised"), digest_of(b"long")
    reply = await stub.BatchUpdateBlobs(
        blobs_pb2.BatchUpdateBlobsRequest(
            blobs=[
                blob_of(b"other", wrong),
                blob_of(b"good"),
                blob_of(b"long", blobs_pb2.Digest(sha256=short.sha256, size=3)),
            ]
        )
    )
    assert [one.reason for one in reply.results] == ["DIGEST_MISMATCH", "", "DIGEST_MISMATCH"]
    assert list((await _missing(house, "ada", good, wrong, short)).missing) == [wrong, short]


async def test_batch_over_three_mebibytes_is_refused_whole(house: House) -> None:
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    half = os.urandom((3 << 20) // 2 + 1)
    request = blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(half)] * 2)
    answer = await told(stub.BatchUpdateBlobs(request))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BATCH_TOO_LARGE")
    assert list((await _missing(house, "ada", digest_of(half))).missing) == [digest_of(half)]


async def test_full_disk_refuses_uploads_before_the_bytes(house: House) -> None:
    await house.stop()
    await house.start(disk_floor_bytes=1 << 60)
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    request = blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(b"x")])
    answer = await told(stub.BatchUpdateBlobs(request))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL")
    assert answer.details["QuotaFailure"].violations[0].subject == "disk"
    assert answer.details["RetryInfo"].retry_delay.seconds > 0


async def test_report_files_can_be_read_and_nothing_else(house: House) -> None:
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    data = os.urandom(700_000)
    audit = await house.submit()
    report = complete(house, audit.name, {"report.sigstore.json": data})
    name = f"blobs/sha256/{report.sha256}/{report.size}"
    assert await _read(stub, name) == data
    assert await _read(stub, name, len(data) - 5) == data[-5:]
    assert await _read(stub, name, len(data)) == b""
    answer = await told(stub.Read(blobs_pb2.ReadRequest(resource_name=name, read_offset=len(data) + 1)))
    assert (answer.code, answer.reason) == ("OUT_OF_RANGE", "OFFSET_PAST_END")
    answer = await told(stub.Read(blobs_pb2.ReadRequest(resource_name=name, read_offset=-1)))
    assert answer.reason == "BAD_OFFSET"
    answer = await told(stub.Read(blobs_pb2.ReadRequest(resource_name="blobs/sha256/../etc/passwd")))
    assert answer.reason == "BAD_RESOURCE_NAME"
    # Own weights do not come out either, nor request.json, nor another tenant's report.
    weights = digest_of(b"weights")
    for principal, wanted in (("ada", weights), ("ben", report)):
        stub = house.stub(blobs_pb2_grpc.BlobsStub, principal)
        answer = await told(stub.Read(blobs_pb2.ReadRequest(resource_name=_name(wanted))))
        assert (answer.code, answer.reason) == ("NOT_FOUND", "BLOB_NOT_FOUND")


def _name(one: blobs_pb2.Digest | ReportFile) -> str:
    return f"blobs/sha256/{one.sha256}/{one.size}"


async def _read(stub: Any, name: str, offset: int = 0) -> bytes:
    request = blobs_pb2.ReadRequest(resource_name=name, read_offset=offset)
    return b"".join([reply.data async for reply in stub.Read(request)])


@pytest.mark.parametrize("gap", ["row", "bytes", "rotten", "cut"])
async def test_blob_without_row_or_without_bytes_is_not_served_as_whole(house: House, gap: str) -> None:
    data = b"signed"
    audit = await house.submit()
    report = complete(house, audit.name, {"report.sigstore.json": data})
    if gap != "row":
        stored = house.blobs.path(report.sha256)
        house.blobs.delete(report.sha256)
        if gap != "bytes":
            stored.write_bytes(b"forged" if gap == "rotten" else data[:-1])
        expected = ("INTERNAL", "INTERNAL")
    else:
        report = ReportFile(path="x", sha256=digest_of(b"unlisted").sha256, size=8)
        house.blobs.put(b"unlisted", report.sha256)
        expected = ("NOT_FOUND", "BLOB_NOT_FOUND")
    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Read(blobs_pb2.ReadRequest(resource_name=_name(report))))
    assert (answer.code, answer.reason) == expected
    assert "Traceback" not in answer.message


async def test_a_rotten_report_file_is_quarantined_and_served_again_once_it_is_restored(house: House) -> None:
    data = os.urandom(600_000)
    audit = await house.submit()
    report = complete(house, audit.name, {"report.sigstore.json": data})
    with house.store.begin() as connection:
        uploads.grant(connection, "acme", BlobName(report.sha256, report.size))
    stored, stub = house.blobs.path(report.sha256), house.stub(blobs_pb2_grpc.BlobsStub)
    stored.chmod(0o600)
    stored.write_bytes(data[:-1] + b"?")
    with pytest.raises(grpc.RpcError):
        await _read(stub, _name(report), 5)
    with house.store.read() as connection:
        asked = select(blob.c.quarantined_at).where(blob.c.sha256 == report.sha256)
        assert connection.execute(asked).scalar_one() is not None
    stored.write_bytes(data)
    assert await _read(stub, _name(report), 5) == data[5:]
