"""Reading what others wrote, without trusting its shape: an absent or odd part reads as nothing, never as an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay.render.markup import Html, element, text

STACKED_FROM = 4
"""Columns from which on a table has no room on a phone: 360 px hold two labels and an estimate with its interval."""

OWN_MAX = 24
"""Letters kept on one line: [low, high] at six significant digits has 21, and 360 px hold 40."""

NOTHING: Mapping[str, Any] = {}


def table(value: object) -> Mapping[str, Any]:
    """Return an object, or an empty one."""
    if type(value) is dict:
        return value
    return value if isinstance(value, Mapping) else NOTHING


def rows(value: object) -> list[Mapping[str, Any]]:
    """Return the objects in a list; empty where there is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def listed(value: object) -> list[Any]:
    """Return a list, or an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def count(value: object) -> str:
    """Return a whole number with its thousands apart, or ? where it is none."""
    return f"{value:,}" if type(value) is int else "?"


def digest(value: object) -> Html:
    """Return a digest or another machine's word, in a face where letters can be told apart."""
    return element("code", value)


def number(value: object) -> Html:
    """Return a number that no line break parts, unless it is longer than numbers of reports are."""
    told = text(value)
    return Html(f'<span class="own">{told}</span>') if len(told) <= OWN_MAX else told


def band(low: object, high: object) -> Html:
    """Return [low, high], which no line break parts."""
    return number(Html(f"[{text(low)},\u00a0{text(high)}]"))


def range_text(value: Mapping[str, Any]) -> Html:
    """Return an estimate with its interval: 0.56 [0.34, 0.78]."""
    held = table(value.get("interval"))
    told = number(value.get("value"))
    return Html(f"{told} {band(held.get('low'), held.get('high'))}") if held else told


def letters(value: Mapping[str, Any]) -> int:
    """Return the length of an estimate or of its interval, whichever is longer."""
    held = table(value.get("interval"))
    ends = len(str(held.get("low"))) + len(str(held.get("high"))) + 4 if held else 0
    return max(len(str(value.get("value"))), ends)


def labels_text(value: object) -> str:
    """Return labels as "layer 5, method md"; empty where there are none."""
    held = table(value)
    return ", ".join(f"{key} {held[key]}" for key in sorted(held, key=str))


def grid(
    caption: object,
    head: Sequence[object],
    body: Sequence[Sequence[object]],
    *,
    aria_label: str | None = None,
    marked: frozenset[int] = frozenset(),
) -> Html:
    """Return a table: a caption, one heading for each column, the first cell of a row as its heading.

    Args:
        caption: said above it; empty for none.
        head: names of the columns. From `STACKED_FROM` on each cell carries its own, for narrow screens.
        body: the rows.
        aria_label: name of a table without caption.
        marked: rows to be set apart.
    """
    stacked = len(head) >= STACKED_FROM
    line = element("tr", *(element("th", cell, scope="col") for cell in head))
    lines = []
    for at, row in enumerate(body):
        told = zip(row[1:], head[1:], strict=True)
        # Written out: a page has thousands of cells, and `element` would look at each of their names.
        cells = [
            f'<td data-of="{text(name)}">{text(cell)}</td>' if stacked else f"<td>{text(cell)}</td>"
            for cell, name in told
        ]
        of = f' data-of="{text(head[0])}"' if stacked else ""
        row_class = ' class="missed"' if at in marked else ""
        lines.append(Html(f'<tr{row_class}><th scope="row"{of}>{text(row[0])}</th>{"".join(cells)}</tr>'))
    above = element("caption", caption) if caption else ""
    inner = (above, element("thead", line), element("tbody", *lines))
    return element("table", *inner, aria_label=aria_label, class_="stacked" if stacked else None)


def pairs(told: Sequence[tuple[object, object]]) -> Html:
    """Return names and values, as a list of definitions."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in told))
