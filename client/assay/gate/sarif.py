"""SARIF 2.1.0: one run, one result for each instance that did not pass, each with a place in the policy file.

Source: OASIS Static Analysis Results Interchange Format 2.1.0, and section 12 of the report's specification.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from assay import __version__
from assay.gate import neutral, wording
from assay.gate.gate import GateResult
from assay.policy.verdict import WORST_FIRST, Decision, Instance

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

RESULTS_MAX = 5_000
"""Most results of one run (specification, section 12): GitHub shows that many and refuses 25,000."""

SEVERITY = {"fail": "8.0", "inconclusive": "5.0", "waived": "2.0", "advisory": "2.0"}
"""`security-severity` of a rule by its outcome: GitHub calls 7.0 and above high, 4.0 and above medium. Ranks that sort
a list, no measurements."""

_LEVEL = {"fail": "error", "inconclusive": "warning", "waived": "note"}
_REPORT_RULE = "assay/assay.report/verified"


def render(result: GateResult) -> bytes:
    """Return the log as UTF-8 JSON."""
    found = [*_problems(result), *_instances(result)]
    if len(found) > RESULTS_MAX:
        rest = len(found) - RESULTS_MAX + 1
        more = _result(result, _REPORT_RULE, "warning", f"{rest} more results; the JSON output has all", 1, "overflow")
        found = [*found[: RESULTS_MAX - 1], more]
    run = {
        "tool": {"driver": {"name": "assay", "version": __version__, "rules": _rules(result)}},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": result.outcome in ("pass", "fail"),
                "exitCode": result.exit_code,
                "exitCodeDescription": wording.headline(result),
            }
        ],
        "properties": {
            "outcome": result.outcome,
            **{name: neutral.line(value) for name, value in wording.about(result).items()},
            "warnings": [neutral.line(one) for one in result.warnings],
        },
        "results": found,
    }
    log = {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def place(path: str) -> str:
    """Return a path as a relative URI; one that leads outside the working directory is shown by its last part."""
    parts = PurePosixPath(neutral.line(path).replace("\\", "/")).parts
    inside = bool(parts) and not path.startswith("/") and ".." not in parts
    return quote("/".join(parts) if inside else (parts[-1] if parts else "policy")).replace("%2F", "/")


def _rule_id(decision: Decision) -> str:
    return neutral.line(f"assay/{wording.full_name(decision)}")


def _rules(result: GateResult) -> list[dict[str, Any]]:
    rules = {_REPORT_RULE: ("The report is verified and registered.", SEVERITY["fail"])}
    for decision in result.decisions:
        rank = SEVERITY["advisory"] if decision.level != "gate" else SEVERITY.get(decision.outcome, "5.0")
        rules[_rule_id(decision)] = (wording.subject(decision), "0.0" if decision.outcome == "pass" else rank)
    return [
        {
            "id": neutral.line(name),
            "shortDescription": {"text": neutral.line(text)},
            "properties": {"security-severity": rank, "tags": ["assay", "model-audit"]},
        }
        for name, (text, rank) in rules.items()
    ]


def _problems(result: GateResult) -> Iterator[dict[str, Any]]:
    level = "error" if result.outcome == "wrong" else "warning"
    for one in result.problems:
        yield _result(result, _REPORT_RULE, level, f"{one.code}: {one.detail}", 1, one.code + one.detail[:3])


def _instances(result: GateResult) -> Iterator[dict[str, Any]]:
    ranked = sorted(result.decisions, key=lambda one: (one.level != "gate", WORST_FIRST.index(one.outcome)))
    for decision in ranked:
        for instance in decision.instances:
            if instance.outcome == "pass" or (decision.outcome == "pass" and decision.kind == "assertion"):
                continue  # under `some` a pass is one whatever the other instances are
            yield _of_instance(result, decision, instance)


def _of_instance(result: GateResult, decision: Decision, instance: Instance) -> dict[str, Any]:
    level = _LEVEL.get(instance.outcome, "warning") if decision.level == "gate" else "note"
    text = f"{instance.outcome}: {wording.subject(decision)}: {wording.told(instance)}"
    mark = instance.fingerprint or f"{decision.id}/{instance.reason}/{wording.labels(instance)}"
    found = _result(result, _rule_id(decision), level, text, decision.line, mark)
    if instance.outcome == "waived" and instance.waiver is not None:
        waiver = instance.waiver
        why = f"{waiver.reason} ({waiver.approver}, until {waiver.expires.isoformat()})"
        found["suppressions"] = [{"kind": "external", "status": "accepted", "justification": neutral.line(why)}]
    return found


def _result(result: GateResult, rule: str, level: str, text: str, line: int, mark: str) -> dict[str, Any]:
    artifact = {"uri": place(result.asked.policy_file)}
    return {
        "ruleId": neutral.line(rule),
        "level": level,
        "message": {"text": neutral.line(text)},
        "locations": [{"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": max(line, 1)}}}],
        "partialFingerprints": {"assay/v1": neutral.line(mark)},
    }
