"""Content-addressed upload: ask what is missing, send small blobs together and large ones in resumable pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from assay.api.v1 import blobs_pb2
from assay.client_errors import ServerRefused, Unreachable, refuse
from assay.errors import AssayError
from assay.remote.calls import Calls, Patience, is_transient
from assay.remote.memory import UploadMemory
from assay.remote.pieces import CHUNK, Blob, Pieces, named
from assay.remote.reuse import Piece, Source, Span, plan, spans

__all__ = ["CHUNK", "Blob", "Progress", "Uploader"]

SMALL = 2**20
"""Blobs under this size travel together."""

BATCH_BYTES = 3 * 2**20
BATCH_BLOBS = 1000
FIND_MAX = 1000

NO_COPY = ("MISSING_BLOBS", "BAD_RANGE", "BAD_DIGEST", "DIGEST_MISMATCH", "OFFSET_GAP")
"""Reasons after which a blob is sent byte by byte: its old copy is gone or damaged, or the service knows no copies."""

Progress = Callable[[int, int], None]
"""Called with (bytes that have arrived or left, bytes to send); may go back after a break."""


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
        absent = {blob.sha256 for blob in missing}
        for blob in blobs:
            if blob.sha256 not in absent and not self._memory.tensors.has(blob.sha256):
                self._remember(blob, _tensors(blob))  # a base that was sent by somebody else of the same tenant
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
                raise ServerRefused("INVALID_ARGUMENT", reason, f"{named(blob)} was not stored; did it change?")
        size = sum(blob.size for blob in batch)
        self.sent += size
        self._done += size
        self._tell()

    def _send_large(self, blob: Blob) -> None:
        """Write one blob until it is there, from the committed offset after every break."""
        tensors = _tensors(blob)
        copies = self._reusable(tensors)
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
                if complete or self._write(name, blob, min(committed, blob.size), base, copies):
                    break
            except AssayError as error:
                reason = error.reason if isinstance(error, ServerRefused) else ""
                if copies and reason in NO_COPY:
                    copies = self._without(copies)
                    continue
                if reason == "DIGEST_MISMATCH":
                    self._memory.forget(blob.sha256)
                    raise refuse(named(blob), "changed while it was sent; audit a finished model") from None
                if not (is_transient(error) or _is_mismatch(error)) or not patience.wait():
                    raise
        self._memory.forget(blob.sha256)
        self._remember(blob, tensors)
        self._done = base + blob.size
        self._tell()

    def _reusable(self, tensors: Sequence[Span]) -> tuple[Piece, ...]:
        """Return the pieces that the service can copy out of what it has of this tenant now."""
        known = self._memory.tensors.read() if tensors else {}
        sources = {one.source for one in plan(tensors, known)}
        gone = {one.sha256 for one in self._missing({one.sha256: _placeholder(one) for one in sources})}
        for source in [one for one in sources if one.sha256 in gone]:
            self._memory.tensors.forget(source)
        return plan(tensors, {source: has for source, has in known.items() if source.sha256 not in gone})

    def _without(self, copies: Sequence[Piece]) -> tuple[Piece, ...]:
        for source in {one.source for one in copies}:
            self._memory.tensors.forget(source)
        return ()

    def _remember(self, blob: Blob, tensors: Sequence[Span]) -> None:
        self._memory.tensors.note(Source(sha256=blob.sha256, size=blob.size), tensors)

    def _committed(self, name: str) -> tuple[int, bool]:
        request = blobs_pb2.QueryWriteStatusRequest(resource_name=name)
        answer = self._calls.unary(self._calls.blobs.QueryWriteStatus, request)
        return answer.committed_size, answer.complete

    def _write(self, name: str, blob: Blob, offset: int, base: int, copies: Sequence[Piece]) -> bool:
        """Write from an offset to the end; True when the service has everything."""

        def on_bytes(sent: int, count: int) -> None:
            self.sent += sent
            self._done += count
            self._tell()

        self._done = base + offset
        pieces = Pieces(name, blob, offset, on_bytes, copies)
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


def _is_mismatch(error: AssayError) -> bool:
    """The offset was out of date: the service's own answer, so asking it again is the next move."""
    return isinstance(error, ServerRefused) and error.reason == "OFFSET_MISMATCH"


def _tensors(blob: Blob) -> tuple[Span, ...]:
    """Hash the tensors of a large file of weights; of anything else there are none."""
    if not isinstance(blob.source, Path) or blob.source.suffix != ".safetensors" or blob.size < SMALL:
        return ()
    try:
        return spans(blob.source)
    except OSError as error:
        raise refuse(named(blob), f"cannot be read: {error.strerror}") from None


def _placeholder(source: Source) -> Blob:
    return Blob(sha256=source.sha256, size=source.size, source=b"")


def _content(blob: Blob) -> bytes:
    if isinstance(blob.source, bytes):
        return blob.source
    try:
        data = blob.source.read_bytes()
    except OSError as error:
        raise refuse(named(blob), f"cannot be read: {error.strerror}") from None
    if len(data) != blob.size:
        raise refuse(named(blob), "changed while it was sent; audit a finished model")
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
