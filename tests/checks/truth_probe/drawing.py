"""Rows of the role `pairs` in number, and plans drawn of them."""

from __future__ import annotations

from typing import Any

from checks.check import Refusal
from checks.truth_probe.pairs import read_pairs
from checks.truth_probe.splits import Plan, masks, plans
from tests.checks.truth_probe.planting import rows_of

Rows = list[dict[str, Any]]


def many(count: int = 500, *, suffix: str = "", **changed: Any) -> Rows:
    """Return rows of items with two to a cluster, labels alternating; a suffix makes ids and texts other ones."""
    made = rows_of([number % 2 for number in range(count)], [None] * count, per_cluster=2)
    for row in made:
        row["id"] += suffix
        row["pos"] += suffix
        row["neg"] += suffix
    return [{**row, **changed} for row in made]


def outcomes(rows: Rows, **asked: Any) -> dict[str, Plan | Refusal]:
    return plans(read_pairs(rows), **{"max_items": 1000, "anchors_k": 32, "seed": 0, **asked})


def drawn(rows: Rows, **asked: Any) -> Plan:
    (made,) = outcomes(rows, **asked).values()
    assert isinstance(made, Plan), made
    return made


def of_split(plan: Plan, kind: str = "main") -> dict[str, set[str]]:
    """Return the ids of each split's rows of a kind."""
    ids: dict[str, set[str]] = {"train": set(), "anchor": set(), "test": set()}
    for pair, split, one in zip(plan.pairs, plan.splits, plan.kinds, strict=True):
        if one == kind:
            ids[split].add(pair.id)
    return ids


def pinned(plan: Plan, rows: Rows) -> Rows:
    """Return the planned rows with their splits declared."""
    of = {pair.id: split for pair, split in zip(plan.pairs, plan.splits, strict=True)}
    return [{**row, "split": of[row["id"]]} for row in rows if row["id"] in of]


def everything(count: int = 600) -> Rows:
    """Return two templates an item, one label in nine missing, negated rows and a second persona."""
    rows = many(count, persona="A") + many(count, suffix=" so", persona="A", template="u")
    for number, row in enumerate(rows):
        if number % 9 == 0:
            row["label"] = None
        elif number >= count:
            row["label"] = 1 - row["label"]  # another template may turn the branches round
    negated = many(count, suffix=" not", persona="A", polarity="negated")
    return rows + negated + many(count, suffix=" b", persona="B") + many(10, suffix=" c", persona="C")


ASKED: dict[str, Any] = {"max_items": 500, "fit_persona": "A", "test_persona": "B"}


def told_of(plan: Plan) -> dict[str, tuple[str, str, str, bool]]:
    voted = masks(plan).anchor
    return {
        pair.id: (cluster, split, kind, bool(vote))
        for pair, cluster, split, kind, vote in zip(
            plan.pairs, plan.clusters, plan.splits, plan.kinds, voted, strict=True
        )
    }
