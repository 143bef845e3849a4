"""The Blobs service: what is missing, small blobs, uploads in pieces, and report files out."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, BinaryIO

from assay.api.v1 import blobs_pb2, blobs_pb2_grpc

from service.api.backing import Backing
from service.api.guard import Call, current_call
from service.api.ledger import about
from service.api.upload import Uploads
from service.blobs import BlobDamaged, BlobMissing
from service.rules import names
from service.rules.errors import Refusal, Violation, refuse_fields
from service.rules.limits import charged
from service.rules.metrics import COUNTERS
from service.rules.names import BlobName
from service.store import listings, quotas, uploads
from service.store.keeping import keep, quarantine

READ_STEP = 256 << 10
"""Bytes of one message of Read."""


class Blobs(blobs_pb2_grpc.BlobsServicer):
    """See `protos/assay/api/v1/blobs.proto` for every method's contract."""

    def __init__(self, backing: Backing, receiver: Uploads) -> None:
        self._backing = backing
        self._uploads = receiver

    async def FindMissingBlobs(
        self, request: blobs_pb2.FindMissingBlobsRequest, context: Any
    ) -> blobs_pb2.FindMissingBlobsResponse:
        """Answer from grants alone: knowing a digest proves and obtains nothing."""
        limit = self._backing.limits.find_missing
        if len(request.digests) > limit:
            raise _too_many(len(request.digests), "digests", limit)
        asked = _blob_names(request.digests, "digests")
        absent = await asyncio.to_thread(self._missing, current_call().caller.tenant, asked)
        reply = blobs_pb2.FindMissingBlobsResponse()
        for name in absent:
            reply.missing.add(sha256=name.sha256, size=name.size)
        return reply

    def _missing(self, tenant: str, asked: Sequence[BlobName]) -> tuple[BlobName, ...]:
        with self._backing.store.read() as connection:
            absent = uploads.missing(connection, tenant, asked)
            stale = uploads.stale_grants(connection, tenant, asked)
        if stale:
            with self._backing.store.begin() as connection:
                uploads.touch(connection, tenant, asked)
        return absent

    async def BatchUpdateBlobs(
        self, request: blobs_pb2.BatchUpdateBlobsRequest, context: Any
    ) -> blobs_pb2.BatchUpdateBlobsResponse:
        """Store small blobs; each is judged alone."""
        limit = self._backing.limits.batch_bytes
        total = sum(len(blob.data) for blob in request.blobs)
        COUNTERS.add("assay_upload_bytes_total", total)
        if total > limit:
            raise Refusal(
                "BATCH_TOO_LARGE",
                f"The batch has {total} bytes, the limit is {limit}.",
                metadata={"size": str(total), "limit": str(limit)},
            )
        if len(request.blobs) > self._backing.limits.find_missing:
            raise _too_many(len(request.blobs), "blobs", self._backing.limits.find_missing)
        asked = _blob_names([blob.digest for blob in request.blobs], "blobs", ".digest")
        self._uploads.room.require(total)
        data = [blob.data for blob in request.blobs]
        reasons = await asyncio.to_thread(self._store, current_call().caller.tenant, asked, data)
        reply = blobs_pb2.BatchUpdateBlobsResponse()
        for blob, reason in zip(request.blobs, reasons, strict=True):
            reply.results.add(digest=blob.digest, reason=reason)
        return reply

    def _store(self, tenant: str, asked: Sequence[BlobName], data: Sequence[bytes]) -> list[str]:
        good = [
            len(one) == name.size and hashlib.sha256(one).hexdigest() == name.sha256
            for name, one in zip(asked, data, strict=True)
        ]
        with self._backing.store.read() as connection:
            fit = [name for name, is_good in zip(asked, good, strict=True) if is_good]
            new = uploads.missing(connection, tenant, fit)
            if new:
                quotas.require_room(
                    connection, tenant, self._backing.limits.quotas, sum(charged(name.size) for name in new)
                )
        sent = [name.sha256 for name, is_good in zip(asked, good, strict=True) if is_good]
        keep(self._backing.store, self._backing.blobs, sent)
        for name, one, is_good in zip(asked, data, good, strict=True):
            if is_good:
                self._backing.blobs.put(one, name.sha256)
        if new:
            more = f"+{len(new) - 1}" if len(new) > 1 else ""
            about(f"blobs/sha256/{new[0].sha256}/{new[0].size}{more}")
        with self._backing.store.begin() as connection:
            quotas.lock(connection, tenant)
            # In the order of their digests: two tenants that send the same blobs must not wait for each other.
            for name in sorted(fit, key=lambda one: one.sha256):
                uploads.grant(connection, tenant, name)
            if new:
                quotas.require_room(connection, tenant, self._backing.limits.quotas)
        return ["" if is_good else "DIGEST_MISMATCH" for is_good in good]

    async def Write(
        self, request_iterator: AsyncIterator[blobs_pb2.WriteRequest], context: Any
    ) -> blobs_pb2.WriteResponse:
        """Receive one blob in pieces."""
        committed = await self._uploads.receive(current_call().caller.tenant, request_iterator)
        return blobs_pb2.WriteResponse(committed_size=committed)

    async def QueryWriteStatus(
        self, request: blobs_pb2.QueryWriteStatusRequest, context: Any
    ) -> blobs_pb2.QueryWriteStatusResponse:
        """Tell how much of an upload is safe; an unknown one answers 0."""
        name = names.upload(request.resource_name)
        tenant = current_call().caller.tenant

        def read() -> uploads.UploadState | None:
            with self._backing.store.read() as connection:
                return uploads.find_upload(connection, tenant, name)

        found = await asyncio.to_thread(read)
        if found is None:
            return blobs_pb2.QueryWriteStatusResponse()
        return blobs_pb2.QueryWriteStatusResponse(committed_size=found.committed_size, complete=found.complete)

    async def Read(self, request: blobs_pb2.ReadRequest, context: Any) -> AsyncIterator[blobs_pb2.ReadResponse]:
        """Send a report file, hashed again before its first byte leaves; every other blob reads as absent."""
        name = names.blob(request.resource_name)
        if request.read_offset < 0:
            raise Refusal("BAD_OFFSET", "read_offset is negative.")
        file = await asyncio.to_thread(self._open_readable, current_call(), name)
        try:
            if request.read_offset > name.size:
                raise Refusal("OFFSET_PAST_END", f"The blob has {name.size} bytes.", metadata={"size": str(name.size)})
            await asyncio.to_thread(file.seek, request.read_offset)
            while chunk := await asyncio.to_thread(file.read, READ_STEP):
                yield blobs_pb2.ReadResponse(data=chunk)
        finally:
            file.close()

    def _open_readable(self, call: Call, name: BlobName) -> BinaryIO:
        with self._backing.store.read() as connection:
            readable = listings.is_report_file(connection, call.scope, name)
        if not readable:
            raise Refusal("BLOB_NOT_FOUND", "No report file of this name can be read by this principal.")
        try:
            file = self._backing.blobs.open(name.sha256)
        except (BlobMissing, BlobDamaged) as error:
            raise self._lost(name) from error
        try:
            found = hashlib.sha256()
            while piece := file.read(READ_STEP):
                found.update(piece)
            if found.hexdigest() != name.sha256:
                raise self._lost(name)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _lost(self, name: BlobName) -> RuntimeError:
        """Write down that a file is lost; a sweep takes that back once it is restored."""
        with self._backing.store.begin() as connection:
            quarantine(connection, name.sha256)
        return RuntimeError(f"report file {name.sha256} is lost or not its digest any more: restore it from a backup")


def _too_many(count: int, what: str, limit: int) -> Refusal:
    text = f"{count} {what}, the limit is {limit}."
    return Refusal("TOO_MANY", text, metadata={"count": str(count), "limit": str(limit)})


def _blob_names(digests: Sequence[blobs_pb2.Digest], field: str, suffix: str = "") -> list[BlobName]:
    wrong = [
        Violation(f"{field}[{position}]{suffix}", "is not 64 lower-case hex digits and a size", "BAD_DIGEST")
        for position, digest in enumerate(digests)
        if not names.is_digest(digest.sha256, digest.size)
    ]
    if wrong:
        raise refuse_fields(wrong)
    return [BlobName(digest.sha256, digest.size) for digest in digests]
