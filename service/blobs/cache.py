"""What was fetched from a bucket, kept on a local disk: within its size, above the disk's floor, and never believed.

A file is served only if it has its digest's bytes and was fetched from the very object that stands in the bucket now:
so what another host deleted or replaced is gone here too, and a good copy vouches for no bucket that lost its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from service.blobs.contract import EMPTY_SHA256, BlobMissing, NoSpace, disk_errors
from service.blobs.local import STEP, LocalBlobs


class Cache:
    """Fetched blobs in a folder. Threads share it, and processes of one user may.

    Args:
        folder: where they lie; made if absent.
        most: bytes to keep, give or take a sixteenth.
        floor: the bytes of the disk to leave alone, by those of the whole disk.
    """

    def __init__(self, folder: Path, most: int, floor: Callable[[int], int]) -> None:
        self._files = LocalBlobs(folder / "cache")
        self._folder, self._most, self._floor = folder, most, floor
        self._tags = folder / "tags"
        self._tags.mkdir(exist_ok=True, mode=0o700)
        self._lock, self._since = threading.Lock(), most  # so that the first fetch looks

    def open(self, digest: str, tag: str) -> BinaryIO | None:
        """Open a blob, re-hashed, if it was fetched from the object of this tag; what is otherwise is removed."""
        try:
            file = self._files.open(digest)
        except BlobMissing:
            return None
        with contextlib.ExitStack() as held:
            held.enter_context(file)
            with contextlib.suppress(OSError):
                if self._tag(digest) == tag and _sha256_of(file) == digest:
                    os.utime(file.fileno())
                    file.seek(0)
                    held.pop_all()
                    return file
        self.forget(digest)
        return None

    def keep(self, aside: Path, digest: str, tag: str) -> BinaryIO:
        """Move in a file that has just been hashed and synced; return it open, so that nobody's fetch takes it away."""
        with disk_errors(), contextlib.ExitStack() as held:
            file = held.enter_context(aside.open("rb"))
            with self._lock:
                self._since += os.fstat(file.fileno()).st_size
            (self._tags / digest).write_text(tag, encoding="utf-8")
            self._files.adopt(aside, digest)
            held.pop_all()
            return file

    def path(self, digest: str) -> Path:
        """Return where a blob lies.

        Raises:
            BlobMissing: it left meanwhile.
        """
        return self._files.path(digest)

    def empty(self) -> BinaryIO:
        """Open the empty blob, which is never fetched."""
        return self._files.open(EMPTY_SHA256)

    def forget(self, digest: str) -> None:
        """Remove a blob; removing an absent one changes nothing."""
        if digest != EMPTY_SHA256:
            self._files.delete(digest)
            (self._tags / digest).unlink(missing_ok=True)

    def make_room(self, incoming: int) -> None:
        """Remove what was used least lately until so many more bytes fit, into the cache and above the floor.

        The folder is looked through once for many fetches.

        Raises:
            NoSpace: the disk would fall below its floor, whatever is removed.
        """
        with self._lock:
            if self._since + incoming < self._most // 16 and self._lacking(incoming) <= 0:
                return
            self._since = 0
        found = []
        for digest in self._files.digests():
            with contextlib.suppress(BlobMissing, FileNotFoundError):
                status = self._files.path(digest).stat()
                found.append((status.st_mtime_ns, status.st_size, digest))
        over = sum(size for _, size, _ in found) + incoming - self._most
        for _, size, digest in sorted(found):
            if over <= 0 and self._lacking(incoming) <= 0:
                return
            self.forget(digest)
            over -= size
        if self._lacking(incoming) > 0:
            raise NoSpace("the disk of the blobs' cache is at its floor; free space and try again")

    def _lacking(self, incoming: int) -> int:
        disk = shutil.disk_usage(self._folder)
        return self._floor(disk.total) + incoming - disk.free

    def _tag(self, digest: str) -> str:
        return (self._tags / digest).read_text(encoding="utf-8")


def _sha256_of(file: BinaryIO) -> str:
    found = hashlib.sha256()
    while piece := file.read(STEP):
        found.update(piece)
    return found.hexdigest()
