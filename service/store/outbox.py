"""Effects owed to the world outside the database, written in the transaction of the change that owes them.

The relay performs an effect and only then deletes its row, so an effect may happen twice: each is idempotent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sqlalchemy import Connection, Insert, delete, insert, select, text

from service.store.engine import clock
from service.store.tables import outbox

Kind = Literal["register", "publish", "sign", "void", "withdraw"]
"""register, sign, void, withdraw: ask the signer. publish: knock at the queue."""


@dataclass(frozen=True, kw_only=True)
class Owed:
    """One effect that is owed."""

    id: int
    kind: str
    audit: str
    job: str
    """With publish: the job whose id goes into the queue."""
    token: int
    """With sign: the fencing token of the finalised lease."""


def owe(connection: Connection, kind: Kind, audit_id: str, *, job: str = "", token: int = 0) -> None:
    """Write down an effect in the caller's transaction."""
    row = {"kind": kind, "audit": audit_id, "job": job, "token": token}
    connection.execute(_insert(clock(connection)), row)


@cache
def _insert(now: str) -> Insert:
    return insert(outbox).values(queued_at=text(f"({now})"))


def owed(connection: Connection, kinds: Sequence[Kind], *, limit: int = 100) -> tuple[Owed, ...]:
    """Return the oldest effects of these kinds."""
    rows = connection.execute(select(outbox).where(outbox.c.kind.in_(kinds)).order_by(outbox.c.id).limit(limit))
    return tuple(Owed(id=row.id, kind=row.kind, audit=row.audit, job=row.job, token=row.token) for row in rows)


def settle(connection: Connection, owed_id: int) -> bool:
    """Delete an effect that has happened; False if another relay was first."""
    return connection.execute(delete(outbox).where(outbox.c.id == owed_id)).rowcount == 1
