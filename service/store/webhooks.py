"""Webhooks: who wants to be told of audits, where, and signed how. A secret is read by what signs, and told once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select, tuple_, update

from service.rules.access import Role
from service.rules.callbacks import WEBHOOKS_MAX
from service.rules.errors import Refusal
from service.rules.pages import Position
from service.rules.standard_webhooks import Key, Signing, last_until, new_key, retired
from service.store.deliveries import Lane, bury, lock_owed
from service.store.engine import now_ms
from service.store.tables_around import delivery, webhook
from service.store.uploads import insert_absent


@dataclass(frozen=True, kw_only=True)
class WebhookView:
    """One webhook, without what signs. Times are milliseconds since 1970."""

    id: str
    url: str
    types: tuple[str, ...]
    """CloudEvents types; none means all."""
    signing: Signing
    created_at: int
    disabled_at: int | None
    """When its receiver answered that it wants no more calls."""
    old_secret_until: int | None
    """Until then the secret before the last rotation signs too."""


def create_webhook(connection: Connection, lane: Lane, url: str, types: tuple[str, ...], key: Key, role: Role) -> None:
    """Make a webhook; it tells of what the role of its maker may see.

    Raises:
        Refusal: WEBHOOK_EXISTS, TOO_MANY_WEBHOOKS.
    """
    row = {
        "tenant": lane.tenant,
        "id": lane.webhook,
        "url": url,
        "role": role,
        "types_json": json.dumps(types),
        "signing": key.signing,
        "secret": key.private,
        "created_at": now_ms(connection),
    }
    if not insert_absent(connection, webhook, row):
        raise Refusal("WEBHOOK_EXISTS", f"There is a webhook {lane.webhook}.", metadata={"webhook": lane.webhook})
    require_place(connection, lane.tenant, adding=0)


def require_place(connection: Connection, tenant: str, *, adding: int) -> None:
    """Do nothing if a tenant may have the webhooks that it has, and `adding` more.

    Raises:
        Refusal: TOO_MANY_WEBHOOKS.
    """
    own = select(func.count()).select_from(webhook).where(webhook.c.tenant == tenant)
    if connection.execute(own).scalar_one() + adding > WEBHOOKS_MAX:
        raise Refusal(
            "TOO_MANY_WEBHOOKS",
            f"A tenant has at most {WEBHOOKS_MAX} webhooks.",
            metadata={"limit": str(WEBHOOKS_MAX)},
            quota="webhooks",
        )


def find_webhook(connection: Connection, lane: Lane) -> WebhookView | None:
    """Return a tenant's webhook, None if it has none of this id."""
    row = connection.execute(_select(lane)).one_or_none()
    return _view(row) if row is not None else None


def webhook_page(connection: Connection, tenant: str, after: Position | None, limit: int) -> tuple[WebhookView, ...]:
    """Return a tenant's webhooks below a position, newest first."""
    found = select(webhook).where(webhook.c.tenant == tenant)
    if after is not None:
        found = found.where(tuple_(webhook.c.created_at, webhook.c.id) < (after.at, after.id))
    rows = connection.execute(found.order_by(webhook.c.created_at.desc(), webhook.c.id.desc()).limit(limit))
    return tuple(_view(row) for row in rows)


def delete_webhook(connection: Connection, lane: Lane) -> bool:
    """Delete a webhook, its secrets and its deliveries; False if there is none. What is owed to it is dropped.

    Raises:
        StoreBusy: an audit moved meanwhile; call again.
    """
    locked = lock_owed(connection, lane)
    if connection.execute(_select(lane).with_for_update()).one_or_none() is None:
        return False
    bury(connection, lane, "DELETED", now_ms(connection), locked)
    connection.execute(delete(delivery).where(delivery.c.tenant == lane.tenant, delivery.c.webhook == lane.webhook))
    connection.execute(delete(webhook).where(webhook.c.tenant == lane.tenant, webhook.c.id == lane.webhook))
    return True


def rotate_secret(connection: Connection, lane: Lane) -> Key | None:
    """Make a new secret; each one before signs too for 24 hours. None if there is no such webhook."""
    row = connection.execute(_select(lane).with_for_update()).one_or_none()
    if row is None:
        return None
    key = new_key(Signing(row.signing))
    connection.execute(
        update(webhook)
        .where(webhook.c.tenant == lane.tenant, webhook.c.id == lane.webhook)
        .values(secret=key.private, old_secrets_json=retired(row.old_secrets_json, row.secret, now_ms(connection)))
    )
    return key


def _select(lane: Lane) -> Select[tuple[Any, ...]]:
    return select(webhook).where(webhook.c.tenant == lane.tenant, webhook.c.id == lane.webhook)


def _view(row: Row[Any]) -> WebhookView:
    return WebhookView(
        id=row.id,
        url=row.url,
        types=tuple(json.loads(row.types_json)),
        signing=Signing(row.signing),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        old_secret_until=last_until(row.old_secrets_json),
    )
