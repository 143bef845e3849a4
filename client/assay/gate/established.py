"""What verification established about a report, as the gate needs it: steps, statement, request, catalogue entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from assay.gate.gate import Report
from assay.manifest import is_sha256
from assay.verify import open_case
from assay.verify.case import Case
from assay.verify.steps import run


def look(
    report: Path,
    *,
    keys: Sequence[Path],
    now: datetime,
    **given: Any,
) -> Report:
    """Verify a report and keep what the gate decides from. The arguments are those of `assay.verify.open_case`.

    Raises:
        Misused: a key, trust root or receipt cannot be used.
    """
    return of_case(open_case(report, keys=keys, now=now, **given))


def of_case(case: Case) -> Report:
    """Run the steps over a case, and return what they left in it."""
    seen = run(case)
    return Report(
        verification=seen,
        statement=case.statement or None,
        request=case.request or None,
        entries=dict(case.entries),
        unshipped=tuple(dict.fromkeys(case.unshipped)),
        reported_at=case.leaf.at if case.leaf else None,  # without a proven leaf an age cannot be told (V05)
    )


def registered_policy(report: Report) -> str | None:
    """Return the policy digest of the registered request; None where it registered none."""
    told: Any = (report.request or {}).get("policy_sha256")
    return told if is_sha256(told) else None


def against(report: Path, seen: Report, baseline: Path, older: Report) -> dict[str, Any]:
    """Return what is asked of a report with a baseline: fields of `assay.gate.gate.Asked`.

    Nothing is compared unless both are verified: then entries of `compare` stay inconclusive, and nothing passes.

    Args:
        report: the candidate's directory.
        seen: what verification established of it.
        baseline: the older report's directory.
        older: what verification established of that.

    Raises:
        Misused: the two do not answer the same question on the same evidence; names the field.
    """
    from assay.compare.compare import compare
    from assay.compare.sides import load

    told = {"baseline": older.verification.statement_sha256}
    if older.verification.outcome != "verified":
        first = next(step for step in older.verification.steps if step.status == older.verification.outcome)
        return told | {"baseline_problem": f"the baseline is not verified: {first.id}: {first.detail}"}
    if seen.verification.outcome != "verified":
        return told  # the report's own problems are told, and nothing of it passes
    made = compare(load(baseline, older.verification), load(report, seen.verification))
    return told | {"differences": made.differences()}
