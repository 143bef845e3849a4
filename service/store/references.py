"""What still needs which blob. A blob that is missed here is lost evidence, so the search errs on the side of keeping.

Nothing here knows the fields of documents: whatever looks like a digest anywhere in a row or in a document that the
service refers to, also inside base64, counts as a reference. Models alone are told apart, because their weights go
when their owner deleted them: files of a purged model's manifest are kept only by what names them otherwise.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from sqlalchemy import Column, ColumnElement, Select, literal, select, tuple_

from service.rules.states import AUDIT_ENDED, AuditState
from service.store.engine import Store
from service.store.keeping import Readable
from service.store.tables import attempt, audit, job, model, plan, report, result
from service.store.tables_around import approval, schedule

WHOLE_MAX = 16 << 20
"""Documents up to this many bytes are read whole, base64 included: bundles and envelopes are far smaller."""

PAGE = 500
"""Rows read at a time."""

READS_NOTHING = (*AUDIT_ENDED, AuditState.AWAITING_APPROVAL)
"""States of audits that no longer, or not yet, read a model: naming one is not having its owner's consent."""

_DEPTH = 3
"""How deep base64 may hold base64: a bundle holds an envelope, that holds a statement."""

_DIGEST = re.compile(rb"(?=([0-9a-f]{64}))")
"""Overlapping: in serialised messages a neighbouring byte may read as one more hex digit."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{88,}={0,2}")
"""88 characters are the least that can hold a digest in text."""


class ReferencesUnreadable(Exception):
    """Documents that the service refers to cannot be read, so nobody knows what they refer to; names the blobs.

    Args:
        why: what is wrong with each blob.
        rotten: those whose bytes are not what their names say.
    """

    def __init__(self, why: Mapping[str, str], rotten: frozenset[str]) -> None:
        first = min(why)
        many = f"{len(why)} blobs cannot be read, the first is" if len(why) > 1 else "blob"
        super().__init__(f"{many} {first}{':' if len(why) > 1 else ' cannot be read:'} {why[first]}")
        self.unread = frozenset(why)
        self.rotten = rotten


@dataclass(frozen=True, kw_only=True)
class References:
    """All that is referred to."""

    kept: frozenset[str]
    """Named by a row, by a live model's manifest, or by a document; weights of purged models only if a row or a live
    manifest names them."""
    documents: int
    """How many documents were read."""


def find(store: Store, blobs: Readable) -> References:
    """Read every row and every document that refers to blobs.

    Raises:
        ReferencesUnreadable: then nothing may be collected.
    """
    named = set[str]()
    documents = set[str]()
    for column, leads_on in _COLUMNS:
        for value in _values(store, column, _CONDITIONS.get((column, leads_on))):
            found = digests_in(value)
            named |= found
            if leads_on:
                documents |= found
    live, purged = _manifests(store)
    reading = _Reading(blobs)
    gone = reading.all_in(purged & named, required=False)
    strong = named | live | reading.all_in(live)
    # What a request or a record names may be anything; only what exists as a blob can be opened.
    weak = reading.all_in(documents - live - purged)
    reading.require()
    return References(kept=frozenset(strong | (weak - gone)), documents=len(documents | live | purged))


def digests_in(data: bytes | str, depth: int = _DEPTH) -> set[str]:
    """Return every text of 64 hex digits within some bytes, and within base64 within them."""
    raw = data.encode() if isinstance(data, str) else data
    found = {match.group(1).decode() for match in _DIGEST.finditer(raw)}
    if depth:
        for match in _BASE64.finditer(raw):
            if not _DIGEST.match(match.group()):
                found |= _inside(match.group(), depth - 1)
    return found


def _inside(text: bytes, depth: int) -> set[str]:
    plain = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return digests_in(base64.b64decode(plain + b"=" * (-len(plain) % 4)), depth)
    except binascii.Error:
        return set()


_COLUMNS: tuple[tuple[Column[object], bool], ...] = (
    (audit.c.model_sha256, False),
    (audit.c.base_sha256, False),
    (audit.c.submission, False),
    (audit.c.registration_json, False),
    (audit.c.request_json, False),  # before the next: whoever is registered in between is found by it
    (audit.c.request_sha256, False),
    (audit.c.request_sha256, True),
    (attempt.c.result_sha256, True),
    (attempt.c.cells_json, False),
    (result.c.sha256, True),
    (job.c.part_sha256, True),
    (plan.c.document_sha256, True),
    (plan.c.carried_sha256, True),
    (report.c.files_json, True),
    (approval.c.envelope, False),
    (schedule.c.template, False),
)
"""Columns that name blobs, and whether what they name is a document that names further ones."""

_CONDITIONS: dict[tuple[Column[object], bool], ColumnElement[bool]] = {
    (schedule.c.template, False): schedule.c.deleted_at.is_(None),
    (audit.c.request_sha256, True): audit.c.request_json.is_(None),
}
"""A deleted schedule asks for nothing any more, and a request that is in its row is no blob that can be read."""


def _values(store: Store, column: Column[object], condition: ColumnElement[bool] | None) -> Iterator[bytes | str]:
    """Read a column of every row, a page at a time by the primary key; each page sees the newest rows."""
    keys = list(column.table.primary_key.columns)
    last: tuple[object, ...] | None = None
    while True:
        found: Select[tuple[object, ...]] = select(*keys, column.label("value")).order_by(*keys).limit(PAGE)
        if condition is not None:
            found = found.where(condition)
        if last is not None:
            found = found.where(_after(keys, last))
        with store.read() as connection:
            rows = connection.execute(found).all()
        yield from (row.value for row in rows if row.value is not None)
        if len(rows) < PAGE:
            return
        last = tuple(rows[-1])[: len(keys)]


def _after(keys: list[Column[object]], last: tuple[object, ...]) -> ColumnElement[bool]:
    values = [literal(value, type_=key.type) for key, value in zip(keys, last, strict=True)]
    after: ColumnElement[bool] = tuple_(*keys) > tuple_(*values)
    return after


def _manifests(store: Store) -> tuple[set[str], set[str]]:
    """Return the manifests whose files are needed, and those whose files went with their models."""
    with store.read() as connection:
        # Audits first: a model of theirs that is made meanwhile has its row by then.
        reading = connection.execute(
            select(audit.c.model_sha256, audit.c.base_sha256).where(audit.c.state.not_in(READS_NOTHING))
        ).all()
        rows = connection.execute(select(model.c.manifest_sha256, model.c.purged_at)).all()
    known = {row.manifest_sha256 for row in rows}
    live = {row.manifest_sha256 for row in rows if row.purged_at is None}
    live |= {digest for row in reading for digest in row if digest in known}
    return live, known - live


class _Reading:
    """Reads documents, hashing them on the way: one changed digit in a manifest would free what it names."""

    def __init__(self, blobs: Readable) -> None:
        self._blobs = blobs
        self._why: dict[str, str] = {}
        self._rotten = set[str]()

    def all_in(self, documents: Iterable[str], *, required: bool = True) -> set[str]:
        """Return all that these documents name; of those that cannot be read, nothing."""
        found = set[str]()
        for digest in sorted(documents):
            hashed = hashlib.sha256()
            try:
                with self._blobs.open(digest) as file:
                    inside = _inside_file(file, hashed.update)
            except Exception as error:  # whatever the blob store raises: what is unread might name anything
                wrong = str(error)
            else:
                if hashed.hexdigest() == digest:
                    found |= inside
                    continue
                self._rotten.add(digest)
                wrong = "its bytes hash to something else"
            if required:
                self._why[digest] = wrong
        return found

    def require(self) -> None:
        """Do nothing if every required document was read.

        Raises:
            ReferencesUnreadable: naming all that were not.
        """
        if self._why:
            raise ReferencesUnreadable(self._why, frozenset(self._rotten & self._why.keys()))


def _inside_file(file: BinaryIO, on_bytes: Callable[[bytes], None]) -> set[str]:
    data = file.read(WHOLE_MAX + 1)
    on_bytes(data)
    found = digests_in(data, _DEPTH if len(data) <= WHOLE_MAX else 0)
    while more := file.read(WHOLE_MAX):
        on_bytes(more)
        data = data[-63:] + more
        found |= digests_in(data, 0)
    return found
