"""Whether the bytes of models that are known are all there: an audit of one that lost a file could only fail.

Which files a model has is told by its manifest, which never changes under its digest; so it is read once a process.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from assay import manifest
from assay.manifest import FileEntry
from sqlalchemy import BindParameter, Connection, bindparam, func, select

from service.rules.errors import Missing, Refusal
from service.rules.names import BlobName
from service.store.engine import Store
from service.store.tables import blob
from service.store.uploads import EMPTY, THERE, Bytes, BytesLost, read_sent

log = logging.getLogger("assay.store")

REMEMBERED = 50_000
"""Files of manifests that are kept in memory, some 15 MB: of 5 models of the largest kind, of thousands of usual ones.
"""

MANIFEST = "the manifest"
"""What is said in place of a path of the one file of a model that has none."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model that has a row, and what must be there of it."""

    sha256: str
    """Of its manifest."""
    foreign: bool
    """Whether it is another tenant's: then its files are nobody's business but its owner's."""
    files: tuple[FileEntry, ...]
    """With the manifest itself."""


class Remembered:
    """Files by manifest; the longest unused go first."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._count = 0
        self._files: OrderedDict[str, tuple[FileEntry, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str) -> tuple[FileEntry, ...] | None:
        """Return the files of a manifest, None if they are not remembered."""
        with self._lock:
            if digest in self._files:
                self._files.move_to_end(digest)
            return self._files.get(digest)

    def put(self, digest: str, files: tuple[FileEntry, ...]) -> None:
        """Remember the files of a manifest."""
        with self._lock:
            if digest not in self._files:
                self._files[digest] = files
                self._count += len(files)
            while self._count > self._most and len(self._files) > 1:
                self._count -= len(self._files.popitem(last=False)[1])


_REMEMBERED = Remembered()
"""One for a process: a digest means the same bytes in every database."""


def known(store: Store, blobs: Bytes, digest: str, *, foreign: bool = False) -> Known:
    """Return what must be there of a model that has a row; that it is there is told by `require_whole`.

    While the blob store is away the manifest alone is asked for: its bytes are read again when the audit runs.

    Args:
        store: the database.
        blobs: where the manifest lies.
        digest: of the manifest.
        foreign: whether the model is another tenant's, and the caller may read it.

    Raises:
        Refusal: MISSING_BLOBS: the manifest itself is lost.
    """
    files = _REMEMBERED.get(digest)
    if files is None:
        with store.read() as connection:
            size = connection.execute(select(blob.c.size).where(blob.c.sha256 == digest)).scalar_one_or_none() or 0
        own = FileEntry(path=MANIFEST, sha256=digest, size=size)
        try:
            files = (own, *manifest.parse(read_sent(store, blobs, BlobName(digest, size))).files)
        except BytesLost:
            raise _lost(Known(sha256=digest, foreign=foreign, files=(own,)), (own,)) from None
        except Exception as error:  # of any blob store
            if not isinstance(error, OSError) and not hasattr(error, "lost"):
                raise
            log.warning("the files of models/%s cannot be looked at now: %s", digest, error)
            return Known(sha256=digest, foreign=foreign, files=(own,))
        _REMEMBERED.put(digest, files)
    return Known(sha256=digest, foreign=foreign, files=files)


def require_whole(connection: Connection, models: Sequence[Known]) -> None:
    """Do nothing if all bytes of these models are there; commonly it costs one read of one row.

    Raises:
        Refusal: MISSING_BLOBS, of the caller's own models naming the files; of a foreign one naming the model alone.
    """
    asked = {file.sha256 for one in models for file in one.files} - {EMPTY.sha256}
    if not asked or connection.execute(_COUNT, {"asked": list(asked)}).scalar_one() == len(asked):
        return
    there = set(connection.execute(_THERE, {"asked": list(asked)}).scalars())
    for one in models:
        gone = tuple(file for file in one.files if file.sha256 in asked - there)
        if gone:
            raise _lost(one, gone)


_ASKED: BindParameter[Sequence[str]] = bindparam("asked", expanding=True)
_THERE = select(blob.c.sha256).where(blob.c.sha256.in_(_ASKED), *THERE)
_COUNT = select(func.count()).select_from(blob).where(blob.c.sha256.in_(_ASKED), *THERE)
"""Made once: to make a statement anew takes as long as to run it."""


def _lost(model: Known, gone: Iterable[FileEntry]) -> Refusal:
    name = f"models/{model.sha256}"
    if model.foreign:
        text = f"Bytes of {name} are lost, and none but its owner can send them again."
        return Refusal("MISSING_BLOBS", text, metadata={"model": name}, missing=[Missing.model(model.sha256)])
    missing = {file.sha256: Missing(file.sha256, file.size) for file in gone}
    first = next(iter(gone))
    subject = missing[first.sha256].subject
    told = {"model": name, "file": first.path, "blob": subject, "count": str(len(missing))}
    return Refusal(
        "MISSING_BLOBS",
        f"Bytes of {name} are lost, {len(missing)} of its blobs in all: send {subject} ({first.path}) again.",
        metadata=told,
        missing=list(missing.values()),
    )
