"""A plan as arrays, and a plan without what could not be read.

Specification: truth_probe, section 3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.check import Refusal
from checks.truth_probe.pairs import Pair, digest

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

    from checks.truth_probe.splits import Plan

LOST_MAX = 0.02
"""Share of items that may be left out before the answer is refused (section 3)."""

NAMED_MAX = 20
"""Names told of one cause; the rest are counted (section 3)."""


@dataclass(frozen=True)
class Masks:
    """What each row of a plan is for, as arrays over its rows."""

    train: Bool[np.ndarray, " row"]
    """Main rows that are fitted on, labelled or not."""
    anchor: Bool[np.ndarray, " row"]
    """Main rows that orient: labelled, one an item."""
    test: Bool[np.ndarray, " row"]
    """Main rows that are scored: labelled."""
    negated_train: Bool[np.ndarray, " row"]
    """Labelled negated rows of train clusters, for ttpd (5.6)."""
    negated_test: Bool[np.ndarray, " row"]
    """Labelled negated rows of test clusters (5.11)."""
    other_test: Bool[np.ndarray, " row"]
    """Labelled rows of the persona that is tested (5.12)."""
    labels: Int[np.ndarray, " row"]
    """1 where the + text is the true one, 0 where the - text is, -1 where nobody said."""
    template: Int[np.ndarray, " row"]
    cluster: Int[np.ndarray, " row"]
    """After joining duplicates."""
    item: Int[np.ndarray, " row"]
    features: Mapping[str, Int[np.ndarray, " row"]]
    """Declared features by name, sorted: 0 or 1, and -1 in rows that lack it."""


def masks(plan: Plan) -> Masks:
    """Return a plan's rows as arrays."""
    labels = np.array([-1 if pair.label is None else pair.label for pair in plan.pairs], dtype=np.int64)
    split, kind = np.array(plan.splits, dtype=str), np.array(plan.kinds, dtype=str)
    main, labelled = kind == "main", labels >= 0
    anchor = np.zeros(len(labels), dtype=bool)
    # One vote an item: its other templates would say the same thing again.
    anchor[[*voters(plan.pairs, np.flatnonzero(main & (split == "anchor")), plan.seed).values()]] = True
    names = sorted({name for pair in plan.pairs for name in pair.features})
    return Masks(
        train=main & (split == "train"),
        anchor=anchor,
        test=main & (split == "test") & labelled,
        negated_train=(kind == "negated") & (split == "train") & labelled,
        negated_test=(kind == "negated") & (split == "test") & labelled,
        other_test=(kind == "other") & (split == "test") & labelled,
        labels=labels,
        template=_numbered(pair.template for pair in plan.pairs),
        cluster=_numbered(plan.clusters),
        item=_numbered(pair.item for pair in plan.pairs),
        features={
            name: np.array([pair.features.get(name, -1) for pair in plan.pairs], dtype=np.int64) for name in names
        },
    )


def _numbered(names: Iterable[str]) -> Int[np.ndarray, " row"]:
    """Return each name as its place among the sorted names."""
    of = list(names)
    place = {name: number for number, name in enumerate(sorted(set(of)))}
    return np.array([place[name] for name in of], dtype=np.int64)


def voters(pairs: Sequence[Pair], rows: Iterable[int], seed: int) -> dict[str, int]:
    """Return one labelled row of each item among some rows: the one whose id hashes lowest, wherever it stands."""
    chosen: dict[str, int] = {}
    for row in sorted(rows, key=lambda at: digest(pairs[at].id, seed)):
        if pairs[row].label is not None:
            chosen.setdefault(pairs[row].item, int(row))
    return chosen


def alike_pairs(plan: Plan, runs: Mapping[str, int]) -> frozenset[str]:
    """Return the keys of pairs whose branches are the same tokens to the model.

    Args:
        plan: whose pairs.
        runs: `Evidence.runs()`; a text that is not in it is judged by its characters alone.
    """
    return frozenset(
        pair.key
        for pair in plan.pairs
        for pos, neg in (pair.texts(),)
        if pos.text == neg.text or (pos.id in runs and runs[pos.id] == runs.get(neg.id))
    )


def without_lost(
    plan: Plan, lost: Mapping[str, str], alike: Collection[str]
) -> tuple[Plan, Int[np.ndarray, " kept"], list[tuple[str, str]]]:
    """Return the plan without the items that cannot be measured.

    An item goes as a whole, with all its templates, negations and personas: half of it would tip its set.

    Args:
        plan: what was swept.
        lost: `Evidence.lost()`: reasons by id; ids of anything but the plan's texts are passed over.
        alike: keys of pairs whose branches are the same tokens (`alike_pairs`).

    Returns:
        The plan, the rows of it that were kept, and what was left out as (item, reason): the first twenty items of
        each reason by name, in sorted order, and where there are more of them their total.

    Raises:
        Refusal: `items_lost`, when more than 2 % of the items go; `branches_alike`, when most of those do because their
            branches are alike.
    """
    same: set[str] = set()
    cause: dict[str, str] = {}
    for pair in plan.pairs:
        why = next((lost[text.id] for text in pair.texts() if text.id in lost), None)
        if why is not None:
            cause.setdefault(pair.item, why)
        elif pair.key in alike:
            same.add(pair.item)
    same -= cause.keys()
    unread = [f"item:{item}:{why}" for item, why in sorted(cause.items())]
    twins = [f"item:{item}" for item in sorted(same)]
    if len(unread) + len(twins) > LOST_MAX * len({pair.item for pair in plan.pairs}):
        told, reason = (twins, "branches_alike") if len(twins) > len(unread) else (unread, "items_lost")
        rest = twins if told is unread else unread
        raise Refusal(reason, (*(told + rest)[:NAMED_MAX], f"total:{len(unread) + len(twins)}"))
    kept = [row for row, pair in enumerate(plan.pairs) if pair.item not in cause and pair.item not in same]
    skipped = [*_compact(unread, "text_lost"), *_compact(twins, "branches_alike")]
    return plan.take(kept), np.array(kept, dtype=np.int64), skipped


def _compact(items: Sequence[str], reason: str) -> list[tuple[str, str]]:
    told = [(item, reason) for item in items[:NAMED_MAX]]
    return told + ([(f"items:{len(items)}", reason)] if len(items) > NAMED_MAX else [])
