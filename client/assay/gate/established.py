"""What verification established about a report, as the gate needs it: steps, statement, request, catalogue entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from assay import catalogue, strict_json
from assay.catalogue import ARTEFACT_MAX, CheckEntry
from assay.errors import AssayError
from assay.gate.gate import NEEDED, Baseline, Problem, Report
from assay.manifest import is_sha256
from assay.policy import evidence
from assay.verify import open_case
from assay.verify.case import Case
from assay.verify.outcome import Step, Verification
from assay.verify.steps import run

OF_BOTH = frozenset({*NEEDED, "V15"})
"""Steps that a baseline owes where the report has them. V09 is of one model's files; V13 and V14 are of a policy that
the baseline was not held to, or was under another one."""


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
        entries=_entries(case),
        unshipped=tuple(dict.fromkeys(case.unshipped)),
        reported_at=case.leaf.at if case.leaf else None,  # without a proven leaf an age cannot be told (V05)
    )


def _entries(case: Case) -> dict[str, CheckEntry]:
    """Return the catalogue entries that V10 found; where it was not run, those that it would have found.

    A failing measurement that a trusted key signed stays one, whatever is missing beside it: a deleted log proof must
    not hide whether it was valid. Where V10 is not ok nothing passes.
    """
    found = dict(case.entries)
    told = evidence.tables(case.predicate.get("answers")) if case.statement else []
    shipped = {one.sha256: one for one in (case.shipped.checks if case.shipped else ())}
    for digest in {evidence.text(one.get("catalogue_sha256")) for one in told} - {None, *found}:
        entry = _carried(case, str(digest)) or shipped.get(str(digest))
        if entry is not None:
            found[entry.sha256] = entry
    return found


def _carried(case: Case, digest: str) -> CheckEntry | None:
    try:
        data = case.files.artefact(digest) if is_sha256(digest) else None
        return None if data is None else catalogue.parse_entry(strict_json.loads(data, ARTEFACT_MAX))
    except AssayError:
        return None


def registered_policy(report: Report) -> str | None:
    """Return the policy digest of the registered request; None where it registered none."""
    told: Any = (report.request or {}).get("policy_sha256")
    return told if is_sha256(told) else None


def against(report: Path, seen: Report, baseline: Path, older: Report) -> Baseline:
    """Return the baseline of a report, and how the two differ.

    Nothing is compared unless both are verified, two reports, and about the same question on the same evidence: then
    entries of `compare` stay inconclusive, and nothing passes. What the report says by itself stands all the same.

    Args:
        report: the candidate's directory.
        seen: what verification established of it.
        baseline: the older report's directory.
        older: what verification established of that.
    """
    from assay.compare.compare import compare
    from assay.compare.sides import load

    told = older.verification
    named = Baseline(
        statement_sha256=told.statement_sha256,
        audit=told.audit,
        model_sha256=told.model_sha256,
        not_checked=tuple(_left_open(older)),
    )
    doubt = _unverified(told)
    if doubt is not None:
        said = f"the baseline is not verified: {doubt.id}: {doubt.detail}"
        return replace(named, problem=Problem("baseline_not_verified", said))
    if seen.verification.outcome != "verified":
        return named  # the report's own problems are told, and nothing of it passes
    less = _looked_at_less(seen.verification, told)
    if less is not None:
        said = f"less of the baseline was looked at than of the report: {less.id}: {less.detail}"
        return replace(named, problem=Problem("baseline_not_verified", said))
    if told.statement_sha256 == seen.verification.statement_sha256:
        said = "the baseline is the report itself: it says nothing of a change; give an older report"
        return replace(named, problem=Problem("baseline_is_the_report", said))
    try:
        made = compare(load(baseline, told), load(report, seen.verification))
        differences, only = made.differences(), made.only_in_first()
    except Exception as error:  # what the report says by itself must not get lost over a defect in comparing
        said = str(error) if isinstance(error, AssayError) else f"unexpected {type(error).__name__}"
        return replace(named, problem=Problem("baseline_not_comparable", said))
    return replace(named, differences=differences, only=only, notes=made.notes)


def _unverified(told: Verification) -> Step | None:
    """Return the step for which a baseline is not verified; None where it is."""
    if told.outcome == "verified":
        return None
    return next((step for step in told.steps if step.status == told.outcome), Step("V01", "unknown", "not run"))


def _looked_at_less(seen: Verification, told: Verification) -> Step | None:
    """Return the first step that is ok for the report and was not run for its baseline.

    What a caller asks of the report he asks of the baseline, too: an older report that nobody looks up in the log may
    be a withdrawn one.
    """
    looked = {step.id for step in seen.steps if step.status == "ok" and step.id in OF_BOTH}
    found = {step.id: step for step in told.steps}
    owed = (found.get(name, Step(name, "unknown", "not run")) for name in sorted(looked))
    return next((step for step in owed if step.status != "ok"), None)


def _left_open(older: Report) -> Iterator[str]:
    """Yield what the verification of a baseline leaves open, in words that fit the flags of the gate."""
    told = older.verification
    model = next((step.detail for step in told.steps if (step.id, step.status) == ("V09", "not_asked")), None)
    for item in told.not_checked:
        yield "its model files (--model is of the report alone)" if item == model else item
    yield "its receipt (--receipt is of the report alone)"
    if told.profile == "development":
        yield "who signed it: a development key is no evidence for anyone else"
