"""A heatmap: one row for each series, from the top; darker is larger, and the numbers stand in the cells that fit."""

from __future__ import annotations

from collections.abc import Sequence

from assay.render.markup import Html, element, join
from assay.render.plots import Drawing
from assay.render.scale import HEIGHT, LEFT, RIGHT, WIDTH, Scale, place

RAMP = ("#f4f1ea", "#dfe3dc", "#bfd0d3", "#94b5c6", "#6292b3", "#38709c", "#1c4f80", "#0b2f5c", "#061b38")
"""Nine steps from light to dark: lightness alone tells the order, on paper and to every eye."""

TOP = 6
"""Room above the cells: what they show is told below, beside the steps of the ramp."""

FOOT = 38
"""Room below the cells for column numbers."""

_NUMBERS_FROM = 30.0
"""Width of a cell, in units of the view box, from which on its number is readable inside."""


def cells(drawing: Drawing) -> tuple[Html, Scale, Scale]:
    """Return the cells of a heatmap, and the scales of columns and of row numbers for its marks."""
    columns = sorted({one for line in drawing.lines for one in line.x})
    rank = {one: at for at, one in enumerate(columns)}
    values = [one for line in drawing.lines for one in line.y]
    low, high = min(values), max(values)
    wide = (WIDTH - LEFT - RIGHT) / len(columns)
    tall = (HEIGHT - TOP - FOOT) / len(drawing.lines)
    paths: dict[int, list[str]] = {}
    numbers: list[Html] = []
    for row, line in enumerate(drawing.lines):
        for at, value, told in zip(line.x, line.y, line.told, strict=True):
            step = 0 if low == high else min(int((value - low) / (high - low) * len(RAMP)), len(RAMP) - 1)
            left, top = LEFT + rank[at] * wide, TOP + row * tall
            # One stroke as thick as the row: half the bytes of a box.
            paths.setdefault(step, []).append(f"M{place(left)} {place(top + tall / 2)}h{place(wide)}")
            if wide >= _NUMBERS_FROM and tall >= 14 and len(told) <= 5:
                shade = "cell light" if step >= 5 else "cell"
                middle = (place(left + wide / 2), place(top + tall / 2 + 4))
                numbers.append(element("text", told, x=middle[0], y=middle[1], text_anchor="middle", class_=shade))
    thick = place(tall)
    drawn = [element("path", d="".join(paths[one]), stroke=RAMP[one], stroke_width=thick) for one in sorted(paths)]
    first, last = columns[0], columns[-1]
    unit = (last - first) / (len(columns) - 1) if len(columns) > 1 else 1.0
    across = Scale(first - unit / 2, last + unit / 2, LEFT, WIDTH - RIGHT)
    down = Scale(-0.5, len(drawing.lines) - 0.5, TOP, HEIGHT - FOOT)
    return join(*drawn, *numbers), across, down


def names(drawing: Drawing) -> Html:
    """Return the names of rows and columns, as many as fit."""
    tall = (HEIGHT - TOP - FOOT) / len(drawing.lines)
    found = []
    every = max(1, -(-14 // int(max(tall, 1))))
    for row in range(0, len(drawing.lines), every):
        name = drawing.lines[row].name
        short = name if len(name) <= 9 else name[:8] + "…"
        at = place(TOP + (row + 0.5) * tall + 4)
        found.append(element("text", short, x=str(LEFT - 6), y=at, text_anchor="end"))
    told = sorted({(one, text) for line in drawing.lines for one, text in zip(line.x, line.at, strict=True)})
    wide = (WIDTH - LEFT - RIGHT) / len({one for one, _ in told})
    for column in _some(len(told), wide):
        middle = place(LEFT + (column + 0.5) * wide)
        found.append(element("text", told[column][1], x=middle, y=str(HEIGHT - FOOT + 15), text_anchor="middle"))
    return join(*found)


def _some(count: int, wide: float) -> Sequence[int]:
    """Return which columns get their number: about one for every 44 units of width."""
    return range(0, count, max(1, -(-44 // max(int(wide), 1))))


def key(drawing: Drawing) -> Html:
    """Return what light and dark mean."""
    told = sorted((value, text) for line in drawing.lines for value, text in zip(line.y, line.told, strict=True))
    boxes = join(*(element("path", d=f"M{at * 12} 0h12v14h-12z", fill=colour) for at, colour in enumerate(RAMP)))
    wide = 12 * len(RAMP)
    ramp = element("svg", boxes, viewBox=f"0 0 {wide} 14", width=str(wide), height="14", aria_hidden="true")
    return element("p", f"{drawing.y_label}: {told[0][1]} ", ramp, f" {told[-1][1]}", class_="key")
