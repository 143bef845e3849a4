"""The decision: a policy, held against a report. The same engine serves signer, verification and gate.

Source: section 11 of the report's specification. Pure; independent of the order of answers, metrics and entries.
Monotone: with the quantifier `every`, deleting any one part of a well-formed report, or adding an answer or instance to
a complete one, never turns fail or inconclusive into pass. These deletions cannot be seen here, since nothing says how
many are owed; the signature guards them:

- one finding among several of an answer;
- one power row among several of a metric: a catalogue entry does not name the effects that were planted;
- one sandbox cell among several of an attempt, all cells of one that left no result or whose own stand in `sandbox`,
  the last shard of more than two, and what a cell states to be weaker than it should be;
- from `coverage`, a value whose instance is skipped under that value alone ("h.0.mlp", not "matrix:h.0.mlp");
- a number that no entry names: differences to a baseline share one level, which widens with each that is compared.

Nor can two parts that go together: an instance, and its place on the list of what is owed. The files beside a report
are not signed one by one; `assay.gate.established` sees to it that none of them can be taken away for a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from assay.policy import bounds, conditions, evidence, findings, fingerprint, instances
from assay.policy.evidence import Compared, Evidence
from assay.policy.fields import Labels
from assay.policy.language import Assertion, Policy
from assay.policy.verdict import WAIVABLE, WORST_FIRST, Decision, Instance, Outcome, Verdict, WaiverUse
from assay.policy.waivers import Waiver


def decide(policy: Policy, report: Evidence) -> Verdict:
    """Return what a policy says of a report.

    Args:
        policy: as `language.parse` returned it.
        report: the predicate, and what verification established about it.
    """
    decisions = [_conclude(_assertion(entry, report), entry.on_inconclusive) for entry in policy.assertions]
    for rule in policy.findings:
        found = findings.judged(rule, report)
        decisions.append(_conclude(_every(_waived(found, report)), rule.on_inconclusive))
    decisions += [_conclude(_assertion(entry, report), entry.on_inconclusive) for entry in policy.compare]
    decided = len(decisions)
    decisions += [*conditions.requirements(policy, report), *conditions.of_report(policy, report)]
    asked = any(one.level != "advisory" for one in decisions[:decided])
    outcome = worst(one.outcome for one in decisions if one.level != "advisory")
    accepted = asked and outcome in ("pass", "waived")
    return Verdict(
        outcome="fail" if outcome == "fail" else "pass" if accepted else "inconclusive",
        decisions=tuple(decisions),
        waivers=_uses(decisions, report),
    )


def undecided(policy: Policy, today: date) -> tuple[Decision, ...]:
    """Return every entry of a policy as not decided: there is nothing signed to decide on.

    Args:
        policy: as `language.parse` returned it.
        today: any day (UTC); no waiver acts.
    """
    nothing = Evidence(predicate={}, asked={}, entries={}, age_s=None, today=today)
    said = Instance(
        outcome="inconclusive", reason="not_decided", detail="not decided: no trusted key signed what could be read"
    )
    change: dict[str, Any] = {"outcome": said.outcome, "reason": said.reason, "selected": 0, "instances": (said,)}
    return tuple(replace(one, **change) for one in decide(policy, nothing).decisions)


def worst(outcomes: Iterable[str]) -> Outcome:
    """Return the worst outcome; one that is unknown counts as inconclusive, and none at all too."""
    found = {one if one in WORST_FIRST else "inconclusive" for one in outcomes} or {"inconclusive"}
    return next(one for one in WORST_FIRST if one in found)


def _assertion(entry: Assertion, report: Evidence) -> Decision:
    seen, selected = _instances(entry, report)
    decision = Decision(
        id=entry.id,
        kind="compare" if entry.compared else "assertion",
        check=entry.check,
        metric=entry.metric,
        level=entry.level,
        limit=bounds.limit_text(entry.op, entry.value),
        estimate_only=entry.bound == "estimate",
        outcome="inconclusive",
        reason="too_few_instances",
        selected=selected,
        instances=tuple(seen),
        line=entry.line,
    )
    decision = _waived(decision, report)
    return _some(decision) if entry.quantifier == "some" else _every(decision)


def _instances(entry: Assertion, report: Evidence) -> tuple[list[Instance], int]:
    """Return the instances of an entry in all answers of its check, and how many of them were measured."""
    seen: list[Instance] = []
    selected, bare = 0, 0
    if reason := evidence.miscounted(report, entry.check):
        seen.append(_doubt(reason, f"asked {report.asked.get(entry.check, 0)} times"))
    for answer in report.answers(entry.check):
        if reason := evidence.flaw(report, answer):
            mark = fingerprint.of_answer(entry.check, entry.id, entry.metric)
            seen.append(_doubt(reason, evidence.text(answer.get("reason")) or "", mark))
            continue
        found = instances.select(entry, answer)
        selected += len(found.present)
        bare += not found.present and instances.owes(entry, answer)
        seen += [_doubt(reason, detail) for reason, detail in found.flaws]
        seen += [_doubt("instance_skipped", "", _print(entry, labels), labels) for labels in found.skipped]
        seen += [_doubt("instance_missing", "", None, labels) for labels in found.missing]
        seen += [_measured(entry, report, answer, labels, metric) for labels, metric in found.present]
    if selected and bare:  # alone it has too few; beside another answer's instances it would go unseen
        seen.append(_doubt("instance_missing", f"{bare} answers of the check have none"))
    seen += _only_in_baseline(entry, report, seen)
    # An answer that was honestly refused or failed says so by itself, and a person may accept that.
    silent = bool(seen) and all(one.reason in ("answer_refused", "answer_failed") for one in seen)
    if selected < entry.min_instances and not silent:
        seen.append(_doubt("too_few_instances", f"{selected} of at least {entry.min_instances}"))
    return seen, selected


def _only_in_baseline(entry: Assertion, report: Evidence, seen: Sequence[Instance]) -> Iterator[Instance]:
    """Yield what an entry of `compare` selects in the baseline alone; what is told already is not told twice."""
    if not entry.compared:
        return
    told = {one.labels for one in seen if one.reason in ("instance_missing", "instance_skipped")}
    for check, metric, labels in sorted(report.baseline_only):
        if (check, metric) == (entry.check, entry.metric) and set(entry.where) <= set(labels) and labels not in told:
            yield _doubt("instance_missing", "only the baseline has it", None, labels)


def _doubt(reason: str, detail: str, mark: str | None = None, labels: Labels = ()) -> Instance:
    return Instance(outcome="inconclusive", reason=reason, detail=detail, labels=labels, fingerprint=mark)


def _print(entry: Assertion, labels: Labels) -> str:
    return fingerprint.of_metric(entry.check, entry.id, entry.metric, labels)


def _measured(
    entry: Assertion, report: Evidence, answer: Mapping[str, Any], labels: Labels, metric: Mapping[str, Any]
) -> Instance:
    """Decide one measured instance."""
    told = _difference(entry, report, labels) if entry.compared else Compared(value=evidence.text(metric.get("value")))
    seen = bounds.of_difference(told) if entry.compared else bounds.of_metric(metric, entry.bound)
    mark = _print(entry, labels)
    if isinstance(seen, str):
        doubt = _doubt(seen, told.detail, mark, labels)
        return replace(doubt, method=told.method or None, unpaired_because=told.unpaired_because)
    outcome, reason = bounds.compare(seen, entry.op, entry.value)
    power = _power(answer, entry.metric)
    instance = Instance(
        outcome=outcome,
        reason=reason,
        labels=labels,
        value=told.value,
        low=format(seen.low, "f") if seen.is_interval else None,
        high=format(seen.high, "f") if seen.is_interval else None,
        n=evidence.whole(metric.get("n")),
        power=None if power is None else format(power, "f"),
        method=told.method or None,
        unpaired_because=told.unpaired_because,
        fingerprint=mark,
    )
    unmet = _unmet(entry, instance, power, metric) if outcome == "pass" else None
    return replace(instance, outcome="inconclusive", reason=unmet) if unmet else instance


def _difference(entry: Assertion, report: Evidence, labels: Labels) -> Compared:
    if report.differences is None:
        return Compared(reason="baseline_missing")
    return report.differences.get((entry.check, entry.metric, labels), Compared())


def _power(answer: Mapping[str, Any], metric: str) -> Any:
    """Return the lower bound of the weakest power told for a metric; None when one is absent or unreadable.

    A row that names no metric may be of this one, and nobody knows its number to be.
    """
    rows = [(one.get("metric"), evidence.number(one.get("low"))) for one in evidence.tables(answer.get("power"))]
    lows = [low if named == metric else None for named, low in rows if named in (metric, None)]
    known = [low for low in lows if low is not None]
    return min(known) if known and len(known) == len(lows) else None


def _unmet(entry: Assertion, instance: Instance, power: Any, metric: Mapping[str, Any]) -> str | None:
    """Return why a would-be pass is none."""
    if entry.min_n is not None and (instance.n is None or instance.n < entry.min_n):
        return "too_few_items"
    if entry.min_power is not None and (power is None or power < entry.min_power):
        return "power_missing" if power is None else "power_too_low"
    corrected = evidence.table(metric.get("multiplicity")).get("corrected")
    if entry.quantifier == "some" and corrected not in ("bonferroni", "holm", "bh"):
        return "multiplicity_uncorrected"
    return None


def _waived(decision: Decision, report: Evidence) -> Decision:
    """Let every waiver act on the instances that it names."""
    by_name = {(one.fingerprint, one.outcome): one for one in report.waivers}
    acted = [_act(one, by_name, report) for one in decision.instances]
    return replace(decision, instances=tuple(sorted(acted, key=lambda one: one.rank)))


def _act(instance: Instance, by_name: Mapping[tuple[str, Any], Waiver], report: Evidence) -> Instance:
    waiver = by_name.get((instance.fingerprint or "", instance.outcome))
    if waiver is None or instance.reason not in WAIVABLE or waiver.model not in (None, report.model):
        return instance
    told = f"{instance.reason}; {instance.detail}" if instance.detail else instance.reason
    if waiver.holds(report.today):
        until = f"waived until {waiver.expires.isoformat()}: {told}"
        return replace(instance, outcome="waived", reason="waived", detail=until, waiver=waiver)
    if report.today < waiver.created:
        return instance
    expired = f"waiver expired on {waiver.expires.isoformat()}: {told}"
    return replace(instance, reason="waiver_expired", detail=expired, waiver=waiver)


def _every(decision: Decision) -> Decision:
    """Any fail is fail, else any inconclusive, else waived or pass."""
    outcome = worst(one.outcome for one in decision.instances)
    first = decision.instances[0] if decision.instances else None
    reason = decision.reason if first is None else first.reason
    return replace(decision, outcome=outcome, reason=reason)


def _some(decision: Decision) -> Decision:
    """Any pass is pass, else any inconclusive, else fail; too few instances to choose from are inconclusive."""
    few = [one for one in decision.instances if one.reason in ("too_few_instances", "labels_differ")]
    held = [one for one in decision.instances if one.outcome == "pass"]
    if held and not few:
        return replace(decision, outcome="pass", reason=held[0].reason)
    order: Sequence[Outcome] = ("inconclusive", "fail", "waived")
    for outcome in order:
        found = next((one for one in decision.instances if one.outcome == outcome), None)
        if found is not None:
            return replace(decision, outcome=outcome, reason=(few or [found])[0].reason)
    return decision


def _conclude(decision: Decision, on_inconclusive: str) -> Decision:
    if decision.outcome == "inconclusive" and on_inconclusive == "fail":
        return replace(decision, outcome="fail")
    return decision


def _uses(decisions: Sequence[Decision], report: Evidence) -> tuple[WaiverUse, ...]:
    def told() -> Iterator[WaiverUse]:
        seen = [one for decision in decisions for one in decision.instances]
        for waiver in report.waivers:
            yield _use(waiver, seen, report)

    return tuple(sorted(told(), key=lambda one: (one.waiver.fingerprint, one.waiver.outcome)))


def _use(waiver: Waiver, seen: Sequence[Instance], report: Evidence) -> WaiverUse:
    used = sum(one.waiver == waiver and one.outcome == "waived" for one in seen)
    named = [one for one in seen if one.fingerprint == waiver.fingerprint and one.outcome == waiver.outcome]
    if used:
        return WaiverUse(waiver, "used", used)
    if not named:
        return WaiverUse(waiver, "unused", 0)
    if waiver.model not in (None, report.model):
        return WaiverUse(waiver, "other_model", 0)
    if report.today < waiver.created:
        return WaiverUse(waiver, "not_yet", 0)
    return WaiverUse(waiver, "expired" if report.today > waiver.expires else "not_waivable", 0)
