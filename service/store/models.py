"""Models: per tenant, manifests whose files that tenant has sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from assay.manifest import Manifest
from sqlalchemy import Connection, Row, and_, bindparam, or_, select, tuple_, update

from service.rules.errors import Refusal, not_permitted
from service.rules.names import BlobName
from service.rules.pages import Position
from service.rules.states import AUDIT_ENDED, AuditState
from service.store import quotas
from service.store.engine import now_ms
from service.store.tables import audit, model
from service.store.uploads import insert_absent, require_granted, touch

PURGE_MS = 30 * 86_400_000
"""How long the weights of a deleted model stay, so that a deletion can be taken back (specs: service, section 3)."""


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One model of a tenant."""

    manifest_sha256: str
    bytes: int
    """Sum of all files' sizes."""
    created_at: int
    """Milliseconds since 1970."""
    revision: int
    """Grows with every change."""
    deleted_at: int | None
    """Since when it is hidden; None of a live one."""
    purged_at: int | None
    """Since when its weights are gone."""

    @property
    def etag(self) -> str:
        """Changes with every change of the model."""
        return hashlib.sha256(f"{self.manifest_sha256}/{self.revision}".encode()).hexdigest()[:16]

    @property
    def goes_at(self) -> int | None:
        """When its weights went or go; None of a live one."""
        return self.purged_at if self.deleted_at is None or self.purged_at else self.deleted_at + PURGE_MS


def find_model(connection: Connection, tenant: str, manifest_sha256: str) -> ModelView | None:
    """Return a tenant's model, None if it has none of this digest."""
    row = connection.execute(_MODEL, {"of": tenant, "sha256": manifest_sha256}).one_or_none()
    return None if row is None else _view(row)


_MODEL = select(model).where(model.c.tenant == bindparam("of"), model.c.manifest_sha256 == bindparam("sha256"))
_MODEL_SHARED = _MODEL.with_for_update(read=True)
"""Made once: every submission asks both."""


def _view(row: Row[Any]) -> ModelView:
    return ModelView(
        manifest_sha256=row.manifest_sha256,
        bytes=row.bytes,
        created_at=row.created_at,
        revision=row.revision,
        deleted_at=row.deleted_at,
        purged_at=row.purged_at,
    )


def require_live(connection: Connection, tenant: str, manifest_sha256: str) -> None:
    """Do nothing if a tenant's model is not deleted, or was never there; until the commit nobody can delete it.

    Raises:
        Refusal: MODEL_DELETED.
    """
    row = connection.execute(_MODEL_SHARED, {"of": tenant, "sha256": manifest_sha256}).one_or_none()
    if row is not None:
        refuse_deleted(_view(row))


def refuse_deleted(known: ModelView) -> None:
    """Do nothing if a model is live, or its weights are gone: then sending them again makes it anew.

    Raises:
        Refusal: MODEL_DELETED.
    """
    if known.deleted_at is not None and known.purged_at is None:
        name = f"models/{known.manifest_sha256}"
        raise Refusal("MODEL_DELETED", "The model was deleted by its owner.", metadata={"model": name})


def require_files(connection: Connection, tenant: str, manifest: Manifest) -> None:
    """Do nothing if the tenant has sent every file of the manifest.

    Raises:
        Refusal: MISSING_BLOBS.
    """
    require_granted(connection, tenant, [BlobName(file.sha256, file.size) for file in manifest.files])


def put_model(connection: Connection, tenant: str, manifest: Manifest) -> None:
    """Make a model known; the same digest stays the same row, and one that was purged lives again.

    Raises:
        Refusal: MISSING_BLOBS: the tenant has not sent all of its files; MODEL_DELETED.
    """
    quotas.lock(connection, tenant)
    require_files(connection, tenant, manifest)
    require_live(connection, tenant, manifest.digest)
    # A sweep that has found these files without a model must find them asked for.
    touch(connection, tenant, [BlobName(file.sha256, file.size) for file in manifest.files])
    row = {
        "tenant": tenant,
        "manifest_sha256": manifest.digest,
        "bytes": manifest.size,
        "files": len(manifest.files),
        "created_at": now_ms(connection),
    }
    if not insert_absent(connection, model, row):
        _change(connection, tenant, manifest.digest, model.c.purged_at.is_not(None), deleted_at=None, purged_at=None)


def delete_model(connection: Connection, tenant: str, manifest_sha256: str, etag: str) -> ModelView:
    """Hide a model of a tenant; deleting twice changes nothing.

    Raises:
        Refusal: NOT_PERMITTED, ETAG_MISMATCH, MODEL_IN_USE.
    """
    known = _expected(connection, tenant, manifest_sha256, etag)
    if known.deleted_at is not None:
        return known
    live = audit_reads(tenant, manifest_sha256) & audit.c.state.not_in((*AUDIT_ENDED, AuditState.AWAITING_APPROVAL))
    used = connection.execute(select(audit.c.id).where(live).limit(1)).scalar_one_or_none()
    if used is not None:
        raise Refusal("MODEL_IN_USE", f"audits/{used} has not ended.", metadata={"audit": f"audits/{used}"})
    _change(connection, tenant, manifest_sha256, model.c.deleted_at.is_(None), deleted_at=now_ms(connection))
    return _known(connection, tenant, manifest_sha256)


def undelete_model(connection: Connection, tenant: str, manifest_sha256: str, etag: str) -> ModelView:
    """Take a deletion back, while the weights are there.

    Raises:
        Refusal: NOT_PERMITTED, also of a purged one; ETAG_MISMATCH, MODEL_LIVE.
    """
    known = _expected(connection, tenant, manifest_sha256, etag)
    if known.purged_at is not None:
        raise not_permitted()
    if known.deleted_at is None:
        raise Refusal("MODEL_LIVE", "The model is not deleted.")
    _change(connection, tenant, manifest_sha256, model.c.purged_at.is_(None), deleted_at=None)
    return _known(connection, tenant, manifest_sha256)


def audit_reads(tenant: str, manifest_sha256: str) -> Any:
    """Return the condition on `audit` that it reads this model of this tenant, as its model or as its base."""
    owned = or_(audit.c.model_tenant == tenant, and_(audit.c.model_tenant == "", audit.c.tenant == tenant))
    return or_(
        and_(audit.c.model_sha256 == manifest_sha256, owned),
        and_(audit.c.base_sha256 == manifest_sha256, audit.c.tenant == tenant),
    )


def _expected(connection: Connection, tenant: str, manifest_sha256: str, etag: str) -> ModelView:
    """Return a model, locked, if it is as the caller read it."""
    known = _known(connection, tenant, manifest_sha256)
    if etag and etag != known.etag:
        raise Refusal("ETAG_MISMATCH", "The model changed since it was read.", metadata={"etag": known.etag})
    return known


def _known(connection: Connection, tenant: str, manifest_sha256: str) -> ModelView:
    row = connection.execute(
        select(model).where(model.c.tenant == tenant, model.c.manifest_sha256 == manifest_sha256).with_for_update()
    ).one_or_none()
    if row is None:
        raise not_permitted()
    return _view(row)


def _change(connection: Connection, tenant: str, manifest_sha256: str, condition: Any, **values: Any) -> None:
    connection.execute(
        update(model)
        .where(model.c.tenant == tenant, model.c.manifest_sha256 == manifest_sha256, condition)
        .values(revision=model.c.revision + 1, **values)
    )


def model_page(
    connection: Connection, tenant: str, after: Position | None, limit: int, *, deleted: bool = False
) -> tuple[ModelView, ...]:
    """Return a tenant's models below a position, newest first; with `deleted` also those that are."""
    found = select(model).where(model.c.tenant == tenant)
    if not deleted:
        found = found.where(model.c.deleted_at.is_(None))
    if after is not None:
        found = found.where(tuple_(model.c.created_at, model.c.manifest_sha256) < (after.at, after.id))
    rows = connection.execute(found.order_by(model.c.created_at.desc(), model.c.manifest_sha256.desc()).limit(limit))
    return tuple(_view(row) for row in rows)
