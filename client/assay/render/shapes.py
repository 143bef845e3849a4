"""Series as paths: each has its own marker and its own dashes, so that colour tells nothing alone.

All markers of a series are one path, all whiskers another: a page of 64 plots stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

from assay.render.markup import Html, element, join
from assay.render.plots import Line
from assay.render.scale import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, place

INK = ("#1b4f8f", "#a33b12", "#1f6b3a", "#6b2d84", "#6e5100", "#0f6470")
"""Six dark colours, each at 5.9:1 or more on white (WCAG 2.2 asks 3:1 of graphics)."""

GREY = "#6a6a6a"
"""Of null distributions: 5.4:1 on white."""

DASHES = (None, "7 3", "2 3", "9 3 2 3")
"""With six markers, twelve series pair differently: the least common multiple of 4 and 6."""

MARKERS = (
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "m-3 -3h6v6h-6z",
    "m0 -4l4 7h-8z",
    "m0 -4.5l4 4.5l-4 4.5l-4 -4.5z",
)
"""Circle, square, triangle, rhombus, drawn from their middle; below come two more, of strokes."""

STROKED = ("m-3.5 -3.5l7 7m0 -7l-7 7", "m-4 0h8m-4 -4v8")
"""Cross and plus."""

MARKED_MAX = 40
"""Points of a line of which every one gets its marker; a longer line gets one at about every fortieth of it."""

THIN_FROM = 600
"""Points above which only the lowest and highest of each column are drawn (specification, section 13)."""


def ink(index: int) -> str:
    """Return the colour of a series by its place."""
    return INK[index % len(INK)]


def kept(x: Sequence[float], y: Sequence[float], scale: Scale, columns: int, *, ordered: bool) -> list[int]:
    """Return which points of a series are drawn: all, or of each column of the paper the lowest and the highest.

    Args:
        x: places along the axis.
        y: values.
        scale: the horizontal scale.
        columns: most columns; one pixel each where the page has room.
        ordered: whether the points are joined in the order they came in.
    """
    count = len(x)
    if count <= min(THIN_FROM, 2 * columns):
        return list(range(count))
    order = list(range(count)) if ordered else sorted(range(count), key=lambda at: (x[at], at))
    rising = all(x[a] <= x[b] for a, b in pairwise(order))
    width = (scale.end - scale.begin) / columns
    groups: dict[int, list[int]] = {}
    for rank, at in enumerate(order):
        # A line that turns back has no columns; equal stretches of it take their place.
        column = int((scale(x[at]) - scale.begin) / width) if rising else rank * columns // count
        groups.setdefault(column, []).append(at)
    found: list[int] = []
    for held in groups.values():
        ends = {min(held, key=lambda at: (y[at], at)), max(held, key=lambda at: (y[at], at))}
        found += [at for at in held if at in ends]
    return found


def joined(points: Sequence[tuple[float, float]]) -> Html:
    """Return a path through points on the paper."""
    return Html("M" + _each("L%.2f %.2f", points)[1:])


def _each(form: str, points: Sequence[tuple[float, float]]) -> str:
    """Return a form filled in with each point: one format of all numbers takes half the time of one for each point."""
    filled = form * len(points)
    return filled % tuple(chain.from_iterable(points))


def band(line: Line, at: Sequence[int], x: Scale, y: Scale, index: int) -> Html:
    """Return the interval of a joined series as a band; grey where it is a null distribution."""
    if line.low is None or line.high is None:
        return Html()
    across = x.places(line.x, at)
    upper = list(zip(across, y.places(line.high, at), strict=True))
    lower = list(zip(reversed(across), reversed(y.places(line.low, at)), strict=True))
    if len(at) == 1:
        # One point has no width; its band is given some.
        upper = [(upper[0][0] - 6, upper[0][1]), (upper[0][0] + 6, upper[0][1])]
        lower = [(lower[0][0] + 6, lower[0][1]), (lower[0][0] - 6, lower[0][1])]
    colour, opacity = (GREY, "0.28") if line.is_null else (ink(index), "0.13")
    return element("path", d=Html(joined([*upper, *lower]) + "z"), fill=colour, fill_opacity=opacity)


def whiskers(line: Line, at: Sequence[int], places: Sequence[float], y: Scale, index: int) -> Html:
    """Return the interval of separate points as whiskers with caps."""
    if line.low is None or line.high is None:
        return Html()
    path = "".join(
        f"M{place(middle - 4)} {place(y(line.low[one]))}h8M{place(middle - 4)} {place(y(line.high[one]))}h8"
        f"M{place(middle)} {place(y(line.low[one]))}V{place(y(line.high[one]))}"
        for one, middle in zip(at, places, strict=True)
    )
    return element("path", d=path, fill="none", stroke=GREY if line.is_null else ink(index), stroke_width="1.2")


def stroke(points: Sequence[tuple[float, float]], index: int, *, null: bool = False) -> Html:
    """Return a joined series."""
    dashes = DASHES[index % len(DASHES)]
    colour = GREY if null else ink(index)
    return element("path", d=joined(points), fill="none", stroke=colour, stroke_width="1.6", stroke_dasharray=dashes)


def markers(points: Sequence[tuple[float, float]], index: int, *, null: bool = False) -> Html:
    """Return the markers of a series; series from the seventh on have hollow ones."""
    shapes = MARKERS + STROKED
    shape = shapes[index % len(shapes)]
    path = Html(_each("M%.2f %.2f" + shape, points))
    colour = GREY if null else ink(index)
    hollow = shape in STROKED or index >= len(shapes)
    return element("path", d=path, fill="none" if hollow else colour, stroke=colour, stroke_width="1.3")


def sparse(count: int) -> range:
    """Return at which of the drawn points of a line markers stand."""
    return range(0, count, 1 if count <= MARKED_MAX else -(-count // MARKED_MAX))


def bars(line: Line, at: Sequence[int], width: float, shift: float, x: Scale, y: Scale, index: int) -> Html:
    """Return a series as bars from zero, each with the series' dashes around it."""
    foot = min(max(y(0.0), y.end), y.begin)
    path = "".join(
        f"M{place(x(line.x[one]) + shift - width / 2)} {place(foot)}V{place(y(line.y[one]))}"
        f"h{place(width)}V{place(foot)}"
        for one in at
    )
    colour = GREY if line.is_null else ink(index)
    opacity = ("0.35", "0.12", "0.5", "0.22")[index % 4]
    dashes = DASHES[index % len(DASHES)]
    return element(
        "path", d=path, fill=colour, fill_opacity=opacity, stroke=colour, stroke_width="1", stroke_dasharray=dashes
    )


def sample(line: Line, index: int, kind: str) -> Html:
    """Return the sign of a series, for the list of names below a plot."""
    middle = (17.0, 7.0)
    parts: list[Html] = []
    if kind in ("bar", "histogram"):
        one = Line(name=line.name, x=(0.0,), y=(1.0,), low=None, high=None, told=(), at=())
        parts.append(bars(one, [0], 26, 0, Scale(-1, 1, 0, 34), Scale(0, 1, 13, 1), index))
    if kind in ("bar", "scatter"):
        parts.append(markers([middle], index, null=line.is_null))
    if kind == "line":
        if line.is_null and line.low is not None:
            parts.append(element("path", d="M1 1h32v12h-32z", fill=GREY, fill_opacity="0.28"))
        parts.append(stroke([(1, 7), (33, 7)], index, null=line.is_null))
        parts.append(markers([middle], index, null=line.is_null))
    if kind == "scatter" and line.is_null and line.low is not None:
        parts.insert(0, element("path", d="M11 1h12v12h-12z", fill=GREY, fill_opacity="0.28"))
    return element("svg", join(*parts), viewBox="0 0 34 14", width="34", height="14", aria_hidden="true")


def mark_line(at: float, x: Scale | None, y: Scale | None) -> Html:
    """Return a dashed line across the plot, at a place of the scale that is given."""
    path = ""
    if x is not None:
        path = f"M{place(x(at))} {TOP}V{HEIGHT - BOTTOM}"
    elif y is not None:
        path = f"M{LEFT} {place(y(at))}H{WIDTH - RIGHT}"
    return element("path", d=path, fill="none", stroke="#333", stroke_width="1", stroke_dasharray="4 4")
