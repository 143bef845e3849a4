"""A plot as numbers, read from a report: decimals within the grammar, rectangular, finite, within the caps.

What does not fit is no plot: the page says so in its place, and goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from assay.render.seek import rows, table

Kind = Literal["line", "bar", "scatter", "heatmap", "histogram"]
Numbers = tuple[float, ...]

KINDS = ("line", "bar", "scatter", "heatmap", "histogram")

POINTS_MAX = 2000
"""Points of one series (specification, section 13)."""

SERIES_MAX = 12
"""Series that can be told apart (section 13)."""

ROWS_MAX = 64
"""Rows of a heatmap: `assay.result.Plot` allows no more."""

_DECIMAL = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,18})?"
_DECIMALS = re.compile(rf"(?:{_DECIMAL}(?:,{_DECIMAL})*+)?", re.ASCII)


class NotDrawn(ValueError):
    """What was read is no plot that can be drawn."""


@dataclass(frozen=True)
class Line:
    """One series: points, and the interval at each where it has one. `told` keeps the report's own digits of y."""

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None
    high: Numbers | None
    told: tuple[str, ...]
    at: tuple[str, ...]

    @property
    def is_null(self) -> bool:
        """Whether it shows where the metric lies when there is nothing to find; drawn as a grey band."""
        return self.name == "null" or self.name.startswith(("null-", "null.", "null:"))


@dataclass(frozen=True)
class Mark:
    """A dashed line across the plot."""

    axis: Literal["x", "y"]
    at: float
    label: str


@dataclass(frozen=True)
class Drawing:
    """A plot, read and checked."""

    title: str
    kind: Kind
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]

    @property
    def points(self) -> int:
        """Points of all series."""
        return sum(len(line.x) for line in self.lines)


def read(value: Mapping[str, Any]) -> Drawing:
    """Read a plot.

    Raises:
        NotDrawn: it is of no known kind, over a cap, not rectangular, or holds what is no decimal.
    """
    kind = value.get("kind")
    if kind not in KINDS:
        raise NotDrawn("its kind is none that this client draws")
    lines = tuple(_line(one) for one in rows(value.get("series")))
    if len(lines) > (ROWS_MAX if kind == "heatmap" else SERIES_MAX):
        raise NotDrawn(f"it has {len(lines)} series")
    if not any(line.x for line in lines):
        raise NotDrawn("it has no points")
    return Drawing(
        title=str(value.get("title") or "untitled"),
        kind=cast("Kind", kind),
        x_label=_axis(value.get("x")),
        y_label=_axis(value.get("y")),
        lines=lines,
        marks=tuple(_mark(one) for one in rows(value.get("marks"))),
    )


def _line(value: Mapping[str, Any]) -> Line:
    x, y = _numbers(value.get("x")), _numbers(value.get("y"))
    low = None if value.get("low") is None else _numbers(value.get("low"))
    high = None if value.get("high") is None else _numbers(value.get("high"))
    if len({len(part) for part in (x, y, low, high) if part is not None}) > 1 or (low is None) != (high is None):
        raise NotDrawn("its columns differ in length")
    told, at = tuple(map(str, value["y"])), tuple(map(str, value["x"]))
    return Line(name=str(value.get("name")), x=x, y=y, low=low, high=high, told=told, at=at)


def _numbers(value: object) -> Numbers:
    if not isinstance(value, list | tuple) or len(value) > POINTS_MAX:
        raise NotDrawn("a column is no list of at most 2000 decimals")
    try:
        column = ",".join(value)
    except TypeError:
        raise NotDrawn("a number is no text") from None
    # One look at the whole column; a text with a comma in it, or an empty one, does not make the count.
    if column.count(",") != max(len(value) - 1, 0) or not _DECIMALS.fullmatch(column) or (value and not column):
        raise NotDrawn("a number is no decimal")
    return tuple(map(float, value))


def _number(value: object) -> float:
    return _numbers([value])[0]


def _axis(value: object) -> str:
    held = table(value)
    unit = held.get("unit")
    return str(held.get("label") or "") + (f" ({unit})" if unit not in (None, "1", "count") else "")


def _mark(value: Mapping[str, Any]) -> Mark:
    if value.get("axis") not in ("x", "y"):
        raise NotDrawn("a mark lies on no axis")
    return Mark(
        axis=cast("Literal['x', 'y']", value["axis"]), at=_number(value.get("at")), label=str(value.get("label"))
    )
