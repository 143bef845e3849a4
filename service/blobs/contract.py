"""What a blob store promises: a blob is either whole and what its name says, or it is not there.

BlobError
├── BlobMissing    no blob of this digest
├── BlobMismatch   the bytes offered are not what the digest says; nothing was stored
├── NoSpace        the disk is full; nothing was stored
└── BlobFault      the disk failed; nothing was stored
    ├── BlobDamaged    what is stored under a digest has another one
    └── BlobsAway      the store cannot be reached now
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The digest of no bytes. Clients never send it; every tenant has it."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobError(Exception):
    """Root of what a blob store raises."""

    lost = False
    """Whether a blob's bytes are not there, or are others: whoever has the right ones sends them again."""


class BlobMissing(BlobError):
    """There is no blob of this digest; send its bytes first."""

    lost = True


class BlobMismatch(BlobError):
    """The bytes are not what the digest says. Nothing was stored."""


class NoSpace(BlobError):
    """The disk is full. Nothing was stored; free space and try again."""


class BlobFault(BlobError):
    """The disk failed. Nothing was stored."""


class BlobDamaged(BlobFault):
    """The store has other bytes under this digest. Whoever has the right ones sends them again."""

    lost = True


class BlobsAway(BlobFault):
    """The store cannot be reached now. Nothing was stored; try again."""


class BlobStore(Protocol):
    """Content-addressed bytes. Every digest is 64 lower-case hex digits of SHA-256; another text is a ValueError."""

    def put(self, source: Path | bytes, digest: str) -> None:
        """Store a copy of `source`, verified against `digest`; storing it again changes nothing.

        Raises:
            BlobMismatch: the bytes hash to something else.
            NoSpace: the disk is full.
            BlobFault: the disk failed.
        """

    def adopt(self, part: Path, digest: str) -> None:
        """Move in a file that the caller has just hashed and synced, without reading it again. `part` is gone after.

        Raises:
            NoSpace: the disk is full (only when `part` lies on another file system).
            BlobFault: the disk failed.
        """

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading; the caller closes it.

        Raises:
            BlobMissing: it is not here.
        """

    def path(self, digest: str) -> Path:
        """Return where a blob's bytes lie, read-only.

        Raises:
            BlobMissing: it is not here.
        """

    def size(self, digest: str) -> int | None:
        """Return a blob's size in bytes, or None if it is not here."""

    def digests(self) -> Iterator[str]:
        """Yield every stored digest, for sweeping."""

    def delete(self, digest: str) -> None:
        """Remove a blob; removing an absent one changes nothing."""

    def probe(self) -> None:
        """Store and read back a small blob, to learn whether the store works now.

        Raises:
            BlobError: it does not.
        """


def checked_digest(digest: str) -> str:
    """Return `digest`, so that no other text ever becomes a path.

    Raises:
        ValueError: it is not 64 lower-case hex digits.
    """
    if not _DIGEST.fullmatch(digest):
        raise ValueError("a digest is 64 lower-case hex digits of SHA-256")
    return digest


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn the operating system's errors into a blob store's own.

    Raises:
        NoSpace, BlobFault.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the blob store's disk is full; free space and try again") from error
        raise BlobFault(f"the blob store's disk failed: {errno.errorcode.get(error.errno or 0, '?')}") from error
