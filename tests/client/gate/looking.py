"""A forged report, verified for real, and the gate asked about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay import catalogue
from assay.gate import gate
from assay.gate.gate import Asked, GateResult, Report
from assay.keys import load_public
from assay.policy import language, loader
from assay.policy.language import Policy
from assay.testing import Forge
from assay.verify.case import Case
from assay.verify.directory import ReportFiles
from assay.verify.steps import run

NOW = datetime(2026, 1, 10, tzinfo=UTC)
AT = datetime(2026, 1, 2, 3, 5, tzinfo=UTC)
LAYER_1 = '{id: low, check: forged_probe, metric: accuracy, op: "<=", value: %s}'
Change = Callable[[dict[str, Any]], object]


def policy(value: str = "0.9", more: str = "") -> Policy:
    """Return a policy on accuracy: layer 0 has [0.477, 0.547], layer 1 [0.835, 0.883]."""
    text = f"schema: assay-policy/v1\nname: release\nassertions:\n  - {LAYER_1 % value}\n{more}\n"
    return language.parse(loader.read(text.encode(), "policy.yaml"))


def look(forge: Forge, place: Path, *, keys: bool = True) -> Report:
    """Return what verification establishes about a report."""
    case = Case(
        files=ReportFiles(place),
        keys=(load_public(forge.key_file),) if keys else (),
        vkeys=(forge.logged.log.vkey,) if keys else (),
        model_dir=forge.model_dir,
        now=NOW,
        shipped=catalogue.Catalogue((forge.entry,), ""),
    )
    seen = run(case)
    return Report(
        verification=seen,
        statement=case.statement or None,
        request=case.request or None,
        entries=case.entries,
        unshipped=tuple(case.unshipped),
        reported_at=AT,
    )


def ask(report: Report, asked: Policy | None = None, **change: Any) -> GateResult:
    """Ask the gate, with the policy registered unless told otherwise."""
    wanted = asked or policy()
    told: dict[str, Any] = {"now": NOW, "registered_policy_sha256": wanted.sha256, **change}
    return gate.decide(report, Asked(policy=wanted, **told))


def with_step(report: Report, name: str, status: Any) -> Report:
    """Return a report with one verification step altered; the outcome follows as verification would set it."""
    steps = tuple(replace(step, status=status) if step.id == name else step for step in report.verification.steps)
    statuses = {step.status for step in steps}
    outcome: Any = "wrong" if "wrong" in statuses else "verified" if statuses <= {"ok", "not_asked"} else "unknown"
    return replace(report, verification=replace(report.verification, steps=steps, outcome=outcome))
