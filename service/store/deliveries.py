"""Deliveries: what is owed to webhooks, written in the transaction that makes it true, and how each try ended.

A delivery's row is the debt itself: it is claimed for one try by a conditional update, so two schedulers never make the
same try, and a scheduler that died leaves it due again. Every call may happen twice all the same.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from assay.api.v1 import audits_pb2
from assay.bundle import FILE_NAME
from sqlalchemy import Connection, Row, func, literal_column, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from service.rules.callbacks import TYPES, Told
from service.rules.pages import Position
from service.rules.retries import Again, Dead, Delivered
from service.rules.standard_webhooks import Key, Signing
from service.store import journal
from service.store.engine import now_ms
from service.store.tables import audit, report
from service.store.tables_around import delivery, webhook
from service.store.uploads import insert_absent

CLAIM_MS = 60_000
"""A claimed try ends within 10 s; what is still claimed after a minute belongs to a scheduler that died."""

_PENDING: ColumnElement[str] = literal_column("'PENDING'")
"""Written out: with a bound parameter SQLite cannot know that the partial index of what is pending fits."""


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"
    """A dead letter: given up, kept for Redeliver."""


@dataclass(frozen=True, kw_only=True)
class DeliveryView:
    """One delivery."""

    id: str
    webhook: str
    event_id: str
    type: str
    audit: str
    state: DeliveryState
    tries: int
    last_status: int
    last_error: str
    created_at: int
    """Milliseconds since 1970, as `ended_at`."""
    ended_at: int | None


@dataclass(frozen=True)
class Lane:
    """Whose deliveries are sent one after the other: those of one webhook."""

    tenant: str
    webhook: str


@dataclass(frozen=True, kw_only=True)
class Try:
    """One claimed try of a delivery."""

    delivery: str
    audit: str
    lane: Lane
    number: int
    """Tries so far, this one included; also what fences the claim."""
    event_id: str
    body: bytes
    url: str
    keys: tuple[Key, ...]
    """What it is signed with, the newest first."""


def owe_deliveries(connection: Connection, audit_id: str, state: str) -> None:
    """Owe an audit's step to the webhooks of who asked for it and of the model's owner, in the caller's transaction.

    Call it where the step is made, after the audit's row and its report were written; a step that no webhook tells, and
    one that was told before, are harmless.
    """
    if state not in TYPES:
        return
    parent = connection.execute(select(audit).where(audit.c.id == audit_id)).one()
    hooks = connection.execute(
        select(webhook.c.tenant, webhook.c.id, webhook.c.types_json)
        .where(webhook.c.tenant.in_({parent.tenant, parent.model_tenant} - {""}), webhook.c.disabled_at.is_(None))
        # Until the commit nobody deletes them: a step of an audit must not fail over its callbacks.
        .with_for_update(read=True, key_share=True)
    ).all()
    wanting = [hook for hook in hooks if _wants(hook.types_json, TYPES[state])]
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
            _note(connection, "delivery_owed", audit_id, Lane(hook.tenant, hook.id), told.event_id, told.body())


def _wants(types_json: str, kind: str) -> bool:
    types = json.loads(types_json)
    return not types or kind in types


def _told(connection: Connection, parent: Row[Any], state: str) -> Told:
    signed = connection.execute(
        select(report.c.files_json).where(report.c.audit == parent.id).order_by(report.c.n.desc()).limit(1)
    ).scalar_one_or_none()
    digests = {file["path"]: file["sha256"] for file in json.loads(signed or "[]")}
    return Told(
        audit=str(parent.id),
        state=state,
        report_sha256=digests.get(FILE_NAME),
        labels=dict(audits_pb2.Audit.FromString(parent.submission).labels),
        told_at=now_ms(connection),
    )


def due_lanes(connection: Connection, now: int, limit: int) -> tuple[Lane, ...]:
    """Return webhooks that have a delivery due, the longest due first, at most `limit`."""
    # Grouped by expressions: grouped by the columns, SQLite would read every delivery ever made in the page index's
    # order; so it reads what is pending alone.
    empty: ColumnElement[str] = literal_column("''")
    tenant, hook = delivery.c.tenant.concat(empty), delivery.c.webhook.concat(empty)
    rows = connection.execute(
        select(tenant.label("tenant"), hook.label("webhook"))
        .join(webhook, (webhook.c.tenant == delivery.c.tenant) & (webhook.c.id == delivery.c.webhook))
        .where(delivery.c.state == _PENDING, delivery.c.not_before <= now, webhook.c.disabled_at.is_(None))
        .group_by(tenant, hook)
        .order_by(func.min(delivery.c.not_before))
        .limit(limit)
    )
    return tuple(Lane(row.tenant, row.webhook) for row in rows)


def claim(connection: Connection, lane: Lane, now: int) -> Try | None:
    """Take a webhook's delivery that is due for longest, for one try; None if none is due.

    Args:
        connection: inside `Store.begin`.
        lane: the webhook.
        now: milliseconds since 1970.
    """
    hook = connection.execute(select(webhook).where(*_of(lane), webhook.c.disabled_at.is_(None))).one_or_none()
    if hook is None:
        return None
    first = (
        select(delivery.c.id)
        .where(*_deliveries(lane), delivery.c.state == _PENDING, delivery.c.not_before <= now)
        .order_by(delivery.c.not_before, delivery.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = connection.execute(
        update(delivery)
        .where(delivery.c.id == first.scalar_subquery(), delivery.c.state == _PENDING)
        .values(tries=delivery.c.tries + 1, not_before=now + CLAIM_MS)
        .returning(delivery)
    ).one_or_none()
    if taken is None:
        return None
    signing = Signing(hook.signing)
    old = hook.old_secret if hook.old_secret is not None and now < hook.old_secret_until else None
    return Try(
        delivery=taken.id,
        audit=taken.audit,
        lane=lane,
        number=taken.tries,
        event_id=taken.event_id,
        body=taken.body,
        url=hook.url,
        keys=tuple(Key(signing=signing, private=one) for one in (hook.secret, old) if one is not None),
    )


def settle(connection: Connection, made: Try, then: Delivered | Again | Dead, status: int, now: int) -> bool:
    """Write how a try ended; False if the delivery is no longer this try's: it lapsed, or was asked for again.

    A receiver that wants no more calls switches its webhook off, and everything still owed to it is a dead letter.

    Args:
        connection: inside `Store.begin`.
        made: the try.
        then: what follows.
        status: HTTP status; 0 where no answer came.
        now: milliseconds since 1970.
    """
    values: dict[str, object] = {"last_status": status}
    if isinstance(then, Delivered):
        values |= {"state": DeliveryState.DELIVERED, "last_error": "", "ended_at": now}
    elif isinstance(then, Dead):
        values |= {"state": DeliveryState.DEAD, "last_error": then.error, "ended_at": now}
    else:
        values |= {"last_error": then.error, "not_before": now + then.delay_ms}
    mine = connection.execute(
        update(delivery)
        .where(delivery.c.id == made.delivery, delivery.c.tries == made.number, delivery.c.state == _PENDING)
        .values(**values)
    ).rowcount
    if not mine:
        return False
    if not isinstance(then, Again):
        kind = "delivered" if isinstance(then, Delivered) else "dead_letter"
        _note(connection, kind, made.audit, made.lane, made.event_id, made.body)
    if isinstance(then, Dead) and then.disables:
        connection.execute(update(webhook).where(*_of(made.lane)).values(disabled_at=now))
        bury(connection, made.lane, then.error, now)
    return True


def bury(connection: Connection, lane: Lane, error: str, now: int) -> None:
    """Make everything that is still owed to a webhook a dead letter."""
    buried = connection.execute(
        update(delivery)
        .where(*_deliveries(lane), delivery.c.state == _PENDING)
        .values(state=DeliveryState.DEAD, last_error=error, ended_at=now)
        .returning(delivery.c.audit, delivery.c.event_id, delivery.c.body)
    ).all()
    for row in sorted(buried):
        _note(connection, "dead_letter", row.audit, lane, row.event_id, row.body)


def redeliver(connection: Connection, lane: Lane, delivery_id: str) -> bool:
    """Owe a delivery again, at once and with all its tries; switches the webhook on. False if there is none."""
    now = now_ms(connection)
    row = connection.execute(
        update(delivery)
        .where(*_deliveries(lane), delivery.c.id == delivery_id)
        .values(state=DeliveryState.PENDING, tries=0, not_before=now, last_error="", ended_at=None)
        .returning(delivery.c.audit, delivery.c.event_id, delivery.c.body)
    ).one_or_none()
    if row is None:
        return False
    connection.execute(update(webhook).where(*_of(lane)).values(disabled_at=None))
    _note(connection, "delivery_owed", row.audit, lane, row.event_id, row.body)
    return True


def find_delivery(connection: Connection, lane: Lane, delivery_id: str) -> DeliveryView | None:
    """Return one delivery of a webhook, None if it has none of this id."""
    row = connection.execute(select(delivery).where(*_deliveries(lane), delivery.c.id == delivery_id)).one_or_none()
    return _view(row) if row is not None else None


def delivery_page(connection: Connection, lane: Lane, after: Position | None, limit: int) -> tuple[DeliveryView, ...]:
    """Return a webhook's deliveries below a position, newest first."""
    found = select(delivery).where(*_deliveries(lane))
    if after is not None:
        found = found.where(tuple_(delivery.c.created_at, delivery.c.id) < (after.at, after.id))
    rows = connection.execute(found.order_by(delivery.c.created_at.desc(), delivery.c.id.desc()).limit(limit))
    return tuple(_view(row) for row in rows)


def _view(row: Row[Any]) -> DeliveryView:
    told = {name: getattr(row, name) for name in DeliveryView.__dataclass_fields__}
    return DeliveryView(**{**told, "state": DeliveryState(row.state)})


def _of(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    return webhook.c.tenant == lane.tenant, webhook.c.id == lane.webhook


def _deliveries(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    return delivery.c.tenant == lane.tenant, delivery.c.webhook == lane.webhook


def _note(connection: Connection, kind: str, audit_id: str, lane: Lane, event_id: str, body: bytes) -> None:
    detail = {
        "event_id": event_id,
        "webhook": f"{lane.tenant}/{lane.webhook}",
        "body_sha256": hashlib.sha256(body).hexdigest(),
    }
    journal.append(connection, kind, audit=audit_id, detail=detail)
