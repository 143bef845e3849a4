"""What is owed to webhooks: which of them are told of an audit's step, in the transaction that makes it true."""

from __future__ import annotations

import json
import secrets
from typing import Any

from assay.api.v1 import audits_pb2
from assay.bundle import FILE_NAME
from sqlalchemy import Connection, Row, func, select

from service.rules.access import ACCESS, Role, Scope
from service.rules.callbacks import TYPES, WAITS_TOLD_MAX, Told
from service.rules.limits import MS_PER_DAY
from service.store.deliveries import DeliveryState, Lane, note, of_lane
from service.store.engine import now_ms
from service.store.scopes import sees_audit
from service.store.tables import audit, report
from service.store.tables_around import approval_use, delivery, webhook
from service.store.uploads import insert_absent

_GET = "/assay.api.v1.Audits/GetAudit"


def owe_deliveries(connection: Connection, audit_id: str, state: str) -> None:
    """Owe an audit's step to the webhooks of who asked for it and of the model's owner, in the caller's transaction.

    A webhook is told of the audits that its maker's role may see.

    Call it where the step is made, after the audit's row and its report were written; a step that no webhook tells, and
    one that was told before, are harmless.
    """
    if state not in TYPES:
        return
    parent = connection.execute(select(audit).where(audit.c.id == audit_id)).one()
    hooks = connection.execute(
        select(webhook.c.tenant, webhook.c.id, webhook.c.types_json, webhook.c.role)
        .where(webhook.c.tenant.in_({parent.tenant, parent.model_tenant} - {""}), webhook.c.disabled_at.is_(None))
        # Until the commit nobody deletes them: a step of an audit must not fail over its callbacks.
        .with_for_update(read=True, key_share=True)
    ).all()
    wanting = [
        hook for hook in hooks if _wants(hook.types_json, TYPES[state]) and _may_hear(connection, hook, parent, state)
    ]
    if not wanting:
        return
    told = _told(connection, parent, state)
    for hook in wanting:
        row = {
            "id": secrets.token_hex(16),
            "tenant": hook.tenant,
            "webhook": hook.id,
            "event_id": told.event_id,
            "type": told.type,
            "audit": audit_id,
            "body": told.body(),
            "state": DeliveryState.PENDING,
            "not_before": told.told_at,
            "created_at": told.told_at,
        }
        if insert_absent(connection, delivery, row):
            note(connection, "delivery_owed", audit_id, Lane(hook.tenant, hook.id), told.event_id, told.body())


def _wants(types_json: str, kind: str) -> bool:
    types = json.loads(types_json)
    return not types or kind in types


def _may_hear(connection: Connection, hook: Any, parent: Any, state: str) -> bool:
    """Tell whether a webhook is told of this: by its maker's role, and without being at a stranger's mercy."""
    reach = ACCESS[_GET].get(Role(hook.role))
    if reach is None or not sees_audit(connection, Scope(reach=reach, tenant=hook.tenant), parent.id):
        return False
    if hook.tenant == parent.tenant:
        return True
    if state == "AWAITING_APPROVAL":
        return _waits_told(connection, hook, parent.tenant) < WAITS_TOLD_MAX
    if state != "CANCELLED":
        return True
    # Of what the owner never let run it hears nothing further.
    used = select(approval_use.c.audit).where(approval_use.c.audit == parent.id).limit(1)
    return connection.execute(used).one_or_none() is not None


def _waits_told(connection: Connection, hook: Any, asker: str) -> int:
    """Return of how many waits of one tenant a webhook was told within a day."""
    told = (
        select(func.count())
        .select_from(delivery)
        .join(audit, audit.c.id == delivery.c.audit)
        .where(
            *of_lane(Lane(hook.tenant, hook.id)),
            delivery.c.created_at > now_ms(connection) - MS_PER_DAY,
            delivery.c.type == TYPES["AWAITING_APPROVAL"],
            audit.c.tenant == asker,
        )
    )
    return int(connection.execute(told).scalar_one())


def _told(connection: Connection, parent: Row[Any], state: str) -> Told:
    signed = connection.execute(
        select(report.c.files_json).where(report.c.audit == parent.id).order_by(report.c.n.desc()).limit(1)
    ).scalar_one_or_none()
    digests = {file["path"]: file["sha256"] for file in json.loads(signed or "[]")}
    # Before the owner agreed a stranger's words are not sent there; the event is one, with one body for all.
    words = {} if state == "AWAITING_APPROVAL" else audits_pb2.Audit.FromString(parent.submission).labels
    return Told(
        audit=str(parent.id),
        state=state,
        report_sha256=digests.get(FILE_NAME),
        labels=dict(words),
        told_at=now_ms(connection),
    )
