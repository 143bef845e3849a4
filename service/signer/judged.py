"""The registered policy at signing: re-read by digest, decided by the client's own engine, told in companions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from assay import bundle, canonical, catalogue, dsse, keys, strict_json
from assay.bundle import Bundle
from assay.catalogue import ARTEFACT_MAX, CheckEntry
from assay.errors import Malformed
from assay.gate import companions
from assay.policy import registered as rules
from assay.policy.registered import Registered
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from service.signer.evidence import Evidence
from service.signer.refusal import Refused


def read_registered(asked: Mapping[str, Any], evidence: Evidence) -> Registered | None:
    """Re-read the policy and the waivers that a request names; None where it names no policy.

    Raises:
        Malformed: one is not what a policy or a waiver file has to be.
        Refused: BLOB_MISSING, BLOB_CORRUPT, REQUEST_REJECTED.
    """
    policy_sha256, waivers_sha256 = rules.digests(asked)
    if policy_sha256 is None:
        if waivers_sha256 is not None:
            raise Refused("REQUEST_REJECTED", "the request names waivers and no policy")
        return None
    policy = rules.read_policy(evidence.read(policy_sha256, rules.BYTES_MAX, "the policy"))
    if waivers_sha256 is None:
        return Registered(policy)
    accepted = rules.read_waivers(evidence.read(waivers_sha256, rules.BYTES_MAX, "the waivers"))
    return Registered(policy, accepted, with_waivers=True)


def judgement(
    registered: Registered | None, predicate: Mapping[str, Any], asked: Mapping[str, Any], entries: Iterable[CheckEntry]
) -> dict[str, Any]:
    """Return the fields `policy` and `verdict` of a report whose other fields are composed."""
    if registered is None:
        return {"policy": None, "verdict": None}
    verdict = rules.decided(registered, predicate, asked, {entry.sha256: entry for entry in entries})
    return {"policy": rules.named(registered.policy), "verdict": rules.signed_form(verdict)}


def beside(
    registered: Registered | None,
    predicate: Mapping[str, Any],
    asked: Mapping[str, Any],
    sealed: bytes,
    private: EllipticCurvePrivateKey,
    artefact: Callable[[str], bytes],
) -> dict[str, bytes]:
    """Return what lies beside a report with a verdict, by file name: policy, waivers and signed companions.

    Args:
        registered: policy and waivers; None gives nothing.
        predicate: the composed report.
        asked: the request.
        sealed: bytes of the report's bundle.
        private: the report key.
        artefact: returns a kept artefact by digest.

    Raises:
        Refused: STORAGE_FAILED if a kept catalogue entry is damaged.
    """
    if registered is None:
        return {}
    entries = {digest: _entry(artefact(digest)) for digest in {one["catalogue_sha256"] for one in predicate["answers"]}}
    key_id = keys.key_id(private.public_key())
    told = companions.statements(
        model_sha256=predicate["model"]["manifest_sha256"],
        bundle_sha256=hashlib.sha256(sealed).hexdigest(),
        key_id=key_id,
        policy=registered.policy,
        verdict=rules.decided(registered, predicate, asked, entries),
        composed_at=predicate["audit"]["composed_at"],
    )
    found = registered.files()
    for name, content in told.items():
        payload = canonical.dumps(content)
        signature = dsse.sign(private, dsse.PAYLOAD_TYPE, payload)
        found[name] = bundle.write(Bundle(payload=payload, signature=signature, key_id=key_id))
    return found


def _entry(data: bytes) -> CheckEntry:
    try:
        return catalogue.parse_entry(strict_json.loads(data, ARTEFACT_MAX))
    except Malformed as error:
        raise Refused("STORAGE_FAILED", f"a kept catalogue entry is damaged: {error}") from error
