"""Deliveries: what is owed to webhooks, tried in lanes, and how each try ended. `owing` writes what is owed.

A delivery's row is the debt itself: it is claimed for one try by a conditional update, so two schedulers never make the
same try, and a scheduler that died leaves it due again. Every call may happen twice all the same.

Locks are taken in one order: audits by their ids, then the webhook, then its deliveries; a step of an audit takes them
in this order too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Select, func, literal_column, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from service.rules.access import Scope
from service.rules.pages import Position
from service.rules.retries import Again, Dead, Delivered
from service.rules.standard_webhooks import Key, Signing, signing_still
from service.store import journal
from service.store.engine import StoreBusy, now_ms
from service.store.scopes import audit_in
from service.store.tables import audit
from service.store.tables_around import delivery, webhook

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
        .where(*of_lane(lane), delivery.c.state == _PENDING, delivery.c.not_before <= now)
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
    return Try(
        delivery=taken.id,
        audit=taken.audit,
        lane=lane,
        number=taken.tries,
        event_id=taken.event_id,
        body=taken.body,
        url=hook.url,
        keys=tuple(
            Key(signing=signing, private=one) for one in (hook.secret, *signing_still(hook.old_secrets_json, now))
        ),
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

    Raises:
        StoreBusy: an audit moved meanwhile; the try is made again when it lapses.
    """
    disables = isinstance(then, Dead) and then.disables
    one = select(audit.c.id).where(audit.c.id == made.audit)
    locked = lock_owed(connection, made.lane) if disables else _locked(connection, one)
    values: dict[str, object] = {"last_status": status}
    if isinstance(then, Delivered):
        values |= {"state": DeliveryState.DELIVERED, "last_error": "", "ended_at": now}
    elif isinstance(then, Dead):
        values |= {"state": DeliveryState.DEAD, "last_error": then.error, "ended_at": now}
    else:
        values |= {"last_error": then.error, "not_before": now + then.delay_ms}
    if disables:
        connection.execute(select(webhook.c.id).where(*_of(made.lane)).with_for_update(key_share=True))
    mine = connection.execute(
        update(delivery)
        .where(delivery.c.id == made.delivery, delivery.c.tries == made.number, delivery.c.state == _PENDING)
        .values(**values)
    ).rowcount
    if not mine:
        return False
    if not isinstance(then, Again):
        kind = "delivered" if isinstance(then, Delivered) else "dead_letter"
        note(connection, kind, made.audit, made.lane, made.event_id, made.body)
    if isinstance(then, Dead) and then.disables:
        connection.execute(update(webhook).where(*_of(made.lane)).values(disabled_at=now))
        bury(connection, made.lane, then.error, now, locked)
    return True


def lock_owed(connection: Connection, lane: Lane) -> frozenset[str]:
    """Lock the audits of all that is owed to a webhook, before the webhook itself is locked; return their ids."""
    owed = select(delivery.c.audit).where(*of_lane(lane), delivery.c.state == _PENDING)
    return _locked(connection, select(audit.c.id).where(audit.c.id.in_(owed)).order_by(audit.c.id))


def _locked(connection: Connection, found: Select[Any]) -> frozenset[str]:
    return frozenset(connection.execute(found.with_for_update()).scalars())


def bury(connection: Connection, lane: Lane, error: str, now: int, locked: frozenset[str]) -> None:
    """Make everything that is still owed to a webhook a dead letter.

    Args:
        connection: inside `Store.begin`, with the webhook locked.
        lane: the webhook.
        error: why.
        now: milliseconds since 1970.
        locked: what `lock_owed` returned before the webhook was locked.

    Raises:
        StoreBusy: meanwhile more was owed. To lock its audit now would be a deadlock with a step of it.
    """
    buried = connection.execute(
        update(delivery)
        .where(*of_lane(lane), delivery.c.state == _PENDING)
        .values(state=DeliveryState.DEAD, last_error=error, ended_at=now)
        .returning(delivery.c.audit, delivery.c.event_id, delivery.c.body)
    ).all()
    if not {row.audit for row in buried} <= locked:
        raise StoreBusy("an audit moved while its webhook was switched off; call again")
    for row in sorted(buried):
        note(connection, "dead_letter", row.audit, lane, row.event_id, row.body)


def redeliver(connection: Connection, lane: Lane, delivery_id: str) -> bool:
    """Owe a delivery again, at once and with all its tries; switches the webhook on. False if there is none."""
    now = now_ms(connection)
    of = select(delivery.c.audit).where(*of_lane(lane), delivery.c.id == delivery_id)
    _locked(connection, select(audit.c.id).where(audit.c.id.in_(of)))
    connection.execute(update(webhook).where(*_of(lane)).values(disabled_at=None))
    row = connection.execute(
        update(delivery)
        .where(*of_lane(lane), delivery.c.id == delivery_id)
        .values(state=DeliveryState.PENDING, tries=0, not_before=now, last_error="", ended_at=None)
        .returning(delivery.c.audit, delivery.c.event_id, delivery.c.body)
    ).one_or_none()
    if row is None:
        return False
    note(connection, "delivery_owed", row.audit, lane, row.event_id, row.body)
    return True


def find_delivery(connection: Connection, lane: Lane, scope: Scope, delivery_id: str) -> DeliveryView | None:
    """Return one delivery of a webhook, None if it has none of this id, or it tells of an audit outside the scope."""
    row = connection.execute(_seen(lane, scope).where(delivery.c.id == delivery_id)).one_or_none()
    return _view(row) if row is not None else None


def delivery_page(
    connection: Connection, lane: Lane, scope: Scope, after: Position | None, limit: int
) -> tuple[DeliveryView, ...]:
    """Return a webhook's deliveries below a position, newest first: those that tell of audits within the scope."""
    found = _seen(lane, scope)
    if after is not None:
        found = found.where(tuple_(delivery.c.created_at, delivery.c.id) < (after.at, after.id))
    rows = connection.execute(found.order_by(delivery.c.created_at.desc(), delivery.c.id.desc()).limit(limit))
    return tuple(_view(row) for row in rows)


def _seen(lane: Lane, scope: Scope) -> Select[tuple[Any, ...]]:
    return select(delivery).join(audit, audit.c.id == delivery.c.audit).where(*of_lane(lane), audit_in(scope))


def _view(row: Row[Any]) -> DeliveryView:
    told = {name: getattr(row, name) for name in DeliveryView.__dataclass_fields__}
    return DeliveryView(**{**told, "state": DeliveryState(row.state)})


def _of(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    return webhook.c.tenant == lane.tenant, webhook.c.id == lane.webhook


def of_lane(lane: Lane) -> tuple[ColumnElement[bool], ...]:
    """Return the condition on `delivery` that a lane is."""
    return delivery.c.tenant == lane.tenant, delivery.c.webhook == lane.webhook


def note(connection: Connection, kind: str, audit_id: str, lane: Lane, event_id: str, body: bytes) -> None:
    """Write down in the journal what became of a delivery."""
    detail = {
        "event_id": event_id,
        "webhook": f"{lane.tenant}/{lane.webhook}",
        "body_sha256": hashlib.sha256(body).hexdigest(),
    }
    journal.append(connection, kind, audit=audit_id, detail=detail)
