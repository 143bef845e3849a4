"""Whose consent a report rests on: read from what owners signed, and held against what was asked and what answered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay import request
from assay.approval import LEVELS
from assay.catalogue import CheckEntry

from service.rules.approvals import Signed, Wanted, mismatches, verify, wanted_check
from service.rules.errors import Refusal
from service.signer.refusal import Refused
from service.signer.rows import ApprovalRow, ConsentRow


@dataclass(frozen=True, kw_only=True)
class Counted:
    """An approval under which an audit ran."""

    name: str
    """models/{64 hex}/approvals/{32 hex}"""
    key_id: str
    """Of the owner's key that signed it."""
    envelope_sha256: str


@dataclass(frozen=True, kw_only=True)
class Consent:
    """Who asked, whose model it is, and what the owner signed."""

    auditor: str
    """Tenant."""
    owner: str
    """Tenant; the auditor's own where no approval was needed."""
    approvals: tuple[Counted, ...] = ()

    def parties(self) -> dict[str, Any]:
        """Return the field `parties` of the predicate."""
        told = [vars(one) for one in self.approvals]
        return {"auditor": self.auditor, "owner": self.owner, "approvals": told}

    @property
    def grant(self) -> str | None:
        """Digest of the envelope that allowed the audit; None where none was needed."""
        return self.approvals[0].envelope_sha256 if self.approvals else None


def read(row: ConsentRow, asked: Mapping[str, Any], entries: Sequence[CheckEntry]) -> Consent:
    """Return on whose consent an audit rests.

    A key or an approval that was revoked since is no reason against: what was read before, was read with consent.

    Args:
        row: what the database says.
        asked: the registered request.
        entries: catalogue entries of the answers.

    Raises:
        Refused: REQUEST_REJECTED where a foreign model was read and no owner's signature allows just this.
    """
    owner = row.model_tenant or row.tenant
    if not row.lends:
        raise Refused("REQUEST_REJECTED", f"{owner} has no such model as audit {asked['audit']} reads")
    if owner == row.tenant and not row.counted:
        return Consent(auditor=row.tenant, owner=owner)
    if not row.counted:
        raise Refused("REQUEST_REJECTED", f"the model of audit {asked['audit']} is another tenant's, with no approval")
    counted = []
    for one in row.counted:
        signed = _verified(row, one, owner)
        lacks = mismatches(signed.approval, _wanted(row.tenant, asked, entries))
        if lacks:
            text = f"approval {one.id} does not allow audit {asked['audit']}: {lacks[0].field}"
            raise Refused("REQUEST_REJECTED", text)
        digest = hashlib.sha256(one.envelope).hexdigest()
        counted.append(Counted(name=signed.name, key_id=signed.key_id, envelope_sha256=digest))
    return Consent(auditor=row.tenant, owner=owner, approvals=tuple(counted))


def _verified(row: ConsentRow, one: ApprovalRow, owner: str) -> Signed:
    if one.owner_tenant != owner:
        raise Refused("REQUEST_REJECTED", f"approval {one.id} is of {one.owner_tenant}, the model of {owner}")
    try:
        signed = verify(one.envelope, row.keys)
    except Refusal as error:
        raise Refused("REQUEST_REJECTED", f"approval {one.id} is not what an owner signed: {error.reason}") from None
    if signed.id != one.id:
        raise Refused("REQUEST_REJECTED", f"the row of approval {one.id} holds another envelope")
    if one.used > signed.approval.max_runs:
        most = signed.approval.max_runs
        raise Refused("REQUEST_REJECTED", f"approval {one.id} allows {most} runs, and {one.used} were counted")
    return signed


def _wanted(tenant: str, asked: Mapping[str, Any], entries: Sequence[CheckEntry]) -> Wanted:
    code = {entry.name: entry.code_sha256 for entry in entries}
    needed = {level for entry in entries for level in entry.access}
    return Wanted(
        model=asked["model"]["manifest_sha256"],
        tenant=tenant,
        checks=tuple(
            wanted_check(one["name"], one["params"], one["version"], code.get(one["name"], ""))
            for one in asked["checks"]
        ),
        data=tuple(one["sha256"] for one in asked["data"]),
        base=request.base_sha256(asked),
        access=tuple(level for level in LEVELS if level in needed),
        output_bytes=asked["limits"]["output_bytes"],
    )
