"""Blobs in an S3-compatible bucket: verified in a local spool first, so that nothing partial ever has a final name.

A small blob is one conditional PUT. A large one is a multipart upload, completed only after every byte that was sent
has been hashed again and the digest is the name's; otherwise it is aborted. What is read is fetched into a local cache,
verified on the way and whenever it is read from there again. Sources: the Amazon S3 API reference (PutObject,
CompleteMultipartUpload, ListObjectsV2).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from html import escape, unescape
from pathlib import Path
from typing import BinaryIO

from service.blobs.bucket import Bucket, S3Settings
from service.blobs.contract import (
    EMPTY_SHA256,
    BlobDamaged,
    BlobFault,
    BlobMismatch,
    BlobMissing,
    checked_digest,
    disk_errors,
)
from service.blobs.local import PROBE, STEP, LocalBlobs, write_aside

PART = 64 << 20
"""Bytes of one part: 10,000 parts, the most that S3 takes, then hold 625 GiB; a blob has at most 100."""
CACHE_BYTES = 64 << 30
"""Fetched blobs that are kept; the least lately used go first."""
STALE_S = 86_400.0
"""What lies in the spool for so long was left by a process that was killed: no blob takes a day to send."""

OPENS = 3
"""Looks for a file that another thread may remove from a small cache between its name and its opening."""

_KEY = re.compile(rb"<Key>([^<]{1,1024})</Key>")
_MORE = re.compile(rb"<NextContinuationToken>([^<]{1,4096})</NextContinuationToken>")
_UPLOAD = re.compile(rb"<UploadId>([^<]{1,4096})</UploadId>")
_ERROR = re.compile(rb"<Error[\s>]")


class S3Blobs:
    """A blob store in one bucket. Several processes and hosts may share it.

    Args:
        settings: the bucket.
        spool: local folder for what is on its way and what was fetched; processes of one user may share it.
        part_bytes: size above which a blob is sent in parts, and of a part.
        cache_bytes: how much of what was fetched is kept, give or take a sixteenth and one blob.
        sleep: waits between tries.
    """

    def __init__(
        self,
        settings: S3Settings,
        spool: Path,
        *,
        part_bytes: int = PART,
        cache_bytes: int = CACHE_BYTES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket, self._prefix = Bucket(settings, sleep=sleep), settings.prefix
        self._part, self._cache_bytes = part_bytes, cache_bytes
        self._spool = spool / "outgoing"
        self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cache = LocalBlobs(spool / "cache")
        self._fetched, self._lock = cache_bytes, threading.Lock()  # so that the first fetch looks
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
        """See `BlobStore.open`."""
        for _ in range(OPENS):
            with contextlib.suppress(FileNotFoundError):
                return self.path(digest).open("rb")
        raise BlobFault(f"blob {digest} leaves the cache before it is read: give the cache more room")

    def path(self, digest: str) -> Path:
        """See `BlobStore.path`: fetched unless it is in the cache, and verified in either case."""
        if not self._is_cached(checked_digest(digest)):
            self._fetch(digest)
        return self._cache.path(digest)

    def size(self, digest: str) -> int | None:
        """See `BlobStore.size`."""
        if checked_digest(digest) == EMPTY_SHA256:
            return 0
        answer = self._bucket.call("HEAD", self._key(digest), accept=(200, 404))
        return None if answer.status == 404 else int(answer.headers["content-length"])

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
        if digest != EMPTY_SHA256:
            self._cache.delete(digest)

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

    def _is_cached(self, digest: str) -> bool:
        """Say whether the cache has a blob's own bytes; others are removed: a local disk may rot, too."""
        found = hashlib.sha256()
        try:
            with self._cache.open(digest) as file:
                while piece := file.read(STEP):
                    found.update(piece)
                os.utime(file.fileno())
        except (BlobMissing, OSError):
            return False
        if found.hexdigest() == digest:
            return True
        self._cache.delete(digest)
        return False

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
            headers = {"if-none-match": "*", "x-amz-checksum-sha256": checksum}
            self._bucket.call("PUT", self._key(digest), headers=headers, body=body, accept=(200, 412))
        else:
            self._send_parts(file, digest)
        self._require_size(digest, size)

    def _send_parts(self, file: Path, digest: str) -> None:
        key = self._key(digest)
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
            answer = self._bucket.call(
                "POST", key, query={"uploadId": upload}, headers={"if-none-match": "*"}, body=body, accept=(200, 412)
            )
            if _ERROR.search(answer.body) and answer.status == 200:  # a failure after the answer had begun
                raise BlobFault("the object store could not complete a multipart upload")
        except BaseException:
            self._abort(key, upload)
            raise
        if answer.status == 412:  # somebody else was first with the same bytes
            self._abort(key, upload)

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

    def _require_size(self, digest: str, size: int) -> None:
        """Do nothing if what stands under the name has the right length, whoever wrote it."""
        found = self.size(digest)
        if found != size:
            raise BlobFault(f"the object store has {found} bytes under a name of {size}")

    def _fetch(self, digest: str) -> None:
        self._make_room()
        aside = self._spool / secrets.token_hex(16)
        try:
            with aside.open("wb") as out:
                found = self._receive(digest, out)
                with disk_errors():
                    os.fsync(out.fileno())
            if found != digest:
                raise BlobDamaged(f"the object store has other bytes under {digest}")
            with self._lock:
                self._fetched += aside.stat().st_size
            self._cache.adopt(aside, digest)
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

    def _make_room(self) -> None:
        """Remove what was used least lately from a cache that is over its size; looked at once for many fetches."""
        with self._lock:
            if self._fetched < self._cache_bytes // 16:
                return
            self._fetched = 0
        found = []
        for digest in self._cache.digests():
            with contextlib.suppress(BlobMissing, FileNotFoundError):
                status = self._cache.path(digest).stat()
                found.append((status.st_mtime_ns, status.st_size, digest))
        total = sum(size for _, size, _ in found)
        for _, size, digest in sorted(found):
            if total <= self._cache_bytes:
                return
            if digest != EMPTY_SHA256:
                self._cache.delete(digest)
                total -= size


def _require(found: str, digest: str) -> None:
    if found != digest:
        raise BlobMismatch(f"the bytes hash to {found}, not to {digest}; nothing was stored")
