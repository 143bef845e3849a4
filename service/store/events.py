"""An audit's events: rows (audit, sequence), gapless from 1, written in the transaction of the change they tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, func, insert, select, text, update

from service.rules.states import EVENT_DETAILS
from service.store.engine import clock
from service.store.tables import audit, event

PAGE = 100
"""Rows that a watcher reads at a time (specs: service, section 6)."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to an audit."""

    sequence: int
    kind: str
    """A key of `rules.states.EVENT_DETAILS`."""
    detail: Mapping[str, Any]
    occurred_at: int
    """Milliseconds since 1970, by the database's clock; never earlier than the event before."""


def append_event(connection: Connection, audit_id: str, kind: str, detail: Mapping[str, Any]) -> int:
    """Write the next event of an audit and return its sequence number.

    The audit's row is updated first, so on every database two writers of one audit queue up here.

    Raises:
        ValueError: unknown kind, or keys other than the kind's.
        LookupError: no such audit.
    """
    if kind not in EVENT_DETAILS or detail.keys() != EVENT_DETAILS[kind]:
        raise ValueError(f"event {kind!r} with keys {sorted(detail)} is not in the table of events")
    sequence = connection.execute(_COUNT, {"of": audit_id}).scalar_one_or_none()
    if sequence is None:
        raise LookupError(f"no audit {audit_id}")
    told = json.dumps(dict(detail), sort_keys=True, separators=(",", ":"))
    row = {"of": audit_id, "audit": audit_id, "sequence": sequence, "kind": kind, "detail_json": told}
    connection.execute(_insert(connection.dialect.name, clock(connection)), row)
    return int(sequence)


_COUNT = (
    update(audit)
    .where(audit.c.id == bindparam("of"))
    .values(last_sequence=audit.c.last_sequence + 1)
    .returning(audit.c.last_sequence)
)


@cache
def _insert(dialect: str, now: str) -> Insert:
    """Return the statement that writes an event, at the database's time but never before the event before it."""
    before = select(func.coalesce(func.max(event.c.occurred_at), 0)).where(event.c.audit == bindparam("of"))
    latest = func.greatest if dialect == "postgresql" else func.max
    return insert(event).values(occurred_at=latest(text(f"({now})"), before.scalar_subquery()))


def events_after(connection: Connection, audit_id: str, after: int, *, limit: int = PAGE) -> tuple[Event, ...]:
    """Return an audit's events with a sequence above `after`, oldest first, at most `limit`."""
    rows = connection.execute(
        select(event).where(event.c.audit == audit_id, event.c.sequence > after).order_by(event.c.sequence).limit(limit)
    )
    return tuple(
        Event(sequence=row.sequence, kind=row.kind, detail=json.loads(row.detail_json), occurred_at=row.occurred_at)
        for row in rows
    )
