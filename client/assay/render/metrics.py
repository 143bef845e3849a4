"""Numbers of one check as tables: one for each metric, what all its rows share said once above it.

A report has hundreds of numbers. What is the same in every row (unit, level, method, often n) is no column, and of
labels only those that tell rows apart are; metrics of a single row share one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from assay.render import seek
from assay.render.markup import Html, element, join

Metric = Mapping[str, Any]

ACROSS_MAX = 4
"""Columns of a table that has one label across: on a phone each has room for "0.56 [0.34, 0.78]" in three lines."""

ACROSS_LETTERS = 24
"""Longest estimate with interval that goes into such a column."""

_COLUMNS = {"n": "n", "null": "null", "p": "p"}


def tables(metrics: list[Metric], summaries: Mapping[str, str], name: str) -> Html:
    """Return all numbers of a check.

    Args:
        metrics: in report order.
        summaries: what each metric is, from the catalogue.
        name: unique on the page; ids begin with it.
    """
    groups: dict[str, list[Metric]] = {}
    for one in metrics:
        groups.setdefault(str(one.get("name")), []).append(one)
    many = {key: held for key, held in groups.items() if len(held) > 1}
    single = [held[0] for held in groups.values() if len(held) == 1]
    listed = [
        element("li", element("a", element("code", key), href=f"#{name}-{at}"), f" {len(held)}")
        for at, (key, held) in enumerate(many.items())
    ]
    contents = element("ul", *listed, class_="names") if len(listed) > 3 else ""
    parts = [_group(key, held, summaries.get(key), f"{name}-{at}") for at, (key, held) in enumerate(many.items())]
    if single:
        parts.append(element("section", element("h5", "single numbers"), _singles(single, summaries)))
    return join(contents, element("div", *parts, class_="metrics"))


def _group(key: str, held: list[Metric], summary: str | None, name: str) -> Html:
    keys = sorted({label for one in held for label in seek.table(one.get("labels"))}, key=str)
    varying = [label for label in keys if len({_label(one, label) for one in held}) > 1]
    fixed = [f"{label} {_label(held[0], label)}" for label in keys if label not in varying]
    told = {field: [say(one) for one in held] for field, say in _SHARED.items()}
    differ = [field for field, texts in told.items() if len(set(texts)) > 1]
    shared = [texts[0] for field, texts in told.items() if field not in differ and texts[0]]
    above = element("p", "; ".join([*fixed, *shared]) + ".", class_="soft")
    question = element("p", summary, class_="soft") if summary else ""
    across = None if set(differ) - {"interval"} else _across(held, varying)
    table = _wide(held, varying, across, key) if across else _long(held, varying, differ, told, key)
    return element("section", element("h5", key, id=name), question, above, table)


def _long(held: list[Metric], varying: list[str], differ: list[str], told: dict[str, list[str]], key: str) -> Html:
    columns = [field for field in differ if field in _COLUMNS]
    beside = [field for field in differ if field not in _COLUMNS]
    head: list[object] = [*varying, "value", *(_COLUMNS[field] for field in columns)]
    if not varying:
        head.insert(0, "no.")
    body: list[list[object]] = []
    for at, one in enumerate(held):
        value = seek.range_text(one)
        more = [told[field][at] for field in beside if told[field][at]]
        if more:
            value = join(value, element("span", " ", "; ".join(more), class_="soft"))
        labels = [_label(one, label) for label in varying] or [str(at + 1)]
        body.append([*labels, value, *(_bare(field, told[field][at]) for field in columns)])
    return seek.grid(None, head, body, aria_label=f"numbers of {key}")


def _wide(held: list[Metric], varying: list[str], across: str, key: str) -> Html:
    """Return a table with one label across, for a full grid whose rows have nothing else to tell."""
    rest = [label for label in varying if label != across]
    heads = list(dict.fromkeys(_label(one, across) for one in held))
    lines: dict[tuple[str, ...], dict[str, Html]] = {}
    for one in held:
        cell = lines.setdefault(tuple(_label(one, label) for label in rest), {})
        cell[_label(one, across)] = seek.range_text(one)
    body: list[list[object]] = [[*names, *(cells[head] for head in heads)] for names, cells in lines.items()]
    return seek.grid(None, [*rest, *(f"{across} {head}" for head in heads)], body, aria_label=f"numbers of {key}")


def _across(held: list[Metric], varying: list[str]) -> str | None:
    """Return the label whose values become columns: the one of most values, of a full grid with short numbers."""
    if len(varying) < 2 or any(len(seek.range_text(one)) > ACROSS_LETTERS for one in held):
        return None
    values = {label: len({_label(one, label) for one in held}) for label in varying}
    for label in sorted((one for one in varying if values[one] <= ACROSS_MAX), key=lambda one: (-values[one], one)):
        lines = {tuple(_label(one, other) for other in varying if other != label) for one in held}
        places = {tuple(_label(one, other) for other in varying) for one in held}
        if len(lines) * values[label] == len(places) == len(held):
            return label
    return None


def _singles(held: Iterable[Metric], summaries: Mapping[str, str]) -> Html:
    body: list[list[object]] = []
    for one in held:
        more = [text for text in (say(one) for field, say in _SHARED.items() if field != "n") if text]
        name = element("code", one.get("name"))
        about = "; ".join(
            part for part in (seek.labels_text(one.get("labels")), summaries.get(str(one.get("name")))) if part
        )
        named = join(name, element("span", " ", about, class_="soft")) if about else name
        value = join(seek.range_text(one), element("span", " ", "; ".join(more), class_="soft"))
        body.append([named, value, seek.count(one.get("n"))])
    return seek.grid(None, ["metric", "value", "n"], body, aria_label="single numbers")


def _label(one: Metric, label: str) -> str:
    return str(seek.table(one.get("labels")).get(label, "-"))


def _method(one: Metric) -> str:
    held = seek.table(one.get("interval"))
    return f"interval at level {held.get('level')}, {held.get('method')}" if held else "no interval"


def _null(one: Metric) -> str:
    held = seek.table(one.get("null"))
    if not held:
        return ""
    top = f", 95 % below {held['p95']}" if held.get("p95") is not None else ""
    return f"null {held.get('kind')} {held.get('mean')} ± {held.get('sd')}{top}, {seek.count(held.get('n'))} draws"


def _p(one: Metric) -> str:
    if one.get("p") is None:
        return ""
    many = seek.table(one.get("multiplicity"))
    among = f" (one of {seek.count(many.get('m'))} in {many.get('family')}, corrected: {many.get('corrected')})"
    return f"p {one['p']}{among if many else ''}"


_BETTER = {"higher": "higher is better", "lower": "lower is better"}

_SHARED: Mapping[str, Callable[[Metric], str]] = {
    "unit": lambda one: "" if one.get("unit") in ("1", None) else f"unit {one['unit']}",
    "n": lambda one: f"n {seek.count(one.get('n'))}",
    "interval": _method,
    "null": _null,
    "p": _p,
    "better": lambda one: _BETTER.get(str(one.get("better")), ""),
    "determinism": lambda one: str(one.get("determinism") or ""),
}
"""What is told of a metric beside its value, and how; one of these is a column only where rows differ in it."""


def _bare(field: str, told: str) -> str:
    """Return a cell's text without the word that heads its column."""
    return told.removeprefix(_COLUMNS[field] + " ")
