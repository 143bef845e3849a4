"""The small standard attestations beside a report, as unsigned statements: a SLSA VSA and an in-toto test result.

Sources: SLSA Verification Summary Attestation v1 (slsa.dev/spec/v1.0/verification_summary) and in-toto test-result v0.1
(in-toto/attestation, spec/predicates/test-result.md). Each says less than the report: it can be read by tools that do
not know ours. The custom level name is not checked against the SLSA text.
"""

from __future__ import annotations

from typing import Any

from assay import bundle
from assay.gate import wording
from assay.manifest import FILE_NAME
from assay.moments import parse as parse_moment
from assay.policy.language import Policy
from assay.policy.registered import POLICY_FILE
from assay.policy.verdict import Verdict
from assay.statement import STATEMENT_TYPE
from assay.verify.outcome import ESTIMATE_ONLY

VSA_TYPE = "https://slsa.dev/verification_summary/v1"
TEST_RESULT_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
LEVEL_PASS = "ASSAY_POLICY_PASS"  # noqa: S105 - a level's name, no secret
LEVEL_FAILED = "FAILED"
SLSA_VERSION = "1.0"


def statements(
    *,
    model_sha256: str,
    bundle_sha256: str,
    key_id: str,
    policy: Policy,
    verdict: Verdict,
    composed_at: str,
    marked: bool = True,
) -> dict[str, dict[str, Any]]:
    """Return the statements that a signer puts beside a report, by file name; a function of the report alone.

    Args:
        model_sha256: manifest digest.
        bundle_sha256: of `report.sigstore.json`.
        key_id: of the report key, which names the verifier.
        policy: that was registered.
        verdict: what it says.
        composed_at: moment of the report, RFC 3339 with Z.
        marked: whether they say where a verdict looks at the estimate only; the first signers' did not.

    Raises:
        Malformed: `composed_at` is no moment.
    """
    summary = vsa(
        model_sha256=model_sha256,
        bundle_uri=bundle.FILE_NAME,
        bundle_sha256=bundle_sha256,
        policy=policy,
        policy_uri=POLICY_FILE,
        outcome=verdict.outcome,
        verifier_id=f"assay:key/sha256:{key_id}",
        time_verified=composed_at,
        marked=marked,
    )
    tested = results_of_tests(
        model_sha256=model_sha256, policy=policy, policy_uri=POLICY_FILE, verdict=verdict, marked=marked
    )
    return {bundle.VSA_FILE_NAME: summary, bundle.TEST_RESULT_FILE_NAME: tested}


def vsa(
    *,
    model_sha256: str,
    bundle_uri: str,
    bundle_sha256: str,
    policy: Policy,
    policy_uri: str,
    outcome: str,
    verifier_id: str,
    time_verified: str,
    marked: bool = True,
) -> dict[str, Any]:
    """Return the statement of a SLSA verification summary.

    Args:
        model_sha256: manifest digest.
        bundle_uri: where the report is; only the digest binds.
        bundle_sha256: of `report.sigstore.json`.
        policy: that decided.
        policy_uri: where the policy is; only the digest binds.
        outcome: of the verdict; everything but "pass" reads FAILED.
        verifier_id: URI of who decided.
        time_verified: moment of the decision, RFC 3339 with Z.
        marked: whether it says where the policy looks at the estimate only.

    Raises:
        Malformed: `time_verified` is no moment.
    """
    parse_moment(time_verified)
    passed = outcome == "pass"
    predicate = {
        "verifier": {"id": verifier_id},
        "timeVerified": time_verified,
        "resourceUri": f"assay:model/sha256:{model_sha256}",
        "policy": _policy(policy, policy_uri, marked),
        "inputAttestations": [{"uri": bundle_uri, "digest": {"sha256": bundle_sha256}}],
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": [LEVEL_PASS if passed else LEVEL_FAILED],
        "slsaVersion": SLSA_VERSION,
    }
    return _statement(model_sha256, VSA_TYPE, predicate)


def results_of_tests(
    *, model_sha256: str, policy: Policy, policy_uri: str, verdict: Verdict, marked: bool = True
) -> dict[str, Any]:
    """Return the statement of an in-toto test result.

    Fail and inconclusive are both FAILED; a pass with registered waivers is WARNED. Advisory entries that did not pass
    are warned tests and do not change the result. What looks at the estimate only says so in its name.
    """
    passed, warned, failed = [], [], []
    for decision in verdict.decisions:
        name = wording.full_name(decision) + (f" ({ESTIMATE_ONLY})" if marked and decision.estimate_only else "")
        if decision.outcome == "pass":
            passed.append(name)
        elif decision.outcome == "waived" or decision.level != "gate":
            warned.append(name)
        else:
            failed.append(name)
    accepted = any(one.outcome == "waived" for decision in verdict.decisions for one in decision.instances)
    predicate = {
        "result": "FAILED" if verdict.outcome != "pass" else "WARNED" if accepted else "PASSED",
        "configuration": [{"name": policy.name, **_policy(policy, policy_uri, marked)}],
        "passedTests": passed,
        "warnedTests": warned,
        "failedTests": failed,
    }
    return _statement(model_sha256, TEST_RESULT_TYPE, predicate)


def _policy(policy: Policy, uri: str, marked: bool) -> dict[str, Any]:
    """Return the descriptor of a policy; the standard has no field for how a bound is read, but annotations."""
    estimates = [one.id for one in (*policy.assertions, *policy.compare) if one.bound == "estimate"]
    said = {"annotations": {"assay": f"{ESTIMATE_ONLY}: {', '.join(estimates)}"}} if marked and estimates else {}
    return {"uri": uri, "digest": {"sha256": policy.sha256}, **said}


def _statement(model_sha256: str, kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": FILE_NAME, "digest": {"sha256": model_sha256}}],
        "predicateType": kind,
        "predicate": predicate,
    }
