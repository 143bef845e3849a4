"""Garbage collection: blobs that nothing refers to go, in two steps an hour apart; and rows whose time is over.

Two sweeps at once are harmless: every step is conditional. A sweep that cannot read a document collects nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO, Protocol

from sqlalchemy import ColumnElement, Connection, delete, exists, or_, select, update

from service.store import quotas, references
from service.store.access_log import append_local
from service.store.engine import Store, now_ms
from service.store.keeping import SOME, absolve, expire_grants, quarantine, revive
from service.store.models import PURGE_MS
from service.store.naming import READS_NOTHING
from service.store.tables import audit, blob, blob_grant, idempotency, model
from service.store.uploads import EMPTY, insert_absent

DAY_MS = 86_400_000

UNREFERENCED_MS = 7 * DAY_MS
"""Specs: service, section 15: so long a blob stays that nothing refers to and nobody asks for."""

DOOMED_MS = 3_600_000
"""Specs: service, section 17: between the two steps. Submissions that looked before are long over then."""

IDEMPOTENCY_MS = 7 * DAY_MS
"""Specs: service, section 3."""


class Blobs(Protocol):
    """Of a blob store what a sweep needs; `service.blobs.BlobStore` is one."""

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading; the caller closes it."""

    def size(self, digest: str) -> int | None:
        """Return a blob's size in bytes, or None if it is not here."""

    def digests(self) -> Iterator[str]:
        """Yield every stored digest."""

    def delete(self, digest: str) -> None:
        """Remove a blob."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep did, or would do."""

    doomed: int = 0
    """Blobs that go in an hour, unless somebody wants them by then."""
    deleted: int = 0
    deleted_bytes: int = 0
    revived: int = 0
    """Doomed blobs that something refers to after all."""
    adopted: int = 0
    """Bytes without a row, left by something that was killed; from now on they are as old as any."""
    models_purged: int = 0
    requests_forgotten: int = 0
    """Idempotency rows."""
    absolved: int = 0
    """Quarantined blobs whose bytes are right again: an operator restored them."""
    grants_expired: int = 0
    """Blobs that their tenant has to send again: it neither named them nor asked for them, whatever others do."""

    def told(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Ages:
    """How old things must be, in milliseconds; rehearsals shorten them."""

    unreferenced_ms: int = UNREFERENCED_MS
    doomed_ms: int = DOOMED_MS
    idempotency_ms: int = IDEMPOTENCY_MS
    purge_ms: int = PURGE_MS


def sweep(store: Store, blobs: Blobs, *, ages: Ages | None = None, dry_run: bool = False) -> Swept:
    """Collect what is due.

    Args:
        store: the database.
        blobs: the bytes.
        ages: how old things must be; None takes the specification's.
        dry_run: change nothing, and tell what would be doomed and deleted now.

    Raises:
        ReferencesUnreadable: a document is lost or cannot be read; nothing was doomed or deleted. What is lost counts
            as missing from now on.
    """
    ages = ages or Ages()
    purged = 0 if dry_run else purge_models(store, ages.purge_ms)
    forgotten = 0 if dry_run else _forget_requests(store, ages.idempotency_ms)
    adopted = _adopt(store, blobs, dry_run=dry_run)
    absolved = 0 if dry_run else _absolve(store, blobs)
    try:
        # Read after the models were purged: what they alone held is free now.
        found = references.find(store, blobs)
    except references.ReferencesUnreadable as error:
        if not dry_run:
            _ask_for(store, error)
        raise
    kept = found.kept
    expired = 0 if dry_run else expire_grants(store, found.of_tenants, ages.unreferenced_ms)
    due = _due(store, ages.doomed_ms)
    doomed = _doom(store, kept, ages.unreferenced_ms, dry_run=dry_run)
    needed = [digest for digest in due if digest in kept]
    free = {digest: size for digest, size in due.items() if digest not in kept}
    if dry_run:
        return Swept(doomed=doomed, deleted=len(free), deleted_bytes=sum(free.values()), revived=len(needed))
    with store.begin() as connection:
        revive(connection, needed)
    gone = [size for digest, size in free.items() if _delete(store, blobs, digest, ages)]
    return Swept(
        doomed=doomed,
        deleted=len(gone),
        deleted_bytes=sum(gone),
        revived=len(needed),
        adopted=adopted,
        models_purged=purged,
        requests_forgotten=forgotten,
        absolved=absolved,
        grants_expired=expired,
    )


def is_due(store: Store, *, doomed_ms: int = DOOMED_MS) -> bool:
    """Say whether a doomed blob waits for its second step."""
    return bool(_due(store, doomed_ms))


def purge_models(store: Store, purge_ms: int) -> int:
    """Give up the weights of models that were deleted long ago; reports stay, and so do their manifests."""
    with store.begin() as connection:
        reads = exists().where(
            or_(audit.c.model_sha256 == model.c.manifest_sha256, audit.c.base_sha256 == model.c.manifest_sha256),
            audit.c.state.not_in(READS_NOTHING),
        )
        now = now_ms(connection)
        gone = connection.execute(
            update(model)
            .where(model.c.deleted_at < now - purge_ms, model.c.purged_at.is_(None), ~reads)
            .values(purged_at=now, revision=model.c.revision + 1)
            .returning(model.c.manifest_sha256)
        )
        purged = sorted(gone.scalars())
        for digest in purged:
            append_local(connection, "gc purge", f"models/{digest}")
        return len(purged)


def _forget_requests(store: Store, idempotency_ms: int) -> int:
    with store.begin() as connection:
        old = idempotency.c.stored_at < now_ms(connection) - idempotency_ms
        return connection.execute(delete(idempotency).where(old)).rowcount


def _adopt(store: Store, blobs: Blobs, *, dry_run: bool) -> int:
    """Write down bytes that have no row, so that they age as all others do."""
    adopted = 0
    for some in _in_pages(blobs.digests()):
        with store.read() as connection:
            known = set(connection.execute(select(blob.c.sha256).where(blob.c.sha256.in_(some))).scalars())
        fresh = {digest: blobs.size(digest) for digest in some if digest not in known and digest != EMPTY.sha256}
        if not fresh or dry_run:
            continue
        with store.begin() as connection:
            now = now_ms(connection)
            for digest, size in fresh.items():
                if size is not None:
                    adopted += insert_absent(connection, blob, {"sha256": digest, "size": size, "stored_at": now})
    return adopted


def _absolve(store: Store, blobs: Blobs) -> int:
    """Look again at quarantined blobs; there are few, and their bytes may have been restored."""
    with store.read() as connection:
        told = connection.execute(select(blob.c.sha256).where(blob.c.quarantined_at.is_not(None))).scalars().all()
    good = [digest for digest in told if _is_sound(blobs, digest)]
    for digest in good:
        with store.begin() as connection:
            absolve(connection, digest)
    return len(good)


def _ask_for(store: Store, error: references.ReferencesUnreadable) -> None:
    """Let lost documents count as missing, so that whoever has them sends them again."""
    for digest in sorted(error.lost):
        with store.begin() as connection:
            quarantine(connection, digest)


def _is_sound(blobs: Blobs, digest: str) -> bool:
    found = hashlib.sha256()
    try:
        with blobs.open(digest) as file:
            while chunk := file.read(1 << 20):
                found.update(chunk)
    except Exception:  # whatever the blob store raises: what cannot be read is not sound
        return False
    return found.hexdigest() == digest


def _in_pages(digests: Iterator[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for digest in digests:
        some.append(digest)
        if len(some) == SOME:
            yield some
            some = []
    if some:
        yield some


def _idle(connection: Connection, unreferenced_ms: int) -> ColumnElement[bool]:
    """Return the condition on `blob` that nobody stored it or asked for it for so long."""
    since = now_ms(connection) - unreferenced_ms
    asked = exists().where(blob_grant.c.sha256 == blob.c.sha256, blob_grant.c.touched_at >= since)
    return (blob.c.stored_at < since) & ~asked & (blob.c.sha256 != EMPTY.sha256)


def _doom(store: Store, kept: frozenset[str], unreferenced_ms: int, *, dry_run: bool) -> int:
    doomed, last = 0, ""
    while True:
        with store.read() as connection:
            idle = _idle(connection, unreferenced_ms)
            some = connection.execute(
                select(blob.c.sha256)
                .where(blob.c.sha256 > last, blob.c.doomed_at.is_(None), idle)
                .order_by(blob.c.sha256)
                .limit(SOME)
            )
            found = list(some.scalars())
        free = [digest for digest in found if digest not in kept]
        if free and not dry_run:
            with store.begin() as connection:
                # Asked again under the lock: a submission may have touched one of them since it was read.
                condition = blob.c.sha256.in_(free) & blob.c.doomed_at.is_(None) & _idle(connection, unreferenced_ms)
                doomed += connection.execute(
                    update(blob).where(condition).values(doomed_at=now_ms(connection))
                ).rowcount
        elif free:
            doomed += len(free)
        if len(found) < SOME:
            return doomed
        last = found[-1]


def _due(store: Store, doomed_ms: int) -> dict[str, int]:
    with store.read() as connection:
        since = now_ms(connection) - doomed_ms
        rows = connection.execute(select(blob.c.sha256, blob.c.size).where(blob.c.doomed_at <= since)).all()
    return {row.sha256: row.size for row in rows}


def _delete(store: Store, blobs: Blobs, digest: str, ages: Ages) -> bool:
    """Take a blob's row and bytes, if it still is doomed and idle under the row's lock.

    The bytes go before the commit: whoever needs them again waits for it, and then writes them anew. Killed in
    between, the row stands, doomed, and the next sweep takes it.
    """
    with store.begin() as connection:
        # Before any row: the order of everybody who counts. Whoever is granted it after this makes it no longer idle.
        for tenant in _holders(connection, digest):
            quotas.lock(connection, tenant)
        condition = (
            (blob.c.sha256 == digest)
            & (blob.c.doomed_at <= now_ms(connection) - ages.doomed_ms)
            & _idle(connection, ages.unreferenced_ms)
        )
        found = connection.execute(select(blob.c.size).where(condition).with_for_update()).first()
        if found is None:
            return False
        gone = delete(blob_grant).where(blob_grant.c.sha256 == digest).returning(blob_grant.c.tenant)
        for tenant in sorted(connection.execute(gone).scalars().all()):
            quotas.hold(connection, tenant, -found.size)
        connection.execute(delete(blob).where(blob.c.sha256 == digest))
        blobs.delete(digest)
        append_local(connection, "gc delete", f"blobs/sha256/{digest}/{found.size}")
    return True


def _holders(connection: Connection, digest: str) -> list[str]:
    found = select(blob_grant.c.tenant).where(blob_grant.c.sha256 == digest).order_by(blob_grant.c.tenant)
    return list(connection.execute(found).scalars())
