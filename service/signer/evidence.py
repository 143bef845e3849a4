"""Blobs, read only and believed by nothing but their digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from assay.manifest import HASH_THREADS, FileEntry, is_sha256

from service.blobs import BlobDamaged, BlobError
from service.signer.refusal import Refused

_CHUNK = 1 << 20


class Evidence:
    """Blobs as the signer reads them.

    Args:
        source: the blob store's folder, which this reader must not write to, as a store of `service.blobs` would; or
            what opens a blob, where they lie elsewhere.
        threads: model files hashed at once; None is one for each core, at most 8.
    """

    def __init__(self, source: Path | Callable[[str], BinaryIO], *, threads: int | None = None) -> None:
        self._threads = threads or HASH_THREADS
        self._open = source if callable(source) else lambda digest: path_in(source, digest).open("rb")

    def read(self, digest: str, cap: int, what: str) -> bytes:
        """Return a small blob, re-hashed.

        Raises:
            Refused: BLOB_MISSING, BLOB_CORRUPT, or REQUEST_REJECTED when it is larger than `cap`.
        """
        try:
            with self._opened(digest) as file:
                data = file.read(cap + 1)
        except (BlobError, OSError) as error:
            raise _unreadable(error, f"{what} {digest[:16]}…", digest) from error
        if len(data) > cap:
            raise Refused("REQUEST_REJECTED", f"{what} {digest[:16]}… is larger than {cap} bytes")
        if hashlib.sha256(data).hexdigest() != digest:
            raise Refused("BLOB_CORRUPT", f"{what} {digest[:16]}… does not have its digest any more", blob=digest)
        return data

    def rows_of(self, digest: str, what: str) -> int:
        """Re-hash a data blob, however large, and count its lines that hold something.

        Raises:
            Refused: BLOB_MISSING, BLOB_CORRUPT.
        """
        found, rows, held = hashlib.sha256(), 0, False
        try:
            with self._opened(digest) as file:
                while piece := file.readline(_CHUNK):
                    found.update(piece)
                    held = held or bool(piece.strip())
                    if piece.endswith(b"\n"):
                        rows, held = rows + held, False
        except (BlobError, OSError) as error:
            raise _unreadable(error, f"{what} {digest[:16]}…", digest) from error
        if found.hexdigest() != digest:
            raise Refused("BLOB_CORRUPT", f"{what} {digest[:16]}… does not have its digest any more", blob=digest)
        return rows + held

    def weigh(self, files: Iterable[FileEntry], known: Mapping[str, Any]) -> dict[str, list[int]]:
        """Hash a model's files, except those whose inode, size and ctime are as they were when they were hashed.

        Args:
            files: the manifest's entries.
            known: what an earlier call returned.

        Returns:
            By digest: inode, size in bytes, ctime in seconds and nanoseconds.

        Raises:
            Refused: BLOB_MISSING, BLOB_CORRUPT.
        """
        owed = {file.sha256: file for file in files}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="weigh") as pool:
            return dict(zip(owed, pool.map(lambda file: self._weigh(file, known), owed.values()), strict=True))

    def _weigh(self, file: FileEntry, known: Mapping[str, Any]) -> list[int]:
        found = hashlib.sha256()
        try:
            with self._opened(file.sha256) as blob:
                before = _identity(os.fstat(blob.fileno()))
                if known.get(file.sha256) == before:
                    return before
                buffer = memoryview(bytearray(_CHUNK))
                while count := blob.readinto(buffer):  # type: ignore[attr-defined]  # every opened file has it
                    found.update(buffer[:count])
                after = _identity(os.fstat(blob.fileno()))
        except (BlobError, OSError) as error:
            raise _unreadable(error, f"model file {file.path}", file.sha256) from error
        if before != after or found.hexdigest() != file.sha256 or before[1] != file.size:
            text = f"model file {file.path} does not have its digest and size any more"
            raise Refused("BLOB_CORRUPT", text, blob=file.sha256)
        return before

    def _opened(self, digest: str) -> BinaryIO:
        if not is_sha256(digest):
            raise Refused("REQUEST_REJECTED", "a digest is 64 lower-case hexadecimal digits")
        return self._open(digest)


def path_in(root: Path, digest: str) -> Path:
    """Return where a blob lies in a local store's folder."""
    return root / "sha256" / digest[:2] / digest[2:4] / digest


def _unreadable(error: BlobError | OSError, what: str, digest: str) -> Refused:
    if isinstance(error, BlobDamaged):
        return Refused("BLOB_CORRUPT", f"{what} does not have its digest any more", blob=digest)
    text = f"{what} cannot be read: {getattr(error, 'strerror', None) or error}"
    return Refused("BLOB_MISSING", text, blob=digest)


def _identity(status: os.stat_result) -> list[int]:
    # Nanoseconds since 1970 exceed 2^53, the largest integer of our JSON: seconds and the rest travel apart.
    return [status.st_ino, status.st_size, *divmod(status.st_ctime_ns, 10**9)]
