"""JUnit XML: one suite for each check and one for the report itself, one case for each entry of the policy.

fail is `<failure>`, inconclusive is `<error>`, waived and advisory are `<skipped>` with their reason. Always the whole
run: a file that lists half of it would read as a pass of the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from assay.gate import neutral, wording
from assay.gate.gate import GateResult
from assay.policy.verdict import Decision, Instance
from assay.verify.outcome import ESTIMATE_ONLY

STATES = ("failure", "error", "skipped")
TOTALS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True)
class _Case:
    suite: str
    name: str
    state: str | None
    """Element of `STATES`, or None for a pass."""
    message: str
    told: tuple[str, ...] = ()


def render(result: GateResult) -> bytes:
    """Return the document, UTF-8 with a declaration."""
    cases = [*_of_report(result), *map(_of_decision, result.decisions)]
    # The schemas that Jenkins reads by know no `skipped` on the outermost element; each suite has its own.
    totals = {key: value for key, value in _totals(cases).items() if key != "skipped"}
    root = ElementTree.Element("testsuites", {"name": "assay gate", **totals})
    for suite in dict.fromkeys(case.suite for case in cases):
        _suite(root, suite, [case for case in cases if case.suite == suite], result)
    ElementTree.indent(root)
    body: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return body + b"\n"


def _totals(cases: Sequence[_Case]) -> dict[str, str]:
    counts = {TOTALS[state]: str(sum(case.state == state for case in cases)) for state in STATES}
    return {"tests": str(len(cases)), **counts, "time": "0"}


def _suite(root: ElementTree.Element, name: str, cases: Sequence[_Case], result: GateResult) -> None:
    suite = ElementTree.SubElement(root, "testsuite", {"name": neutral.xml(name), **_totals(cases)})
    properties = ElementTree.SubElement(suite, "properties")
    told = {
        "policy": result.asked.policy.name,
        "policy_sha256": result.asked.policy.sha256,
        **wording.about(result),
    }
    told |= {f"warning.{number}": warning for number, warning in enumerate(result.warnings, start=1)}
    told |= {case.name: case.told[0] for case in cases if case.told}
    for key, value in told.items():
        ElementTree.SubElement(properties, "property", {"name": neutral.xml(key), "value": neutral.xml(value)})
    for case in cases:
        names = {"classname": neutral.xml(name), "name": neutral.xml(case.name), "time": "0"}
        element = ElementTree.SubElement(suite, "testcase", names)
        if case.state is not None:
            child = ElementTree.SubElement(element, case.state, {"message": neutral.xml(case.message)})
            if case.state != "skipped":
                child.set("type", "assay")
                child.text = neutral.xml(case.message)
        if case.told:
            out = ElementTree.SubElement(element, "system-out")
            out.text = "\n".join(map(neutral.xml, case.told))


def _of_report(result: GateResult) -> list[_Case]:
    """Return the cases about the report: every step, registration, and what else keeps it from passing."""
    status = {"wrong": "failure", "unknown": "error", "not_asked": "skipped", "ok": None}
    cases = [
        _Case(wording.REPORT, f"verify/{step.id}", status.get(step.status, "error"), step.detail)
        for step in result.verification.steps
    ]
    others = [one for one in result.problems if one.code not in ("step_wrong", "step_unknown")]
    cases += [_Case(wording.REPORT, f"gate/{one.code}", "error", one.detail) for one in others]
    if not any(one.code == "policy_not_registered" for one in others):
        allowed = result.asked.unregistered_policy
        registered = result.asked.policy.sha256 == result.asked.registered_policy_sha256
        state = None if registered else "skipped" if allowed else "error"
        cases.append(_Case(wording.REPORT, "gate/policy_registered", state, "" if registered else "not registered"))
    missing = [one for one in result.problems if one.code in ("step_wrong", "step_unknown")]
    if missing and all(case.state in (None, "skipped") for case in cases):
        cases.append(_Case(wording.REPORT, "gate/verified", "error", missing[0].detail))
    return cases


def _of_decision(decision: Decision) -> _Case:
    states = {"pass": None, "fail": "failure", "inconclusive": "error", "waived": "skipped"}
    state = states.get(decision.outcome, "error")
    marked = f" ({ESTIMATE_ONLY})" if decision.estimate_only else ""
    told = tuple(f"{one.outcome}{marked}: {_told(one)}" for one in decision.instances)
    message = f"{decision.outcome}: {wording.subject(decision)}: {decision.reason}"
    if decision.deciding is not None and decision.outcome != "pass":
        message = f"{message}; {_told(decision.deciding)}"
    if decision.level != "gate" and state is not None:
        state, message = "skipped", f"advisory, {message}"
    return _Case(wording.group(decision), decision.id, state, message, told)


def _told(instance: Instance) -> str:
    return "; ".join(part for part in (wording.told(instance), wording.accepted(instance)) if part)
