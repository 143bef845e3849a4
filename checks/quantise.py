"""Numbers become decimal strings here, before any verdict is formed.

The rule is that of the report: step = 10^(floor(log10(half-width)) - 1), so a bound keeps two digits of its own
uncertainty and nothing that is noise (or could carry weights out) travels as digits. Low bounds round down, high
bounds up, values to the nearest, half to even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from math import floor, fsum, isfinite, log10, sqrt
from typing import Literal

from assay.result import P_LEAST, Interval, Metric, Multiplicity, NullDistribution, Tolerance, canonical_decimal

SIGNIFICANT = 6
"""Digits of a number that has no interval: the report's limit is |value| / step < 10^6."""

FINEST = -18
"""Exponent of the finest step: the decimal grammar has 18 digits after the point."""

LARGEST = 10**15
"""The decimal grammar has 15 digits before the point."""

NOISE = Decimal("1e-9")
"""A half-width below this share of the numbers is rounding noise of float64 sums and counts as zero."""

P_FLOOR = float(P_LEAST)
"""No p-value is reported below this; a Monte Carlo test's own floor is 1 / (draws + 1)."""

REPEATED = (1e-6, 1e-4)
"""Absolute and relative difference that a re-run on the same machine, with the same packages and seed, may show where
a check states no other: such runs are equal byte by byte (each family's `two_runs` test), so this is room for one
rounding of single-precision sums and nothing else."""

_EXACT = Context(prec=60)
"""15 digits before and 18 after the point are carried exactly."""


def quantise(value: float, low: float | None, high: float | None) -> tuple[str, str | None, str | None, str]:
    """Return value, low, high and step as canonical decimal strings.

    Args:
        value: the estimate; finite, below 10^15 in size.
        low: lower bound, or None where there is no interval.
        high: upper bound, or None.

    Raises:
        ValueError: a number is not finite or too large, only one bound is given, or low is above high.
    """
    if (low is None) != (high is None):
        raise ValueError("an interval has both bounds or none")
    with localcontext(_EXACT):
        centre = _finite(value)
        if low is None or high is None:
            step = _step(centre, centre, centre)
            return _round(centre, step, ROUND_HALF_EVEN), None, None, _text(step)
        bottom, top = _finite(low), _finite(high)
        if bottom > top:
            raise ValueError(f"interval low {low} is above high {high}")
        step = _step(centre, bottom, top)
        return (
            _round(centre, step, ROUND_HALF_EVEN),
            _round(bottom, step, ROUND_FLOOR),
            _round(top, step, ROUND_CEILING),
            _text(step),
        )


def decimal(x: float, digits: int = SIGNIFICANT) -> str:
    """Return a number as a canonical decimal string of so many significant digits, half to even.

    Raises:
        ValueError: the number is not finite or too large, or digits lie outside 1..15.
    """
    if not 1 <= digits <= 15:
        raise ValueError(f"{digits} significant digits are outside 1..15")
    with localcontext(_EXACT):
        number = _finite(x)
        return _round(number, _significant(number, digits), ROUND_HALF_EVEN)


def p_value(p: float, floor: float = P_FLOOR) -> str:
    """Return a p-value as a decimal string: never below its floor, never rounded down.

    Args:
        p: the p-value, 0..1.
        floor: smallest p that the test can show, 1 / (draws + 1) for a Monte Carlo test.

    Raises:
        ValueError: p or floor is not a probability.
    """
    for share in (p, floor):
        if not 0 <= share <= 1:
            raise ValueError(f"{share} is not a probability")
    with localcontext(_EXACT):
        number = _finite(max(p, floor, P_FLOOR))
        return _round(number, _significant(number, SIGNIFICANT), ROUND_CEILING)


def null_distribution(kind: str, draws: Sequence[float], p95: bool = True) -> NullDistribution:
    """Return the summary of a null's draws: mean, standard deviation, count, 95th percentile.

    Args:
        kind: what was drawn, in the name alphabet.
        draws: at least two numbers.
        p95: whether to tell the 95th percentile: the smallest draw that 95 % of the draws do not exceed.

    Raises:
        ValueError: fewer than two draws, or one that is not finite.
    """
    numbers = sorted(float(draw) for draw in draws)
    if len(numbers) < 2:
        raise ValueError(f"a null of {len(numbers)} draws has no spread")
    mean = fsum(numbers) / len(numbers)
    sd = sqrt(fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1))
    if sd:  # digits of the mean far below the spread are rounding dust
        places = SIGNIFICANT - 1 - floor(log10(sd))
        mean = round(mean, places)
    rank = -(-len(numbers) * 95 // 100)  # ceil(0.95 n) in integers
    return NullDistribution(
        kind=kind,
        mean=decimal(mean),
        sd=decimal(sd),
        n=len(numbers),
        p95=decimal(numbers[rank - 1]) if p95 else None,
    )


def metric(
    name: str,
    value: float,
    *,
    n: int,
    unit: str,
    determinism: Literal["exact", "tolerance", "statistical"],
    labels: Mapping[str, str] | None = None,
    interval: tuple[float, float] | None = None,
    level: str = "0.95",
    method: str = "unstated",
    null: NullDistribution | None = None,
    p: float | None = None,
    p_floor: float = P_FLOOR,
    multiplicity: Multiplicity | None = None,
    better: Literal["higher", "lower", "none"] = "none",
    tolerance: tuple[float, float] | None = None,
    margin: float | None = None,
) -> Metric:
    """Return a quantised metric.

    Args:
        name: as in the check's `metrics`.
        value: the estimate.
        n: independent items behind it.
        unit: "fraction", "nats", "bits", "count" or "1".
        determinism: how a re-run may differ.
        labels: which instance, e.g. {"layer": "5"}.
        interval: lower and upper bound, or None.
        level: coverage level of the interval, a decimal string.
        method: how the interval was made, e.g. "wilson"; must be stated where there is an interval.
        null: where the number lies when there is nothing to find.
        p: p-value, unrounded.
        p_floor: smallest p that the test can show.
        multiplicity: which tests were looked at together.
        better: which way is better.
        tolerance: absolute and relative difference that a re-run may show; `REPEATED` if not given, none if exact.
        margin: difference that matters.

    Raises:
        ValueError: a number cannot be told as a decimal, or an interval does not state its method.
    """
    if interval is not None and method == "unstated":
        raise ValueError(f"{name}: say how the interval was made")
    if tolerance is None and determinism != "exact":
        tolerance = REPEATED
    told, low, high, step = quantise(value, *(interval or (None, None)))
    return Metric(
        name=name,
        labels=dict(labels or {}),
        value=told,
        step=step,
        unit=unit,
        n=n,
        interval=None if low is None or high is None else Interval(low=low, high=high, level=level, method=method),
        null=null,
        p=None if p is None else p_value(p, p_floor),
        multiplicity=multiplicity,
        better=better,
        determinism=determinism,
        tolerance=None if tolerance is None else Tolerance(abs=decimal(tolerance[0]), rel=decimal(tolerance[1])),
        margin=None if margin is None else decimal(margin),
    )


def _finite(x: float) -> Decimal:
    number = float(x)
    if not isfinite(number):
        raise ValueError(f"{number} is not a finite number: name it in `skipped` instead")
    if abs(number) >= LARGEST:
        raise ValueError(f"{number} is too large for a decimal: the limit is 10^15")
    # The shortest text that reads back as this float; its binary expansion would add digits that mean nothing.
    return Decimal(repr(number))


def _step(value: Decimal, low: Decimal, high: Decimal) -> Decimal:
    half = (high - low) / 2
    largest = max(abs(value), abs(low), abs(high))
    if half <= largest * NOISE:
        return _significant(largest, SIGNIFICANT)
    return Decimal(1).scaleb(max(half.adjusted() - 1, FINEST))


def _significant(number: Decimal, digits: int) -> Decimal:
    """Return the step that leaves so many significant digits, also after rounding up to the next power of ten."""
    exponent = (number.adjusted() if number else 0) - digits + 1
    step = Decimal(1).scaleb(max(exponent, FINEST))
    if abs(number) / step > 10**digits - 1:  # 999999.7 rounds to 1000000, a seventh digit
        step = step * 10
    return step


def _round(number: Decimal, step: Decimal, rounding: str) -> str:
    rounded = (number / step).quantize(Decimal(1), rounding=rounding) * step
    if abs(rounded) >= LARGEST:
        raise ValueError(f"{number} is too large for a decimal: the limit is 10^15")
    return _text(rounded)


def _text(number: Decimal) -> str:
    return canonical_decimal(format(number, "f"))
