"""Which audits a call may touch, as one condition: the same in every read of one and in every list's WHERE clause."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, exists, false, or_, select, true

from service.rules.access import Reach, Scope
from service.store.tables import audit, audit_label, blob_grant, model


def audit_in(scope: Scope) -> ColumnElement[bool]:
    """Return the condition on `audit` that a scope is; joins may stand beside it."""
    if scope.reach is Reach.ANY:
        return true()
    own = audit.c.tenant == scope.tenant
    if scope.reach is Reach.OWN_MODELS:
        # Rows of before there were owners name none: their models were their tenant's. No other row names none: one
        # that waits, or waited, for a model that nobody has names `NOBODY`.
        unnamed = and_(audit.c.model_tenant == "", own)
        return or_(audit.c.model_tenant == scope.tenant, unnamed)
    if scope.reach is Reach.LABELLED:
        return (
            and_(own, *(carries(key, value) for key, value in sorted(scope.labels.items())))
            if scope.labels
            else false()
        )
    return own


def owns_model(connection: Connection, tenant: str, manifest_sha256: str) -> bool:
    """Tell whether a model is a tenant's own: it made it known, or has sent its manifest, as a submission accepts."""
    known = exists().where(model.c.tenant == tenant, model.c.manifest_sha256 == manifest_sha256)
    sent = exists().where(blob_grant.c.tenant == tenant, blob_grant.c.sha256 == manifest_sha256)
    return bool(connection.execute(select(or_(known, sent))).scalar_one())


def carries(key: str, value: str) -> ColumnElement[bool]:
    """Return the condition on `audit` that it has this label."""
    return exists().where(audit_label.c.audit == audit.c.id, audit_label.c.key == key, audit_label.c.value == value)


def sees_audit(connection: Connection, scope: Scope, audit_id: str) -> bool:
    """Tell whether there is such an audit within a scope; a foreign one and none read the same."""
    found = connection.execute(select(audit.c.id).where(audit.c.id == audit_id, audit_in(scope)))
    return found.one_or_none() is not None
