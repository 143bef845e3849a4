"""The API as a real process: it starts, drains on SIGTERM, and loses nothing that it called safe to SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc, blobs_pb2, blobs_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.api.process import run
from service.store.engine import StoreNotUsable
from tests.service.api.conftest import House, digest_of

CHILD = """
import sys
from pathlib import Path
from assay import catalogue
from service.api import process
from service.api.process import ApiSettings, Limits, TlsFiles

process.catalogue.load = lambda: catalogue.parse(b'{"checks":[],"schema":"assay-catalogue/v1"}')
root, pki = Path(sys.argv[1]), Path(sys.argv[2])
process.run(ApiSettings(
    database_url=f"sqlite:///{root}/assay.db", blob_dir=root / "blobs", upload_dir=root / "uploads",
    address="127.0.0.1:0", tls=TlsFiles(ca=pki / "ca.pem", certificate=pki / "server.pem", key=pki / "server.key"),
    page_key=b"k" * 32, reflection=False, isolation_file=root / "isolation.json", signer_profile="development",
    ready=lambda address: print(address, flush=True), disk_floor_bytes=0, limits=Limits(sync_bytes=1 << 20),
))
print("drained", flush=True)
"""

MIB = 1 << 20


@asynccontextmanager
async def _server(house: House) -> AsyncIterator[tuple[asyncio.subprocess.Process, grpc.aio.Channel]]:
    root = house.settings.blob_dir.parent
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(root), str(house.certificates), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    address = (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()
    pki = house.certificates
    credentials = grpc.ssl_channel_credentials(
        *((pki / name).read_bytes() for name in ("ca.pem", "ada.key", "ada.pem"))
    )
    channel = grpc.aio.secure_channel(address, credentials)
    try:
        yield child, channel
    finally:
        await channel.close()
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_sigterm_drains_and_exits_cleanly(house: House) -> None:
    made = await house.submit()
    async with _server(house) as (child, channel):
        health: Any = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = audits_pb2_grpc.AuditsStub(channel)
        watch = stub.WatchAudit(audits_pb2.WatchAuditRequest(name=made.name))
        await watch.read()
        child.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            await asyncio.wait_for(watch.read(), 8)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert await asyncio.wait_for(child.wait(), 8) == 0
        assert child.stdout is not None
        assert (await child.stdout.read()).strip() == b"drained"


@pytest.mark.parametrize("percent", [99, *(pytest.param(one, marks=pytest.mark.slow) for one in (10, 50))])
async def test_upload_resumes_after_sigkill(house: House, percent: int) -> None:
    """At most one sync step, one message and 1 % are sent again, and no half blob can be seen meanwhile."""
    data = os.urandom(12 * MIB + 17)
    step = 128 << 10
    digest = digest_of(data)
    name = f"uploads/{uuid.uuid4()}/blobs/sha256/{digest.sha256}/{digest.size}"
    query = blobs_pb2.QueryWriteStatusRequest(resource_name=name)
    until = len(data) * percent // 100 // step * step
    async with _server(house) as (child, channel):
        stub: Any = blobs_pb2_grpc.BlobsStub(channel)
        call = stub.Write()
        for at in range(0, until, step):
            await call.write(blobs_pb2.WriteRequest(resource_name=name, write_offset=at, data=data[at : at + step]))
        while (await stub.QueryWriteStatus(query)).committed_size < until // MIB * MIB:
            await asyncio.sleep(0.01)
        child.kill()
        await child.wait()
        with pytest.raises((grpc.RpcError, asyncio.CancelledError, asyncio.InvalidStateError)):
            await call
    assert house.blobs.size(digest.sha256) is None
    async with _server(house) as (_, channel):
        stub = blobs_pb2_grpc.BlobsStub(channel)
        find = blobs_pb2.FindMissingBlobsRequest(digests=[digest])
        assert list((await stub.FindMissingBlobs(find)).missing) == [digest]
        committed = (await stub.QueryWriteStatus(query)).committed_size
        assert until - committed <= MIB + step + len(data) // 100
        rest = [
            blobs_pb2.WriteRequest(
                resource_name=name,
                write_offset=at,
                data=data[at : at + MIB],
                finish_write=at + MIB >= len(data),
            )
            for at in range(committed, len(data), MIB)
        ]
        assert (await stub.Write(iter(rest))).committed_size == len(data)
        assert not (await stub.FindMissingBlobs(find)).missing
    assert house.blobs.path(digest.sha256).read_bytes() == data


async def test_database_without_revision_stops_the_start(house: House, tmp_path: Path) -> None:
    settings = replace(house.settings, database_url=f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(StoreNotUsable, match="assay-server migrate"):
        await asyncio.to_thread(run, settings)
