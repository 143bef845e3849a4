"""Results item by item, as a file that a check hands out: format `assay-items/v1`, so that two audits pair.

A document is one metric at one set of labels; a file holds one on each line. Items stand in the order of SHA-256(id),
and where they do not all fit, the first of that order are kept: the same ones in every audit of the same data. Ids
themselves are never told, only the digest of them all. Source: report specification, section 15.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal

from checks.documents import canonical

FORMAT = "assay-items/v1"

MEDIA_TYPE = "application/jsonl"
"""Of a file with a document on each line."""

Reducer = Literal["mean", "auc", "influence"]

INTEGER_MAX = 2**53 - 1
"""Largest whole number of the report's JSON (report specification, section 3)."""

_STEP = re.compile(r"1|10+|0\.0{0,17}1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Roll:
    """Which items stand in a document, in which order."""

    places: tuple[int, ...]
    """Of each item of the document: its place among the items that the roll was made of."""
    ids_sha256: str
    """Over the ids in that order, joined by newlines."""
    clusters: tuple[int, ...] | None
    """Numbered from 0 as they come; None where every item stands alone."""
    of: int
    """How many items the roll was made of."""

    def __len__(self) -> int:
        return len(self.places)


def file_name(metric: str) -> str:
    """Return the name under which the items of a metric are handed out."""
    return f"items.{metric}.jsonl"


def roll(ids: Sequence[str], clusters: Sequence[Hashable] | None = None, most: int | None = None) -> Roll:
    """Return the roll of some items.

    Args:
        ids: one for each item.
        clusters: what each item belongs to; None where every item stands alone.
        most: keep no more than so many, the first in the order of SHA-256(id); None keeps all.

    Raises:
        ValueError: no id, an id twice or with a line break, another number of clusters, or `most` below 1.
    """
    if not ids or len(set(ids)) != len(ids) or any("\n" in one for one in ids):
        raise ValueError("items have ids of one line, each its own")
    if clusters is not None and len(clusters) != len(ids):
        raise ValueError(f"{len(clusters)} clusters for {len(ids)} items")
    if most is not None and most < 1:
        raise ValueError(f"a roll of {most} items")
    coded = [one.encode() for one in ids]
    places = sorted(range(len(ids)), key=lambda at: hashlib.sha256(coded[at]).digest())[:most]
    return Roll(
        places=tuple(places),
        ids_sha256=hashlib.sha256(b"\n".join(coded[at] for at in places)).hexdigest(),
        clusters=None if clusters is None else _numbered([clusters[at] for at in places]),
        of=len(ids),
    )


def _numbered(clusters: Sequence[Hashable]) -> tuple[int, ...] | None:
    """Return clusters as numbers in the order in which they come; None where no two items share one."""
    number: dict[Hashable, int] = {}
    told = tuple(number.setdefault(one, len(number)) for one in clusters)
    return None if len(number) == len(clusters) else told


def document(
    *,
    check: str,
    metric: str,
    labels: Mapping[str, str],
    items: Roll,
    values: Sequence[float],
    step: str,
    reducer: Reducer = "mean",
    targets: Sequence[int] | None = None,
) -> bytes:
    """Return the canonical bytes of one document, with its line break.

    Args:
        check: name of the check.
        metric: the metric that the items are of.
        labels: which instance of it.
        items: who stands in it.
        values: one for each item that the roll was made of, in that order; each is told as a whole number of steps.
        step: a power of ten as a canonical decimal.
        reducer: how values become the metric: their mean, the area under the curve of values against targets, or the
            check's own way, where the values are influence values.
        targets: 0 or 1 for each item, both present, with the reducer `auc` alone.

    Raises:
        ValueError: a name outside its alphabet, a step that is no power of ten, a value that is not finite or no whole
            number of JSON, another number of values or targets, or targets that do not fit the reducer.
    """
    if not all(_NAME.fullmatch(one) for one in (check, metric, *labels, *labels.values())):
        raise ValueError(f"items of {metric}: a name lies outside its alphabet")
    if not _STEP.fullmatch(step):
        raise ValueError(f"items of {metric}: the step {step} is no power of ten")
    if (reducer == "auc") != (targets is not None):
        raise ValueError(f"items of {metric}: the reducer auc has targets, and no other has")
    if len(values) != items.of or (targets is not None and len(targets) != items.of):
        raise ValueError(f"items of {metric}: another number of values or targets for {items.of} items")
    chosen = None if targets is None else [int(targets[at]) for at in items.places]
    if chosen is not None and set(chosen) != {0, 1}:
        raise ValueError(f"items of {metric}: targets are 0 and 1, and both occur")
    told: dict[str, Any] = {
        "format": FORMAT,
        "check": check,
        "metric": metric,
        "labels": dict(labels),
        "reducer": reducer,
        "ids_sha256": items.ids_sha256,
        "step": step,
        "scores": [_whole(values[at], step) for at in items.places],
        "targets": chosen,
        "clusters": None if items.clusters is None else list(items.clusters),
    }
    return canonical(told) + b"\n"


def _whole(value: float, step: str) -> int:
    number = Decimal(repr(float(value)))
    if not number.is_finite():
        raise ValueError(f"{value} is not a finite number: an item without one has no place in the file")
    whole = int((number / Decimal(step)).to_integral_value(ROUND_HALF_EVEN))
    if abs(whole) > INTEGER_MAX:
        raise ValueError(f"{value} is more than {INTEGER_MAX} steps of {step}")
    return whole
