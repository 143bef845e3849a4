"""What an owner's signed consent allows: pure functions from envelope and audit to yes, or to every reason why not.

Nothing here believes a database: api and worker hand in the signed envelope, the owner's keys, and what they
measured of the audit themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay import approval, canonical, strict_json
from assay.approval import Approval, Envelope
from assay.catalogue import Catalogue
from assay.errors import Malformed
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from service.rules.errors import Refusal, Violation, refuse_fields
from service.rules.submission import Submission

WAIT_MS = 7 * 86_400_000
"""How long an audit waits for an approval (specs: service, section 15: 7 d; 1 h to 30 d)."""

WAIT_MS_LEAST, WAIT_MS_MOST = 3_600_000, 30 * 86_400_000

EXPIRED, REVOKED = "APPROVAL_EXPIRED", "APPROVAL_REVOKED"
"""`state_reason` of an audit that was cancelled because no consent came, or because it ended."""


@dataclass(frozen=True, kw_only=True)
class OwnerKey:
    """A public key that an operator entered for a tenant, of role `approval`."""

    key_id: str
    """Hex SHA-256 of the SubjectPublicKeyInfo."""
    spki: bytes
    """The key itself, DER."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """An approval whose signature was verified."""

    id: str
    key_id: str
    approval: Approval

    @property
    def name(self) -> str:
        """Resource name."""
        return f"models/{self.approval.model}/approvals/{self.id}"

    @property
    def not_after_ms(self) -> int:
        """When it ends, in milliseconds since 1970."""
        return int(self.approval.not_after.timestamp()) * 1000


@dataclass(frozen=True, kw_only=True)
class WantedCheck:
    """One check of an audit, as it would run."""

    name: str
    version: str
    code_sha256: str
    params_sha256: str
    """Of the canonical parameters, every default filled in."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an audit wants of a foreign model."""

    model: str
    tenant: str
    """Who asks."""
    checks: tuple[WantedCheck, ...]
    data: tuple[str, ...]
    """Digests of data."""
    base: str | None
    """Manifest of a base model: it counts as data."""
    access: tuple[str, ...]
    """Levels that the checks need, and any further ones that the request claims."""
    output_bytes: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An approval that may serve an audit, as the store knows it now."""

    signed: Signed
    owner: str
    """The tenant whose model it is about."""
    used: int
    """Runs counted so far."""
    over: str = ""
    """Why it allows nothing any more, e.g. "was revoked"; empty while it does."""


@dataclass(frozen=True)
class Mismatch:
    """One thing that an audit wants and an approval does not allow."""

    field: str
    """Path in the request, e.g. "audit.checks[0]"."""
    description: str


def wanted_of(asked: Submission, tenant: str, catalogue: Catalogue) -> Wanted:
    """Return what a well-formed request of a tenant wants of a model.

    Raises:
        KeyError: the catalogue lost a check since the request was read.
    """
    checks = []
    for one in asked.checks:
        entry = catalogue.entry(one.name)
        if entry is None:
            raise KeyError(one.name)
        checks.append(wanted_check(one.name, one.params, entry.version, entry.code_sha256))
    return Wanted(
        model=asked.model_sha256,
        tenant=tenant,
        checks=tuple(checks),
        data=tuple(one.blob.sha256 for one in asked.data),
        base=asked.base_sha256,
        access=asked.access,
        output_bytes=asked.output_bytes,
    )


def wanted_check(name: str, params: Mapping[str, Any], version: str, code_sha256: str) -> WantedCheck:
    """Return a check of an audit, its parameters by digest."""
    return WantedCheck(
        name=name, version=version, code_sha256=code_sha256, params_sha256=canonical.sha256(dict(params))
    )


def verify(data: bytes, keys: Sequence[OwnerKey]) -> Signed:
    """Return what an envelope says, if one of an owner's keys signed it.

    The algorithm comes from the key. The document is judged after its signature: what nobody signed says nothing.

    Raises:
        Refusal: BAD_APPROVAL with every wrong field, BAD_SIGNATURE.
    """
    try:
        envelope = approval.open_envelope(data)
    except Malformed as error:
        raise refuse_fields([_violation(error.at, error.message)]) from None
    signer = next((key.key_id for key in keys if _signed_by(envelope, key)), None)
    if signer is None:
        raise Refusal(
            "BAD_SIGNATURE",
            "No approval key of the model's owner, as the operator knows them, signed this envelope.",
            metadata={"key_id": envelope.key_id},
        )
    return Signed(id=envelope.id, key_id=signer, approval=_read(envelope.payload))


def _read(payload: bytes) -> Approval:
    try:
        document = strict_json.loads(payload, approval.BYTES_MAX)
        wrong = approval.faults(document)
        if not wrong:
            return approval.read(payload)
    except Malformed as error:
        wrong = (approval.Fault(error.at, error.message),)
    raise refuse_fields([_violation(f"payload.{one.field}", one.description) for one in wrong])


def _violation(field: str, description: str) -> Violation:
    return Violation(f"envelope.{field}".rstrip("."), description, "BAD_APPROVAL")


def _signed_by(envelope: Envelope, key: OwnerKey) -> bool:
    try:
        public = load_der_public_key(key.spki)
    except (ValueError, UnsupportedAlgorithm):
        return False
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        return False
    return approval.verifies(envelope, public)


def mismatches(allowed: Approval, wanted: Wanted) -> tuple[Mismatch, ...]:
    """Return everything that an audit wants and an approval does not allow; nothing means that it fits.

    Time, revocation and runs are not looked at: they are the store's, in its transaction.
    """
    return tuple(_mismatches(allowed, wanted))


def _mismatches(allowed: Approval, wanted: Wanted) -> Iterator[Mismatch]:
    if allowed.model != wanted.model:
        yield Mismatch("audit.model", f"the approval is of models/{allowed.model}")
    if allowed.grantee != wanted.tenant:
        yield Mismatch("audit", "the approval grants nothing to this tenant")
    for index, one in enumerate(wanted.checks):
        told = _check(allowed, one)
        if told:
            yield Mismatch(f"audit.checks[{index}]", told)
    inputs = [(f"audit.data[{index}]", one) for index, one in enumerate(wanted.data)]
    inputs += [("audit.base_model", wanted.base)] if wanted.base else []
    for field, digest in inputs:
        if allowed.data is not None and digest not in allowed.data:
            yield Mismatch(field, f"sha256:{digest} is not among the approved data")
    for level in wanted.access:
        if level not in allowed.access:
            has = ", ".join(allowed.access) or "nothing"
            yield Mismatch("audit.access", f"{level} is needed, approved is {has}")
    if wanted.output_bytes > allowed.output_cap_bytes:
        text = f"{wanted.output_bytes} is above the approved {allowed.output_cap_bytes}: ask for no more"
        yield Mismatch("audit.limits.output_bytes", text)


def _check(allowed: Approval, wanted: WantedCheck) -> str:
    """Return why a check is not allowed, empty if it is; the nearest of its own name is told."""
    named = [one for one in allowed.checks if one.name == wanted.name]
    if not named:
        return f"{wanted.name} is not approved"
    versions = [one for one in named if one.version == wanted.version]
    if not versions:
        return f"{wanted.name} {wanted.version} is not approved, {named[0].version} is"
    codes = [one for one in versions if one.code_sha256 == wanted.code_sha256]
    if not codes:
        return f"its code is sha256:{wanted.code_sha256}, approved is sha256:{versions[0].code_sha256}"
    if any(one.params_sha256 in (approval.ANY, wanted.params_sha256) for one in codes):
        return ""
    return f"its parameters are sha256:{wanted.params_sha256}, approved are sha256:{codes[0].params_sha256}"


def choose(candidates: Sequence[Candidate], wanted: Wanted) -> Candidate:
    """Return the first approval that fits an audit, lives, and has a run left.

    Raises:
        Refusal: APPROVAL_SPENT if only runs are wanting; else APPROVAL_MISMATCH, naming everything that each lacks.
    """
    spent, wrong = None, []
    for one in candidates:
        lacks = mismatches(one.signed.approval, wanted)
        told = [Mismatch("audit.approvals", one.over)] if one.over else lacks
        wrong += [
            Violation(each.field, f"by approval {one.signed.id}: {each.description}", "APPROVAL_MISMATCH")
            for each in told
        ]
        if told:
            continue
        if one.used < one.signed.approval.max_runs:
            return one
        spent = spent or one
    if spent is not None:
        most = spent.signed.approval.max_runs
        raise Refusal(
            "APPROVAL_SPENT",
            f"All {most} runs of approval {spent.signed.id} are counted.",
            metadata={"approval": spent.signed.name, "max_runs": str(most)},
        )
    raise refuse_fields(wrong)
