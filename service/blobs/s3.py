"""Blobs in an S3-compatible bucket: verified in a local spool first, so that nothing partial ever has a final name.

A small blob is one PUT on the condition of its checksum. A large one is a multipart upload, completed only after every
byte that was sent has been hashed again and the digest is the name's; otherwise it is aborted. Both replace what stands
there: right bytes are no worse than right bytes, and better than rotten ones. What is read is fetched into a local
cache and verified on the way. Sources: the Amazon S3 API reference (PutObject, CompleteMultipartUpload, ListObjectsV2,
ListMultipartUploads).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from html import escape, unescape
from pathlib import Path
from typing import BinaryIO

from service.blobs.bucket import Answer, Bucket, S3Settings
from service.blobs.cache import Cache
from service.blobs.contract import (
    EMPTY_SHA256,
    BlobDamaged,
    BlobFault,
    BlobMismatch,
    BlobMissing,
    checked_digest,
    disk_errors,
)
from service.blobs.local import PROBE, write_aside

PART = 64 << 20
"""Bytes of one part: 10,000 parts, the most that S3 takes, then hold 625 GiB; a blob has at most 100."""
CACHE_BYTES = 64 << 30
"""Fetched blobs that are kept; the least lately used go first."""
STALE_S = 86_400.0
"""What lies in the spool for so long was left by a process that was killed: no blob takes a day to send."""

LOOKS = 3
"""Fetches for a path that another thread may remove from a small cache before it is told."""

_KEY = re.compile(rb"<Key>([^<]{1,1024})</Key>")
_MORE = re.compile(rb"<NextContinuationToken>([^<]{1,4096})</NextContinuationToken>")
_UPLOAD = re.compile(rb"<UploadId>([^<]{1,4096})</UploadId>")
_BEGUN = re.compile(rb"<Upload>(.{1,8192}?)</Upload>", re.DOTALL)
_INITIATED = re.compile(rb"<Initiated>([0-9TZ:.+-]{1,40})</Initiated>")
_ERROR = re.compile(rb"<Error[\s>]")


class S3Blobs:
    """A blob store in one bucket. Several processes and hosts may share it.

    Args:
        settings: the bucket.
        spool: local folder for what is on its way and what was fetched; processes of one user may share it.
        part_bytes: size above which a blob is sent in parts, and of a part.
        cache_bytes: how much of what was fetched is kept, give or take a sixteenth and one blob.
        floor: the bytes of the cache's disk to leave alone, by those of the whole disk.
        sleep: waits between tries.
    """

    def __init__(
        self,
        settings: S3Settings,
        spool: Path,
        *,
        part_bytes: int = PART,
        cache_bytes: int = CACHE_BYTES,
        floor: Callable[[int], int] = lambda _total: 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket, self._prefix = Bucket(settings, sleep=sleep), settings.prefix
        self._part = part_bytes
        self._spool = spool / "outgoing"
        self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cache = Cache(spool, cache_bytes, floor)
        self._has_aborted = False
        self._remove_stale()

    def put(self, source: Path | bytes, digest: str) -> None:
        """See `BlobStore.put`."""
        checked_digest(digest)
        aside = self._spool / secrets.token_hex(16)
        try:
            with disk_errors():
                found = write_aside(source, aside)
            _require(found, digest)
            self._send(aside, digest)
        finally:
            aside.unlink(missing_ok=True)

    def adopt(self, part: Path, digest: str) -> None:
        """See `BlobStore.adopt`: it is sent from where it lies, and hashed again while it is."""
        self._send(part, checked_digest(digest))
        part.unlink()

    def open(self, digest: str) -> BinaryIO:
        """See `BlobStore.open`: fetched unless it is in the cache, and verified in either case."""
        if checked_digest(digest) == EMPTY_SHA256:
            return self._cache.empty()
        stands = self._head(digest)
        if stands is None:
            self._cache.forget(digest)
            raise BlobMissing(f"no blob {digest}")
        return self._cache.open(digest, _tag(stands)) or self._fetch(digest, stands)

    def path(self, digest: str) -> Path:
        """See `BlobStore.path`: as `open`."""
        for _ in range(LOOKS):
            self.open(digest).close()
            with contextlib.suppress(BlobMissing):
                return self._cache.path(digest)
        raise BlobFault(f"blob {digest} leaves the cache before it is read: give the cache more room")

    def size(self, digest: str) -> int | None:
        """See `BlobStore.size`."""
        if checked_digest(digest) == EMPTY_SHA256:
            return 0
        stands = self._head(digest)
        return None if stands is None else int(stands.headers["content-length"])

    def digests(self) -> Iterator[str]:
        """See `BlobStore.digests`."""
        yield EMPTY_SHA256
        query = {"list-type": "2", "prefix": f"{self._prefix}sha256/"}
        while True:
            body = self._bucket.call("GET", "", query=query).body
            for key in _KEY.findall(body):
                name = key.decode("ascii", "replace").rpartition("/")[2]
                if key.decode("ascii", "replace") == self._key(name) and name != EMPTY_SHA256:
                    yield name
            more = _MORE.search(body)
            if more is None:
                return
            query["continuation-token"] = unescape(more[1].decode())

    def delete(self, digest: str) -> None:
        """See `BlobStore.delete`."""
        self._bucket.call("DELETE", self._key(checked_digest(digest)), accept=(200, 204, 404))
        self._cache.forget(digest)

    def probe(self) -> None:
        """See `BlobStore.probe`: under a name beside the blobs'."""
        key = f"{self._prefix}probe/{secrets.token_hex(8)}"
        self._bucket.call("PUT", key, body=PROBE)
        found = self._bucket.call("GET", key).body
        self._bucket.call("DELETE", key, accept=(200, 204, 404))
        if found != PROBE:
            raise BlobFault("what was written is not what is read back")

    def _key(self, digest: str) -> str:
        return f"{self._prefix}sha256/{digest[:2]}/{digest[2:4]}/{digest}"

    def _head(self, digest: str) -> Answer | None:
        answer = self._bucket.call("HEAD", self._key(digest), accept=(200, 404))
        return answer if answer.status == 200 else None

    def _remove_stale(self) -> None:
        for left in self._spool.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > STALE_S:
                    left.unlink()

    def _send(self, file: Path, digest: str) -> None:
        with disk_errors():
            size = file.stat().st_size
        if digest == EMPTY_SHA256 and size == 0:
            return
        if size <= self._part:
            with disk_errors():
                body = file.read_bytes()
            _require(hashlib.sha256(body).hexdigest(), digest)
            checksum = base64.b64encode(bytes.fromhex(digest)).decode()
            self._bucket.call("PUT", self._key(digest), headers={"x-amz-checksum-sha256": checksum}, body=body)
        else:
            self._send_parts(file, digest)
        self._require_size(digest, size)

    def _send_parts(self, file: Path, digest: str) -> None:
        key = self._key(digest)
        self._abort_stale()
        begun = _UPLOAD.search(self._bucket.call("POST", key, query={"uploads": ""}).body)
        if begun is None:
            raise BlobFault("the object store began no multipart upload")
        upload = unescape(begun[1].decode())
        try:
            found, tags = self._parts(file, key, upload)
            _require(found, digest)
            listed = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
                for number, tag in enumerate(tags, 1)
            )
            body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
            answer = self._bucket.call("POST", key, query={"uploadId": upload}, body=body)
            if _ERROR.search(answer.body):  # a failure after the answer had begun
                raise BlobFault("the object store could not complete a multipart upload")
        except BaseException:
            self._abort(key, upload)
            raise

    def _parts(self, file: Path, key: str, upload: str) -> tuple[str, list[str]]:
        digest = hashlib.sha256()
        tags: list[str] = []
        with disk_errors(), file.open("rb") as opened:
            while piece := opened.read(self._part):
                digest.update(piece)
                query = {"partNumber": str(len(tags) + 1), "uploadId": upload}
                tags.append(self._bucket.call("PUT", key, query=query, body=piece).headers.get("etag", ""))
        return digest.hexdigest(), tags

    def _abort(self, key: str, upload: str) -> None:
        with contextlib.suppress(BlobFault):  # the bucket's own rule for unfinished uploads removes what is left
            self._bucket.call("DELETE", key, query={"uploadId": upload}, accept=(200, 204, 404))

    def _abort_stale(self) -> None:
        """Once in a process: abort what killed ones left in the bucket for a day, by the store's own clock."""
        if self._has_aborted:
            return
        self._has_aborted = True
        with contextlib.suppress(BlobFault, ValueError, TypeError):  # it costs money, and no upload fails for it
            answer = self._bucket.call("GET", "", query={"uploads": "", "prefix": f"{self._prefix}sha256/"})
            now = parsedate_to_datetime(answer.headers.get("date", ""))
            for one in _BEGUN.findall(answer.body):
                key, upload, begun = _KEY.search(one), _UPLOAD.search(one), _INITIATED.search(one)
                if key and upload and begun:
                    age = now - datetime.fromisoformat(begun[1].decode())
                    if age.total_seconds() > STALE_S:
                        self._abort(unescape(key[1].decode()), unescape(upload[1].decode()))

    def _require_size(self, digest: str, size: int) -> None:
        """Do nothing if what stands under the name has the right length, whoever wrote it."""
        found = self.size(digest)
        if found != size:
            raise BlobFault(f"the object store has {found} bytes under a name of {size}")

    def _fetch(self, digest: str, stands: Answer) -> BinaryIO:
        self._cache.make_room(int(stands.headers["content-length"]))
        aside = self._spool / secrets.token_hex(16)
        try:
            with aside.open("wb") as out:
                found = self._receive(digest, out)
                with disk_errors():
                    os.fsync(out.fileno())
            if found != digest:
                raise BlobDamaged(f"the object store has other bytes under {digest}")
            return self._cache.keep(aside, digest, _tag(stands))
        finally:
            aside.unlink(missing_ok=True)

    def _receive(self, digest: str, out: BinaryIO) -> str:
        """Fetch a blob into an open file; return the SHA-256 of what came."""
        hashed = hashlib.sha256()

        def restart() -> None:
            nonlocal hashed
            hashed = hashlib.sha256()
            out.seek(0)
            out.truncate()

        def take(piece: bytes) -> None:
            hashed.update(piece)
            with disk_errors():
                out.write(piece)
                out.flush()

        answer = self._bucket.call("GET", self._key(digest), accept=(200, 404), sink=take, restart=restart)
        if answer.status == 404:
            raise BlobMissing(f"no blob {digest}")
        return hashed.hexdigest()


def _tag(stands: Answer) -> str:
    """Return what tells one object of a name from another that replaced it."""
    return " ".join(stands.headers.get(name, "") for name in ("etag", "last-modified", "content-length"))


def _require(found: str, digest: str) -> None:
    if found != digest:
        raise BlobMismatch(f"the bytes hash to {found}, not to {digest}; nothing was stored")
