"""Blobs as files of a local folder: `sha256/ab/cd/{hex}`, mode 0400, written aside and renamed into place."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from service.blobs.contract import EMPTY_SHA256, BlobFault, BlobMismatch, BlobMissing, checked_digest, disk_errors

STEP = 1 << 20
"""Bytes copied and hashed at a time: 1 MiB is where hashing and writing both run at full speed."""

PROBE = b"assay blob probe\n"


class LocalBlobs:
    """A blob store in one folder of one host. Several processes may share it.

    Args:
        root: the folder; made if absent.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._aside = root / "incoming"
        (root / "sha256").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._aside.mkdir(exist_ok=True, mode=0o700)
        if not self._target(EMPTY_SHA256).exists():  # a place that is read-only may be opened too
            self.put(b"", EMPTY_SHA256)

    def put(self, source: Path | bytes, digest: str) -> None:
        """See `BlobStore.put`. What is there is replaced: it may be rotten, and the time tells nobody that it was."""
        target = self._target(digest)
        aside = self._aside / secrets.token_hex(16)
        try:
            with disk_errors():
                found = write_aside(source, aside)
                if found != digest:
                    raise BlobMismatch(f"the bytes hash to {found}, not to {digest}; nothing was stored")
                self._place(aside, target)
        finally:
            aside.unlink(missing_ok=True)

    def adopt(self, part: Path, digest: str) -> None:
        """See `BlobStore.adopt`."""
        target = self._target(digest)
        try:
            with disk_errors():
                self._place(part, target)
        except BlobFault as fault:
            if not isinstance(fault.__cause__, OSError) or fault.__cause__.errno != errno.EXDEV:
                raise
            self.put(part, digest)
            part.unlink()

    def open(self, digest: str) -> BinaryIO:
        """See `BlobStore.open`."""
        try:
            return self._target(digest).open("rb")
        except FileNotFoundError:
            raise BlobMissing(f"no blob {digest}") from None

    def path(self, digest: str) -> Path:
        """See `BlobStore.path`."""
        target = self._target(digest)
        if not target.is_file():
            raise BlobMissing(f"no blob {digest}")
        return target

    def size(self, digest: str) -> int | None:
        """See `BlobStore.size`."""
        try:
            return self._target(digest).stat().st_size
        except FileNotFoundError:
            return None

    def digests(self) -> Iterator[str]:
        """See `BlobStore.digests`."""
        for file in sorted((self._root / "sha256").glob("??/??/*")):
            yield file.name

    def delete(self, digest: str) -> None:
        """See `BlobStore.delete`."""
        self._target(digest).unlink(missing_ok=True)

    def probe(self) -> None:
        """See `BlobStore.probe`: writes aside, so that a probe never competes with a real blob."""
        aside = self._aside / f"probe-{secrets.token_hex(8)}"
        try:
            with disk_errors():
                write_aside(PROBE, aside)
                if aside.read_bytes() != PROBE:
                    raise BlobFault("what was written is not what is read back")
        finally:
            aside.unlink(missing_ok=True)

    def _target(self, digest: str) -> Path:
        checked_digest(digest)
        return self._root / "sha256" / digest[:2] / digest[2:4] / digest

    def _place(self, aside: Path, target: Path) -> None:
        """Rename a synced file into place and make the name itself survive a power loss.

        All three folders are synced, new or not, and only at the end: one pass over the journal of the file system,
        so that it takes the same time whether somebody has stored a blob of this folder, or this blob, before.
        """
        inner = target.parent
        for folder in (inner.parent, inner):
            folder.mkdir(mode=0o700, exist_ok=True)
        aside.chmod(0o400)
        aside.rename(target)
        for folder in (inner, inner.parent, inner.parent.parent):
            _sync_folder(folder)


def write_aside(source: Path | bytes, aside: Path) -> str:
    """Write `source` to `aside`, which must not exist, synced; return the SHA-256 of what was written."""
    digest = hashlib.sha256()
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        for chunk in _chunks(source):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if not isinstance(source, Path):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(STEP):
            yield chunk


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
