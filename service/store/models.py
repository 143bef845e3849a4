"""Models: per tenant, manifests whose files that tenant has sent."""

from __future__ import annotations

from dataclasses import dataclass

from assay.manifest import Manifest
from sqlalchemy import Connection, select, tuple_

from service.rules.names import BlobName
from service.rules.pages import Position
from service.store.engine import now_ms
from service.store.tables import model
from service.store.uploads import insert_absent, require_granted


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One model of a tenant."""

    manifest_sha256: str
    bytes: int
    """Sum of all files' sizes."""
    created_at: int
    """Milliseconds since 1970."""


def find_model(connection: Connection, tenant: str, manifest_sha256: str) -> ModelView | None:
    """Return a tenant's model, None if it has none of this digest."""
    row = connection.execute(
        select(model).where(model.c.tenant == tenant, model.c.manifest_sha256 == manifest_sha256)
    ).one_or_none()
    if row is None:
        return None
    return ModelView(manifest_sha256=row.manifest_sha256, bytes=row.bytes, created_at=row.created_at)


def require_files(connection: Connection, tenant: str, manifest: Manifest) -> None:
    """Do nothing if the tenant has sent every file of the manifest.

    Raises:
        Refusal: MISSING_BLOBS.
    """
    require_granted(connection, tenant, [BlobName(file.sha256, file.size) for file in manifest.files])


def put_model(connection: Connection, tenant: str, manifest: Manifest) -> None:
    """Make a model known; the same digest stays the same row.

    Raises:
        Refusal: MISSING_BLOBS: the tenant has not sent all of its files.
    """
    require_files(connection, tenant, manifest)
    row = {
        "tenant": tenant,
        "manifest_sha256": manifest.digest,
        "bytes": manifest.size,
        "files": len(manifest.files),
        "created_at": now_ms(connection),
    }
    insert_absent(connection, model, row)


def model_page(connection: Connection, tenant: str, after: Position | None, limit: int) -> tuple[ModelView, ...]:
    """Return a tenant's models below a position, newest first."""
    found = select(model).where(model.c.tenant == tenant)
    if after is not None:
        found = found.where(tuple_(model.c.created_at, model.c.manifest_sha256) < (after.at, after.id))
    rows = connection.execute(found.order_by(model.c.created_at.desc(), model.c.manifest_sha256.desc()).limit(limit))
    return tuple(ModelView(manifest_sha256=r.manifest_sha256, bytes=r.bytes, created_at=r.created_at) for r in rows)
