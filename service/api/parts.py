"""The part file of one upload: written by one stream at a time, cut to what is safe, hashed while it grows."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path
from types import TracebackType

from service.blobs import BlobError, disk_errors
from service.rules.names import UploadName

STEP = 1 << 20
"""Bytes read at a time when the hash is rebuilt."""


class PartBusy(Exception):
    """Another stream, of this process or another one, writes this upload."""


class Part:
    """A claimed part file. Every method blocks on the disk: call it in a thread. The claim ends with `close`.

    The claim is a lock of the operating system on the file, so it lapses with its process, whatever kills that.

    Args:
        folder: where parts lie.
        tenant: whose upload it is.
        name: which upload.

    Raises:
        PartBusy: the upload is claimed by another stream.
    """

    def __init__(self, folder: Path, tenant: str, name: UploadName) -> None:
        self._path = part_path(folder, tenant, name.id)
        self._guard = threading.Lock()  # a cancelled stream closes while its last append may still run
        self._hash = hashlib.sha256()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_in_place():
                raise BlockingIOError  # it was finished or swept between open and lock
        except BlockingIOError:
            os.close(self._descriptor)
            raise PartBusy from None
        self.written = 0
        """Bytes in the file, safe or not."""
        self.committed = 0
        """Bytes that survive a power loss."""
        self._broken: BlobError | None = None

    def rewind(self, committed: int) -> None:
        """Cut the tail that was never synced and rebuild the hash of what remains by one read.

        Should the disk have lost bytes that were committed, what remains is what counts.
        """
        remains = min(committed, os.fstat(self._descriptor).st_size)
        os.ftruncate(self._descriptor, remains)
        position = 0
        while position < remains:
            chunk = os.pread(self._descriptor, min(STEP, remains - position), position)
            self._hash.update(chunk)
            position += len(chunk)
        self.written = self.committed = remains

    def append(self, data: bytes) -> None:
        """Write and hash the next bytes.

        Raises:
            NoSpace: the disk is full; what was written before stays.
            BlobFault: the disk failed.
        """
        with self._guard, disk_errors():
            if self._descriptor < 0:
                return
            view = memoryview(data)
            while view:
                count = os.pwrite(self._descriptor, view, self.written)
                self._hash.update(view[:count])
                self.written += count
                view = view[count:]

    def sync(self) -> int:
        """Make what was written safe; return how many bytes are.

        After a failure this claim never calls a byte safe again: the kernel may have dropped what it could not write,
        and would report success the next time. The next claim cuts to what was safe before.

        Raises:
            NoSpace: the disk is full.
            BlobFault: the disk failed.
        """
        with self._guard:
            if self._descriptor >= 0 and self.committed != self.written:
                if self._broken is not None:
                    raise self._broken
                try:
                    with disk_errors():
                        os.fsync(self._descriptor)
                except BlobError as error:
                    self._broken = error
                    raise
                self.committed = self.written
            return self.committed

    @property
    def path(self) -> Path:
        """Where the part lies."""
        return self._path

    def sha256(self) -> str:
        """Return the digest of all that was written."""
        return self._hash.hexdigest()

    def delete(self) -> None:
        """Remove the file; the claim stays until `close`."""
        if self._is_in_place():
            self._path.unlink()
        self.written = self.committed = 0

    def delete_if_empty(self) -> None:
        """Remove the file if this claim only just made it."""
        if os.fstat(self._descriptor).st_size == 0:
            self.delete()

    def close(self) -> None:
        """End the claim."""
        with self._guard:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _is_in_place(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def part_path(folder: Path, tenant: str, upload_id: str) -> Path:
    """Return where a part lies; tenants are hashed, so that no tenant's name ever becomes a path."""
    return folder / f"{hashlib.sha256(tenant.encode()).hexdigest()[:16]}-{upload_id}"
