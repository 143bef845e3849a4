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
"""Columns of a table that has one label across: half a printed page has room for four intervals."""

SHORT = 24
"""Numbers that stay together in one column or on one page; about a third of a printed page."""

ACROSS_LETTERS = 12
"""Longest estimate or interval that goes into such a column: "[0.34, 0.784]" no more fits a fifth of half a page."""

SPREAD_LETTERS = 80
"""Letters from which a row goes across the whole width: half a page has room for about 50 in a line of a table, and a
row of more than two lines in narrow columns breaks names apart."""

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
    varying, fixed = split_labels(held)
    told = {field: [say(one) for one in held] for field, say in _SHARED.items()}
    differ = [field for field, texts in told.items() if len(set(texts)) > 1]
    shared = [texts[0] for field, texts in told.items() if field not in differ and texts[0]]
    above = element("p", "; ".join([*fixed, *shared]) + ".", class_="soft")
    question = element("p", summary, class_="soft") if summary else ""
    across = None if set(differ) - {"interval"} else _across(held, varying)
    table = _wide(held, varying, across, key) if across else _long(held, varying, differ, told, key)
    crowded = differ and not across and _letters_of_a_row(held, varying, differ, told) > SPREAD_LETTERS
    class_ = "spread" if crowded else room(held)
    return element("section", element("h5", key, id=name), question, above, table, class_=class_)


def _letters_of_a_row(held: list[Metric], varying: list[str], differ: list[str], told: dict[str, list[str]]) -> int:
    """Return the letters of a table's longest row, without what its columns' heads say."""
    lines = zip(held, *(told[field] for field in differ), strict=True)
    return max(
        len(str(one.get("value")))
        + seek.letters(one)
        + sum(map(len, more))
        + sum(len(label(one, key)) for key in varying)
        for one, *more in lines
    )


def split_labels(held: list[Metric]) -> tuple[list[str], list[str]]:
    """Return the label keys that tell rows apart, and key and value of those that all rows share."""
    keys = sorted({str(key) for one in held for key in seek.table(one.get("labels"))})
    varying = [key for key in keys if len({label(one, key) for one in held}) > 1]
    return varying, [f"{key} {label(held[0], key)}" for key in keys if key not in varying]


def room(held: list[Metric]) -> str | None:
    """Return the class of a group that is not to be parted between columns or pages."""
    return "short" if len(held) <= SHORT else None


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
        labels = [label(one, each) for each in varying] or [str(at + 1)]
        body.append([*labels, value, *(_bare(field, told[field][at]) for field in columns)])
    return seek.grid(None, head, body, aria_label=f"numbers of {key}")


def _wide(held: list[Metric], varying: list[str], across: str, key: str) -> Html:
    """Return a table with one label across, for a full grid whose rows have nothing else to tell."""
    rest = [each for each in varying if each != across]
    heads = list(dict.fromkeys(label(one, across) for one in held))
    lines: dict[tuple[str, ...], dict[str, Html]] = {}
    for one in held:
        cell = lines.setdefault(tuple(label(one, each) for each in rest), {})
        cell[label(one, across)] = seek.range_text(one)
    body: list[list[object]] = [[*names, *(cells[head] for head in heads)] for names, cells in lines.items()]
    return seek.grid(None, [*rest, *(f"{across} {head}" for head in heads)], body, aria_label=f"numbers of {key}")


def _across(held: list[Metric], varying: list[str]) -> str | None:
    """Return the label whose values become columns: the one of most values, of a full grid with short numbers."""
    if len(varying) < 2 or any(seek.letters(one) > ACROSS_LETTERS for one in held):
        return None
    values = {key: len({label(one, key) for one in held}) for key in varying}
    for key in sorted((one for one in varying if values[one] <= ACROSS_MAX), key=lambda one: (-values[one], one)):
        lines = {tuple(label(one, other) for other in varying if other != key) for one in held}
        places = {tuple(label(one, other) for other in varying) for one in held}
        if len(lines) * values[key] == len(places) == len(held):
            return key
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


def label(one: Metric, key: str) -> str:
    """Return one label of a metric or control, or - where it has none of this key."""
    return str(seek.table(one.get("labels")).get(key, "-"))


def _method(one: Metric) -> str:
    held = seek.table(one.get("interval"))
    return f"interval at level {held.get('level')}, {held.get('method')}" if held else "no interval"


def _null(one: Metric) -> str:
    held = seek.table(one.get("null"))
    top = f", 95 % below {held['p95']}" if held.get("p95") is not None else ""
    return f"null {held.get('mean')} ± {held.get('sd')}{top}" if held else ""


def _null_kind(one: Metric) -> str:
    held = seek.table(one.get("null"))
    return f"null: {seek.count(held.get('n'))} draws of {held.get('kind')}, mean ± sd" if held else ""


def _p(one: Metric) -> str:
    return "" if one.get("p") is None else f"p {one['p']}"


def _multiplicity(one: Metric) -> str:
    many = seek.table(one.get("multiplicity"))
    if not many or (one.get("p") is None and many.get("corrected") == "none"):
        return ""  # nothing was tested, so nothing was owed
    return f"one of {seek.count(many.get('m'))} in {many.get('family')}, corrected: {many.get('corrected')}"


_BETTER = {"higher": "higher is better", "lower": "lower is better"}

_SHARED: Mapping[str, Callable[[Metric], str]] = {
    "unit": lambda one: "" if one.get("unit") in ("1", None) else f"unit {one['unit']}",
    "n": lambda one: f"n {seek.count(one.get('n'))}",
    "interval": _method,
    "null kind": _null_kind,
    "null": _null,
    "p": _p,
    "multiplicity": _multiplicity,
    "better": lambda one: _BETTER.get(str(one.get("better")), ""),
    "determinism": lambda one: str(one.get("determinism") or ""),
}
"""What is told of a metric beside its value, and how; one of these is a column only where rows differ in it."""


def _bare(field: str, told: str) -> str:
    """Return a cell's text without the word that heads its column."""
    return told.removeprefix(_COLUMNS[field] + " ")
