"""One blob as the messages of one Write: bytes that are carried, and pieces that the service has in older blobs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from assay.api.v1 import blobs_pb2
from assay.client_errors import refuse
from assay.errors import AssayError
from assay.remote.reuse import RANGE_MAX, Piece

CHUNK = 2**20
"""1 MiB: measured to be as fast as larger ones, and far below the 4 MiB limit of one message."""


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Bytes to send, by their digest."""

    sha256: str
    size: int
    source: Path | bytes


class Pieces:
    """The messages of one Write. gRPC pulls them on a thread of its own, so closing waits for a read under way."""

    def __init__(
        self, name: str, blob: Blob, offset: int, on_bytes: Callable[[int, int], None], copies: Sequence[Piece]
    ) -> None:
        self._name, self._blob, self._offset, self._on_bytes = name, blob, offset, on_bytes
        self._copies = deque(one for one in copies if one.offset + one.length > offset)
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
            message = blobs_pb2.WriteRequest(write_offset=self._offset)
            if self._copies and self._copies[0].offset <= self._offset:
                count = self._name_range(message, self._copies[0])
            else:
                message.data = self._read()
                count = len(message.data)
            if self._first:
                message.resource_name, self._first = self._name, False
            self._offset += count
            message.finish_write = self._finished = self._offset >= self._blob.size
        self._on_bytes(len(message.data), count)
        return message

    def _name_range(self, message: blobs_pb2.WriteRequest, piece: Piece) -> int:
        skipped = self._offset - piece.offset
        count = min(piece.length - skipped, RANGE_MAX)
        message.copy.source.sha256, message.copy.source.size = piece.source.sha256, piece.source.size
        message.copy.offset, message.copy.length = piece.source_offset + skipped, count
        if skipped + count == piece.length:
            self._copies.popleft()
        return count

    def close(self) -> None:
        """End the messages and close the file."""
        with self._lock:
            self._finished = True
            if self._file is not None:
                self._file.close()

    def _read(self) -> bytes:
        end = self._copies[0].offset if self._copies else self._blob.size
        want = min(CHUNK, end - self._offset)
        source = self._blob.source
        if isinstance(source, bytes):
            return source[self._offset : self._offset + want]
        try:
            if self._file is None:
                self._file = source.open("rb")
            self._file.seek(self._offset)
            data = self._file.read(want)
        except OSError as error:
            self.trouble = refuse(named(self._blob), f"cannot be read: {error.strerror}")
            raise self.trouble from None
        if len(data) < want:
            self.trouble = refuse(named(self._blob), "became shorter while it was sent; audit a finished model")
            raise self.trouble
        return data


def named(blob: Blob) -> str:
    """Return what to call a blob in a message: its file, else its digest."""
    return str(blob.source) if isinstance(blob.source, Path) else f"sha256:{blob.sha256}"
