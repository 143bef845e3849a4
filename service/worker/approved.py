"""Verb 2 of an attempt: may this audit read this model? What the owner signed decides, not what the api wrote.

Whatever a row says was allowed, the envelope is verified again under the owner's keys and held against the request as
it was registered and the code as it was measured here.
"""

from __future__ import annotations

from collections.abc import Mapping

from assay.approval import LEVELS

from service.rules.approvals import EXPIRED, REVOKED, OwnerKey, Signed, Wanted, mismatches, verify, wanted_check
from service.rules.errors import Refusal
from service.store import audits, consent
from service.store.approvals import ApprovalView
from service.store.budget import CAPS, Caps
from service.store.consent import Standing
from service.store.engine import Store
from service.worker.errors import HostFault, Reason, Stopped
from service.worker.promises import Promise
from service.worker.record import Provenance
from service.worker.request import Request


def require_consent(
    store: Store,
    audit_id: str,
    request: Request,
    promises: Mapping[str, Promise],
    provenance: Mapping[str, Provenance],
) -> Caps:
    """Return what may leave about the model over its lifetime, if this audit may read it.

    Args:
        store: the database.
        audit_id: the audit.
        request: what was registered.
        promises: catalogue entries by check.
        provenance: digests of the code as it lies here, by check.

    Raises:
        HostFault: nobody's signature allows this audit, whatever the rows say.
        Stopped: the approval was revoked or has ended; the audit is being cancelled for it.
    """
    with store.read() as connection:
        found = consent.standing(connection, audit_id, request.model_sha256)
        base = request.base_sha256
        if base is not None and not consent.has_model(connection, found.tenant, base):
            raise HostFault(f"audit {audit_id} reads a base model that {found.tenant} has not")
    if found.owns and not found.under:
        return CAPS
    if not found.under:
        raise HostFault(f"audit {audit_id} reads a model of another tenant, and no approval was counted for it")
    view, keys = found.under[0]
    _require_owner(audit_id, view, found)
    wanted = _wanted(request, found.tenant, promises, provenance)
    signed = _verified(view, keys)
    if view.used > signed.approval.max_runs:
        most = signed.approval.max_runs
        raise HostFault(f"approval {view.id} allows {most} runs, and {view.used} were counted")
    lacks = mismatches(signed.approval, wanted)
    if lacks:
        first = lacks[0]
        raise HostFault(f"approval {view.id} does not allow audit {audit_id}: {first.field}: {first.description}")
    _require_standing(store, audit_id, view, signed, found)
    return Caps(auditor=min(CAPS.auditor, signed.approval.lifetime_cap_bytes), model=CAPS.model)


def _require_owner(audit_id: str, view: ApprovalView, found: Standing) -> None:
    """Refuse a consent that is not its giver's to give: any tenant can sign for a digest that it knows."""
    if view.owner_tenant != found.owner:
        text = f"approval {view.id} is of {view.owner_tenant}, the model of audit {audit_id} of {found.owner}"
        raise HostFault(text)
    if not found.lends:
        raise HostFault(f"approval {view.id} is of {found.owner}, which has no such model")


def _verified(view: ApprovalView, keys: tuple[OwnerKey, ...]) -> Signed:
    try:
        signed = verify(view.envelope, keys)
    except Refusal as error:
        raise HostFault(f"approval {view.id} is not what its owner signed: {error.message}") from None
    if signed.id != view.id:
        raise HostFault(f"the row of approval {view.id} holds the envelope of approval {signed.id}")
    return signed


def _require_standing(store: Store, audit_id: str, view: ApprovalView, signed: Signed, found: Standing) -> None:
    """Cancel an audit whose approval is over: its beat would say so anyway, a moment later.

    Raises:
        Stopped: it is over.
    """
    if view.revoked_at is None and found.now < signed.not_after_ms:
        return
    with store.begin() as connection:
        audits.cancel(connection, audit_id, reason=EXPIRED if view.revoked_at is None else REVOKED)
    raise Stopped(Reason.CANCEL)


def _wanted(
    request: Request, tenant: str, promises: Mapping[str, Promise], provenance: Mapping[str, Provenance]
) -> Wanted:
    needed = {level for one in request.checks for level in promises[one.name].raw.get("access", ())}
    return Wanted(
        model=request.model_sha256,
        tenant=tenant,
        checks=tuple(
            wanted_check(one.name, one.params, one.version, provenance[one.name].code_sha256) for one in request.checks
        ),
        data=tuple(one.sha256 for one in request.data),
        base=request.base_sha256,
        access=tuple(level for level in LEVELS if level in needed),
        output_bytes=request.output_bytes,
    )
