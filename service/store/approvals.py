"""Approvals of owners: kept as signed, counted at submission, and over once revoked.

What a row says beside its envelope only finds it; whether it allows anything is read from the signed document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, insert, select, text, tuple_, update

from service.rules.access import Reach, Scope
from service.rules.approvals import Candidate, OwnerKey, Signed, verify
from service.rules.errors import Refusal, Violation, refuse_fields
from service.rules.pages import Position
from service.store import journal
from service.store.engine import now_ms
from service.store.events import append_event
from service.store.tables import model
from service.store.tables_around import approval, approval_key, approval_use
from service.store.uploads import insert_absent

LIVE_MAX = 100
"""Approvals that allow something, of one owner's model for one tenant: each costs a signature to verify in the
transaction of every submission under them. Those of other owners of the same weights crowd none out."""

KEPT_MAX = 10_000
"""Approvals of one owner's model for one tenant, the dead included: they are never deleted, and one look passes them
all."""

TOLD_MAX = 10
"""Dead approvals of one owner that are looked at, the newest, to say why none of them allows an audit any more."""

USES_MAX = 100
"""Approvals under which one audit runs: it is one, and a row more would be a fault that its reader must see."""


@dataclass(frozen=True, kw_only=True)
class ApprovalView:
    """One approval. Times are milliseconds since 1970."""

    id: str
    model_sha256: str
    owner_tenant: str
    grantee_tenant: str
    envelope: bytes
    max_runs: int
    used: int
    not_after: int
    created_at: int
    revoked_at: int | None


_USED = select(func.count()).select_from(approval_use).where(approval_use.c.approval == approval.c.id).scalar_subquery()


def keys_of(connection: Connection, tenant: str, *, revoked: bool = False) -> tuple[OwnerKey, ...]:
    """Return the approval keys of a tenant that serve, or those that are revoked."""
    over = approval_key.c.revoked_at.is_not(None) if revoked else approval_key.c.revoked_at.is_(None)
    rows = connection.execute(
        select(approval_key.c.key_id, approval_key.c.public_spki).where(approval_key.c.tenant == tenant, over)
    )
    return tuple(OwnerKey(key_id=row.key_id, spki=row.public_spki) for row in rows)


def put(connection: Connection, owner: str, signed: Signed, envelope: bytes, envelope_sha256: str) -> None:
    """Keep a verified approval; the same document stays the same row, also when it was revoked meanwhile.

    Raises:
        Refusal: BAD_APPROVAL: another owner signed the same document. TOO_MANY_APPROVALS.
    """
    one_at_a_time(connection, signed.approval.model)
    if connection.execute(select(approval.c.id).where(approval.c.id == signed.id)).one_or_none() is None:
        _require_place(connection, owner, signed)
    row = {
        "id": signed.id,
        "model_sha256": signed.approval.model,
        "owner_tenant": owner,
        "grantee_tenant": signed.approval.grantee,
        "envelope": envelope,
        "envelope_sha256": envelope_sha256,
        "max_runs": signed.approval.max_runs,
        "not_after": signed.not_after_ms,
        "created_at": now_ms(connection),
    }
    insert_absent(connection, approval, row)
    kept = connection.execute(select(approval.c.owner_tenant).where(approval.c.id == signed.id)).scalar_one()
    if kept != owner:
        told = Violation("envelope.payload.nonce", "another document has the same content", "BAD_APPROVAL")
        raise refuse_fields([told])


def _require_place(connection: Connection, owner: str, signed: Signed) -> None:
    of_these = (
        (approval.c.model_sha256 == signed.approval.model)
        & (approval.c.grantee_tenant == signed.approval.grantee)
        & (approval.c.owner_tenant == owner)
    )
    held = select(func.count(), func.count(case((_allows(now_ms(connection)), 1)))).where(of_these)
    kept, live = connection.execute(held).one()
    for count, most, what in ((live, LIVE_MAX, "that allow something"), (kept, KEPT_MAX, "in all")):
        if count >= most:
            text = (
                f"This tenant has {count} approvals of the model for {signed.approval.grantee} {what}; {most} may be."
            )
            told = {"count": str(count), "grantee": signed.approval.grantee, "limit": str(most)}
            raise Refusal("TOO_MANY_APPROVALS", text, quota="approvals", metadata=told)


def _allows(now: int) -> ColumnElement[bool]:
    """Return the condition on `approval` that its row does not say it is over; what it says is only a first look."""
    return and_(approval.c.revoked_at.is_(None), approval.c.not_after > now, approval.c.max_runs > _USED)


def find(connection: Connection, approval_id: str) -> ApprovalView | None:
    """Return one approval, or None."""
    return next(iter(_views(connection, approval.c.id == approval_id, limit=1)), None)


def approval_in(scope: Scope) -> ColumnElement[bool]:
    """Return the condition on `approval` that a scope is: an owner's are of its models, an auditor's grant it runs."""
    column = approval.c.owner_tenant if scope.reach is Reach.OWN_MODELS else approval.c.grantee_tenant
    return column == scope.tenant


def approval_page(
    connection: Connection, scope: Scope, model_sha256: str | None, after: Position | None, limit: int
) -> tuple[ApprovalView, ...]:
    """Return the approvals of a scope below a position, newest first; of one model, or of all."""
    wanted = approval_in(scope)
    if model_sha256 is not None:
        wanted &= approval.c.model_sha256 == model_sha256
    if after is not None:
        wanted &= tuple_(approval.c.created_at, approval.c.id) < (after.at, after.id)
    return _views(connection, wanted, limit=limit)


def sees_approval(connection: Connection, scope: Scope, model_sha256: str, approval_id: str) -> ApprovalView | None:
    """Return one approval of a scope; None also of a foreign one."""
    wanted = (approval.c.id == approval_id) & (approval.c.model_sha256 == model_sha256) & approval_in(scope)
    return next(iter(_views(connection, wanted, limit=1)), None)


def candidates(
    connection: Connection, grantee: str, model_sha256: str, ids: Sequence[str] = ()
) -> tuple[Candidate, ...]:
    """Return the approvals of a model for a tenant, each verified again; its row is locked until the transaction ends.

    Args:
        connection: a read, or inside `Store.begin`.
        grantee: the tenant that asks.
        model_sha256: the model.
        ids: only these, in this order; without them the oldest first.
    """
    wanted = (approval.c.grantee_tenant == grantee) & (approval.c.model_sha256 == model_sha256)
    if ids:
        looked_at = _locked(connection, wanted & approval.c.id.in_(ids))
    else:
        allows = _allows(now_ms(connection))
        looked_at = [*_dead(connection, wanted & ~allows), *_locked(connection, wanted & allows)]
    # A statement of its own: one that waits for a lock counts the uses as they were before it waited.
    found = select(approval, _USED.label("used")).where(approval.c.id.in_(looked_at))
    rows = connection.execute(found.order_by(approval.c.created_at, approval.c.id)).all()
    owners = {name: _owner(connection, name, model_sha256) for name in {row.owner_tenant for row in rows}}
    now = now_ms(connection)
    made = [one for row in rows if (one := _candidate(row, owners[row.owner_tenant], now)) is not None]
    return tuple(sorted(made, key=lambda one: ids.index(one.signed.id)) if ids else made)


def _locked(connection: Connection, wanted: ColumnElement[bool]) -> Sequence[str]:
    found = select(approval.c.id).where(wanted).order_by(approval.c.id)
    return connection.execute(found.with_for_update()).scalars().all()


def _dead(connection: Connection, wanted: ColumnElement[bool]) -> Sequence[str]:
    newest = func.row_number().over(
        partition_by=approval.c.owner_tenant, order_by=(approval.c.created_at.desc(), approval.c.id.desc())
    )
    ranked = select(approval.c.id, newest.label("rank")).where(wanted).subquery()
    return connection.execute(select(ranked.c.id).where(ranked.c.rank <= TOLD_MAX)).scalars().all()


@dataclass(frozen=True, kw_only=True)
class _Owner:
    """What is the same of all approvals of one owner for one model."""

    keys: tuple[OwnerKey, ...]
    """Revoked ones too."""
    revoked: frozenset[str]
    """Ids of those that are."""
    has_model: bool


def _owner(connection: Connection, tenant: str, manifest_sha256: str) -> _Owner:
    revoked = keys_of(connection, tenant, revoked=True)
    return _Owner(
        keys=(*keys_of(connection, tenant), *revoked),
        revoked=frozenset(key.key_id for key in revoked),
        has_model=_has_model(connection, tenant, manifest_sha256),
    )


def _candidate(row: Row[Any], owner: _Owner, now: int) -> Candidate | None:
    """Return what an approval's row with its uses still allows; None if no key of the owner ever signed it."""
    try:
        signed = verify(row.envelope, owner.keys)
    except Refusal:
        return None
    over = ""
    if row.revoked_at is not None or signed.key_id in owner.revoked:
        over = "was revoked"
    elif signed.not_after_ms <= now:
        over = f"ended at {signed.approval.not_after:%Y-%m-%dT%H:%M:%SZ}"
    elif not owner.has_model:
        over = "is of a model that its owner has deleted"
    return Candidate(signed=signed, owner=row.owner_tenant, used=row.used, over=over)


def _has_model(connection: Connection, tenant: str, manifest_sha256: str) -> bool:
    found = select(model.c.tenant).where(
        model.c.tenant == tenant, model.c.manifest_sha256 == manifest_sha256, model.c.deleted_at.is_(None)
    )
    found = found.with_for_update(read=True)  # a deletion must not slip between this look and the commit
    return connection.execute(found).one_or_none() is not None


def use(connection: Connection, audit_id: str, chosen: Candidate) -> None:
    """Count a run of an approval, in the transaction that lets the audit be leased."""
    signed = chosen.signed
    connection.execute(insert(approval_use).values(approval=signed.id, audit=audit_id, used_at=now_ms(connection)))
    told = {"approval": signed.name, "max_runs": signed.approval.max_runs}
    append_event(connection, audit_id, "approval_used", {**told, "used": chosen.used + 1})
    journal.append(connection, "approval_used", audit=audit_id, detail=told)


def used_by(connection: Connection, audit_id: str) -> tuple[ApprovalView, ...]:
    """Return the approvals under which an audit runs; none where the model is its own tenant's."""
    under = select(approval_use.c.approval).where(approval_use.c.audit == audit_id)
    return _views(connection, approval.c.id.in_(under), limit=USES_MAX)


def mark_revoked(connection: Connection, approval_id: str) -> bool:
    """Write down that an approval is over; False if it was before."""
    done = connection.execute(
        update(approval)
        .where(approval.c.id == approval_id, approval.c.revoked_at.is_(None))
        .values(revoked_at=now_ms(connection))
    )
    return done.rowcount == 1


def one_at_a_time(connection: Connection, model_sha256: str) -> None:
    """Let a submission that may wait and an approval that may end the wait see each other: one is second.

    SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        key = int(model_sha256[:15], 16)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _views(connection: Connection, wanted: ColumnElement[bool], *, limit: int) -> tuple[ApprovalView, ...]:
    rows = connection.execute(
        select(approval, _USED.label("used"))
        .where(wanted)
        .order_by(approval.c.created_at.desc(), approval.c.id.desc())
        .limit(limit)
    )
    return tuple(
        ApprovalView(**{key: value for key, value in row._mapping.items() if key != "envelope_sha256"}) for row in rows
    )
