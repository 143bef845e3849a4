"""Which instances of a metric a report owes, and which of them are there.

`coverage` lists the owed values of each label. Every combination of them is owed, so that leaving the worst layer out
is seen; a label that `coverage` does not list must be pinned by `where`, since nobody could tell what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from assay import promise
from assay.errors import shown
from assay.policy import evidence
from assay.policy.fields import Labels
from assay.policy.language import Assertion

OWED_MAX = 20_000
"""Most instances that are listed one by one. A statement of 8 MiB holds about 15,000 metrics, so more cannot be
there, and a hostile `coverage` of millions is answered in one line."""


@dataclass(frozen=True)
class Selection:
    """The instances of one metric in one answer."""

    present: tuple[tuple[Labels, Mapping[str, Any]], ...]
    skipped: tuple[Labels, ...] = ()
    """Owed, and named as skipped with a reason."""
    missing: tuple[Labels, ...] = ()
    """Owed, and not there."""
    flaws: tuple[tuple[str, str], ...] = field(default=())
    """Reason and detail of what makes the selection itself doubtful."""


def select(assertion: Assertion, answer: Mapping[str, Any]) -> Selection:
    """Return the instances of an assertion's metric in a measured answer."""
    measured = evidence.table(answer.get("measured"))
    flaws: list[tuple[str, str]] = []
    present: list[tuple[Labels, Mapping[str, Any]]] = []
    for metric in evidence.tables(measured.get("metrics")):
        if metric.get("name") != assertion.metric:
            continue
        labels = evidence.labels(metric.get("labels"))
        if labels is None:
            flaws.append(("metric_unreadable", "an instance has no readable labels"))
        elif set(assertion.where) <= set(labels):
            present.append((labels, metric))
    keys = {tuple(key for key, _ in labels) for labels, _ in present}
    if len(keys) > 1:
        flaws.append(("labels_differ", "instances carry different labels; pin one of them in `where`"))
    owed = _owed(dict(assertion.where), sorted({key for one in keys for key in one}), present, measured, flaws)
    flaws += _stray(dict(assertion.where), {key for one in keys for key in one}, answer, measured)
    seen = {labels for labels, _ in present}
    absent = [labels for labels in owed if labels not in seen]
    named = _skipped(answer, measured)
    skipped = tuple(labels for labels in absent if _names(labels) & named)
    excused = frozenset(skipped)
    return Selection(
        present=tuple(sorted(present, key=lambda one: (one[0], repr(sorted(one[1].items(), key=str))))),
        skipped=skipped,
        missing=tuple(labels for labels in absent if labels not in excused),
        flaws=tuple(flaws),
    )


def owes(assertion: Assertion, answer: Mapping[str, Any]) -> bool:
    """Tell whether a measured answer owes an instance: it does, unless its coverage says that `where` is not in it."""
    coverage = evidence.table(evidence.table(answer.get("measured")).get("coverage"))
    return all(key not in coverage or value in (coverage[key] or ()) for key, value in assertion.where)


def _owed(
    where: Mapping[str, str],
    keys: list[str],
    present: list[tuple[Labels, Mapping[str, Any]]],
    measured: Mapping[str, Any],
    flaws: list[tuple[str, str]],
) -> Iterator[Labels]:
    """Yield every owed combination, and note what makes the list of them doubtful."""
    coverage = evidence.table(measured.get("coverage"))
    values: list[tuple[str, ...]] = []
    for key in keys:
        listed = coverage.get(key)
        owed = tuple(one for one in listed if isinstance(one, str)) if isinstance(listed, list | tuple) else None
        if key in where:
            owed = (where[key],)
        elif owed is None:
            flaws.append(("label_not_covered", f"coverage does not list {key}; pin it in `where`"))
            return iter(())
        elif {dict(labels).get(key) for labels, _ in present} - set(owed):
            flaws.append(("label_not_covered", f"a measured {key} is not in coverage"))
        values.append(tuple(dict.fromkeys(owed)))
    if prod(map(len, values)) > OWED_MAX:
        flaws.append(("instance_missing", "coverage owes more instances than a report can hold"))
        return iter(())
    return (tuple(zip(keys, one, strict=True)) for one in product(*values)) if keys else iter(())


def _stray(
    where: Mapping[str, str], keys: set[str], answer: Mapping[str, Any], measured: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield what is skipped and not owed: its instance was taken off the list, and nothing else would show that."""
    coverage, items = evidence.table(measured.get("coverage")), promise.skipped_items(answer)
    for key in sorted(keys - where.keys()):
        listed = coverage.get(key)
        owed = [one for one in listed if isinstance(one, str)] if isinstance(listed, list | tuple) else []
        if item := promise.stray_item(items, key, owed):
            yield "label_not_covered", f"{shown(item)} is skipped, and its {key} is not in coverage"


def _skipped(answer: Mapping[str, Any], measured: Mapping[str, Any]) -> frozenset[str]:
    """Return what is named as skipped as a whole; a part of an instance, "layer:3:pair-7", does not name it."""
    items = (*evidence.tables(answer.get("skipped")), *evidence.tables(measured.get("skipped")))
    return frozenset(name for item in items if (name := evidence.text(item.get("item"))) and item.get("reason"))


def _names(labels: Labels) -> frozenset[str]:
    return frozenset(name for key, value in labels for name in (f"{key}:{value}", value))
