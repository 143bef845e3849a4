"""What weakens a pass is told wherever the verdict is: waivers with who accepts them and why, and "estimate only"."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from assay import bundle
from assay.forged_rules import sign
from assay.gate import annotations as console
from assay.gate import established, gate, junit, markdown, sarif, wording
from assay.gate.gate import GateResult
from assay.policy import fingerprint, language, loader, waivers
from assay.testing import Forge
from assay.verify import Verification, verify

NOW = datetime(2026, 1, 2, 4, tzinfo=UTC)

STRICT = (
    "schema: assay-policy/v1\nname: release\nassertions:\n"
    '  - {id: low, check: forged_probe, metric: accuracy, op: "<=", value: 0.6}\n'
)
ESTIMATE = STRICT.replace("0.6", "0.87, bound: estimate")
"""Layer 1 has 0.861 [0.835, 0.883]: the estimate holds, the interval straddles."""

ACCEPTED = """schema: assay-waivers/v1
waivers:
  - {fingerprint: %s, outcome: fail, reason: "known, ticket 12", approver: ada, created: 2026-01-01,
     expires: 2026-03-01}
  - {fingerprint: %s, outcome: fail, reason: of another day, approver: bob, created: 2025-01-01, expires: 2025-03-01}
"""


def accepted() -> str:
    marks = [fingerprint.of_metric("forged_probe", "low", "accuracy", (("layer", str(at)),)) for at in (1, 0)]
    return ACCEPTED % tuple(marks)


def look(forge: Forge, report: Path) -> Verification:
    return verify(report, trust_root=forge.trust_root, model_dir=forge.model_dir, log_dir=forge.log_dir, now=NOW)


def ask(forge: Forge, report: Path, rules: str, waived: str | None = None) -> GateResult:
    seen = established.look(report, now=NOW, keys=[], trust_root=forge.trust_root)
    asked = gate.Asked(
        policy=language.parse(loader.read(rules.encode(), "policy.yaml")),
        now=NOW,
        registered_policy_sha256=established.registered_policy(seen),
        unshipped_checks=True,
        waivers=waivers.parse(loader.read(waived.encode(), "waivers.yaml")) if waived else (),
    )
    return gate.decide(seen, asked)


def renderings(told: GateResult) -> dict[str, str]:
    return {
        "console": "\n".join(console.lines(told)),
        "md": markdown.render(told),
        "junit": junit.render(told).decode(),
        "sarif": sarif.render(told).decode(),
        "json": json.dumps(told.to_json()),
    }


def companion(report: Path, name: str) -> Any:
    return json.loads(bundle.read((report / name).read_bytes()).payload)["predicate"]


def test_verify_says_who_accepted_what_and_why(forge: Forge) -> None:
    seen = look(forge, forge.report(rules=STRICT, waivers=accepted()))
    text = seen.render_text()
    assert "Verdict of the registered policy at signing: pass, with 1 waiver" in text
    assert "known, ticket 12" in text
    assert "ada" in text
    assert "2026-03-01" in text
    assert "of another day" in text, "an unused one is told too"
    told = seen.to_json()["waivers"]
    assert {(one["approver"], one["state"], one["count"]) for one in told} == {("ada", "used", 1), ("bob", "unused", 0)}
    assert "1 of 2 registered waivers used" in seen.step("V13").detail


def test_a_report_without_waivers_is_told_in_the_old_words(forge: Forge) -> None:
    seen = look(forge, forge.report(rules=STRICT))
    assert "at signing: fail\n" in seen.render_text() + "\n"
    assert (seen.to_json()["waivers"], seen.to_json()["estimate_only"]) == ([], [])


def test_verify_says_estimate_only(forge: Forge) -> None:
    seen = look(forge, forge.report(rules=ESTIMATE))
    assert seen.verdict == "pass"
    assert "estimate only: low" in seen.render_text().lower()
    assert seen.to_json()["estimate_only"] == ["low"]


def test_every_output_of_the_gate_says_who_accepted_and_why(forge: Forge) -> None:
    told = ask(forge, forge.report(rules=STRICT), STRICT, accepted())
    assert told.outcome == "pass"
    for name, text in renderings(told).items():
        for word in ("known, ticket 12", "ada", "2026-03-01"):
            assert word in text, (name, word)


def test_every_output_of_the_gate_says_estimate_only(forge: Forge) -> None:
    told = ask(forge, forge.report(rules=ESTIMATE), ESTIMATE)
    assert told.outcome == "pass"
    for name, text in renderings(told).items():
        assert "estimate only" in text.lower().replace("_", " "), name
    assert wording.headline(told) == "assay gate: PASS, estimate only in 1 (exit 0)"
    case = junit.render(told).decode().split('name="low"')[1].split("</testcase>")[0]
    assert "estimate only" in case, "a case is read without the properties of its suite"


def test_companions_say_estimate_only(forge: Forge) -> None:
    report = forge.report(rules=ESTIMATE)
    assert companion(report, bundle.TEST_RESULT_FILE_NAME)["passedTests"] == ["forged_probe/low (estimate only)"]
    policies = [
        companion(report, bundle.VSA_FILE_NAME)["policy"],
        *companion(report, bundle.TEST_RESULT_FILE_NAME)["configuration"],
    ]
    assert [one["annotations"] for one in policies] == [{"assay": "estimate only: low"}] * 2
    plain = companion(forge.report(rules=STRICT), bundle.VSA_FILE_NAME)["policy"]
    assert "annotations" not in plain


@pytest.mark.parametrize("name", bundle.COMPANIONS)
def test_companions_of_before_the_words_are_still_accepted(forge: Forge, name: str) -> None:
    report = forge.report(rules=ESTIMATE)
    told = json.loads(bundle.read((report / name).read_bytes()).payload)
    predicate = told["predicate"]
    if name == bundle.VSA_FILE_NAME:
        del predicate["policy"]["annotations"]
    else:
        del predicate["configuration"][0]["annotations"]
        predicate["passedTests"] = ["forged_probe/low"]
    sign(report / name, told, forge._private)
    assert look(forge, report).outcome == "verified", look(forge, report).render_text()
    predicate["policy" if name == bundle.VSA_FILE_NAME else "configuration"] = []
    sign(report / name, told, forge._private)
    assert look(forge, report).step("V14").status == "wrong"
