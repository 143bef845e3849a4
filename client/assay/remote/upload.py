"""Content-addressed upload: ask what is missing, send small blobs together and large ones in resumable pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from assay.api.v1 import blobs_pb2
from assay.client_errors import ServerRefused, Unreachable, refuse
from assay.errors import AssayError
from assay.remote.calls import Calls, Patience, is_transient
from assay.remote.memory import UploadMemory

CHUNK = 2**20
"""1 MiB: measured to be as fast as larger ones, and far below the 4 MiB limit of one message."""

SMALL = 2**20
"""Blobs under this size travel together."""

BATCH_BYTES = 3 * 2**20
BATCH_BLOBS = 1000
FIND_MAX = 1000

Progress = Callable[[int, int], None]
"""Called with (bytes that have arrived or left, bytes to send); may go back after a break."""


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Bytes to send, by their digest."""

    sha256: str
    size: int
    source: Path | bytes


class Uploader:
    """Sends blobs to one service.

    Args:
        calls: the service.
        memory: which uploads were under way.
        progress: told after each piece.
    """

    def __init__(self, calls: Calls, memory: UploadMemory, progress: Progress | None = None) -> None:
        self._calls, self._memory, self._progress = calls, memory, progress
        self._done = self._total = 0
        self.sent = 0
        """Bytes handed to the transport, those sent twice after a break included."""

    def send(self, blobs: Sequence[Blob]) -> None:
        """Send what the service lacks.

        Raises:
            ServerRefused: e.g. DIGEST_MISMATCH because a file changed meanwhile.
            LocalInputRefused: a file can no longer be read, or became shorter.
            Unreachable, TimedOut: nothing moved for as long as patience lasts; the next run takes it up.
        """
        missing = self._missing({blob.sha256: blob for blob in blobs})
        self._done, self._total = 0, sum(blob.size for blob in missing)
        self._tell()
        small = [blob for blob in missing if blob.size < SMALL]
        for batch in _batches(small):
            self._send_batch(batch)
        for blob in missing:
            if blob.size >= SMALL:
                self._send_large(blob)

    def _missing(self, blobs: dict[str, Blob]) -> list[Blob]:
        found: list[Blob] = []
        pending = iter(blobs.values())
        while part := list(islice(pending, FIND_MAX)):
            request = blobs_pb2.FindMissingBlobsRequest()
            for blob in part:
                request.digests.add(sha256=blob.sha256, size=blob.size)
            answer = self._calls.unary(self._calls.blobs.FindMissingBlobs, request, patient=True)
            found += [blobs[one.sha256] for one in answer.missing if one.sha256 in blobs]
        return found

    def _send_batch(self, batch: Sequence[Blob]) -> None:
        request = blobs_pb2.BatchUpdateBlobsRequest()
        for blob in batch:
            one = request.blobs.add(data=_content(blob))
            one.digest.sha256, one.digest.size = blob.sha256, blob.size
        answer = self._calls.unary(self._calls.blobs.BatchUpdateBlobs, request, patient=True)
        reasons = {one.digest.sha256: one.reason for one in answer.results}
        for blob in batch:
            reason = reasons.get(blob.sha256, "NOT_ANSWERED")
            if reason:
                raise ServerRefused("INVALID_ARGUMENT", reason, f"{_named(blob)} was not stored; did it change?")
        size = sum(blob.size for blob in batch)
        self.sent += size
        self._done += size
        self._tell()

    def _send_large(self, blob: Blob) -> None:
        """Write one blob until it is there, from the committed offset after every break."""
        upload = self._memory.recall(blob.sha256)
        name = f"uploads/{upload}/blobs/sha256/{blob.sha256}/{blob.size}"
        patience = Patience(self._calls.patience_s)
        base, reached = self._done, -1
        while True:
            try:
                committed, complete = self._committed(name)
                if committed > reached:
                    reached = committed
                    patience.renew()
                if complete or self._write(name, blob, min(committed, blob.size), base):
                    break
            except AssayError as error:
                if isinstance(error, ServerRefused) and error.reason == "DIGEST_MISMATCH":
                    self._memory.forget(blob.sha256)
                    raise refuse(_named(blob), "changed while it was sent; audit a finished model") from None
                if not (is_transient(error) or _is_mismatch(error)) or not patience.wait():
                    raise
        self._memory.forget(blob.sha256)
        self._done = base + blob.size
        self._tell()

    def _committed(self, name: str) -> tuple[int, bool]:
        request = blobs_pb2.QueryWriteStatusRequest(resource_name=name)
        answer = self._calls.unary(self._calls.blobs.QueryWriteStatus, request)
        return answer.committed_size, answer.complete

    def _write(self, name: str, blob: Blob, offset: int, base: int) -> bool:
        """Write from an offset to the end; True when the service has everything."""

        def on_bytes(count: int) -> None:
            self.sent += count
            self._done += count
            self._tell()

        self._done = base + offset
        pieces = _Pieces(name, blob, offset, on_bytes)
        try:
            with self._calls.translated():
                answer = self._calls.blobs.Write(pieces)
        except (Unreachable, ServerRefused):
            if pieces.trouble is not None:
                raise pieces.trouble from None
            raise
        finally:
            pieces.close()
        return answer.committed_size == blob.size

    def _tell(self) -> None:
        if self._progress:
            self._progress(self._done, self._total)


class _Pieces:
    """The messages of one Write. gRPC pulls them on a thread of its own, so closing waits for a read under way."""

    def __init__(self, name: str, blob: Blob, offset: int, on_bytes: Callable[[int], None]) -> None:
        self._name, self._blob, self._offset, self._on_bytes = name, blob, offset, on_bytes
        self._first, self._finished = True, False
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self.trouble: AssayError | None = None
        """What went wrong on this side; gRPC itself would only say that iterating failed."""

    def __iter__(self) -> Iterator[blobs_pb2.WriteRequest]:
        return self

    def __next__(self) -> blobs_pb2.WriteRequest:
        with self._lock:
            if self._finished:
                raise StopIteration
            data = self._read()
            message = blobs_pb2.WriteRequest(write_offset=self._offset, data=data)
            if self._first:
                message.resource_name, self._first = self._name, False
            self._offset += len(data)
            message.finish_write = self._finished = self._offset >= self._blob.size
        self._on_bytes(len(data))
        return message

    def close(self) -> None:
        with self._lock:
            self._finished = True
            if self._file is not None:
                self._file.close()

    def _read(self) -> bytes:
        want = min(CHUNK, self._blob.size - self._offset)
        source = self._blob.source
        if isinstance(source, bytes):
            return source[self._offset : self._offset + want]
        try:
            if self._file is None:
                self._file = source.open("rb")
                self._file.seek(self._offset)
            data = self._file.read(want)
        except OSError as error:
            self.trouble = refuse(_named(self._blob), f"cannot be read: {error.strerror}")
            raise self.trouble from None
        if len(data) < want:
            self.trouble = refuse(_named(self._blob), "became shorter while it was sent; audit a finished model")
            raise self.trouble
        return data


def _is_mismatch(error: AssayError) -> bool:
    """The offset was out of date: the service's own answer, so asking it again is the next move."""
    return isinstance(error, ServerRefused) and error.reason == "OFFSET_MISMATCH"


def _named(blob: Blob) -> str:
    return str(blob.source) if isinstance(blob.source, Path) else f"sha256:{blob.sha256}"


def _content(blob: Blob) -> bytes:
    if isinstance(blob.source, bytes):
        return blob.source
    try:
        data = blob.source.read_bytes()
    except OSError as error:
        raise refuse(_named(blob), f"cannot be read: {error.strerror}") from None
    if len(data) != blob.size:
        raise refuse(_named(blob), "changed while it was sent; audit a finished model")
    return data


def _batches(blobs: Sequence[Blob]) -> Iterator[list[Blob]]:
    batch: list[Blob] = []
    size = 0
    for blob in blobs:
        if batch and (size + blob.size > BATCH_BYTES or len(batch) == BATCH_BLOBS):
            yield batch
            batch, size = [], 0
        batch.append(blob)
        size += blob.size
    if batch:
        yield batch
