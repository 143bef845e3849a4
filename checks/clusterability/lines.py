"""One line of a plot from numbers: quantised to what an eye can read, never a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from assay.result import Series

from checks.ask import as_name
from checks.quantise import decimal

LINES_MAX = 12
"""Lines of one plot: the limit of the result document."""

DIGITS = 3
"""Significant digits of a point: what an eye can read."""

TEXT_MAX = 512
"""Characters of a title or an axis label: the limit of the result document."""


def line(
    name: str,
    x: Iterable[float],
    y: Iterable[float],
    bounds: tuple[Iterable[float], Iterable[float]] | None = None,
    *,
    digits: int = DIGITS,
) -> Series:
    """Return a series of the points that are finite; the others are left out, with their bounds.

    Args:
        name: of the line; characters outside the name alphabet become `_`.
        x: places.
        y: values, one a place.
        bounds: lower and upper bounds, one a place.
        digits: significant digits of values and bounds; places keep `DIGITS`.

    Raises:
        ValueError: the parts differ in length.
    """
    parts = [[float(value) for value in part] for part in (x, y, *(bounds or ()))]
    held = [point for point in zip(*parts, strict=True) if all(isfinite(value) for value in point)]
    columns = [tuple(decimal(point[part], digits if part else DIGITS) for point in held) for part in range(len(parts))]
    low, high = columns[2:] if bounds else (None, None)
    return Series(name=as_name(name), x=columns[0], y=columns[1], low=low, high=high)


def in_order(said: str, names: Sequence[str]) -> str:
    """Return "said: 0 first, 1 second, …" in at most `TEXT_MAX` characters; names are cut evenly where they must be."""
    kept = [as_name(name) for name in names]
    for length in (128, 64, 32, 16, 8, 4):
        text = f"{said}: " + ", ".join(f"{number} {name[:length]}" for number, name in enumerate(kept))
        if len(text) <= TEXT_MAX:
            return text
    return f"{said}, from 0, in the order of the report's metrics"[:TEXT_MAX]
