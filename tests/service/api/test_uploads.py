"""Uploads that break, race, lie and resume."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from assay.api.v1 import blobs_pb2, blobs_pb2_grpc
from sqlalchemy import update

from service.api.upload import Uploads
from service.store.engine import StoreBusy
from service.store.tables import blob, upload
from tests.service.api.conftest import QUICK, House, digest_of, told

MIB = 1 << 20


def _name(data: bytes) -> str:
    digest = digest_of(data)
    return f"uploads/{uuid.uuid4()}/blobs/sha256/{digest.sha256}/{digest.size}"


def _messages(name: str, data: bytes, start: int = 0, step: int = MIB) -> list[blobs_pb2.WriteRequest]:
    made = [
        blobs_pb2.WriteRequest(write_offset=at, data=data[at : at + step]) for at in range(start, len(data), step)
    ] or [blobs_pb2.WriteRequest(write_offset=start)]
    made[0].resource_name = name
    made[-1].finish_write = True
    return made


async def _status(house: House, name: str, principal: str = "ada") -> Any:
    stub = house.stub(blobs_pb2_grpc.BlobsStub, principal)
    return await stub.QueryWriteStatus(blobs_pb2.QueryWriteStatusRequest(resource_name=name))


async def _is_present(house: House, data: bytes, principal: str = "ada") -> bool:
    stub = house.stub(blobs_pb2_grpc.BlobsStub, principal)
    reply = await stub.FindMissingBlobs(blobs_pb2.FindMissingBlobsRequest(digests=[digest_of(data)]))
    return not reply.missing


def _parts(house: House) -> list[str]:
    return os.listdir(house.settings.upload_dir)


async def _break_after(house: House, messages: list[blobs_pb2.WriteRequest]) -> None:
    """Send some messages, wait until the server has them, then be gone."""
    call = house.stub(blobs_pb2_grpc.BlobsStub).Write()
    for message in messages:
        await call.write(message)
    expected = sum(len(message.data) for message in messages) + messages[0].write_offset
    for _ in range(200):
        parts = [house.settings.upload_dir / part for part in _parts(house)]
        mine = [part for part in parts if part.name.endswith(messages[0].resource_name.split("/")[1])]
        if mine and mine[0].stat().st_size == expected:
            break
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def _settled(house: House, name: str, size: int) -> None:
    for _ in range(300):
        if (await _status(house, name)).committed_size == size:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"committed_size never became {size}")


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 17])
async def test_blob_in_pieces_arrives_whole(house: House, size: int) -> None:
    data = os.urandom(size)
    name = _name(data)
    reply = await house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data)))
    assert reply.committed_size == size
    assert house.blobs.path(digest_of(data).sha256).read_bytes() == data
    assert await _is_present(house, data)
    assert not await _is_present(house, data, "ben") or size == 0
    assert _parts(house) == []


async def test_unknown_upload_status_is_zero(house: House) -> None:
    reply = await _status(house, _name(b"never sent"))
    assert (reply.committed_size, reply.complete) == (0, False)


@pytest.mark.parametrize("column", ["quarantined_at", "doomed_at"])
async def test_a_lost_blob_is_taken_again_also_under_the_same_upload(house: House, column: str) -> None:
    """A finished upload says nothing about bytes that were lost since, or are about to be collected."""
    data = os.urandom(1000)
    name, stub = _name(data), house.stub(blobs_pb2_grpc.BlobsStub)
    await stub.Write(iter(_messages(name, data)))
    with house.store.begin() as connection:
        connection.execute(update(blob).where(blob.c.sha256 == digest_of(data).sha256).values(**{column: 1}))
    house.blobs.delete(digest_of(data).sha256)
    assert not await _is_present(house, data)
    status = await _status(house, name)
    assert (status.committed_size, status.complete) == (0, False)
    assert (await stub.Write(iter(_messages(name, data)))).committed_size == len(data)
    assert house.blobs.path(digest_of(data).sha256).read_bytes() == data
    assert await _is_present(house, data)
    assert (await _status(house, name)).complete


async def test_upload_resumes_after_the_client_vanished(house: House) -> None:
    """What arrived is made safe when the stream breaks, although no fsync step was reached."""
    data = os.urandom(3 * MIB + 3)
    name = _name(data)
    await _break_after(house, _messages(name, data, step=300_000)[:2])
    await _settled(house, name, 600_000)
    assert not await _is_present(house, data)
    reply = await house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data, 600_000)))
    assert reply.committed_size == len(data)
    assert (await _status(house, name)).complete
    assert house.blobs.path(digest_of(data).sha256).read_bytes() == data


async def test_upload_resumes_on_a_new_server_and_cuts_what_was_not_synced(house: House) -> None:
    """A killed server leaves bytes after committed_size; they are cut and the hash is rebuilt by one read."""
    data = os.urandom(4 * MIB)
    name = _name(data)
    await _break_after(house, _messages(name, data)[:2])
    await _settled(house, name, 2 * MIB)
    await house.stop()
    part = house.settings.upload_dir / _parts(house)[0]
    with part.open("ab") as file:
        file.write(b"torn tail of a killed process")
    await house.start()
    status = await _status(house, name)
    assert status.committed_size == 2 * MIB
    reply = await house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data, status.committed_size)))
    assert reply.committed_size == len(data)
    assert house.blobs.path(digest_of(data).sha256).read_bytes() == data


async def test_server_stopped_mid_stream_keeps_what_it_synced(house: House) -> None:
    data = os.urandom(6 * MIB)
    name = _name(data)
    call = house.stub(blobs_pb2_grpc.BlobsStub).Write()
    for message in _messages(name, data)[:4]:
        await call.write(message)
    await _settled(house, name, 4 * MIB)  # QUICK syncs every MiB
    await house.stop()
    with pytest.raises((grpc.RpcError, asyncio.CancelledError)):
        await call
    await house.start()
    assert (await _status(house, name)).committed_size == 4 * MIB


async def test_wrong_offset_is_told_where_to_go_on(house: House) -> None:
    data = os.urandom(3 * MIB)
    name = _name(data)
    await _break_after(house, _messages(name, data)[:1])
    await _settled(house, name, MIB)
    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data))))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "OFFSET_MISMATCH")
    assert answer.metadata["committed_size"] == str(MIB)


async def test_dead_client_upload_not_reported_ok(house: House) -> None:
    data = os.urandom(2 * MIB)
    name = _name(data)
    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data)[:1])))
    assert (answer.code, answer.reason) == ("ABORTED", "UPLOAD_UNFINISHED")
    assert answer.metadata["committed_size"] == str(MIB)
    assert not await _is_present(house, data)


async def test_wrong_bytes_delete_the_part(house: House) -> None:
    data = os.urandom(MIB)
    name = _name(data)
    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, bytes(MIB)))))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "DIGEST_MISMATCH")
    assert _parts(house) == []
    assert (await _status(house, name)).committed_size == 0
    assert (await house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data)))).committed_size == MIB


async def test_second_stream_of_one_upload_waits(house: House) -> None:
    data = os.urandom(2 * MIB)
    name = _name(data)
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    first = stub.Write()
    await first.write(_messages(name, data)[0])
    await _settled(house, name, MIB)
    answer = await told(stub.Write(iter(_messages(name, data))))
    assert (answer.code, answer.reason) == ("ABORTED", "UPLOAD_BUSY")
    await first.write(_messages(name, data)[1])
    await first.done_writing()
    assert (await first).committed_size == len(data)


async def test_first_of_two_uploads_of_one_blob_ends_the_other(house: House) -> None:
    data = os.urandom(4 * MIB)
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    slow_name = _name(data)
    slow = stub.Write()
    await slow.write(_messages(slow_name, data)[0])
    await _settled(house, slow_name, MIB)
    await stub.Write(iter(_messages(_name(data), data)))
    await slow.write(_messages(slow_name, data)[1])
    assert (await slow).committed_size == len(data)
    again = await stub.Write(iter(_messages(_name(data), data)[:1]))
    assert again.committed_size == len(data)


async def test_silent_stream_loses_its_claim(house: House) -> None:
    data = os.urandom(2 * MIB)
    name = _name(data)
    call = house.stub(blobs_pb2_grpc.BlobsStub).Write()
    await call.write(_messages(name, data)[0])
    answer = await told(call)
    assert (answer.code, answer.reason) == ("ABORTED", "UPLOAD_IDLE")
    assert (await _status(house, name)).committed_size == MIB


def _one(name: str, **fields: Any) -> list[blobs_pb2.WriteRequest]:
    return [blobs_pb2.WriteRequest(resource_name=name, **fields)]


DATA = b"ten bytes!"
NAME = _name(DATA)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "BAD_RESOURCE_NAME"),
        (_one("blobs/sha256/x/1"), "BAD_RESOURCE_NAME"),
        (_one(NAME.replace("uploads/", "uploads/../")), "BAD_RESOURCE_NAME"),
        (_one(NAME + "0" * 20), "BAD_RESOURCE_NAME"),
        (_one(NAME + "9999999999999"), "BLOB_TOO_LARGE"),
        (_one(NAME, write_offset=3), "OFFSET_MISMATCH"),
        (_one(NAME, write_offset=-1), "OFFSET_MISMATCH"),
        (_one(NAME, data=DATA + b"x"), "PAST_SIZE"),
        ([*_one(NAME, data=DATA[:4]), blobs_pb2.WriteRequest(write_offset=5, data=b"x")], "OFFSET_GAP"),
        ([*_one(NAME, data=DATA[:4]), blobs_pb2.WriteRequest(write_offset=2, data=b"x")], "OFFSET_GAP"),
        ([*_one(NAME, data=DATA[:4]), *_one(_name(b"other"), write_offset=4)], "BAD_RESOURCE_NAME"),
        (
            [*_one(NAME, data=DATA, finish_write=True), blobs_pb2.WriteRequest(write_offset=10, data=b"x")],
            "PAST_SIZE",
        ),
        (_one(NAME, data=DATA[:4], finish_write=True), "DIGEST_MISMATCH"),
    ],
)
async def test_malformed_stream_is_refused(house: House, messages: list[blobs_pb2.WriteRequest], reason: str) -> None:
    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(messages)))
    assert answer.reason == reason
    assert not await _is_present(house, DATA)


async def test_upload_id_of_another_blob_is_refused_and_keeps_its_bytes(house: House) -> None:
    data, other = os.urandom(2 * MIB), os.urandom(MIB)
    name = _name(data)
    await _break_after(house, _messages(name, data)[:1])
    await _settled(house, name, MIB)
    reused = name.split("/blobs/")[0] + "/blobs/" + _name(other).split("/blobs/")[1]
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    assert (await told(stub.Write(iter(_messages(reused, other))))).reason == "BAD_RESOURCE_NAME"
    request = blobs_pb2.QueryWriteStatusRequest(resource_name=reused)
    assert (await told(stub.QueryWriteStatus(request))).reason == "BAD_RESOURCE_NAME"
    assert (await stub.Write(iter(_messages(name, data, MIB)))).committed_size == len(data)


async def test_one_upload_id_in_two_tenants_is_two_uploads(house: House) -> None:
    data = os.urandom(2 * MIB)
    name = _name(data)
    await _break_after(house, _messages(name, data)[:1])
    await _settled(house, name, MIB)
    assert (await _status(house, name, "ben")).committed_size == 0
    stub = house.stub(blobs_pb2_grpc.BlobsStub, "ben")
    assert (await stub.Write(iter(_messages(name, data)))).committed_size == len(data)
    assert not await _is_present(house, data, "ada")


async def test_uploads_per_tenant_are_limited(house: House) -> None:
    await house.stop()
    await house.start(limits=replace(QUICK, uploads_per_tenant=1))
    data = os.urandom(2 * MIB)
    name = _name(data)
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    first = stub.Write()
    await first.write(_messages(name, data)[0])
    await _settled(house, name, MIB)
    answer = await told(stub.Write(iter(_messages(_name(b"x"), b"x"))))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_UPLOADS")
    assert answer.details["QuotaFailure"].violations[0].subject == "parallel_uploads"
    foreign = house.stub(blobs_pb2_grpc.BlobsStub, "ben")
    assert (await foreign.Write(iter(_messages(_name(b"x"), b"x")))).committed_size == 1
    first.cancel()


async def test_busy_store_at_the_end_does_not_cost_the_bytes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.store import uploads as rows

    data = os.urandom(2 * MIB)
    complete = rows.complete_upload
    failures: list[int] = []

    def busy_once(*arguments: Any) -> None:
        if not failures:
            failures.append(1)
            raise StoreBusy("planted")
        complete(*arguments)

    monkeypatch.setattr(rows, "complete_upload", busy_once)
    assert (await house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(_name(data), data)))).committed_size
    assert failures
    assert await _is_present(house, data)


async def test_idle_parts_are_swept_and_live_ones_kept(house: House) -> None:
    old, new = os.urandom(2 * MIB), os.urandom(2 * MIB)
    old_name, new_name = _name(old), _name(new)
    for name, data in ((old_name, old), (new_name, new)):
        await _break_after(house, _messages(name, data)[:1])
        await _settled(house, name, MIB)
    with house.store.begin() as connection:
        connection.execute(update(upload).where(upload.c.id == old_name.split("/")[1]).values(written_at=1))
    assert house.backing is not None
    assert await asyncio.to_thread(Uploads(house.backing).sweep) == 1
    assert (await _status(house, old_name)).committed_size == 0
    assert (await _status(house, new_name)).committed_size == MIB
    assert len(_parts(house)) == 1


async def test_lost_bytes_of_a_part_are_not_believed(house: House) -> None:
    """Should a disk lose committed bytes, the upload starts from what is there, never from a hole."""
    data = os.urandom(2 * MIB)
    name = _name(data)
    await _break_after(house, _messages(name, data)[:1])
    await _settled(house, name, MIB)
    os.truncate(house.settings.upload_dir / _parts(house)[0], 1000)
    answer = await told(house.stub(blobs_pb2_grpc.BlobsStub).Write(iter(_messages(name, data, MIB))))
    assert (answer.reason, answer.metadata["committed_size"]) == ("OFFSET_MISMATCH", "1000")


async def _slowly(messages: list[blobs_pb2.WriteRequest]) -> AsyncIterator[blobs_pb2.WriteRequest]:
    for message in messages:
        yield message
        await asyncio.sleep(0)


async def test_sixteen_uploads_at_once_all_arrive(house: House) -> None:
    blobs = [os.urandom(MIB + number) for number in range(16)]
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    replies = await asyncio.gather(*(stub.Write(_slowly(_messages(_name(one), one, step=MIB // 4))) for one in blobs))
    assert [reply.committed_size for reply in replies] == [len(one) for one in blobs]
