"""Plots as SVG, bytes a function of the numbers alone (specification, section 13).

Coordinates have two decimals, ticks are 1, 2 or 5 times a power of ten, an interval is a band or whiskers, a null
distribution is grey, marks are dashed. Titles and names stand in the page around the drawing, where they can wrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from assay.render import heat, shapes
from assay.render.markup import Html, element, join
from assay.render.plots import Drawing, Line
from assay.render.scale import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, across, place, ticks, upwards

PAGE_BYTES = 640 * 1024
"""Bytes of all plots of one page, as estimated by `cost`: tables and words have the rest of the 1 MiB (section 14)."""

COLUMNS_MIN = 8
"""Columns below which a long line would no longer be recognised."""

TICK_MAX = 8
"""Letters of a number beside the upward axis that fit at the usual width."""

LABEL_MAX = 56
"""Letters of an axis name inside the drawing; a longer one stands in the caption too."""

COLUMNS = WIDTH - LEFT - RIGHT
"""Columns of the plot's own width: one for each unit of the view box."""


def figure(drawing: Drawing, name: str, columns: int = COLUMNS) -> Html:
    """Return a plot with its caption and the names of its series.

    Args:
        drawing: the plot.
        name: unique on the page; ids begin with it.
        columns: columns to which long series are thinned; see `plan`.
    """
    body, drawn = (_heatmap(drawing), drawing.points) if drawing.kind == "heatmap" else _axes(drawing, columns)
    title, describe = f"{name}-title", f"{name}-desc"
    head = join(element("title", drawing.title, id=title), element("desc", description(drawing), id=describe))
    picture = element(
        "svg",
        head,
        body,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=title,
        aria_describedby=describe,
        class_="plot",
    )
    note = f" Drawn {drawn} of {drawing.points} points: the lowest and highest of each column."
    caption = element("figcaption", drawing.title, ".", note if drawn < drawing.points else "")
    return element("figure", caption, picture, _names(drawing), id=name)


def cost(drawing: Drawing, columns: int = COLUMNS) -> int:
    """Return about how many bytes a drawing takes at so many columns."""
    if drawing.kind == "heatmap":
        return 1500 + 20 * drawing.points
    each = {"line": 14, "bar": 60, "scatter": 60, "histogram": 38}[drawing.kind]
    band = 28 if drawing.kind == "line" else 60
    total = 2500
    for line in drawing.lines:
        count = len(line.x) if len(line.x) <= min(shapes.THIN_FROM, 2 * columns) else 2 * columns
        total += 1500 + count * (each + (band if line.low is not None else 0))
    return total


def plan(drawings: Sequence[Drawing]) -> tuple[int, frozenset[int]]:
    """Return to how many columns the series of a page are thinned, and which plots have no room on it even then."""
    columns = COLUMNS
    while columns > COLUMNS_MIN and sum(cost(one, columns) for one in drawings) > PAGE_BYTES:
        columns = max(COLUMNS_MIN, columns * 3 // 4)
    costs = {at: cost(one, columns) for at, one in enumerate(drawings)}
    left_out = set()
    while sum(costs.values()) > PAGE_BYTES:
        heaviest = max(costs, key=lambda at: (costs[at], at))
        left_out.add(heaviest)
        del costs[heaviest]
    return columns, frozenset(left_out)


def description(drawing: Drawing) -> str:
    """Return a plot in words: first, last, least, greatest and number of points of each series."""
    told = []
    for line in drawing.lines[: 12 if drawing.kind != "heatmap" else 1]:
        if not line.y:
            told.append(f"{line.name}: no points.")
            continue
        least = line.y.index(min(line.y))
        most = line.y.index(max(line.y))
        told.append(
            f"{line.name}: n {len(line.y)}, first {line.told[0]}, last {line.told[-1]}, "
            f"min {line.told[least]}, max {line.told[most]}."
        )
    if drawing.kind == "heatmap":
        values = sorted((one, text) for line in drawing.lines for one, text in zip(line.y, line.told, strict=True))
        told = [f"{len(drawing.lines)} rows, {drawing.points} cells, min {values[0][1]}, max {values[-1][1]}."]
    return " ".join(told)[:500]


def _heatmap(drawing: Drawing) -> Html:
    cells, x, y = heat.cells(drawing)
    marks = []
    for mark in drawing.marks:
        scale = x if mark.axis == "x" else y
        if scale.low <= mark.at <= scale.high:
            at = place(scale(mark.at))
            path = f"M{at} {heat.TOP}V{HEIGHT - heat.FOOT}" if mark.axis == "x" else f"M{LEFT} {at}H{WIDTH - RIGHT}"
            # Two strokes, so that the dashes show on light cells and on dark ones.
            marks.append(element("path", d=path, stroke="#fff", stroke_width="2.4"))
            marks.append(element("path", d=path, stroke="#111", stroke_width="1", stroke_dasharray="5 3"))
    foot = element("text", _short(drawing.x_label), x=str(WIDTH - RIGHT), y=str(HEIGHT - 4), text_anchor="end")
    return join(cells, *marks, heat.names(drawing), foot)


def _axes(drawing: Drawing, columns: int) -> tuple[Html, int]:
    filled = drawing.kind in ("bar", "histogram")
    xs = [one for line in drawing.lines for one in line.x]
    ys = [one for line in drawing.lines for part in (line.y, line.low or (), line.high or ()) for one in part]
    step = _step(xs) if filled else 0.0
    if filled:
        xs = [min(xs) - step / 2, max(xs) + step / 2]
        ys.append(0.0)
    x = across([*xs, *(mark.at for mark in drawing.marks if mark.axis == "x")])
    y = upwards([*ys, *(mark.at for mark in drawing.marks if mark.axis == "y")])
    drawn, layers = 0, []
    for index, line in enumerate(drawing.lines):
        if not line.x:
            continue
        part, count = (
            _bars(drawing, index, x, y, step, columns) if filled else _points(drawing, line, index, x, y, columns)
        )
        layers.append(part)
        drawn += count
    marks = [
        shapes.mark_line(mark.at, x if mark.axis == "x" else None, y if mark.axis == "y" else None)
        for mark in drawing.marks
    ]
    return join(_frame(drawing, x, y), *layers, *marks), drawn


def _points(drawing: Drawing, line: Line, index: int, x: Scale, y: Scale, columns: int) -> tuple[Html, int]:
    lined = drawing.kind == "line"
    at = shapes.kept(line.x, line.y, x, columns, ordered=lined)
    points = list(zip(x.places(line.x, at), y.places(line.y, at), strict=True))
    if lined:
        marked = [points[one] for one in shapes.sparse(len(points))]
        band = shapes.band(line, at, x, y, index)
        drawn = join(
            band, shapes.stroke(points, index, null=line.is_null), shapes.markers(marked, index, null=line.is_null)
        )
        return drawn, len(at)
    if line.is_null:
        behind = shapes.band(line, at, x, y, index)
    else:
        behind = shapes.whiskers(line, at, [one for one, _ in points], y, index)
    return join(behind, shapes.markers(points, index, null=line.is_null)), len(at)


def _bars(drawing: Drawing, index: int, x: Scale, y: Scale, step: float, columns: int) -> tuple[Html, int]:
    line = drawing.lines[index]
    room = (x(step) - x(0.0)) * (0.96 if drawing.kind == "histogram" else 0.8)
    width = room / len(drawing.lines)
    shift = (index - (len(drawing.lines) - 1) / 2) * width
    at = shapes.kept(line.x, line.y, x, columns, ordered=False)
    middles = [x(line.x[one]) + shift for one in at]
    parts = [shapes.bars(line, at, width, shift, x, y, index), shapes.whiskers(line, at, middles, y, index)]
    if drawing.kind == "bar":
        tops = [(middle, y(line.y[one])) for one, middle in zip(at, middles, strict=True)]
        parts.append(shapes.markers([tops[one] for one in shapes.sparse(len(tops))], index, null=line.is_null))
    return join(*parts), len(at)


def _step(xs: list[float]) -> float:
    """Return the width of a bar: the least distance of two places."""
    held = sorted(set(xs))
    return min((b - a for a, b in pairwise(held)), default=1.0)


def _frame(drawing: Drawing, x: Scale, y: Scale) -> Html:
    floor, lines, names = HEIGHT - BOTTOM, [], []
    for at, told in ticks(y):
        lines.append(f"M{LEFT} {place(y(at))}H{WIDTH - RIGHT}")
        # Nearly equal numbers need more letters than there is room for: they are set narrower.
        tight = {"textLength": str(LEFT - 8), "lengthAdjust": "spacingAndGlyphs"} if len(told) > TICK_MAX else {}
        names.append(element("text", told, x=str(LEFT - 6), y=place(y(at) + 4), text_anchor="end", **tight))
    for at, told in ticks(x):
        lines.append(f"M{place(x(at))} {floor}v5")
        names.append(element("text", told, x=place(x(at)), y=str(floor + 18), text_anchor="middle"))
    names.append(element("text", _short(drawing.y_label), x="4", y="14"))
    names.append(element("text", _short(drawing.x_label), x=str(WIDTH - RIGHT), y=str(HEIGHT - 6), text_anchor="end"))
    grid = element("path", d="".join(lines), stroke="#d0d0d0", stroke_width="1", fill="none")
    frame = element("path", d=f"M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}", stroke="#333", stroke_width="1", fill="none")
    return join(grid, frame, *names)


def _short(label: str) -> str:
    return label if len(label) <= LABEL_MAX else label[: LABEL_MAX - 1] + "…"


def _names(drawing: Drawing) -> Html:
    parts: list[Html] = []
    if drawing.kind == "heatmap":
        parts.append(heat.key(drawing))
    else:
        signs = (shapes.sample(line, index, drawing.kind) for index, line in enumerate(drawing.lines))
        rows = (element("li", sign, " ", line.name) for sign, line in zip(signs, drawing.lines, strict=True))
        parts.append(element("ul", *rows, class_="names"))
    long = [
        f"{axis}: {label}"
        for axis, label in (("across", drawing.x_label), ("upwards", drawing.y_label))
        if len(label) > LABEL_MAX and not (drawing.kind == "heatmap" and axis == "upwards")
    ]
    if long:
        parts.append(element("p", "; ".join(long), class_="key"))
    if drawing.marks:
        told: dict[str, list[str]] = {}
        for mark in drawing.marks:
            told.setdefault(mark.label, []).append(f"{mark.axis} = {mark.at:g}")
        said = "; ".join(f"{label} at {', '.join(where)}" for label, where in told.items())
        parts.append(element("p", "Dashed: ", said, class_="key"))
    return join(*parts)
