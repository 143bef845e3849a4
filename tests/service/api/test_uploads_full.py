"""Uploads onto a disk that fills up, injected and real: told as such, nothing half is kept, work goes on with space."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from assay.api.v1 import blobs_pb2, blobs_pb2_grpc

from tests.service.api.conftest import QUICK, House, blob_of, digest_of, told

MIB = 1 << 20


def _messages(name: str, data: bytes, start: int = 0) -> list[blobs_pb2.WriteRequest]:
    made = [blobs_pb2.WriteRequest(write_offset=at, data=data[at : at + MIB]) for at in range(start, len(data), MIB)]
    made[0].resource_name = name
    made[-1].finish_write = True
    return made


def _name(data: bytes) -> str:
    digest = digest_of(data)
    return f"uploads/{uuid.uuid4()}/blobs/sha256/{digest.sha256}/{digest.size}"


async def _status(house: House, name: str) -> Any:
    query = blobs_pb2.QueryWriteStatusRequest(resource_name=name)
    return await house.stub(blobs_pb2_grpc.BlobsStub).QueryWriteStatus(query)


async def _finish(house: House, name: str, data: bytes) -> None:
    committed = (await _status(house, name)).committed_size
    reply = await house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data, committed)))
    assert reply.committed_size == len(data)
    assert house.blobs.path(digest_of(data).sha256).read_bytes() == data


class Disk:
    """A disk of so many free bytes, whatever was written to it since: several uploads are checked in one moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(total=1 << 40, free=self.free))


async def test_uploads_side_by_side_do_not_take_the_same_space(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fits alone; what the first still owes is not free for the second, in pieces or in a batch."""
    await house.stop()
    await house.start(limits=replace(QUICK, idle_upload_s=60.0))
    Disk(monkeypatch, 5 * MIB)
    data, other = os.urandom(4 * MIB), os.urandom(3 * MIB)
    name = _name(data)
    first = house.stub(blobs_pb2_grpc.BlobsStub).Write()
    await first.write(_messages(name, data)[0])
    while (await _status(house, name)).committed_size < MIB:
        await asyncio.sleep(0.01)
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    answer = await told(stub.Write(iter(_messages(_name(other), other))))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL")
    small = [blob_of(os.urandom(MIB)) for _ in range(3)]
    assert (await told(stub.BatchUpdateBlobs(blobs_pb2.BatchUpdateBlobsRequest(blobs=small[:3])))).reason == "DISK_FULL"
    await stub.BatchUpdateBlobs(blobs_pb2.BatchUpdateBlobsRequest(blobs=small[:1]))
    for message in _messages(name, data)[1:]:
        await first.write(message)
    await first.done_writing()
    assert (await first).committed_size == len(data)
    await _finish(house, _name(other), other)


async def test_upload_stops_at_the_floor_whoever_took_the_space(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.stop()
    await house.start(disk_floor_bytes=10 * MIB)
    disk = Disk(monkeypatch, 100 * MIB)
    data = os.urandom(4 * MIB)
    name = _name(data)

    async def filling() -> Any:
        for at, message in enumerate(_messages(name, data)):
            if at == 1:
                while (await _status(house, name)).committed_size < MIB:
                    await asyncio.sleep(0.01)
                disk.free = 9 * MIB
            yield message

    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(filling()))
    assert (answer.reason, answer.metadata["limit"]) == ("DISK_FULL", str(10 * MIB))
    assert MIB <= (await _status(house, name)).committed_size < len(data)
    disk.free = 100 * MIB
    await _finish(house, name, data)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_full_disk_in_mid_upload_is_told_and_what_was_written_is_kept(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    data = os.urandom(4 * MIB)
    name = _name(data)
    pwrite = os.pwrite
    room = [2 * MIB + 1000]

    def cramped(descriptor: int, piece: Any, offset: int) -> int:
        if offset >= room[0]:
            raise OSError(number, os.strerror(number))
        return pwrite(descriptor, piece[: room[0] - offset], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", cramped)
        answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data))))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL")
    assert (await _status(house, name)).committed_size == room[0]
    assert house.blobs.size(digest_of(data).sha256) is None
    await _finish(house, name, data)


async def test_bytes_that_could_not_be_synced_are_never_called_safe(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel drops what it could not write and reports success the next time; asking twice proves nothing."""
    data = os.urandom(3 * MIB)
    name = _name(data)
    fsync = os.fsync
    failed: list[int] = []

    def lossy(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        if not failed and name.split("/")[1] in target and os.fstat(descriptor).st_size > MIB:
            failed.append(1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lossy)
        answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data))))
    assert failed
    assert answer.reason == "DISK_FULL"
    assert (await _status(house, name)).committed_size == MIB
    await _finish(house, name, data)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    program = shutil.which("mount")
    folder = tmp_path / "small"
    folder.mkdir()
    asked = [program or "mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if program is None or subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system of 4 MiB needs root; the injected errors above cover the same path")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_real_disk_that_fills_up_serves_reads_and_goes_on_with_space(house: House, small_disk: Path) -> None:
    await house.stop()
    await house.start(upload_dir=small_disk)
    ballast = small_disk / "ballast"
    data = os.urandom(3 * MIB)
    name = _name(data)
    sent = _messages(name, data)

    async def filling() -> Any:
        yield sent[0]
        while (await _status(house, name)).committed_size < MIB:
            await asyncio.sleep(0.01)
        ballast.write_bytes(bytes(2 * MIB))  # somebody else takes the space that was checked
        for message in sent[1:]:
            yield message

    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(filling()))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL")
    assert answer.details["QuotaFailure"].violations[0].subject == "disk"
    find = blobs_pb2.FindMissingBlobsRequest(digests=[digest_of(data)])
    assert len((await house.stub(blobs_pb2_grpc.BlobsStub).FindMissingBlobs(find)).missing) == 1
    assert (await _status(house, name)).committed_size >= MIB
    ballast.unlink()
    await _finish(house, name, data)
