"""V13 and V14: the verdict follows from the registered policy, and the companions say the same.

Policy and gate are imported where they are used: a report without a policy costs neither.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assay import bundle, dsse, strict_json
from assay.errors import CouldNotTell, Malformed, Wrong, shown
from assay.verify.case import Case, NotAsked

if TYPE_CHECKING:
    from assay.policy.registered import Registered

_BESIDE = frozenset({"uri", "verifier", "timeVerified", "slsaVersion"})
"""Fields of a companion that bind nothing: places, names and versions of whoever wrote it."""


def recompute_verdict(case: Case) -> str:
    """V13: decide on the report by the registered policy, at age 0 and with the registered waivers."""
    owed, accepted = case.request.get("policy_sha256"), case.request.get("waivers_sha256")
    told, named = case.predicate.get("verdict"), case.predicate.get("policy")
    if owed is None:
        if told is not None or named is not None or accepted is not None:
            raise Wrong("the report names a policy, a verdict or waivers, and no policy was registered")
        raise NotAsked("no policy was registered, so there is no verdict to recompute")
    from assay.policy import registered as rules

    found = _registered(case, owed, accepted)
    if named is None or named["name"] != found.policy.name:
        raise Wrong(f"/predicate/policy/name is not {shown(found.policy.name)}, the name of the registered policy")
    verdict = rules.decided(found, case.predicate, case.request, case.entries)
    if at := _differs(rules.signed_form(verdict), told, "/predicate/verdict"):
        raise Wrong(f"{at} is not what the registered policy says; its verdict is {verdict.outcome}")
    case.decided = (found.policy, verdict)
    waived = sum(use.state == "used" for use in verdict.waivers)
    said = f", {waived} of {len(verdict.waivers)} registered waivers used" if verdict.waivers else ""
    return f"policy {shown(found.policy.name)} {owed[:8]}… was registered; verdict, recomputed: {verdict.outcome}{said}"


def _registered(case: Case, policy_sha256: str, waivers_sha256: str | None) -> Registered:
    from assay.policy import registered as rules

    try:
        policy = rules.read_policy(_file(case, rules.POLICY_FILE, policy_sha256))
        if waivers_sha256 is None:
            return rules.Registered(policy)
        return rules.Registered(policy, rules.read_waivers(_file(case, rules.WAIVERS_FILE, waivers_sha256)), True)
    except Malformed as error:
        # The digest is the registered one, so nobody altered it: it is in words that this client does not know.
        raise CouldNotTell(f"the registered policy cannot be read by this client: {error}") from None


def _file(case: Case, name: str, digest: str) -> bytes:
    from assay.policy.registered import BYTES_MAX

    try:
        data = case.files.read(name, BYTES_MAX)
    except Malformed as error:
        raise Wrong(str(error)) from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise Wrong(f"{name} has digest {found[:16]}…, registered was {digest[:16]}…")
    return data


def check_companions(case: Case) -> str:
    """V14: companions that lie beside the report are signed by its key, are about it, and agree with its verdict."""
    from assay.verify.replication import check_replication

    present = [name for name in bundle.COMPANIONS if os.path.lexists(case.files.place / name)]
    said = [_check_verdict(case, present)] if present else []
    repeated = check_replication(case)
    said += [repeated] if repeated else []
    if not said:
        raise NotAsked("no companion attestations lie beside the report")
    return "; ".join(said)


def _check_verdict(case: Case, present: list[str]) -> str:
    if case.decided is None:
        if case.predicate.get("verdict") is None:
            raise Wrong(f"{present[0]} is there, and the report has no verdict")
        raise CouldNotTell("depends on V13")
    from assay.gate import companions

    policy, verdict = case.decided
    about = {
        "model_sha256": case.predicate["model"]["manifest_sha256"],
        "bundle_sha256": hashlib.sha256(case.files.bundle()).hexdigest(),
        "key_id": case.signed_by or "",
        "policy": policy,
        "verdict": verdict,
        "composed_at": case.predicate["audit"]["composed_at"],
    }
    expected = companions.statements(**about)
    for name in present:
        told = _signed(case, name)
        at = _differs(expected[name], told, "")
        if at and verdict.estimate_only and not _differs(companions.statements(**about, marked=False)[name], told, ""):
            continue  # written before companions said "estimate only"; the verdict is the same
        if at:
            raise Wrong(f"{name} differs from the report at {at}")
    return f"{', '.join(present)}: signed by the report's key, about this report, and of the same verdict"


def _signed(case: Case, name: str) -> Any:
    """Return the statement of a companion, parsed from verified bytes."""
    try:
        carried = bundle.read(case.files.read(name, bundle.BYTES_MAX))
        assert case.trust is not None
        keys = [key for key in case.trust.report_keys if key.id == case.signed_by]
        if not any(dsse.verify(key.public, dsse.PAYLOAD_TYPE, carried.payload, carried.signature) for key in keys):
            raise Wrong(f"{name} is not signed by the key that signed the report")
        return strict_json.loads(carried.payload, bundle.BYTES_MAX)
    except Malformed as error:
        raise Wrong(f"{name} is malformed: {error}") from None


def _differs(expected: Any, told: Any, at: str) -> str | None:
    """Return where `told` is not what is expected; fields that are unknown here are ignored."""
    if isinstance(expected, Mapping):
        if not isinstance(told, Mapping):
            return at or "/"
        places = (_differs(expected[key], told.get(key), f"{at}/{key}") for key in expected if key not in _BESIDE)
        # A map of labels or counts has no unknown fields: more of them is another map.
        more = at.endswith(("/labels", "/counts")) and set(told) != set(expected)
        return at if more else next((place for place in places if place), None)
    if isinstance(expected, list):
        if not isinstance(told, list) or len(told) != len(expected):
            return at
        places = (_differs(one, two, f"{at}/{n}") for n, (one, two) in enumerate(zip(expected, told, strict=True)))
        return next((place for place in places if place), None)
    return None if type(told) is type(expected) and told == expected else at
