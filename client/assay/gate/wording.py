"""The words that all renderings of a gate result share. What they return still holds text of others."""

from __future__ import annotations

from assay.gate.gate import GateResult
from assay.policy.verdict import Decision, Instance
from assay.verify.outcome import ESTIMATE_ONLY

REPORT = "assay.report"
"""Name under which verification, registration and conditions on the report appear beside the checks."""


def group(decision: Decision) -> str:
    """Return the check of an entry, or the name for what is about the report."""
    return REPORT if decision.kind in ("require", "report") or not decision.check else decision.check


def full_name(decision: Decision) -> str:
    """Return check/assertion."""
    return f"{group(decision)}/{decision.id}"


def subject(decision: Decision) -> str:
    """Return what an entry is about, e.g. "accuracy <= 0.6"."""
    about = f"{decision.metric} {decision.limit}" if decision.metric else decision.limit
    about = f"B - A of {about}" if decision.kind == "compare" else about
    return f"{about} ({ESTIMATE_ONLY})" if decision.estimate_only else about


def numbers(instance: Instance) -> str:
    """Return estimate, interval, n and power of an instance; empty where it has none."""
    if instance.value is None and instance.low is None:
        return ""
    value = instance.value or "difference"  # none is told by a caller of the library that gives an interval alone
    interval = f" [{instance.low}, {instance.high}]" if instance.low is not None else ""
    n = f", n {instance.n}" if instance.n is not None else ""
    power = f", power at least {instance.power}" if instance.power is not None else ""
    return f"{value}{interval}{n}{power}"


def judged(instance: Instance) -> str:
    """Return how a difference was judged, e.g. "unpaired (no_items)"; empty of anything else."""
    if instance.low is None or instance.method is None:
        return ""
    return f"unpaired ({instance.unpaired_because})" if instance.unpaired_because else instance.method


def labels(instance: Instance) -> str:
    """Return the labels of an instance, e.g. "layer=5"."""
    return " ".join(f"{key}={value}" for key, value in instance.labels)


def told(instance: Instance) -> str:
    """Return an instance in one line."""
    parts = (labels(instance), instance.reason, numbers(instance), judged(instance), instance.detail)
    return "; ".join(part for part in parts if part)


def accepted(instance: Instance) -> str:
    """Return who accepted a waived instance, and why; empty for one that is not waived."""
    waiver = instance.waiver
    if instance.outcome != "waived" or waiver is None:
        return ""
    return f"accepted by {waiver.approver} until {waiver.expires.isoformat()}: {waiver.reason}"


def about(result: GateResult) -> dict[str, str]:
    """Return what every output names beside the outcome: on what it rests, and against what it was held."""
    told, baseline = result.verification, result.asked.baseline
    named = {
        "audit": told.audit or "",
        "statement_sha256": told.statement_sha256 or "",
        "model_sha256": told.model_sha256 or "",
        "key_source": result.asked.key_source or "none told",
    }
    if baseline is not None:
        named |= {f"baseline_{name}": told or "" for name, told in baseline.named.items()}
    return named


def headline(result: GateResult) -> str:
    """Return outcome and exit code in our own words; it holds no text of others."""
    said = {
        "pass": "PASS",
        "fail": "FAIL",
        "wrong": "WRONG: the report is not what it must be",
        "inconclusive": "COULD NOT TELL",
    }
    waived = len(result.waived)
    more = f", {waived} waived" if waived else ""
    estimates = len(result.verdict.estimate_only) if result.verdict else 0
    more += f", {ESTIMATE_ONLY} in {estimates}" if estimates else ""
    return f"assay gate: {said.get(result.outcome, 'COULD NOT TELL')}{more} (exit {result.exit_code})"
