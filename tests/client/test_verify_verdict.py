"""V07, V13 and V14: the registered policy decides, its verdict follows, and the companions say the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, canonical, moments
from assay.forged_rules import sign
from assay.testing import Forge
from assay.verify import Verification, verify

Change = Callable[[dict[str, Any]], object]

POLICY = """
schema: assay-policy/v1
name: release
require: [{check: forged_probe}]
assertions: [{id: low, check: forged_probe, metric: accuracy, op: "<=", value: %s}]
report: {max_age_days: 30, attempts_max: 3}
"""
PASSES, STRADDLES, FAILS = POLICY % "0.9", POLICY % "0.86", POLICY % "0.6"
WAIVED = """
schema: assay-waivers/v1
waivers:
  - {fingerprint: %s, outcome: fail, reason: known, approver: ada, created: %s, expires: %s}
"""


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path, seed=5)


def look(forge: Forge, report: Path) -> Verification:
    return verify(report, keys=[forge.key_file], model_dir=forge.model_dir)


def failing(seen: Verification) -> list[tuple[str, str]]:
    return [
        (step.id, step.status)
        for step in seen.steps
        if step.status in ("wrong", "unknown") and not step.detail.startswith("depends on")
    ]


def failed_print() -> str:
    """Return the fingerprint of layer 1 under the assertion, as the specification defines it."""
    named = {"v": 1, "check": "forged_probe", "assertion": "low", "metric": "accuracy", "labels": {"layer": "1"}}
    return hashlib.sha256(json.dumps(named, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


@pytest.mark.parametrize(("rules", "outcome"), [(PASSES, "pass"), (STRADDLES, "inconclusive"), (FAILS, "fail")])
def test_the_verdict_is_recomputed_and_the_companions_agree(forge: Forge, rules: str, outcome: str) -> None:
    report = forge.report(rules=rules)
    seen = look(forge, report)
    assert (seen.outcome, seen.verdict, seen.to_json()["verdict"]) == ("verified", outcome, outcome)
    assert (seen.step("V13").status, seen.step("V14").status) == ("ok", "ok"), seen.render_text()
    told = {name: json.loads(bundle.read((report / name).read_bytes()).payload) for name in bundle.COMPANIONS}
    vsa = told["vsa.sigstore.json"]["predicate"]
    digest = hashlib.sha256((report / bundle.FILE_NAME).read_bytes()).hexdigest()
    assert vsa["inputAttestations"][0]["digest"]["sha256"] == digest
    passed = "PASSED" if outcome == "pass" else "FAILED"
    assert vsa["verificationResult"] == told["test-result.sigstore.json"]["predicate"]["result"] == passed


def test_without_a_policy_nothing_is_asked(forge: Forge) -> None:
    seen = look(forge, forge.report())
    assert (seen.step("V13").status, seen.step("V14").status, seen.verdict) == ("not_asked", "not_asked", None)


def test_registered_waivers_alone_count_and_only_on_their_days(forge: Forge) -> None:
    def told(created: str, expires: str) -> tuple[str | None, str]:
        report = forge.report(rules=FAILS, waivers=WAIVED % (failed_print(), created, expires))
        seen = look(forge, report)
        assert seen.outcome == "verified", seen.render_text()
        result = json.loads(bundle.read((report / "test-result.sigstore.json").read_bytes()).payload)
        return seen.verdict, result["predicate"]["result"]

    assert told("2026-01-01", "2026-01-02") == ("pass", "WARNED")
    assert told("2025-12-01", "2026-01-01") == ("fail", "FAILED")
    assert told("2026-01-03", "2026-02-01") == ("fail", "FAILED")


def _verdict(change: Change) -> Change:
    return lambda s: change(s["predicate"]["verdict"])


FORGERIES: dict[str, tuple[str, Change]] = {
    "verdict_flipped": ("V13", _verdict(lambda v: v.update(outcome="pass"))),
    "assertion_flipped": ("V13", _verdict(lambda v: v["assertions"][0].update(outcome="pass"))),
    "assertion_dropped": ("V13", _verdict(lambda v: v["assertions"].pop())),
    "reason_altered": ("V13", _verdict(lambda v: v["assertions"][0].update(reason="holds"))),
    "counts_altered": ("V13", _verdict(lambda v: v["counts"].update({"pass": 9}))),
    "count_added": ("V13", _verdict(lambda v: v["counts"].update(accepted=1))),
    "deciding_label_altered": ("V13", _verdict(lambda v: v["assertions"][0]["deciding"]["labels"].update(layer="0"))),
    "verdict_dropped": ("V13", lambda s: s["predicate"].update(verdict=None)),
    "policy_renamed": ("V13", lambda s: s["predicate"]["policy"].update(name="other")),
    "other_policy": ("V07", lambda s: s["predicate"]["policy"].update(sha256="0" * 64)),
    "policy_dropped": ("V07", lambda s: s["predicate"].update(policy=None)),
    "number_altered": (
        "V13",
        lambda s: s["predicate"]["answers"][0]["measured"]["metrics"][1].update(
            value="0.5", interval={"low": "0.4", "high": "0.59", "level": "0.95", "method": "wilson"}
        ),
    ),
}


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_an_altered_verdict_is_wrong_at_its_step(forge: Forge, name: str) -> None:
    step, change = FORGERIES[name]
    report = forge.report(rules=FAILS)
    altered = forge.statement(report)
    change(altered)
    seen = look(forge, forge.reseal(report, altered))
    assert failing(seen)[0] == (step, "wrong"), seen.render_text()
    assert (seen.outcome, seen.verdict) == ("wrong", None)


def test_a_verdict_without_a_registered_policy_is_wrong(forge: Forge) -> None:
    told = forge.statement(forge.report(rules=PASSES))["predicate"]
    seen = look(forge, forge.report(verdict=told["verdict"]))
    assert failing(seen) == [("V13", "wrong")]


def test_an_absent_policy_file_is_unknown_and_an_altered_one_wrong(forge: Forge) -> None:
    report = forge.report(rules=FAILS, waivers=WAIVED % (failed_print(), "2026-01-01", "2026-01-02"))
    for name in ("policy.json", "waivers.json"):
        kept = (report / name).read_bytes()
        (report / name).unlink()
        seen = look(forge, report)
        assert (failing(seen), seen.verdict) == ([("V13", "unknown")], None)
        (report / name).write_bytes(kept.replace(b"0.6", b"0.9") + b"\n")
        assert failing(look(forge, report)) == [("V13", "wrong")]
        (report / name).write_bytes(kept)
    assert look(forge, report).verdict == "pass"


def test_fields_of_a_newer_verdict_are_ignored(forge: Forge) -> None:
    report = forge.report(rules=FAILS)
    newer = forge.statement(report)
    newer["predicate"]["verdict"]["confidence"] = "1"
    newer["predicate"]["verdict"]["assertions"][0]["colour"] = "red"
    assert look(forge, forge.reseal(report, newer)).outcome == "verified"


def test_a_companion_of_another_report_is_wrong(forge: Forge) -> None:
    first, second = forge.report(rules=PASSES), forge.report(rules=PASSES, ask={"nonce": "1" * 64})
    shutil.copy(first / "vsa.sigstore.json", second / "vsa.sigstore.json")
    assert failing(look(forge, second)) == [("V14", "wrong")]


@pytest.mark.parametrize("name", bundle.COMPANIONS)
def test_a_companion_that_says_more_than_the_verdict_is_wrong(forge: Forge, name: str) -> None:
    report = forge.report(rules=FAILS)
    told = json.loads(bundle.read((report / name).read_bytes()).payload)
    field = "verificationResult" if name == bundle.VSA_FILE_NAME else "result"
    told["predicate"][field] = "PASSED"
    sign(report / name, told, forge._private)
    assert failing(look(forge, report)) == [("V14", "wrong")]


def test_a_companion_under_another_key_or_unreadable_is_wrong(forge: Forge, tmp_path: Path) -> None:
    report, name = forge.report(rules=PASSES), bundle.VSA_FILE_NAME
    told = json.loads(bundle.read((report / name).read_bytes()).payload)
    sign(report / name, told, Forge(tmp_path / "other", seed=6)._private)
    assert failing(look(forge, report)) == [("V14", "wrong")]
    (report / name).write_bytes(canonical.dumps({"mediaType": bundle.MEDIA_TYPE}))
    assert failing(look(forge, report)) == [("V14", "wrong")]


def test_a_report_without_its_companions_is_verified_and_one_without_a_verdict_has_none(forge: Forge) -> None:
    report, plain = forge.report(rules=PASSES), forge.report()
    shutil.copy(report / "vsa.sigstore.json", plain / "vsa.sigstore.json")
    assert failing(look(forge, plain)) == [("V14", "wrong")]
    for name in bundle.COMPANIONS:
        (report / name).unlink()
    seen = look(forge, report)
    assert (seen.outcome, seen.step("V14").status) == ("verified", "not_asked")


def test_a_companion_is_never_read_as_a_report(forge: Forge) -> None:
    report = forge.report(rules=PASSES)
    shutil.copy(report / "vsa.sigstore.json", report / bundle.FILE_NAME)
    assert failing(look(forge, report))[0] == ("V04", "wrong")


def test_companions_are_held_against_the_keys_of_a_trust_root(forge: Forge) -> None:
    report = forge.report(rules=PASSES)
    seen = verify(report, trust_root=forge.trust_root, now=moments.parse("2026-01-10T00:00:00Z"))
    assert (seen.outcome, seen.step("V14").status, seen.verdict) == ("verified", "ok", "pass"), seen.render_text()
