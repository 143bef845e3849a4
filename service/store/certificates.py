"""Certificates that were revoked: local administration. There is no remote way to change it, and no way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from service.store.access_log import append_local
from service.store.engine import now_ms, open_store
from service.store.tables import revoked_certificate
from service.store.uploads import insert_absent


@dataclass(frozen=True, kw_only=True)
class RevokedCertificate:
    """One certificate that nobody may call with."""

    sha256: str
    """Hex SHA-256 of its DER."""
    principal: str
    """Whom it names; empty where only the thumbprint was given."""
    reason: str
    revoked_at: int
    """Milliseconds since 1970."""


def revoke(url: str, sha256: str, *, principal: str = "", reason: str = "") -> bool:
    """Refuse all further calls with a certificate, for ever; False if it was revoked before, and then nothing changes.

    Args:
        url: the database.
        sha256: hex SHA-256 of the certificate's DER.
        principal: whom it names, where that is known.
        reason: why, in the operator's words.
    """
    store = open_store(url)
    try:
        with store.begin() as connection:
            row = {"sha256": sha256, "principal": principal, "reason": reason, "revoked_at": now_ms(connection)}
            fresh = insert_absent(connection, revoked_certificate, row)
            if fresh:
                append_local(connection, "principals revoke-certificate", f"certificates/{sha256}")
    finally:
        store.close()
    return fresh


def list_revoked(url: str) -> tuple[RevokedCertificate, ...]:
    """Return every revoked certificate, the oldest revocation first."""
    store = open_store(url)
    try:
        with store.read() as connection:
            asked = select(revoked_certificate).order_by(revoked_certificate.c.revoked_at, revoked_certificate.c.sha256)
            rows = connection.execute(asked).all()
    finally:
        store.close()
    return tuple(RevokedCertificate(**row._mapping) for row in rows)


def is_revoked(connection: Connection, thumbprints: Sequence[str]) -> bool:
    """Tell whether any of these thumbprints is that of a revoked certificate."""
    asked = select(revoked_certificate.c.sha256).where(revoked_certificate.c.sha256.in_(thumbprints)).limit(1)
    return connection.execute(asked).first() is not None
