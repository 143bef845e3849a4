"""Uploads and grants: a blob is present *for a tenant* only if that tenant sent all of its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.rules.errors import Missing, Refusal
from service.rules.names import BlobName, UploadName
from service.store import quotas
from service.store.engine import Store, now_ms
from service.store.keeping import absolve, is_lost, quarantine, revive
from service.store.tables import blob, blob_grant, upload

EMPTY = BlobName("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)
"""The empty blob is present for everybody and never sent."""

TOUCH_MS = 3_600_000
"""A grant is touched at most once an hour: asking often must not become a stream of writes."""

THERE = (blob.c.doomed_at.is_(None), blob.c.quarantined_at.is_(None))
"""What is about to be collected, or is corrupt, counts as missing: its bytes must be sent again."""


@dataclass(frozen=True, kw_only=True)
class UploadState:
    """How far an upload has come."""

    committed_size: int
    """Bytes that are safe on disk."""
    complete: bool


def granted(connection: Connection, tenant: str, names: Iterable[BlobName]) -> set[BlobName]:
    """Return those of the blobs that the tenant has sent, with exactly this size."""
    asked = set(names)
    if asked <= {EMPTY}:
        return asked
    found = connection.execute(
        select(blob.c.sha256, blob.c.size)
        .join(blob_grant, blob_grant.c.sha256 == blob.c.sha256)
        .where(blob_grant.c.tenant == tenant, blob.c.sha256.in_({name.sha256 for name in asked}), *THERE)
    )
    return ({BlobName(row.sha256, row.size) for row in found} | {EMPTY}) & asked


def size_granted(connection: Connection, tenant: str, sha256: str) -> int | None:
    """Return the size of a blob that the tenant has sent, None if it has not."""
    return connection.execute(
        select(blob.c.size)
        .join(blob_grant, blob_grant.c.sha256 == blob.c.sha256)
        .where(blob_grant.c.tenant == tenant, blob.c.sha256 == sha256, *THERE)
    ).scalar_one_or_none()


def missing(connection: Connection, tenant: str, names: Sequence[BlobName]) -> tuple[BlobName, ...]:
    """Return those of the blobs that the tenant still has to send, each once, in the order asked."""
    present = granted(connection, tenant, names)
    return tuple(name for name in dict.fromkeys(names) if name not in present)


def require_granted(connection: Connection, tenant: str, names: Sequence[BlobName]) -> None:
    """Do nothing if the tenant has sent all of these blobs.

    Raises:
        Refusal: MISSING_BLOBS naming those that it has not.
    """
    absent = missing(connection, tenant, names)
    if absent:
        raise missing_blobs([Missing(name.sha256, name.size) for name in absent])


def missing_blobs(absent: Sequence[Missing]) -> Refusal:
    """Return the refusal that names blobs to upload."""
    count = f"{len(absent)} blob is" if len(absent) == 1 else f"{len(absent)} blobs are"
    first = absent[0].subject
    told = {"blob": first, "count": str(len(absent))}
    return Refusal("MISSING_BLOBS", f"{count} missing, the first is {first}.", metadata=told, missing=absent)


class Bytes(Protocol):
    """Of a blob store what is needed here; `service.blobs.BlobStore` is one."""

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading; the caller closes it."""


def open_sent(store: Store, blobs: Bytes, name: BlobName) -> BinaryIO:
    """Open a blob that its tenant has sent. If its bytes are lost, it counts as missing from now on.

    Raises:
        BytesLost: the tenant sends them again.
    """
    try:
        return blobs.open(name.sha256)
    except Exception as error:  # of any blob store
        if not is_lost(error):
            raise
        raise _lost(store, name) from None


def read_sent(store: Store, blobs: Bytes, name: BlobName) -> bytes:
    """Return a small blob that its tenant has sent, hashed again; likewise if its bytes are not the right ones.

    Raises:
        BytesLost: likewise.
    """
    with open_sent(store, blobs, name) as file:
        data = file.read(name.size + 1)
    if hashlib.sha256(data).hexdigest() != name.sha256:
        raise _lost(store, name)
    return data


class BytesLost(Refusal):
    """MISSING_BLOBS of a blob that was sent, and whose bytes are lost."""


def _lost(store: Store, name: BlobName) -> BytesLost:
    with store.begin() as connection:
        quarantine(connection, name.sha256)
    absent = Missing(name.sha256, name.size)
    text = f"The bytes of {absent.subject} were lost: send them again."
    return BytesLost("MISSING_BLOBS", text, metadata={"blob": absent.subject}, missing=[absent])


def stale_grants(connection: Connection, tenant: str, names: Iterable[BlobName]) -> bool:
    """Tell whether any grant of these blobs was last touched more than an hour ago."""
    found = connection.execute(
        select(blob_grant.c.sha256)
        .where(
            blob_grant.c.tenant == tenant,
            blob_grant.c.sha256.in_({name.sha256 for name in names}),
            blob_grant.c.touched_at < now_ms(connection) - TOUCH_MS,
        )
        .limit(1)
    )
    return found.first() is not None


def touch(connection: Connection, tenant: str, names: Iterable[BlobName]) -> None:
    """Note that the tenant still wants these blobs; of several transactions that do so, one waits for the other."""
    digests = {name.sha256 for name in names}
    if not digests:
        return
    quotas.lock(connection, tenant)  # many rows, which PostgreSQL locks in no order of ours
    connection.execute(
        update(blob_grant)
        .where(blob_grant.c.tenant == tenant, blob_grant.c.sha256.in_(digests))
        .values(touched_at=now_ms(connection))
    )


def record_blob(connection: Connection, name: BlobName) -> None:
    """Make a stored blob known, granted to nobody."""
    row = {"sha256": name.sha256, "size": name.size, "stored_at": now_ms(connection)}
    if not insert_absent(connection, blob, row):
        revive(connection, (name.sha256,))


def grant(connection: Connection, tenant: str, name: BlobName) -> None:
    """Make a stored blob known and present for a tenant. Call it only after the bytes are in place and verified."""
    quotas.lock(connection, tenant)
    record_blob(connection, name)
    absolve(connection, name.sha256)
    row = {"tenant": tenant, "sha256": name.sha256, "touched_at": now_ms(connection)}
    if insert_absent(connection, blob_grant, row):
        quotas.hold(connection, tenant, name.size)
    else:
        touch(connection, tenant, (name,))


def begin_upload(connection: Connection, tenant: str, name: UploadName) -> UploadState:
    """Return the state of an upload, begun now if it is new.

    Raises:
        Refusal: BAD_RESOURCE_NAME: this upload's id belongs to another blob.
    """
    found = find_upload(connection, tenant, name)
    if found is None:
        told = {"id": name.id, "tenant": tenant, "sha256": name.blob.sha256, "size": name.blob.size}
        anew = {"committed_size": 0, "complete": False, "written_at": now_ms(connection)}
        connection.execute(insert(upload).values(**told, **anew))
        return UploadState(committed_size=0, complete=False)
    if not found.complete:  # as `find_upload` says of one that was finished and whose bytes are lost
        connection.execute(
            update(upload)
            .where(upload.c.tenant == tenant, upload.c.id == name.id, upload.c.complete)
            .values(committed_size=0, complete=False, written_at=now_ms(connection))
        )
    return found


def find_upload(connection: Connection, tenant: str, name: UploadName) -> UploadState | None:
    """Return the state of an upload, None if nobody of the tenant began it; a finished one whose blob was lost is new.

    Raises:
        Refusal: BAD_RESOURCE_NAME: this upload's id belongs to another blob.
    """
    row = connection.execute(select(upload).where(upload.c.tenant == tenant, upload.c.id == name.id)).one_or_none()
    if row is None:
        return None
    if (row.sha256, row.size) != (name.blob.sha256, name.blob.size):
        raise Refusal("BAD_RESOURCE_NAME", "This upload id was used for another blob.", metadata={"upload": name.id})
    if row.complete and not granted(connection, tenant, (name.blob,)):
        return UploadState(committed_size=0, complete=False)
    return UploadState(committed_size=row.committed_size, complete=row.complete)


def commit_upload(connection: Connection, tenant: str, upload_id: str, committed_size: int) -> None:
    """Note how many bytes of a part are safe on disk."""
    connection.execute(
        update(upload)
        .where(upload.c.tenant == tenant, upload.c.id == upload_id)
        .values(committed_size=committed_size, written_at=now_ms(connection))
    )


def complete_upload(connection: Connection, tenant: str, name: UploadName) -> None:
    """Grant the blob and close the upload; the bytes are in place under their digest."""
    grant(connection, tenant, name.blob)
    connection.execute(
        update(upload)
        .where(upload.c.tenant == tenant, upload.c.id == name.id)
        .values(committed_size=name.blob.size, complete=True, written_at=now_ms(connection))
    )


def forget_upload(connection: Connection, tenant: str, upload_id: str, *, idle_ms: int | None = None) -> bool:
    """Drop an upload's row, with `idle_ms` only if nothing was written to it for so long; False if none was dropped."""
    found = delete(upload).where(upload.c.tenant == tenant, upload.c.id == upload_id)
    if idle_ms is not None:
        found = found.where(upload.c.written_at < now_ms(connection) - idle_ms)
    return connection.execute(found).rowcount == 1


def idle_uploads(connection: Connection, *, idle_ms: int) -> tuple[tuple[str, str], ...]:
    """Return (tenant, id) of uploads to which nothing was written for `idle_ms`, finished ones included."""
    rows = connection.execute(
        select(upload.c.tenant, upload.c.id).where(upload.c.written_at < now_ms(connection) - idle_ms)
    )
    return tuple((row.tenant, row.id) for row in rows)


def insert_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is taken; False if it was."""
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    key = next(iter(table.primary_key.columns))
    # By what comes back: drivers disagree on how many rows an insert changed.
    return (
        connection.execute(kind.insert(table).values(**row).on_conflict_do_nothing().returning(key)).first() is not None
    )
