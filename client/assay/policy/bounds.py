"""Bounds: whether an interval holds a limit, violates it, or straddles it. Exact decimal comparison.

Source: section 11 of the report's specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from assay import decimals
from assay.policy import evidence
from assay.policy.evidence import Compared, Number
from assay.policy.language import Operator, decimal_text
from assay.policy.verdict import Outcome

LEVEL_MIN = Decimal(decimals.LEVEL_MIN)
"""An interval that covers less is narrow because it claims little; it decides nothing."""


@dataclass(frozen=True)
class Range:
    """What is compared: an interval, or one value twice."""

    low: Decimal
    high: Decimal
    is_interval: bool


def of_metric(metric: Mapping[str, Any], bound: str) -> Range | str:
    """Return what a metric offers under `bound`, or the reason why it offers nothing.

    A missing interval counts as none only where the report says so (null) and the number is exact: deleting the field
    must not make an uncertain number certain.
    """
    value = evidence.number(metric.get("value"))
    if value is None:
        return "metric_unreadable"
    if bound == "estimate":
        return Range(value, value, False)
    told = metric.get("interval", "absent")
    if told is None:
        return Range(value, value, False) if metric.get("determinism") == "exact" else "interval_missing"
    interval = evidence.table(told)
    low, high = evidence.number(interval.get("low")), evidence.number(interval.get("high"))
    level = evidence.number(interval.get("level"))
    if low is None or high is None or bound != "worst" or not low <= value <= high:
        return "metric_unreadable"
    if level is None or not LEVEL_MIN <= level <= 1:
        return "metric_unreadable"
    return Range(low, high, True)


def of_difference(told: Compared) -> Range | str:
    """Return the interval of a difference, or the reason why it is none."""
    if told.low is None or told.high is None:
        return told.reason
    low, high = _exact(told.low), _exact(told.high)
    if low is None or high is None or low > high:
        return "difference_unreadable"
    return Range(low, high, True)


def _exact(value: Number) -> Decimal | None:
    if isinstance(value, str):
        return evidence.number(value)
    return Decimal(value) if not isinstance(value, bool) and isfinite(value) else None


def compare(seen: Range, op: Operator, value: tuple[Decimal, ...]) -> tuple[Outcome, str]:
    """Return outcome and reason of a range against a limit; an unknown operator is inconclusive."""
    subject = "interval" if seen.is_interval else "value"
    low, high = seen.low, seen.high
    if op == "within" and len(value) == 2:
        holds, violated, side = value[0] <= low and high <= value[1], high < value[0] or low > value[1], "outside_range"
    elif op in ("<=", "<") and len(value) == 1:
        limit = value[0]
        holds, violated = (high <= limit, low > limit) if op == "<=" else (high < limit, low >= limit)
        side = "above_limit"
    elif op in (">=", ">") and len(value) == 1:
        limit = value[0]
        holds, violated = (low >= limit, high < limit) if op == ">=" else (low > limit, high <= limit)
        side = "below_limit"
    else:
        return "inconclusive", "operator_unknown"
    if violated:
        return "fail", f"{subject}_{side}"
    return ("pass", "holds") if holds else ("inconclusive", "interval_straddles_limit")


def limit_text(op: Operator, value: tuple[Decimal, ...]) -> str:
    """Return a limit for people, e.g. "<= 0.6"."""
    numbers = [decimal_text(one) for one in value]
    return f"{op} [{', '.join(numbers)}]" if op == "within" else f"{op} {numbers[0]}"
