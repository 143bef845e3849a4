"""Blobs on their way out: who needs their bytes again stays ahead of the sweep, and corrupt bytes are told apart.

A sweep (`service.store.gc`) takes a blob only if it has been doomed for an hour, and un-dooming is one conditional
update. So whoever puts bytes that may lie there already calls `keep` first, and puts them then: either the sweep was
first, and the bytes are written anew, or it finds its blob no longer doomed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO, Protocol

from sqlalchemy import Connection, delete, or_, select, tuple_, update

from service.store import quotas
from service.store.engine import Store, now_ms
from service.store.tables import blob, blob_grant

SOME = 500
"""Rows changed in one transaction: others wait for milliseconds."""


class Deletable(Protocol):
    """Of a blob store what is needed here."""

    def delete(self, digest: str) -> None:
        """Remove a blob; removing an absent one changes nothing."""


class Readable(Protocol):
    """Of a blob store what a sweep reads."""

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading; the caller closes it."""


def is_lost(error: Exception) -> bool:
    """Say whether a blob store's error means that a blob's bytes are lost; every other one is the store's failure."""
    return bool(getattr(error, "lost", False))


def keep(store: Store, blobs: Deletable, digests: Iterable[str]) -> None:
    """Call before bytes are put that may be there already; commonly it costs one read.

    A quarantined blob's bytes are removed, so that what is put replaces them.

    Args:
        store: the database.
        blobs: where the bytes will be put.
        digests: of the bytes.
    """
    asked = sorted(set(digests))
    for start in range(0, len(asked), SOME):
        some = asked[start : start + SOME]
        with store.read() as connection:
            leaving = connection.execute(
                select(blob.c.sha256, blob.c.quarantined_at).where(
                    blob.c.sha256.in_(some), or_(blob.c.doomed_at.is_not(None), blob.c.quarantined_at.is_not(None))
                )
            ).all()
        if not leaving:
            continue
        with store.begin() as connection:
            revive(connection, [row.sha256 for row in leaving])
        for row in leaving:
            if row.quarantined_at is not None:
                blobs.delete(row.sha256)


def revive(connection: Connection, digests: Iterable[str]) -> None:
    """Take back that these blobs are doomed; they are as young as if they were stored now."""
    connection.execute(
        update(blob)
        .where(blob.c.sha256.in_(list(digests)), blob.c.doomed_at.is_not(None))
        .values(doomed_at=None, stored_at=now_ms(connection))
    )


def absolve(connection: Connection, sha256: str) -> None:
    """Note that a blob's bytes were sent, verified and stored just now: neither doomed nor corrupt."""
    connection.execute(
        update(blob)
        .where(blob.c.sha256 == sha256, or_(blob.c.doomed_at.is_not(None), blob.c.quarantined_at.is_not(None)))
        .values(doomed_at=None, quarantined_at=None, stored_at=now_ms(connection))
    )


def quarantine(connection: Connection, sha256: str) -> bool:
    """Note that a blob's bytes are not what its name says: it counts as missing until somebody sends it again.

    Returns:
        Whether this is news; False also of a blob that has no row.
    """
    told = connection.execute(
        update(blob)
        .where(blob.c.sha256 == sha256, blob.c.quarantined_at.is_(None))
        .values(quarantined_at=now_ms(connection))
    )
    return told.rowcount == 1


def expire_grants(store: Store, of_tenants: Mapping[str, frozenset[str]], unreferenced_ms: int) -> int:
    """Take grants that their tenant lets lie. Each goes alone: how long it lasts must not tell what others have.

    Args:
        store: the database.
        of_tenants: what each tenant names, which stays granted.
        unreferenced_ms: so long a grant stays that its tenant does not touch.

    Returns:
        How many were taken.
    """
    expired, last = 0, ("", "")
    while True:
        with store.read() as connection:
            since = now_ms(connection) - unreferenced_ms
            idle = (blob_grant.c.touched_at < since) & (tuple_(blob_grant.c.tenant, blob_grant.c.sha256) > last)
            some = select(blob_grant.c.tenant, blob_grant.c.sha256).where(idle)
            rows = connection.execute(some.order_by(blob_grant.c.tenant, blob_grant.c.sha256).limit(SOME)).all()
        free: dict[str, list[str]] = {}
        for row in rows:
            if row.sha256 not in of_tenants.get(row.tenant, frozenset()):
                free.setdefault(row.tenant, []).append(row.sha256)
        expired += sum(_take_grants(store, tenant, digests, unreferenced_ms) for tenant, digests in free.items())
        if len(rows) < SOME:
            return expired
        last = (rows[-1].tenant, rows[-1].sha256)


def _take_grants(store: Store, tenant: str, digests: list[str], unreferenced_ms: int) -> int:
    with store.begin() as connection:
        quotas.lock(connection, tenant)
        # Asked again under the lock: the tenant may have touched one of them since it was read.
        idle = blob_grant.c.touched_at < now_ms(connection) - unreferenced_ms
        gone = delete(blob_grant).where(blob_grant.c.tenant == tenant, blob_grant.c.sha256.in_(digests), idle)
        taken = connection.execute(gone.returning(blob_grant.c.sha256)).scalars().all()
        for size in connection.execute(select(blob.c.size).where(blob.c.sha256.in_(taken))).scalars().all():
            quotas.hold(connection, tenant, -size)
    return len(taken)
