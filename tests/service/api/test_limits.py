"""Limits as a caller meets them: refused by name and number, with a delay, and published."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest
from assay.api.v1 import (
    audits_pb2,
    audits_pb2_grpc,
    blobs_pb2,
    blobs_pb2_grpc,
    capabilities_pb2,
    capabilities_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)
from sqlalchemy import insert

from service.rules.limits import MS_PER_DAY, Quotas
from service.rules.states import AuditState
from service.store import quotas
from service.store.engine import now_ms
from service.store.tables_around import quota_use
from tests.service.api.conftest import CATALOGUE, QUICK, House, Told, blob_of, digest_of, manifest_of, told
from tests.service.api.finish import set_state


async def limited(house: House, **changes: Any) -> None:
    """Start the server anew under other quotas."""
    await house.stop()
    await house.start(limits=replace(QUICK, quotas=Quotas(**changes)))


def holds(answer: Told, reason: str, quota: str, limit: int) -> None:
    """Hold a refusal against the rule for all of them: code, quota and number, and one QuotaFailure."""
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", reason)
    assert answer.metadata["quota"] == quota
    assert answer.metadata["limit"] == str(limit)
    assert str(limit) in answer.message
    assert [one.subject for one in answer.details["QuotaFailure"].violations] == [quota]


async def test_calls_of_one_principal_are_counted_out(house: House) -> None:
    await house.stop()
    await house.start(limits=replace(QUICK, calls_per_s=0.001, calls_burst=5))
    stub: Any = house.stub(capabilities_pb2_grpc.CapabilitiesStub)
    request = capabilities_pb2.GetCapabilitiesRequest()
    for _ in range(5):
        reply = await stub.GetCapabilities(request)
    assert (reply.calls_per_second, reply.calls_burst) == (0.001, 5)
    answer = await told(stub.GetCapabilities(request))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
    assert answer.metadata == {"quota": "calls_per_principal", "limit": "0.001", "burst": "5"}
    delay = answer.details["RetryInfo"].retry_delay
    assert 900 < delay.ToSeconds() <= 1000
    other: Any = house.stub(capabilities_pb2_grpc.CapabilitiesStub, "ola")  # of the same tenant
    await other.GetCapabilities(request)


async def test_stored_bytes_hold_for_batches_and_for_uploads_before_their_bytes(house: House) -> None:
    await limited(house, stored_bytes=10_096)
    stub: Any = house.stub(blobs_pb2_grpc.BlobsStub)
    await house.send(b"a" * 6000)
    await house.send(b"a" * 6000)  # the same blob again costs nothing
    request = blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(b"b" * 4097)])
    holds(await told(stub.BatchUpdateBlobs(request)), "TENANT_FULL", "stored_bytes", 10_096)
    assert digest_of(b"b" * 4097).sha256 not in set(house.blobs.digests())
    name = f"uploads/{uuid.uuid4()}/blobs/sha256/{'0' * 64}/4097"
    first = blobs_pb2.WriteRequest(resource_name=name, data=b"b")
    holds(await told(stub.Write(iter([first]))), "TENANT_FULL", "stored_bytes", 10_096)
    await house.send(b"b" * 40)
    await house.send(b"c" * 9000, "ben")  # another tenant has its own


async def test_many_small_blobs_and_uploads_of_nothing_are_refused_before_they_take_files(house: House) -> None:
    await limited(house, stored_bytes=10_000, unfinished_uploads=1)
    stub: Any = house.stub(blobs_pb2_grpc.BlobsStub)
    request = blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(b"%d" % n) for n in range(3)])
    holds(await told(stub.BatchUpdateBlobs(request)), "TENANT_FULL", "stored_bytes", 10_000)
    assert len(list(house.blobs.digests())) == 1
    for digest, size in (("0" * 64, 0), (digest_of(b"").sha256, 1)):
        first = blobs_pb2.WriteRequest(resource_name=f"uploads/{uuid.uuid4()}/blobs/sha256/{digest}/{size}")
        answer = await told(stub.Write(iter([first])))
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "BAD_RESOURCE_NAME")
    for wanted in ("UPLOAD_UNFINISHED", "TOO_MANY_UPLOADS"):
        name = f"uploads/{uuid.uuid4()}/blobs/sha256/{'0' * 64}/1"
        answer = await told(stub.Write(iter([blobs_pb2.WriteRequest(resource_name=name)])))
        assert answer.reason == wanted
    holds(answer, "TOO_MANY_UPLOADS", "unfinished_uploads", 1)
    assert len(list(house.settings.upload_dir.iterdir())) == 1


async def test_files_of_a_manifest_are_counted_out(house: House) -> None:
    await limited(house, manifest_files=2)
    files = {"config.json": b"{}", "README.md": b"x", "model.safetensors": b"w"}
    for data in files.values():
        await house.send(data)
    digest = (await house.send(manifest_of(files))).sha256
    stub: Any = house.stub(models_pb2_grpc.ModelsStub)
    answer = await told(stub.CreateModel(models_pb2.CreateModelRequest(manifest_sha256=digest)))
    holds(answer, "TOO_MANY_FILES", "manifest_files", 2)
    request = await house.submission(model=f"models/{digest}")
    answer = await told(house.stub(audits_pb2_grpc.AuditsStub).SubmitAudit(request))
    holds(answer, "TOO_MANY_FILES", "manifest_files", 2)


async def test_unfinished_audits_are_counted_out_and_a_repetition_is_none(house: House) -> None:
    await limited(house, unfinished_audits=2)
    stub: Any = house.stub(audits_pb2_grpc.AuditsStub)
    asked = [await house.submission() for _ in range(2)]
    made = [await stub.SubmitAudit(one) for one in asked]
    third = await house.submission()
    holds(await told(stub.SubmitAudit(third)), "TOO_MANY_AUDITS", "unfinished_audits", 2)
    third.validate_only = True
    holds(await told(stub.SubmitAudit(third)), "TOO_MANY_AUDITS", "unfinished_audits", 2)
    third.validate_only = False
    assert (await stub.SubmitAudit(asked[0])).name == made[0].name
    await house.submit("ben")
    await stub.CancelAudit(audits_pb2.CancelAuditRequest(name=made[0].name))
    await stub.SubmitAudit(third)  # refused before, so the same request_id may be used


async def test_twenty_submissions_at_once_take_each_place_once(house: House) -> None:
    await limited(house, unfinished_audits=5)
    stub: Any = house.stub(audits_pb2_grpc.AuditsStub)
    asked = [await house.submission() for _ in range(20)]
    answers = await asyncio.gather(*(stub.SubmitAudit(one) for one in asked), return_exceptions=True)
    assert sum(isinstance(one, audits_pb2.Audit) for one in answers) == 5


async def test_spent_gpu_time_refuses_gpu_audits_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.rules.submission._capability", lambda _entries: "gpu-24g")
    with house.store.begin() as connection:
        day = now_ms(connection) // MS_PER_DAY
        for one in (day, day + 1):  # should midnight pass meanwhile
            connection.execute(insert(quota_use).values(tenant="acme", quota=quotas.GPU, day=one, used=86_400_000))
    stub: Any = house.stub(audits_pb2_grpc.AuditsStub)
    request = await house.submission()
    answer = await told(stub.SubmitAudit(request))
    holds(answer, "GPU_TIME_SPENT", "gpu_seconds_per_day", 86_400)
    assert 0 < answer.details["RetryInfo"].retry_delay.ToSeconds() <= 3600
    await house.submit("ben")
    monkeypatch.undo()
    await stub.SubmitAudit(request)


async def test_disk_floor_refuses_uploads_and_serves_reads(house: House) -> None:
    made = await house.submit()
    await house.stop()
    floor = 1 << 60
    await house.start(disk_floor_bytes=floor)
    stub: Any = house.stub(blobs_pb2_grpc.BlobsStub)
    answer = await told(stub.BatchUpdateBlobs(blobs_pb2.BatchUpdateBlobsRequest(blobs=[blob_of(b"z")])))
    holds(answer, "DISK_FULL", "disk", floor)
    assert (await house.stub(audits_pb2_grpc.AuditsStub).GetAudit(audits_pb2.GetAuditRequest(name=made.name))).name


async def test_capabilities_publish_every_limit(house: House) -> None:
    await limited(house, stored_bytes=1, unfinished_audits=2, gpu_seconds_per_day=3, manifest_files=4)
    stub: Any = house.stub(capabilities_pb2_grpc.CapabilitiesStub)
    reply = await stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest())
    assert reply.catalogue_sha256 == CATALOGUE.sha256
    assert (reply.stored_bytes_max, reply.unfinished_audits_max, reply.gpu_seconds_per_day_max) == (1, 2, 3)
    assert (reply.manifest_files_max, reply.parallel_uploads_max, reply.watchers_max) == (4, 16, 200)


async def test_ended_audits_free_their_places(house: House) -> None:
    await limited(house, unfinished_audits=1)
    made = await house.submit()
    set_state(house, made.name, AuditState.FAILED)
    await house.submit()
