"""On what ground an audit may read a model: its own tenant's, a foreign one by approval, or none yet and it waits.

Each step that lets an audit go on, or stops it, is one transaction with the approval that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select, update

from service.rules.approvals import EXPIRED, REVOKED, Candidate, OwnerKey, Wanted, choose, mismatches
from service.rules.capability import CPU, queue_of
from service.rules.errors import Refusal, not_permitted
from service.rules.states import AUDIT_ENDED, AuditState
from service.store import approvals, audits
from service.store.approvals import ApprovalView
from service.store.engine import now_ms
from service.store.jobs import lock_audit, move_audit
from service.store.outbox import owe
from service.store.tables import audit, job, model
from service.store.tables_around import approval, approval_use
from service.store.views import UNFINISHED

NOBODY = "no tenant"
"""In `audit.model_tenant` where an audit waits for a model that nobody has: an empty name would be its own tenant's,
and tell who of that tenant may see it that the model is not another's. A tenant's name has no blank."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """An audit of a model that is not its tenant's."""

    wanted: Wanted
    named: tuple[str, ...] = ()
    """Ids of the approvals that the caller named; none means any that fits."""
    may_wait: bool = False
    """Wait for an approval rather than be refused."""
    may_ask: bool = True
    """Whether the caller's role may reach foreign models at all."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Why an audit may read its model."""

    owner: str
    """Whose model it is; NOBODY if nobody has it, and the audit waits all the same."""
    chosen: Candidate | None = None
    """The approval to count; None with an own model, and while none fits."""
    state: AuditState = AuditState.QUEUED


def unknown_model(field: str = "model") -> Refusal:
    """Return the one refusal for a model that nobody has and for one that is foreign."""
    which = "base model" if field == "base_model" else "model"
    return Refusal("UNKNOWN_MODEL", f"The {which} is not known here.", metadata={"field": f"audit.{field}"})


def ground(connection: Connection, asking: Asking) -> Ground:
    """Find the approval that an audit of a foreign model runs under.

    Args:
        connection: a read to validate, inside `Store.begin` to accept.
        asking: what is asked.

    Raises:
        Refusal: APPROVAL_SPENT, APPROVAL_MISMATCH; UNKNOWN_MODEL where the tenant has no approval of the model,
            whether the model exists or not; NOT_PERMITTED for a named approval that does not grant it anything.
    """
    if not asking.may_ask:
        raise unknown_model()
    wanted = asking.wanted
    if asking.may_wait:
        approvals.one_at_a_time(connection, wanted.model)
    found = approvals.candidates(connection, wanted.tenant, wanted.model, asking.named)
    if len(found) < len(asking.named):
        raise not_permitted()
    if found:
        try:
            chosen = choose(found, wanted)
        except Refusal:
            # Who names approvals wants no other, and what none of them allows now it never will.
            if asking.named or not asking.may_wait:
                raise
        else:
            return Ground(owner=chosen.owner, chosen=chosen)
    if not asking.may_wait:
        raise unknown_model()
    return Ground(owner=_first_owner(connection, wanted.model), state=AuditState.AWAITING_APPROVAL)


def _first_owner(connection: Connection, manifest_sha256: str) -> str:
    """Return who is told that somebody waits: of several tenants with one model, the first."""
    found = (
        select(model.c.tenant)
        .where(model.c.manifest_sha256 == manifest_sha256, model.c.deleted_at.is_(None))
        .order_by(model.c.created_at, model.c.tenant)
        .limit(1)
    )
    return connection.execute(found).scalar_one_or_none() or NOBODY


def release(
    connection: Connection, approval_id: str, wanted_by: Callable[[bytes, str], Wanted | None]
) -> tuple[str, ...]:
    """Let those audits go on that waited for this approval, oldest first, as long as it has runs; return their ids.

    Args:
        connection: inside `Store.begin`, in the transaction that makes the approval known.
        approval_id: the approval.
        wanted_by: what an accepted request (a serialised assay.api.v1.Audit) of a tenant wants; None if this release
            would not accept it any more.
    """
    # Without a lock on the row yet: who submits takes the model's first, and what is read here never changes.
    row = connection.execute(select(approval).where(approval.c.id == approval_id)).one()
    approvals.one_at_a_time(connection, row.model_sha256)
    waiting = connection.execute(
        select(audit.c.id, audit.c.tenant, audit.c.submission, audit.c.base_sha256, audit.c.submitted_at).where(
            UNFINISHED,
            audit.c.state == AuditState.AWAITING_APPROVAL,
            audit.c.model_sha256 == row.model_sha256,
            audit.c.tenant == row.grantee_tenant,
        )
    ).all()
    released = []
    # In order here: asked for it, SQLite would walk all that the tenant ever submitted.
    for one in sorted(waiting, key=lambda one: (one.submitted_at, one.id)):
        (held,) = approvals.candidates(connection, row.grantee_tenant, row.model_sha256, (approval_id,)) or (None,)
        if held is None or held.over or held.used >= held.signed.approval.max_runs:
            break
        wanted = wanted_by(one.submission, one.tenant)
        if wanted is None or mismatches(held.signed.approval, wanted):
            continue
        lock_audit(connection, one.id)
        if move_audit(connection, one.id, AuditState.QUEUED, model_tenant=held.owner):
            approvals.use(connection, one.id, held)
            _queue_again(connection, one.id, [digest for digest in (row.model_sha256, one.base_sha256) if digest])
            owe(connection, "register", one.id)
            released.append(one.id)
    return tuple(released)


def _queue_again(connection: Connection, audit_id: str, digests: Sequence[str]) -> None:
    """Choose the queue by the sizes that are known now: whoever submitted may have named a model that nobody had."""
    found = connection.execute(select(job.c.id, job.c.capability).where(job.c.audit == audit_id)).one()
    if found.capability != CPU:
        fits = queue_of(found.capability, weights_bytes(connection, digests))
        connection.execute(update(job).where(job.c.id == found.id).values(capability=fits))


def weights_bytes(connection: Connection, digests: Sequence[str]) -> int:
    """Return the bytes of the weights of models, each once; of one that nobody has none."""
    sizes = select(model.c.manifest_sha256, func.max(model.c.bytes)).where(model.c.manifest_sha256.in_(digests))
    return sum(row[1] for row in connection.execute(sizes.group_by(model.c.manifest_sha256)))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a worker needs to see for itself that it may read an audit's model."""

    tenant: str
    """Who asks."""
    owner: str
    """Whose model the audit's row says it is."""
    owns: bool
    """Whether the tenant that asks has the model itself; then nobody else's consent is needed."""
    lends: bool
    """Whether the owner has the model: a tenant that has not sent it, or whose weights are gone, cannot lend it."""
    under: tuple[tuple[ApprovalView, tuple[OwnerKey, ...]], ...]
    """The approvals that were counted for it, each with the keys of the tenant that signed it."""
    now: int
    """Milliseconds since 1970 by the database's clock."""


def has_model(connection: Connection, tenant: str, manifest_sha256: str) -> bool:
    """Tell whether a tenant has a model, and its weights are not gone."""
    live = (model.c.deleted_at.is_(None), model.c.purged_at.is_(None))
    mine = (model.c.tenant == tenant, model.c.manifest_sha256 == manifest_sha256)
    return connection.execute(select(model.c.tenant).where(*mine, *live)).one_or_none() is not None


def standing(connection: Connection, audit_id: str, manifest_sha256: str) -> Standing:
    """Return on what an audit stands that reads this model.

    Raises:
        LookupError: no such audit.
    """
    found = select(audit.c.tenant, audit.c.model_tenant).where(audit.c.id == audit_id)
    row = connection.execute(found).one_or_none()
    if row is None:
        raise LookupError(f"no audit {audit_id}")
    owner = row.model_tenant or row.tenant
    under = approvals.used_by(connection, audit_id)
    return Standing(
        tenant=row.tenant,
        owner=owner,
        owns=has_model(connection, row.tenant, manifest_sha256),
        lends=has_model(connection, owner, manifest_sha256),
        under=tuple((one, approvals.keys_of(connection, one.owner_tenant)) for one in under),
        now=now_ms(connection),
    )


def revoke(connection: Connection, approval_id: str) -> bool:
    """End an approval: what is not leased under it stops now, what runs is cancelled; False if it was over before.

    An audit that is measured already (SIGNING and later) ends as it is: what it read, it has read.
    """
    if not approvals.mark_revoked(connection, approval_id):
        return False
    for audit_id in _live_under(connection, approval_id):
        audits.cancel(connection, audit_id, reason=REVOKED)
    return True


def _live_under(connection: Connection, approval_id: str) -> tuple[str, ...]:
    found = (
        select(audit.c.id)
        .join(approval_use, approval_use.c.audit == audit.c.id)
        .where(approval_use.c.approval == approval_id, audit.c.state.not_in(AUDIT_ENDED))
        .order_by(audit.c.id)
    )
    return tuple(connection.execute(found).scalars())


def overdue(connection: Connection, *, wait_ms: int, only: str | None = None, limit: int = 100) -> tuple[str, ...]:
    """Return audits that waited too long for an approval, or whose approval ended before anything was leased."""
    now = now_ms(connection)
    waited = select(audit.c.id).where(
        UNFINISHED, audit.c.state == AuditState.AWAITING_APPROVAL, audit.c.submitted_at <= now - wait_ms
    )
    over = exists().where(
        approval_use.c.audit == audit.c.id, approval.c.id == approval_use.c.approval, approval.c.not_after <= now
    )
    ended = select(audit.c.id).where(UNFINISHED, audit.c.state == AuditState.QUEUED, over)
    if only is not None:
        waited, ended = waited.where(audit.c.id == only), ended.where(audit.c.id == only)
    return tuple(connection.execute(waited.union(ended).limit(limit)).scalars())


def expire(connection: Connection, audit_id: str, *, wait_ms: int) -> bool:
    """Cancel an audit that `overdue` named, if it still is one."""
    lock_audit(connection, audit_id)
    if not overdue(connection, wait_ms=wait_ms, only=audit_id):
        return False
    return audits.cancel(connection, audit_id, reason=EXPIRED) is not None


def revoked_but_live(connection: Connection, *, limit: int = 100) -> tuple[str, ...]:
    """Return audits that live under an approval that is over: a revocation and their submission crossed."""
    # From the audits that live to their approvals: a join would be read from every run that was ever counted.
    over = exists().where(
        approval_use.c.audit == audit.c.id,
        approval.c.id == approval_use.c.approval,
        approval.c.revoked_at.is_not(None),
    )
    lives = (UNFINISHED, audit.c.state.in_((AuditState.QUEUED, AuditState.RUNNING)))
    found = select(audit.c.id).where(*lives, audit.c.cancel_requested.is_(False), over)
    return tuple(connection.execute(found.limit(limit)).scalars())
