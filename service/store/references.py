"""What still needs which blob. A blob that is missed here is lost evidence, so the search errs on the side of keeping.

Whatever a row or a document names is kept (see `service.store.naming`). Files of purged models alone are told apart,
because weights go when their owner deleted them. Such a file stays only

- in a live model's manifest,
- by a column that the service itself writes, or a document of an audit that runs,
- for a tenant that has sent its bytes and names it; that a result about the purged model names its files is no reason.

So nobody can have another tenant's evidence collected by deleting a model that holds the same bytes, and nobody holds
another tenant's deleted weights by writing their digest down.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from sqlalchemy import select

from service.store.engine import Store
from service.store.keeping import Readable, is_lost
from service.store.naming import DEPTH, PAGE, PLACES, READS_NOTHING, Namer, digests_in
from service.store.tables import audit, blob_grant, model

WHOLE_MAX = 16 << 20
"""Documents up to this many bytes are read whole, base64 included: bundles and envelopes are far smaller."""


class ReferencesUnreadable(Exception):
    """Documents that the service refers to cannot be read, so nobody knows what they refer to; names the blobs.

    Args:
        why: what is wrong with each blob.
        lost: those whose bytes are not there, or not what their names say; none if no blob at all is there, for then
            this is another place than the blobs'.
    """

    def __init__(self, why: Mapping[str, str], lost: frozenset[str]) -> None:
        first = min(why)
        many = f"{len(why)} blobs cannot be read, the first is" if len(why) > 1 else "blob"
        super().__init__(f"{many} {first}{':' if len(why) > 1 else ' cannot be read:'} {why[first]}")
        self.lost = lost


@dataclass(frozen=True, kw_only=True)
class References:
    """All that is referred to."""

    kept: frozenset[str]
    """Blobs whose bytes are needed."""
    of_tenants: Mapping[str, frozenset[str]]
    """What is named on behalf of each tenant: by its rows, its live models and its audits' documents."""
    documents: int
    """How many documents were read."""


def find(store: Store, blobs: Readable) -> References:
    """Read every row and every document that refers to blobs.

    Raises:
        ReferencesUnreadable: then nothing may be collected.
    """
    named = _named(store)
    models = _models(store)
    reading = _Reading(blobs)
    # Strictly only of what is purged: an unreadable manifest frees nothing.
    gone = {manifest: reading.all_in(manifest, required=False) for manifest in models.purged}
    # A purged model's manifest stays: it tells which files may go.
    strong = named.written | models.purged
    for manifest, tenants in models.live.items():
        found = {manifest} | reading.all_in(manifest)
        strong |= found
        for tenant in tenants:
            named.of_tenants[tenant] |= found
    for document, namers in named.documents.items():
        inside = reading.all_in(document)
        for namer in namers:
            found = inside.difference(*(gone[one] for one in namer.models if one in gone))
            named.of_tenants[namer.tenant] |= found
            if namer.runs:
                strong |= found
    reading.require()
    all_named = named.by_anybody()
    doubtful = all_named & set[str]().union(*gone.values()) - strong
    return References(
        kept=frozenset(strong | (all_named - doubtful) | _sent(store, doubtful, named.of_tenants)),
        of_tenants={tenant: frozenset(digests) for tenant, digests in named.of_tenants.items()},
        documents=len(named.documents.keys() | models.live.keys() | models.purged),
    )


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What rows name."""

    of_tenants: dict[str, set[str]]
    written: set[str]
    """By the service itself."""
    documents: dict[str, set[Namer]]

    def by_anybody(self) -> set[str]:
        return set[str]().union(*self.of_tenants.values())


def _named(store: Store) -> _Named:
    told = _Named(of_tenants=defaultdict(set), written=set(), documents=defaultdict(set))
    for place in PLACES:
        for namer, found in place.rows(store):
            told.of_tenants[namer.tenant] |= found
            if not place.is_said:
                told.written.update(found)
            if place.is_document:
                for digest in found:
                    told.documents[digest].add(namer)
    return told


@dataclass(frozen=True, kw_only=True)
class _Models:
    """Manifests of models."""

    live: dict[str, set[str]]
    """Those whose files are needed, and the tenants that have them."""
    purged: set[str]
    """Those whose files went with their models."""


def _models(store: Store) -> _Models:
    with store.read() as connection:
        # Audits first: a model of theirs that is made meanwhile has its row by then.
        reading = connection.execute(
            select(audit.c.model_sha256, audit.c.base_sha256).where(audit.c.state.not_in(READS_NOTHING))
        ).all()
        rows = connection.execute(select(model.c.tenant, model.c.manifest_sha256, model.c.purged_at)).all()
    read = {digest for row in reading for digest in row}
    live = defaultdict[str, set[str]](set)
    for row in rows:
        if row.purged_at is None:
            live[row.manifest_sha256].add(row.tenant)
        elif row.manifest_sha256 in read:
            live[row.manifest_sha256] |= set()
    return _Models(live=live, purged={row.manifest_sha256 for row in rows} - live.keys())


def _sent(store: Store, digests: set[str], of_tenants: Mapping[str, set[str]]) -> set[str]:
    """Return those of the blobs that a tenant has sent which names them."""
    asked, found = sorted(digests), set[str]()
    for start in range(0, len(asked), PAGE):
        some = select(blob_grant.c.tenant, blob_grant.c.sha256).where(
            blob_grant.c.sha256.in_(asked[start : start + PAGE])
        )
        with store.read() as connection:
            found |= {row.sha256 for row in connection.execute(some) if row.sha256 in of_tenants.get(row.tenant, ())}
    return found


class _Reading:
    """Reads documents, hashing them on the way: one changed digit in a manifest would free what it names."""

    def __init__(self, blobs: Readable) -> None:
        self._blobs = blobs
        self._why: dict[str, str] = {}
        self._lost = set[str]()
        self._is_there = False

    def all_in(self, digest: str, *, required: bool = True) -> set[str]:
        """Return all that a document names; of one that cannot be read, nothing."""
        hashed = hashlib.sha256()
        try:
            with self._blobs.open(digest) as file:
                found = _inside_file(file, hashed.update)
        except Exception as error:  # whatever the blob store raises: what is unread might name anything
            wrong = str(error)
            if is_lost(error):
                self._lost.add(digest)
        else:
            self._is_there = True
            if hashed.hexdigest() == digest:
                return found
            self._lost.add(digest)
            wrong = "its bytes hash to something else"
        if required:
            self._why[digest] = wrong
        return set()

    def require(self) -> None:
        """Do nothing if every required document was read.

        Raises:
            ReferencesUnreadable: naming all that were not.
        """
        if self._why:
            raise ReferencesUnreadable(self._why, frozenset(self._lost & self._why.keys() if self._is_there else ()))


def _inside_file(file: BinaryIO, on_bytes: Callable[[bytes], None]) -> set[str]:
    data = file.read(WHOLE_MAX + 1)
    on_bytes(data)
    found = digests_in(data, DEPTH if len(data) <= WHOLE_MAX else 0)
    while more := file.read(WHOLE_MAX):
        on_bytes(more)
        data = data[-63:] + more
        found |= digests_in(data, 0)
    return found
