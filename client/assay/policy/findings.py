"""Entries of `findings`: the worst severity that a check's findings may have.

A word that the check's catalogue entry does not list is inconclusive, a severity that is unknown reads as breach, and
an answer without any finding says nothing: silence is no clean bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.policy import evidence, fingerprint
from assay.policy.evidence import Evidence
from assay.policy.language import FindingRule
from assay.policy.verdict import Decision, Instance

SEVERITIES = ("note", "concern", "breach")
"""Mildest first (specification, section 5)."""


def judged(rule: FindingRule, report: Evidence) -> Decision:
    """Return an entry with every finding of its check judged; outcome and reason are still to be concluded."""
    seen: list[Instance] = []
    selected = 0
    if reason := evidence.miscounted(report, rule.check):
        seen.append(_doubt(reason))
    for answer in report.answers(rule.check):
        if reason := evidence.flaw(report, answer):
            seen.append(_doubt(reason))
            continue
        found = evidence.tables(answer.get("findings"))
        selected += len(found)
        entry = report.entry(answer)
        words = frozenset(entry.raw["words"]) if entry is not None else frozenset()
        seen += [_judge(rule, one, words) for one in found] or [_doubt("no_finding")]
    return Decision(
        id=rule.id,
        kind="finding",
        check=rule.check,
        metric=None,
        level=rule.level,
        limit=f"severity at most {rule.max_severity}",
        outcome="inconclusive",
        reason="no_finding",
        selected=selected,
        instances=tuple(seen),
        line=rule.line,
    )


def _doubt(reason: str) -> Instance:
    return Instance(outcome="inconclusive", reason=reason)


def _judge(rule: FindingRule, finding: Mapping[str, Any], words: frozenset[Any]) -> Instance:
    code, labels = evidence.name(finding.get("code")), evidence.labels(finding.get("labels"))
    readable = code is not None and labels is not None
    mark = (
        fingerprint.of_finding(rule.check, rule.id, code, labels) if code is not None and labels is not None else None
    )
    severity = finding.get("severity")
    told = severity if severity in SEVERITIES else "breach"
    detail = f"{told}: {code or '?'} {evidence.text(finding.get('word')) or '?'}"
    outcome, reason = "pass", "holds"
    if SEVERITIES.index(told) > SEVERITIES.index(rule.max_severity):
        outcome, reason = "fail", "finding_above_severity" if told == severity else "severity_unknown"
    elif not readable:
        outcome, reason = "inconclusive", "finding_unreadable"
    elif evidence.text(finding.get("word")) not in words:
        outcome, reason = "inconclusive", "word_unknown"
    return Instance(
        outcome=outcome,  # type: ignore[arg-type]
        reason=reason,
        detail=detail,
        labels=labels or (),
        fingerprint=mark,
    )
