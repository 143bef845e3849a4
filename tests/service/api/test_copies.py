"""Uploads that name pieces of blobs sent before: only own blobs, only whole truths, resumable like every other."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from assay.api.v1 import blobs_pb2, blobs_pb2_grpc

from service.api.copying import RANGE_MAX, THREADS_PER_TENANT, Sources
from service.api.parts import Part
from service.rules.metrics import COUNTERS
from tests.service.api.conftest import QUICK, House, digest_of, told

MIB = 1 << 20


def _name(data: bytes) -> str:
    digest = digest_of(data)
    return f"uploads/{uuid.uuid4()}/blobs/sha256/{digest.sha256}/{digest.size}"


def _range(source: bytes, offset: int, length: int) -> blobs_pb2.WriteRequest.Range:
    return blobs_pb2.WriteRequest.Range(source=digest_of(source), offset=offset, length=length)


def _messages(name: str, pieces: list[Any], start: int = 0) -> list[blobs_pb2.WriteRequest]:
    """Bytes are carried, ranges are named."""
    made, at = [], start
    for piece in pieces:
        is_range = not isinstance(piece, bytes)
        kind: dict[str, Any] = {"copy": piece} if is_range else {"data": piece}
        made.append(blobs_pb2.WriteRequest(resource_name=name, write_offset=at, **kind))
        at += piece.length if is_range else len(piece)
    made[-1].finish_write = True
    return made


async def _write(house: House, messages: list[blobs_pb2.WriteRequest], principal: str = "ada") -> Any:
    return await house.stub(blobs_pb2_grpc.BlobsStub, principal).Write(iter(messages))


async def _is_present(house: House, data: bytes, principal: str = "ada") -> bool:
    find = blobs_pb2.FindMissingBlobsRequest(digests=[digest_of(data)])
    return not (await house.stub(blobs_pb2_grpc.BlobsStub, principal).FindMissingBlobs(find)).missing


BASE = os.urandom(2 * MIB + 100)


@pytest.mark.parametrize(
    ("offset", "length", "size"),
    [(0, 0, 0), (0, RANGE_MAX + 1, 0), (-1, 10, 0), (0, len(BASE) + 1, 0), (len(BASE), 1, 0), (1, 2**62, 1), (0, 1, 1)],
)
async def test_range_outside_its_source_is_refused(house: House, offset: int, length: int, size: int) -> None:
    """Also where the size that the message tells of the source is not the source's own: that blob was never sent."""
    await house.send(BASE)
    asked = _range(BASE, offset, length)
    asked.source.size += size * 2**40
    data = os.urandom(5)
    answer = await told(_write(house, _messages(_name(data), [asked])))
    assert (answer.code, answer.reason) in {("INVALID_ARGUMENT", "BAD_RANGE"), ("FAILED_PRECONDITION", "MISSING_BLOBS")}
    assert not await _is_present(house, data)


@pytest.mark.parametrize("hexes", ["", "../../etc/passwd", "A" * 64])
async def test_source_that_is_no_digest_is_refused(house: House, hexes: str) -> None:
    asked = _range(BASE, 0, 10)
    asked.source.sha256 = hexes
    assert (await told(_write(house, _messages(_name(BASE), [asked])))).reason == "BAD_DIGEST"


async def test_message_that_carries_bytes_and_names_a_range_is_refused(house: House) -> None:
    await house.send(BASE)
    message = _messages(_name(BASE[:11]), [_range(BASE, 0, 10)])[0]
    message.data = b"x"
    assert (await told(_write(house, [message]))).reason == "BAD_RANGE"


async def test_range_past_the_new_blobs_size_is_refused(house: House) -> None:
    await house.send(BASE)
    data = BASE[:10]
    assert (await told(_write(house, _messages(_name(data), [_range(BASE, 0, 11)])))).reason == "PAST_SIZE"


async def test_copies_reveal_nothing_of_a_foreign_blob(house: House) -> None:
    """A tenant that knows a foreign digest gets the same bytes of reply as for an absent one; and obtains no byte."""
    await house.send(BASE, "ben")
    absent = os.urandom(len(BASE))
    answers = []
    for source in (BASE, absent):
        answer = await told(_write(house, _messages(_name(source), [_range(source, 0, len(source))])))
        assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "MISSING_BLOBS")
        answers.append(answer.raw.replace(digest_of(source).sha256.encode(), b"*"))
    assert answers[0] == answers[1]
    assert not await _is_present(house, BASE)


async def test_fine_tune_is_composed_of_what_was_sent_before(house: House) -> None:
    await house.send(BASE)
    changed = os.urandom(MIB)
    data = changed[:17] + BASE[: MIB + 5] + changed + BASE[MIB + 5 :]
    pieces = [changed[:17], _range(BASE, 0, MIB + 5), changed, _range(BASE, MIB + 5, len(BASE) - MIB - 5)]
    assert (await _write(house, _messages(_name(data), pieces))).committed_size == len(data)
    assert house.blobs.path(digest_of(data).sha256).read_bytes() == data
    assert await _is_present(house, data)
    assert not await _is_present(house, data, "ben")


async def test_copies_keep_nobody_else_waiting_and_are_counted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the threads that authentication uses hang in their copies: others are served, another tenant copies,
    and of one tenant no more than its share runs."""
    await house.stop()
    await house.start(limits=replace(QUICK, idle_upload_s=60.0, uploads_per_tenant=100))
    await house.send(BASE)
    await house.send(BASE, "ben")
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    held, going, most = threading.Event(), Counter[str](), Counter[str]()
    real, counting = Sources._copy, threading.Lock()

    def slow(self: Sources, part: Part, asked: Any) -> None:
        with counting:
            going[self._tenant] += 1
            most[self._tenant] = max(most[self._tenant], going[self._tenant])
        if self._tenant == "acme":
            assert held.wait(60)
        real(self, part, asked)
        with counting:
            going[self._tenant] -= 1

    monkeypatch.setattr(Sources, "_copy", slow)
    before = copied()
    hanging = [
        asyncio.ensure_future(_write(house, _messages(_name(BASE[n:]), [_range(BASE, n, len(BASE) - n)])))
        for n in range(1, 9)
    ]
    try:
        while not most["acme"]:
            await asyncio.sleep(0.01)
        assert not await _is_present(house, b"x")
        await _write(house, _messages(_name(BASE[9:]), [_range(BASE, 9, 100), BASE[109:]]), "ben")
    finally:
        held.set()
    await asyncio.gather(*hanging)
    assert most == {"acme": THREADS_PER_TENANT, "bolt": 1}
    assert copied() - before == 100 + sum(len(BASE) - n for n in range(1, 9))


def copied() -> float:
    """Return how many bytes this process says that it copied."""
    return COUNTERS.samples("assay_copied_bytes_total")[0][1]


async def test_wrong_composition_is_a_mismatch_and_nothing_is_stored(house: House) -> None:
    await house.send(BASE)
    data = BASE[100:] + BASE[:100]
    name = _name(data)
    answer = await told(_write(house, _messages(name, [_range(BASE, 0, len(BASE))])))
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "DIGEST_MISMATCH")
    assert house.blobs.size(digest_of(data).sha256) is None
    assert not await _is_present(house, data)
    assert os.listdir(house.settings.upload_dir) == []


async def test_damaged_source_ends_in_a_mismatch_too(house: House) -> None:
    await house.send(BASE)
    stored = house.blobs.path(digest_of(BASE).sha256)
    stored.chmod(0o600)
    stored.write_bytes(bytes(len(BASE)))
    data = BASE[1:]
    answer = await told(_write(house, _messages(_name(data), [_range(BASE, 1, len(data))])))
    assert answer.reason == "DIGEST_MISMATCH"
    assert not await _is_present(house, data)


async def test_source_that_is_no_longer_kept_is_missing(house: House) -> None:
    await house.send(BASE)
    house.blobs.delete(digest_of(BASE).sha256)
    data = BASE[1:]
    answer = await told(_write(house, _messages(_name(data), [_range(BASE, 1, len(data))])))
    assert answer.reason == "MISSING_BLOBS"
    assert not await _is_present(house, BASE)


async def test_composition_resumes_after_a_break(house: House) -> None:
    """Copied bytes count as committed like sent ones, and a stream may go on with either."""
    await house.send(BASE)
    tail = os.urandom(3)
    data = BASE + tail
    name = _name(data)
    call = house.stub(blobs_pb2_grpc.BlobsStub).Write()
    first = _messages(name, [_range(BASE, 0, 2 * MIB)])[0]
    first.finish_write = False
    await call.write(first)
    query = blobs_pb2.QueryWriteStatusRequest(resource_name=name)
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    while (await stub.QueryWriteStatus(query)).committed_size < 2 * MIB:
        await asyncio.sleep(0.01)
    call.cancel()
    rest = [_range(BASE, 2 * MIB, 100), tail]
    for _ in range(100):
        try:
            assert (await _write(house, _messages(name, rest, 2 * MIB))).committed_size == len(data)
            break
        except Exception as error:  # the broken stream's claim may not have ended yet
            assert "UPLOAD_BUSY" in str(error) or "Another stream" in str(error)  # noqa: PT017
            await asyncio.sleep(0.01)
    assert house.blobs.path(digest_of(data).sha256).read_bytes() == data
