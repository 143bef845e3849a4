"""Reading what others wrote, without trusting its shape: an absent or odd part reads as nothing, never as an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay.render.markup import Html, element, join, text

NOTHING: Mapping[str, Any] = {}


def table(value: object) -> Mapping[str, Any]:
    """Return an object, or an empty one."""
    return value if isinstance(value, Mapping) else NOTHING


def rows(value: object) -> list[Mapping[str, Any]]:
    """Return the objects in a list; empty where there is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def listed(value: object) -> list[Any]:
    """Return a list, or an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def count(value: object) -> str:
    """Return a whole number with thin groups, or ? where it is none."""
    return f"{value:,}".replace(",", "\u202f") if type(value) is int else "?"


def digest(value: object) -> Html:
    """Return a digest or another machine's word, in a face where letters can be told apart."""
    return element("code", value)


def range_text(value: Mapping[str, Any]) -> Html:
    """Return an estimate with its interval: 0.56 [0.34, 0.78]."""
    held = table(value.get("interval"))
    if not held:
        return text(value.get("value"))
    return join(value.get("value"), " [", held.get("low"), ",\u00a0", held.get("high"), "]")


def labels_text(value: object) -> str:
    """Return labels as "layer 5, method md"; empty where there are none."""
    held = table(value)
    return ", ".join(f"{key} {held[key]}" for key in sorted(held, key=str))


def grid(
    caption: object, head: Sequence[object], body: Sequence[Sequence[object]], *, aria_label: str | None = None
) -> Html:
    """Return a table: a caption, one heading for each column, the first cell of a row as its heading."""
    line = element("tr", *(element("th", cell, scope="col") for cell in head))
    lines = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in body
    ]
    above = element("caption", caption) if caption else ""
    return element("table", above, element("thead", line), element("tbody", *lines), aria_label=aria_label)


def pairs(told: Sequence[tuple[object, object]]) -> Html:
    """Return names and values, as a list of definitions."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in told))
