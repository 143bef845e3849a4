"""`require` and `report`: checks that must have been answered, and what the report as a whole must be.

An unmet condition is inconclusive, never fail: the release was not measured as the policy wants it (specification,
section 11). None of them can be waived.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from assay.policy import evidence
from assay.policy.evidence import Evidence
from assay.policy.language import Policy, Requirement
from assay.policy.verdict import Decision, Instance

DAY_S = 86_400
"""Seconds of a day of Coordinated Universal Time as computers count it."""

SKEW_S = 300
"""How far a report may lie in the future: the default skew of section 16, since two clocks never agree."""


NO_SANDBOX = "process"
"""The backend that isolates nothing (`sandbox.process`): a policy that names it accepts that."""


def requirements(policy: Policy, report: Evidence) -> Iterator[Decision]:
    """Yield one decision for each entry of `require`."""
    for asked in policy.require:
        reason = _unanswered(asked, report)
        limit = f"{asked.answered} answer" + (f", version {asked.version}" if asked.version else "")
        yield _decision(f"require/{asked.check}", "require", limit, reason, asked.line, asked.check)


def _unanswered(asked: Requirement, report: Evidence) -> str | None:
    if reason := evidence.miscounted(report, asked.check):
        return reason
    for answer in report.answers(asked.check):
        version = evidence.text(answer.get("version")) or ""
        if asked.version is not None and not f"{version}.".startswith(f"{asked.version}."):
            return "version_differs"
        reason = evidence.flaw(report, answer)
        if reason and not (asked.answered == "any" and reason in ("answer_refused", "answer_failed")):
            return reason
    return None


def of_report(policy: Policy, report: Evidence) -> Iterator[Decision]:
    """Yield one decision for each condition on the report that the policy sets."""
    asked = policy.report
    told = report.predicate
    if asked.max_age_days is not None:
        yield _of_report("max_age_days", f"at most {asked.max_age_days}", _age(asked.max_age_days, report), asked.line)
    if asked.access is not None:
        had = evidence.table(told.get("access")).get("derived")
        enough = isinstance(had, list | tuple) and set(asked.access) <= {one for one in had if isinstance(one, str)}
        yield _of_report("access", ", ".join(asked.access), None if enough else "access_missing", asked.line)
    if asked.sandbox is not None:
        reason = None if _isolated(told, asked.sandbox) else "sandbox_not_allowed"
        yield _of_report("sandbox", ", ".join(asked.sandbox), reason, asked.line)
    if asked.seed is not None:
        mode = evidence.table(told.get("registration")).get("seed_mode")
        yield _of_report("seed", asked.seed, None if mode == asked.seed else "seed_not_derived", asked.line)
    if asked.attempts_max is not None:
        reason = _attempts(told.get("attempts"), asked.attempts_max)
        yield _of_report("attempts_max", f"at most {asked.attempts_max}", reason, asked.line)


def _isolated(told: Mapping[str, Any], allowed: Collection[str]) -> bool:
    """Tell whether every cell of every attempt ran in an allowed sandbox: plans and parts read the data as well.

    The deciding attempt's cells stand in `sandbox`. Beside it every attempt with a result came out of a cell, so one
    that names none hides it, and so does one that is not there: the jobs of a divided audit are numbered.
    """
    attempts = evidence.tables(told.get("attempts"))
    if not _all_jobs({evidence.text(one.get("job")) or "" for one in attempts}):
        return False
    deciding = "whole" if all(one.get("job") == "whole" for one in attempts) else "combine"
    cells = [evidence.tables(evidence.table(told.get("sandbox")).get("cells"))]
    for one in attempts:
        beside = evidence.tables(one.get("cells"))
        if beside or (one.get("job") != deciding and one.get("result_sha256") is not None):
            cells.append(beside)
    return all(bool(some) and all(_allowed(cell, allowed) for cell in some) for some in cells)


def _all_jobs(jobs: Collection[str]) -> bool:
    """Tell whether no job is left out: one alone, or a plan, shards from 0 without a gap, and what combines them."""
    shards = [job for job in jobs if job not in ("whole", "combine")]
    return len(jobs) == 1 or set(jobs) == {"whole", "combine", *(f"shard:{n}" for n in range(max(len(shards), 2)))}


def _allowed(cell: Mapping[str, Any], allowed: Collection[str]) -> bool:
    """Tell whether a cell's backend is allowed, and isolated it; "process" says by name that it isolates nothing."""
    backend, stated = evidence.text(cell.get("backend")), cell.get("statements")
    if backend not in allowed or backend == NO_SANDBOX:
        return backend in allowed
    sealed = isinstance(stated, list | tuple) and "nothing_isolated" not in stated
    return sealed and cell.get("network") == "none"


def _age(days: int, report: Evidence) -> str | None:
    if report.age_s is None:
        return "age_unknown"
    if report.age_s < -SKEW_S:
        return "report_from_the_future"
    return None if report.age_s <= days * DAY_S else "too_old"


def _attempts(told: object, most: int) -> str | None:
    """Return why the attempts are too many, or cannot be counted: a gap could hide a failed one."""
    jobs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for attempt in evidence.tables(told):
        jobs[evidence.text(attempt.get("job")) or ""].append(attempt)
    if not jobs or "" in jobs:
        return "attempts_unreadable"
    for attempts in jobs.values():
        counted = sorted((evidence.whole(one.get("n")) or 0, one.get("result_sha256") is not None) for one in attempts)
        last = len(counted)
        if counted != [(n, n == last) for n in range(1, last + 1)]:
            return "attempts_unreadable"
        if last > most:
            return "attempts_exceeded"
    return None


def _of_report(name: str, limit: str, reason: str | None, line: int) -> Decision:
    return _decision(f"report/{name}", "report", limit, reason, line, None)


def _decision(name: str, kind: Any, limit: str, reason: str | None, line: int, check: str | None) -> Decision:
    outcome: Any = "inconclusive" if reason else "pass"
    instance = Instance(outcome=outcome, reason=reason or "holds")
    return Decision(
        id=name,
        kind=kind,
        check=check,
        metric=None,
        level="gate",
        limit=limit,
        outcome=outcome,
        reason=instance.reason,
        selected=0,
        instances=(instance,),
        line=line,
    )
