"""The blob store's in-memory twin, for tests. A path is asked for rarely, and then made in a private folder."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from service.blobs.contract import EMPTY_SHA256, BlobMismatch, BlobMissing, checked_digest


class MemoryBlobs:
    """A blob store in this process's memory; gone with it."""

    def __init__(self) -> None:
        self._bytes: dict[str, bytes] = {EMPTY_SHA256: b""}
        self._folder: Path | None = None

    def put(self, source: Path | bytes, digest: str) -> None:
        """See `BlobStore.put`."""
        data = source.read_bytes() if isinstance(source, Path) else source
        if hashlib.sha256(data).hexdigest() != checked_digest(digest):
            raise BlobMismatch(f"the bytes do not hash to {digest}; nothing was stored")
        self._bytes[digest] = bytes(data)

    def adopt(self, part: Path, digest: str) -> None:
        """See `BlobStore.adopt`."""
        self._bytes[checked_digest(digest)] = part.read_bytes()
        part.unlink()

    def open(self, digest: str) -> BinaryIO:
        """See `BlobStore.open`."""
        return io.BytesIO(self._read(digest))

    def path(self, digest: str) -> Path:
        """See `BlobStore.path`."""
        data = self._read(digest)
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="blobs-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        file = self._folder / digest
        if not file.exists():
            file.write_bytes(data)
            file.chmod(0o400)
        return file

    def size(self, digest: str) -> int | None:
        """See `BlobStore.size`."""
        data = self._bytes.get(checked_digest(digest))
        return None if data is None else len(data)

    def digests(self) -> Iterator[str]:
        """See `BlobStore.digests`."""
        yield from sorted(self._bytes)

    def delete(self, digest: str) -> None:
        """See `BlobStore.delete`."""
        self._bytes.pop(checked_digest(digest), None)
        if self._folder is not None:
            (self._folder / digest).unlink(missing_ok=True)

    def probe(self) -> None:
        """See `BlobStore.probe`: memory always works."""

    def _read(self, digest: str) -> bytes:
        try:
            return self._bytes[checked_digest(digest)]
        except KeyError:
            raise BlobMissing(f"no blob {digest}") from None
