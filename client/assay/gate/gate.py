"""The gate's own decision: what verification established, and what the policy says of it.

Wrong outranks everything, a validly signed failing measurement outranks whatever is missing, and only what is verified,
registered and passing is a yes. An outcome, step or status that is unknown here reads as "could not tell".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

from assay.catalogue import CheckEntry
from assay.policy.decide import decide as decide_policy
from assay.policy.decide import undecided
from assay.policy.evidence import Differences, Evidence, asked_counts
from assay.policy.fields import Labels
from assay.policy.language import Policy
from assay.policy.verdict import Decision, Instance, Verdict
from assay.policy.waivers import Waiver
from assay.verify.outcome import Verification

SCHEMA = "assay-gate/v1"

Outcome = Literal["pass", "fail", "inconclusive", "wrong"]

CODES: Mapping[str, int] = MappingProxyType({"pass": 0, "fail": 1, "wrong": 1, "inconclusive": 2})
"""Exit codes (specification, section 2): 1 is a no, 2 is "could not tell"."""

COULD_NOT_TELL = CODES["inconclusive"]

SIGNED = ("V01", "V02", "V03", "V04")
"""Steps after which the statement is what a trusted key signed: only then a failing measurement counts as one."""

LOGGED = "V05"
"""The step that finds the report in its log; a caller leaves it out by name (`--no-log`), and every output says so."""

NEEDED = (*SIGNED, LOGGED, "V06", "V07", "V08", "V10", "V11", "V12")
"""Steps that no caller can leave out of a pass. V09, V13, V14 and V15 may be unasked; then they are listed."""

PROFILES = ("production", "development")
"""Signer profiles that this client knows; another one proves nothing to it."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report as verification left it."""

    verification: Verification
    statement: Mapping[str, Any] | None
    """Parsed from the verified bytes; None unless their signature verified."""
    request: Mapping[str, Any] | None
    """The parsed `request.json`; None unless its digest is the registered one (V06)."""
    entries: Mapping[str, CheckEntry]
    """Catalogue entries by digest, as V10 found them."""
    unshipped: tuple[str, ...]
    """Checks whose catalogue entry only the report itself carries (V10)."""
    reported_at: datetime | None
    """`at` of the report leaf (V05); None where the report is in no log."""


@dataclass(frozen=True)
class Problem:
    """Why the report cannot pass, whatever its numbers say."""

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The older report that entries of `compare` are held against."""

    statement_sha256: str | None
    audit: str | None
    model_sha256: str | None
    problem: Problem | None = None
    """Why it could not be used; None where it could."""
    differences: Differences | None = None
    """Intervals of candidate minus baseline; None where nothing was compared."""
    only: frozenset[tuple[str, str, Labels]] = frozenset()
    """Instances that it has and the candidate has not."""
    notes: tuple[str, ...] = ()
    """What a reader of the comparison must know beside its numbers."""
    not_checked: tuple[str, ...] = ()
    """What its verification leaves open."""

    @property
    def named(self) -> dict[str, str | None]:
        """Return what names it."""
        return {"statement_sha256": self.statement_sha256, "audit": self.audit, "model_sha256": self.model_sha256}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.named, "notes": list(self.notes), "not_checked": list(self.not_checked)}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the caller asks of the report."""

    policy: Policy
    now: datetime
    """Aware of its time zone."""
    registered_policy_sha256: str | None
    """As the request says; None when it registered no policy."""
    policy_file: str = "policy.yaml"
    """Path for CI outputs, relative to the working directory."""
    unregistered_policy: bool = False
    """The caller accepts a policy that was not fixed before the run; every output says so."""
    unshipped_checks: bool = False
    """The caller believes the report's own catalogue entries of checks that are not shipped; every output says so."""
    waivers: tuple[Waiver, ...] = ()
    baseline: Baseline | None = None
    """None where none was given."""
    no_log: bool = False
    """The caller accepts a report that is not looked up in its log; every output says so."""
    key_source: str = ""
    """Where the trusted keys come from, printable; every output says so."""


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """What the gate says, once; every output is a rendering of it."""

    outcome: Outcome
    asked: Asked
    verification: Verification
    verdict: Verdict | None
    """None when nothing signed could be decided on."""
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    """What every output says beside the outcome."""

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail or wrong, 2 could not tell."""
        return CODES.get(self.outcome, COULD_NOT_TELL)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Every entry of the policy, in its order; where there is no verdict, as not decided."""
        if self.verdict is not None:
            return self.verdict.decisions
        return undecided(self.asked.policy, self.asked.now.astimezone(UTC).date())

    @property
    def waived(self) -> tuple[tuple[Decision, Instance], ...]:
        """Every instance that a waiver in force accepts."""
        return tuple((one, seen) for one in self.decisions for seen in one.instances if seen.outcome == "waived")

    def to_json(self) -> dict[str, Any]:
        """Return the plain JSON form, schema assay-gate/v1."""
        policy, verdict, baseline = self.asked.policy, self.verdict, self.asked.baseline
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "exit": self.exit_code,
            "policy": {
                "name": policy.name,
                "sha256": policy.sha256,
                "registered": policy.sha256 == self.asked.registered_policy_sha256,
                "unregistered_allowed": self.asked.unregistered_policy,
            },
            "key_source": self.asked.key_source,
            "baseline_sha256": baseline.statement_sha256 if baseline else None,
            "baseline": baseline.to_json() if baseline else None,
            "problems": [{"code": one.code, "detail": one.detail} for one in self.problems],
            "warnings": list(self.warnings),
            "counts": verdict.counts if verdict else None,
            "assertions": [one.to_json() for one in self.decisions],
            "waivers": [one.to_json() for one in verdict.waivers] if verdict else [],
            "verify": self.verification.to_json(),
        }


def decide(report: Report, asked: Asked) -> GateResult:
    """Return the gate's decision on a report."""
    problems = tuple(_problems(report, asked))
    codes = {problem.code for problem in problems}
    verdict = _verdict(report, asked)
    outcome: Outcome = "inconclusive"
    if report.verification.outcome == "wrong" or "step_wrong" in codes:
        outcome = "wrong"
    elif verdict is None or "policy_not_registered" in codes:
        outcome = "inconclusive"
    elif verdict.outcome == "fail":
        outcome = "fail"
    elif verdict.outcome == "pass" and not problems:
        outcome = "pass"
    return GateResult(
        outcome=outcome,
        asked=asked,
        verification=report.verification,
        verdict=verdict,
        problems=problems,
        warnings=tuple(_warnings(report, asked, verdict)),
    )


def _problems(report: Report, asked: Asked) -> list[Problem]:
    seen = report.verification
    found: list[Problem] = []
    needed = [name for name in NEEDED if name != LOGGED or not asked.no_log]
    for step in seen.steps:
        if step.status == "wrong":
            found.append(Problem("step_wrong", f"{step.id}: {step.detail}"))
        elif step.status not in ("ok", "not_asked") or (step.status == "not_asked" and step.id in needed):
            more = "; --no-log accepts that" if (step.id, step.status) == (LOGGED, "not_asked") else ""
            found.append(Problem("step_unknown", f"{step.id}: {step.detail}{more}"))
    present = {step.id for step in seen.steps}
    found += [Problem("step_unknown", f"{name}: not run") for name in needed if name not in present]
    if seen.outcome != "verified" and not found:
        found.append(Problem("step_unknown", "verification did not end in verified"))
    if seen.profile not in PROFILES:
        found.append(Problem("profile_unknown", "the signer's profile is none that this client knows"))
    if report.statement is None:
        found.append(Problem("statement_absent", "there is no statement that a trusted key signed"))
    if report.request is None:
        found.append(Problem("request_absent", "there is no registered request, so nobody knows what is owed"))
    if report.unshipped and not asked.unshipped_checks:
        named = ", ".join(report.unshipped)
        said = f"{named}: only the report says what was promised; give --catalogue FILE, or --unshipped-checks"
        found.append(Problem("check_not_shipped", said))
    if asked.baseline is not None and asked.baseline.problem is not None:
        found.append(asked.baseline.problem)
    if asked.policy.sha256 != asked.registered_policy_sha256 and not asked.unregistered_policy:
        registered = asked.registered_policy_sha256 or "none"
        said = f"the policy is {asked.policy.sha256}, registered before the run was {registered}"
        found.append(Problem("policy_not_registered", said))
    return found


def _verdict(report: Report, asked: Asked) -> Verdict | None:
    status = {step.id: step.status for step in report.verification.steps}
    if report.statement is None or any(status.get(name) != "ok" for name in SIGNED):
        return None
    predicate = report.statement.get("predicate")
    now = asked.now.astimezone(UTC)
    age = None if report.reported_at is None else int((now - report.reported_at).total_seconds())
    evidence = Evidence(
        predicate=predicate if isinstance(predicate, Mapping) else {},
        asked=asked_counts(report.request or {}),
        entries=report.entries,
        age_s=age,
        today=now.date(),
        waivers=asked.waivers,
        differences=asked.baseline.differences if asked.baseline else None,
        baseline_only=asked.baseline.only if asked.baseline else frozenset(),
    )
    return decide_policy(asked.policy, evidence)


def _warnings(report: Report, asked: Asked, verdict: Verdict | None) -> list[str]:
    said = []
    if asked.policy.sha256 != asked.registered_policy_sha256 and asked.unregistered_policy:
        said.append("the policy was not registered before the run (--unregistered-policy)")
    if report.unshipped and asked.unshipped_checks:
        named = ", ".join(report.unshipped)
        said.append(f"the report's own word was taken for what {named} promises (--unshipped-checks)")
    if asked.no_log and not any((one.id, one.status) == (LOGGED, "ok") for one in report.verification.steps):
        said.append("the report was not looked up in its log (--no-log)")
    if report.verification.profile == "development":
        said.append("signed under a development key: good for trying things out, no evidence for anyone else")
    said += _fixed_seed(report)
    said += [f"not checked: {item}" for item in report.verification.not_checked]
    for use in verdict.waivers if verdict else ():
        if use.state != "used":
            when = f" on {use.waiver.expires.isoformat()}" if use.state == "expired" else ""
            said.append(f"waiver {use.waiver.fingerprint} for {use.waiver.outcome}: {use.state}{when}")
    if asked.baseline is not None:
        said += [f"baseline: {note}" for note in asked.baseline.notes]
        said += [f"baseline: not checked: {item}" for item in asked.baseline.not_checked]
        said += _unpaired(verdict)
    if any(one.estimate_only for one in (verdict.decisions if verdict else ())):
        said.append("some assertions look at the estimate only, not at its interval")
    return said


def _unpaired(verdict: Verdict | None) -> Iterator[str]:
    for one in verdict.decisions if verdict else ():
        why = sorted({seen.unpaired_because for seen in one.instances if seen.low is not None} - {None}, key=str)
        if why:
            yield f"{one.id}: unpaired ({', '.join(map(str, why))}): judged by the intervals of both reports alone"


def _fixed_seed(report: Report) -> list[str]:
    """Return that whoever asked chose the seed: then nothing shows that it was not the nicest of many."""
    predicate = (report.statement or {}).get("predicate")
    registered = predicate.get("registration") if isinstance(predicate, Mapping) else None
    if report.statement is None or (isinstance(registered, Mapping) and registered.get("seed_mode") == "derived"):
        return []
    return [
        "the seed was FIXED by the auditor, as a replication's is: `report: {seed: derived}` in a policy refuses it"
    ]
