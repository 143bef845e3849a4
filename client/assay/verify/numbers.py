"""What must follow from a report's own numbers (`assay.result` holds the same rules for whoever writes them).

Each rule takes an object that already has its shape, and returns what is wrong with it, or None. Decimals are compared
as whole numbers of 10^-18, the finest that the grammar can say, so that nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.decimals import LEVEL_MIN, PLACES, units
from assay.errors import shown

ONE = 10**PLACES

LEVEL_LEAST = units(LEVEL_MIN)
"""Of an interval."""

P_LEAST = 10**6
"""`assay.result.P_LEAST`, 10^-12."""

STEPS_PER_INTERVAL_MAX = 101
STEPS_PER_VALUE_MAX = 10**6
"""As in `assay.result`."""

SERIES_MAX = 12
"""As `assay.result.Plot` has it."""


def interval(value: Mapping[str, Any]) -> str | None:
    """An interval covers most of what it is about."""
    return None if LEVEL_LEAST <= units(value["level"]) <= ONE else f"an interval of level {value['level']}"


def metric(value: Mapping[str, Any]) -> str | None:
    """Value and bounds are multiples of a step that is not too fine for them, and p lies above its floor."""
    number, step = units(value["value"]), units(value["step"])
    if step <= 0 or str(step).rstrip("0") != "1":
        return f"step {value['step']} is not a power of ten"
    if value.get("p") is not None and not P_LEAST <= units(value["p"]) <= ONE:
        return f"p is {value['p']}, not 0.000000000001 to 1"
    if number % step:
        return f"{value['value']} is not a multiple of step {value['step']}"
    around = value.get("interval")
    if around is None:
        too_fine = abs(number) >= STEPS_PER_VALUE_MAX * step
        return "more than six significant digits without an interval" if too_fine else None
    low, high = units(around["low"]), units(around["high"])
    if low % step or high % step:
        return f"a bound of {around['low']} to {around['high']} is not a multiple of step {value['step']}"
    if low > high:
        return f"interval low {around['low']} is above high {around['high']}"
    return "the step is too fine for the interval" if high - low > 2 * STEPS_PER_INTERVAL_MAX * step else None


def series(value: Mapping[str, Any]) -> str | None:
    """A line has as many points on each side."""
    parts = (value["x"], value["y"], value.get("low"), value.get("high"))
    return "x, y, low, high differ in length" if len({len(one) for one in parts if one is not None}) > 1 else None


def plot(value: Mapping[str, Any]) -> str | None:
    """A plot has no more lines than can be told apart."""
    many = value["kind"] != "heatmap" and len(value["series"]) > SERIES_MAX
    return f"a {value['kind']} plot of {len(value['series'])} series" if many else None


def control(value: Mapping[str, Any]) -> str | None:
    """`held` follows from value and band."""
    inside = units(value["band"]["low"]) <= units(value["value"]) <= units(value["band"]["high"])
    if inside == value["held"]:
        return None
    return f"control {shown(value['name'])}: held={value['held']} disagrees with value and band"


def power(value: Mapping[str, Any]) -> str | None:
    """Power is a share within its interval, and so is the rate of false positives."""
    low, middle, high, rate = (units(value[field]) for field in ("low", "value", "high", "fpr"))
    return None if 0 <= low <= middle <= high <= ONE and 0 <= rate <= ONE else "no share within its interval"


def answer(value: Mapping[str, Any]) -> str | None:
    """Outcome, numbers, reason and validity agree."""
    measured, name = value["outcome"] == "measured", shown(value["check"])
    if measured != (value.get("measured") is not None):
        return f"{name}: outcome {value['outcome']} and numbers disagree"
    if measured == (value.get("reason") is not None):
        return f"{name}: outcome {value['outcome']} and reason disagree"
    if value.get("valid") and not (measured and all(one["held"] for one in value.get("controls", ()))):
        return f"{name}: valid, but not measured or a control missed its band"
    return None
