"""One upload from its first message to its blob, in the steps of section 5 of the service's specification."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from assay.api.v1 import blobs_pb2

from service.api.backing import Backing
from service.api.copying import Copies, Sources, length_of
from service.api.ledger import about
from service.api.parts import Part, PartBusy
from service.api.room import Room
from service.rules import names
from service.rules.errors import Refusal
from service.rules.limits import disk_floor
from service.rules.metrics import COUNTERS
from service.rules.names import BlobName, UploadName
from service.store import quotas, uploads
from service.store.engine import StoreBusy
from service.store.keeping import keep
from service.store.uploads import UploadState


class Uploads:
    """Receives blobs in pieces.

    Args:
        backing: store, blobs and limits.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._running: Counter[str] = Counter()
        self._folder = backing.settings.upload_dir
        self._copies = Copies()
        self.room = Room(self._folder, self._floor)
        """Of the disk that parts lie on."""

    async def receive(self, tenant: str, messages: AsyncIterator[blobs_pb2.WriteRequest]) -> int:
        """Take one stream; return the blob's size once every byte is stored and verified.

        Raises:
            Refusal: see `Blobs.Write` in the protos.
        """
        # Counted before its first message: a stream that sends none holds a place too.
        if self._running[tenant] >= self._backing.limits.uploads_per_tenant:
            limit = self._backing.limits.uploads_per_tenant
            raise Refusal(
                "TOO_MANY_UPLOADS",
                f"{limit} uploads of this tenant already run.",
                metadata={"quota": "parallel_uploads", "limit": str(limit)},
                quota="parallel_uploads",
            )
        self._running[tenant] += 1
        try:
            first = await self._next(messages)
            if first is None:
                raise Refusal("BAD_RESOURCE_NAME", "The stream carried no message.")
            name = names.upload(first.resource_name)
            self._require_size(name.blob)
            if await asyncio.to_thread(self._is_granted, tenant, name):
                return name.blob.size
            return await self._receive(tenant, name, first, messages)
        finally:
            self._running[tenant] -= 1

    async def _receive(
        self,
        tenant: str,
        name: UploadName,
        first: blobs_pb2.WriteRequest,
        messages: AsyncIterator[blobs_pb2.WriteRequest],
    ) -> int:
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, tenant, name))
        try:
            part, state = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise
        try:
            if state.complete:
                return name.blob.size
            with self.room.taken(part, name.blob.size):
                if first.write_offset != part.committed:
                    text, start = f"The stream starts at {first.write_offset}.", str(first.write_offset)
                    raise _elsewhere("OFFSET_MISMATCH", text, part.committed, write_offset=start)
                if await self._fill(tenant, name, part, first, messages):
                    return name.blob.size
                finishing = asyncio.ensure_future(asyncio.to_thread(self._finish, tenant, name, part))
                await asyncio.shield(finishing)
            return name.blob.size
        finally:
            # Also when the client is gone: what arrived is made safe before the claim ends.
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(self._close, tenant, name, part)))

    async def _fill(
        self,
        tenant: str,
        name: UploadName,
        part: Part,
        first: blobs_pb2.WriteRequest,
        messages: AsyncIterator[blobs_pb2.WriteRequest],
    ) -> bool:
        """Append message after message up to the last; True if another upload finished the same blob meanwhile."""
        message: blobs_pb2.WriteRequest | None = first
        sources = Sources(self._backing, self._copies, tenant)
        try:
            while message is not None:
                _require_fit(message, first.resource_name, name.blob.size, part.written)
                # The next message is received while this one is written.
                following = asyncio.ensure_future(self._next(messages))
                following.add_done_callback(_look_at)
                try:
                    if await self._take(tenant, name, part, sources, message):
                        return True
                    is_last, message = message.finish_write, await following
                finally:
                    following.cancel()
                if is_last and message is not None:
                    raise Refusal("PAST_SIZE", "A message came after finish_write.")
                if is_last:
                    return False
        finally:
            sources.close()
        committed = await asyncio.to_thread(self._commit, tenant, name, part)
        raise _elsewhere("UPLOAD_UNFINISHED", "The stream ended without finish_write.", committed)

    async def _take(
        self, tenant: str, name: UploadName, part: Part, sources: Sources, message: blobs_pb2.WriteRequest
    ) -> bool:
        """Write one message, safely where a step is due; True if another upload has finished the same blob."""
        COUNTERS.add("assay_upload_bytes_total", len(message.data))
        await sources.append(part, message)
        if message.finish_write or part.written - part.committed < self._backing.limits.sync_bytes:
            return False
        await asyncio.to_thread(self._commit, tenant, name, part)
        self.room.require_floor()
        return await asyncio.to_thread(self._is_granted, tenant, name)

    async def _next(self, messages: AsyncIterator[blobs_pb2.WriteRequest]) -> blobs_pb2.WriteRequest | None:
        """Return the next message, None at the end of the stream."""
        limit = self._backing.limits.idle_upload_s
        try:
            async with asyncio.timeout(limit):
                return await anext(messages, None)
        except TimeoutError:
            text = f"No byte came for {limit:g} s."
            raise Refusal("UPLOAD_IDLE", text, metadata={"limit_s": f"{limit:g}"}) from None

    def _require_size(self, blob: BlobName) -> None:
        limit, size = self._backing.limits.blob_bytes, blob.size
        if (size == 0) is not (blob.sha256 == uploads.EMPTY.sha256):
            raise Refusal("BAD_RESOURCE_NAME", "Digest and size contradict each other: one of them is no bytes'.")
        if size > limit:
            raise Refusal(
                "BLOB_TOO_LARGE",
                f"The blob has {size} bytes, the limit is {limit}.",
                metadata={"size": str(size), "limit": str(limit)},
                quota="blob_bytes",
            )

    def _floor(self, total: int) -> int:
        settings = self._backing.settings
        return disk_floor(total, settings.disk_floor_bytes, development=settings.signer_profile == "development")

    def _open(self, tenant: str, name: UploadName) -> tuple[Part, UploadState]:
        try:
            part = Part(self._folder, tenant, name)
        except PartBusy:
            raise Refusal("UPLOAD_BUSY", "Another stream writes this upload.", metadata={"upload": name.id}) from None
        try:
            with self._backing.store.begin() as connection:
                quotas.lock(connection, tenant)
                state = uploads.begin_upload(connection, tenant, name)
                if not state.complete:
                    quotas.require_upload(connection, tenant, self._backing.limits.quotas)
            if state.complete:
                part.delete()
            else:
                part.rewind(state.committed_size)
        except BaseException:
            part.delete_if_empty()  # never another blob's bytes: the id may be taken
            part.close()
            raise
        return part, state

    def _commit(self, tenant: str, name: UploadName, part: Part) -> int:
        before = part.committed
        committed = part.sync()
        if committed != before:
            with self._backing.store.begin() as connection:
                uploads.commit_upload(connection, tenant, name.id, committed)
        return committed

    def _finish(self, tenant: str, name: UploadName, part: Part) -> None:
        found = part.sha256()
        if (part.written, found) != (name.blob.size, name.blob.sha256):
            part.delete()
            with self._backing.store.begin() as connection:
                uploads.forget_upload(connection, tenant, name.id)
            raise Refusal(
                "DIGEST_MISMATCH",
                f"The bytes are not what the name says; {name.blob.sha256} was promised. The part is deleted.",
                metadata={"sha256": name.blob.sha256},
            )
        part.sync()
        keep(self._backing.store, self._backing.blobs, (name.blob.sha256,))
        self._backing.blobs.adopt(part.path, name.blob.sha256)
        self._complete(tenant, name)

    def _complete(self, tenant: str, name: UploadName) -> None:
        """Write the rows of a blob that is in place; without them all bytes would have to be sent again."""
        about(f"blobs/sha256/{name.blob.sha256}/{name.blob.size}")
        tries = 3
        for left in reversed(range(tries)):
            try:
                with self._backing.store.begin() as connection:
                    uploads.complete_upload(connection, tenant, name)
                break
            except StoreBusy:
                if not left:
                    raise

    def _close(self, tenant: str, name: UploadName, part: Part) -> None:
        try:
            self._commit(tenant, name, part)
        finally:
            part.close()

    def _is_granted(self, tenant: str, name: UploadName) -> bool:
        with self._backing.store.read() as connection:
            return bool(uploads.granted(connection, tenant, [name.blob]))

    def sweep(self) -> int:
        """Delete parts and rows to which nothing was written for a day; return how many."""
        idle_ms = round(self._backing.limits.part_idle_s * 1000)
        with self._backing.store.read() as connection:
            idle = uploads.idle_uploads(connection, idle_ms=idle_ms)
        swept = 0
        for tenant, upload_id in idle:
            try:
                with Part(self._folder, tenant, UploadName(upload_id, uploads.EMPTY)) as part:
                    with self._backing.store.begin() as connection:
                        forgotten = uploads.forget_upload(connection, tenant, upload_id, idle_ms=idle_ms)
                    if forgotten:
                        part.delete()
                        swept += 1
            except PartBusy:
                continue  # somebody took it up again just now
        return swept


def prepare_folder(folder: Path) -> None:
    """Make the folder of parts, private to the server."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _require_fit(message: blobs_pb2.WriteRequest, resource_name: str, size: int, written: int) -> None:
    if message.resource_name not in ("", resource_name):
        raise Refusal("BAD_RESOURCE_NAME", "A later message names another upload.")
    if message.write_offset != written:
        raise Refusal(
            "OFFSET_GAP",
            f"A message starts at {message.write_offset}, the one before ended at {written}.",
            metadata={"write_offset": str(message.write_offset), "expected": str(written)},
        )
    if written + length_of(message) > size:
        raise Refusal("PAST_SIZE", f"The bytes run past the size {size} of the name.", metadata={"size": str(size)})


def _elsewhere(reason: str, message: str, committed: int, **told: str) -> Refusal:
    told["committed_size"] = str(committed)
    return Refusal(reason, f"{message} {committed} bytes are safe here.", metadata=told)


def _close_opened(opening: asyncio.Future[tuple[Part, UploadState]]) -> None:
    """End the claim of a part whose stream was cancelled while it was being opened."""
    if not opening.cancelled() and opening.exception() is None:
        close = partial(opening.result()[0].close)
        asyncio.get_running_loop().run_in_executor(None, close)


def _look_at(receiving: asyncio.Future[blobs_pb2.WriteRequest | None]) -> None:
    """Take note of a failure of receiving that nobody waits for, because writing failed before it."""
    if not receiving.cancelled():
        receiving.exception()
