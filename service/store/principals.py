"""Who may act: local administration of the principal table. There is no remote way to change it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from service.rules.access import Caller, Role
from service.store.access_log import append_local
from service.store.engine import open_store
from service.store.tables import principal


@dataclass(frozen=True, kw_only=True)
class Principal:
    """One credential's owner."""

    id: str
    """What the client certificate says: `assay:principal:{id}`."""
    tenant: str
    role: str
    disabled: bool
    selector: Mapping[str, str]
    """Of a gate: labels that an audit must carry for it to be seen."""
    issuer: str
    """Whose tokens name it; empty: it is known by its certificate alone."""


def put_principal(
    url: str,
    identifier: str,
    *,
    tenant: str,
    role: str,
    selector: Mapping[str, str] | None = None,
    issuer: str = "",
) -> None:
    """Add a principal, or give it this tenant, role, selector and issuer and enable it."""
    store = open_store(url)
    with store.begin() as connection:
        connection.execute(delete(principal).where(principal.c.id == identifier))
        row = {"id": identifier, "tenant": tenant, "role": role, "disabled": False}
        row |= {"selector_json": json.dumps(dict(selector or {}), sort_keys=True), "issuer": issuer}
        connection.execute(insert(principal).values(row))
        append_local(connection, "principals add", f"principals/{identifier}")
    store.close()


def disable_principal(url: str, identifier: str) -> bool:
    """Refuse all further calls of a principal; False if there is none of that id."""
    store = open_store(url)
    with store.begin() as connection:
        done = connection.execute(update(principal).where(principal.c.id == identifier).values(disabled=True))
        if done.rowcount:
            append_local(connection, "principals disable", f"principals/{identifier}")
    store.close()
    return bool(done.rowcount)


def list_principals(url: str) -> tuple[Principal, ...]:
    """Return every principal, by id."""
    store = open_store(url)
    with store.read() as connection:
        rows = connection.execute(select(principal).order_by(principal.c.id)).all()
    store.close()
    return tuple(
        Principal(
            id=row.id,
            tenant=row.tenant,
            role=row.role,
            disabled=row.disabled,
            selector=json.loads(row.selector_json),
            issuer=row.issuer,
        )
        for row in rows
    )


def find_caller(connection: Connection, identifier: str) -> Caller | None:
    """Return what a principal may act as now; None if it is unknown, disabled, or of a role that does not exist."""
    row = connection.execute(select(principal).where(principal.c.id == identifier)).one_or_none()
    if row is None or row.disabled or row.role not in set(map(str, Role)):
        return None
    return Caller(
        principal=row.id,
        tenant=row.tenant,
        role=Role(row.role),
        selector=json.loads(row.selector_json),
        issuer=row.issuer,
    )
