"""Pieces of an upload that the server copies out of blobs which the tenant sent before: equal tensors of a fine-tune.

A copy saves the sending and nothing else. The whole of the new blob is hashed as it grows, exactly like sent bytes, so
that a wrong composition ends in DIGEST_MISMATCH; and what may be copied follows from grants alone, so that a digest
obtains nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from assay.api.v1 import blobs_pb2

from service.api.backing import Backing
from service.api.parts import Part
from service.rules import names
from service.rules.errors import Refusal
from service.rules.metrics import COUNTERS
from service.rules.names import BlobName
from service.store import uploads

RANGE_MAX = 64 << 20
"""Bytes that one message may copy: the server's sync step, so that a message never puts more than that at stake."""

STEP = 1 << 20
"""Bytes read at a time, as of every other copy here."""


THREADS = 4
"""Copies of one process at once: a disk reads and writes no faster for more."""

THREADS_PER_TENANT = 2
"""Copies of one tenant at once; the others of it wait, and no other tenant behind them."""


class Copies:
    """Threads of their own for copies.

    One message of 80 bytes asks for 64 MiB of reading, hashing and writing; on the threads that everything else shares,
    a few streams of them would keep every caller from being authenticated.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="copy")
        self._turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(THREADS_PER_TENANT))

    async def run(self, tenant: str, copy: Callable[[], None]) -> None:
        """Copy in a thread once it is the tenant's turn.

        The turn lasts until the thread is done, also if nobody waits for it any more: a stream that is broken off
        makes no room for another copy.
        """
        turn = self._turns[tenant]
        await turn.acquire()
        running = asyncio.get_running_loop().run_in_executor(self._pool, copy)
        running.add_done_callback(lambda _: turn.release())
        await asyncio.shield(running)


class Sources:
    """The blobs that one stream copies from; the last one stays open. Use it as one stream, then `close`.

    Args:
        backing: store and blobs.
        copies: threads that copy.
        tenant: whose grants decide.
    """

    def __init__(self, backing: Backing, copies: Copies, tenant: str) -> None:
        self._backing = backing
        self._copies = copies
        self._tenant = tenant
        self._name: BlobName | None = None
        self._file: BinaryIO | None = None

    async def append(self, part: Part, message: blobs_pb2.WriteRequest) -> None:
        """Append what a message carries or names.

        Raises:
            Refusal: BAD_RANGE, BAD_DIGEST; MISSING_BLOBS: the tenant never sent the source, or it is no longer kept.
            NoSpace: the disk is full.
        """
        if message.HasField("copy"):
            await self._copies.run(self._tenant, lambda: self._copy(part, message.copy))
            COUNTERS.add("assay_copied_bytes_total", message.copy.length)
        elif message.data:
            await asyncio.to_thread(part.append, message.data)

    def close(self) -> None:
        """Close the source that is open."""
        if self._file is not None:
            self._file.close()
        self._name = self._file = None

    def _copy(self, part: Part, asked: blobs_pb2.WriteRequest.Range) -> None:
        file = self._opened(BlobName(asked.source.sha256, asked.source.size))
        file.seek(asked.offset)
        left = asked.length
        while left:
            piece = file.read(min(STEP, left))
            if not piece:
                raise RuntimeError(f"blob {asked.source.sha256} is shorter than its row says")
            part.append(piece)
            left -= len(piece)

    def _opened(self, name: BlobName) -> BinaryIO:
        if self._file is not None and self._name == name:
            return self._file
        self.close()
        with self._backing.store.read() as connection:
            uploads.require_granted(connection, self._tenant, [name])
        self._file = uploads.open_sent(self._backing.store, self._backing.blobs, name)
        self._name = name
        return self._file


def length_of(message: blobs_pb2.WriteRequest) -> int:
    """Return how many bytes a message adds to its upload.

    Raises:
        Refusal: BAD_RANGE: it carries bytes and names a range, or the range is none of its source; BAD_DIGEST.
    """
    if not message.HasField("copy"):
        return len(message.data)
    asked = message.copy
    source = asked.source
    if not names.is_digest(source.sha256, source.size):
        raise Refusal("BAD_DIGEST", "copy.source is not 64 lower-case hex digits and a size.")
    if message.data:
        raise Refusal("BAD_RANGE", "A message carries data and names a range.")
    if not 1 <= asked.length <= RANGE_MAX or not 0 <= asked.offset <= source.size - asked.length:
        raise Refusal(
            "BAD_RANGE",
            f"{asked.length} bytes at {asked.offset} of a blob of {source.size}; one message copies at most "
            f"{RANGE_MAX}.",
            metadata={
                "offset": str(asked.offset),
                "length": str(asked.length),
                "size": str(source.size),
                "limit": str(RANGE_MAX),
            },
        )
    return int(asked.length)
