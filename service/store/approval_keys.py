"""Whose signature counts as whose consent: local administration. There is no remote way to change it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from service.rules.approvals import OwnerKey, verify
from service.rules.errors import Refusal
from service.store import consent
from service.store.access_log import append_local
from service.store.engine import StoreConflict, now_ms, open_store
from service.store.tables_around import approval, approval_key


@dataclass(frozen=True, kw_only=True)
class ApprovalKey:
    """One key of a tenant, of role `approval`."""

    key_id: str
    """Hex SHA-256 of the SubjectPublicKeyInfo."""
    tenant: str
    added_at: int
    """Milliseconds since 1970."""
    revoked_at: int | None


class KeyTaken(Exception):
    """The key was entered before: a key speaks for one tenant, once, and a revoked one for none ever again."""


def add_key(url: str, tenant: str, key: OwnerKey) -> None:
    """Let a key speak for a tenant.

    Raises:
        KeyTaken: it was entered before.
    """
    store = open_store(url)
    try:
        with store.begin() as connection:
            row = {"key_id": key.key_id, "tenant": tenant, "public_spki": key.spki, "added_at": now_ms(connection)}
            connection.execute(insert(approval_key).values(row))
            append_local(connection, "approval-keys add", f"approval-keys/{key.key_id}")
    except StoreConflict:
        raise KeyTaken(f"key {key.key_id} was entered before; make another one for this tenant") from None
    finally:
        store.close()


def list_keys(url: str, tenant: str = "") -> tuple[ApprovalKey, ...]:
    """Return every key, or those of one tenant, oldest first."""
    store = open_store(url)
    found = select(approval_key).order_by(approval_key.c.added_at, approval_key.c.key_id)
    with store.read() as connection:
        rows = connection.execute(found.where(approval_key.c.tenant == tenant) if tenant else found).all()
    store.close()
    return tuple(
        ApprovalKey(key_id=row.key_id, tenant=row.tenant, added_at=row.added_at, revoked_at=row.revoked_at)
        for row in rows
    )


def revoke_key(url: str, key_id: str) -> tuple[str, ...] | None:
    """Let a key speak no more, and revoke every approval that it signed; return their ids.

    Returns:
        None if there is no such key that still serves.
    """
    store = open_store(url)
    try:
        with store.begin() as connection:
            row = connection.execute(select(approval_key).where(approval_key.c.key_id == key_id)).one_or_none()
            done = connection.execute(
                update(approval_key)
                .where(approval_key.c.key_id == key_id, approval_key.c.revoked_at.is_(None))
                .values(revoked_at=now_ms(connection))
            )
            if row is None or not done.rowcount:
                return None
            key = OwnerKey(key_id=row.key_id, spki=row.public_spki)
            kept = select(approval.c.id, approval.c.envelope).where(
                approval.c.owner_tenant == row.tenant, approval.c.revoked_at.is_(None)
            )
            signed = [one.id for one in connection.execute(kept).all() if _signed(one.envelope, key)]
            for approval_id in signed:
                consent.revoke(connection, approval_id)
            append_local(connection, "approval-keys revoke", f"approval-keys/{key_id}")
            return tuple(signed)
    finally:
        store.close()


def _signed(envelope: bytes, key: OwnerKey) -> bool:
    try:
        verify(envelope, (key,))
    except Refusal:
        return False
    return True
