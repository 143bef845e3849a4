"""A plan as arrays, and what is left of it when texts were lost or branches are the same tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from checks.check import Refusal
from checks.truth_probe.splits import alike_pairs, masks, without_lost
from tests.checks.truth_probe.drawing import ASKED, Rows, drawn, everything, many, told_of


def test_more_than_two_percent_lost_is_refused_with_the_first_and_the_total() -> None:
    plan = drawn(many(1000), anchors_k=16)
    items = len({pair.item for pair in plan.pairs})
    limit = int(0.02 * items)
    lost = {pair.texts()[1].id: "too_long" for pair in plan.pairs[: limit + 5]}
    with pytest.raises(Refusal) as told:
        without_lost(plan, lost, frozenset())
    assert told.value.reason == "items_lost"
    assert told.value.items[0] == f"item:{min(pair.item for pair in plan.pairs[: limit + 5])}:too_long"
    assert len(told.value.items) == min(20, limit + 5) + 1
    assert told.value.items[-1] == f"total:{limit + 5}"
    without_lost(plan, dict(list(lost.items())[:limit]), frozenset())


def test_branches_that_are_the_same_tokens_are_refused_as_such() -> None:
    plan = drawn(many(500))
    alike = {pair.key for pair in plan.pairs[:20]}
    with pytest.raises(Refusal) as told:
        without_lost(plan, {plan.pairs[30].texts()[0].id: "too_long"}, alike)
    assert told.value.reason == "branches_alike"
    assert (len(told.value.items), told.value.items[-1]) == (21, "total:21")
    assert all(item.startswith("item:i") for item in told.value.items[:-1])


def test_an_item_that_lost_one_text_goes_as_a_whole() -> None:
    plan = drawn(everything(), **ASKED)
    victim = next(p for p, k in zip(plan.pairs, plan.kinds, strict=True) if k == "other")
    alike = next(p for p, s in zip(plan.pairs, plan.splits, strict=True) if s == "train")
    lost = {victim.texts()[1].id: "too_long", f"{plan.pairs[0].key}/pos/yes": "too_long", "benign/1": "too_long"}
    kept, rows, skipped = without_lost(plan, lost, {alike.key})
    assert skipped == [(f"item:{victim.item}:too_long", "text_lost"), (f"item:{alike.item}", "branches_alike")]
    gone = {victim.item, alike.item}
    assert [pair.id for pair in kept.pairs] == [pair.id for pair in plan.pairs if pair.item not in gone]
    assert kept.pairs == tuple(plan.pairs[row] for row in rows)
    assert kept.kinds == tuple(plan.kinds[row] for row in rows)
    assert kept.splits == tuple(plan.splits[row] for row in rows)
    assert kept.clusters == tuple(plan.clusters[row] for row in rows)
    assert (kept.set, kept.seed, kept.left_out) == (plan.set, plan.seed, plan.left_out)
    assert told_of(kept).items() <= told_of(plan).items()


def test_an_item_that_is_lost_and_alike_is_told_once() -> None:
    plan = drawn(everything(), **ASKED)
    item = plan.pairs[0].item
    one, two = [pair for pair in plan.pairs if pair.item == item][:2]
    assert without_lost(plan, {two.texts()[0].id: "too_long"}, {one.key})[2] == [(f"item:{item}:too_long", "text_lost")]


def test_nothing_lost_is_the_same_plan() -> None:
    plan = drawn(many())
    kept, rows, skipped = without_lost(plan, {}, ())
    assert (kept, rows.tolist(), skipped) == (plan, list(range(len(plan.pairs))), [])


def test_many_lost_items_are_told_compactly() -> None:
    plan = drawn(many(4000), max_items=4000)
    lost = {pair.texts()[0].id: "too_long" for pair in plan.pairs[:30]}
    _, rows, skipped = without_lost(plan, lost, {plan.pairs[-1].key})
    assert len(rows) == len(plan.pairs) - 31
    assert len(skipped) == 22
    assert skipped[20:] == [("items:30", "text_lost"), (f"item:{plan.pairs[-1].item}", "branches_alike")]


def test_branches_are_alike_by_their_tokens_or_to_the_letter() -> None:
    rows = many(8)
    rows[1]["neg"] = rows[1]["pos"]
    plan = drawn([{**row, "split": "test"} for row in rows])
    (a, b), (c, d) = plan.pairs[3].texts(), plan.pairs[4].texts()
    assert alike_pairs(plan, {}) == {"planted/p1"}
    assert alike_pairs(plan, {a.id: 7, b.id: 7, c.id: 8, d.id: 9}) == {"planted/p1", "planted/p3"}
    assert alike_pairs(plan, {a.id: 7, d.id: 7}) == {"planted/p1"}  # one text that did not run is like nothing


def test_masks_say_what_each_row_is_for() -> None:
    plan = drawn(everything(), **ASKED)
    seen = masks(plan)
    rows = list(zip(plan.pairs, plan.splits, plan.kinds, strict=True))

    def where(wanted: Iterable[bool]) -> list[bool]:
        return [bool(one) for one in wanted]

    assert where(seen.train) == [s == "train" and k == "main" for _, s, k in rows]
    for kind, split, mask in (
        ("main", "test", seen.test),
        ("negated", "train", seen.negated_train),
        ("negated", "test", seen.negated_test),
        ("other", "test", seen.other_test),
    ):
        assert where(mask) == [s == split and k == kind and p.label is not None for p, s, k in rows]
        assert mask.any()
    assert seen.labels.tolist() == [-1 if p.label is None else p.label for p in plan.pairs]
    assert -1 in seen.labels
    for numbers, names in (
        (seen.cluster, plan.clusters),
        (seen.item, [p.item for p in plan.pairs]),
        (seen.template, [p.template for p in plan.pairs]),
    ):
        assert numbers.tolist() == np.unique(names, return_inverse=True)[1].tolist()


def test_an_anchor_item_votes_once_and_only_with_a_label() -> None:
    plan = drawn(everything(), **ASKED)
    seen = masks(plan)
    voted = [pair for pair, vote in zip(plan.pairs, seen.anchor, strict=True) if vote]
    assert len({pair.item for pair in voted}) == len(voted) == 32
    assert Counter(pair.label for pair in voted) == {0: 16, 1: 16}
    assert all(plan.splits[row] == "anchor" for row in np.flatnonzero(seen.anchor))


def test_features_that_a_row_lacks_are_not_zero() -> None:
    rows = many(4)
    rows[0]["features"], rows[2]["features"] = {"topic": 0, "larger": 1}, {"topic": 1}
    seen = masks(drawn(rows, anchors_k=16))
    of = {name: flags.tolist() for name, flags in masks_by_item(rows).items()}
    assert list(seen.features) == ["larger", "topic"]
    assert of == {"larger": [1, -1, -1, -1], "topic": [0, -1, 1, -1]}


def masks_by_item(rows: Rows) -> dict[str, np.ndarray]:
    """Return the features in file order, with nothing left out."""
    declared = [{**row, "split": "test"} for row in rows]
    return dict(masks(drawn(declared)).features)


def test_masks_of_no_rows_are_empty() -> None:
    plan = drawn(many()).take(())
    assert masks(plan).anchor.tolist() == masks(plan).labels.tolist() == []
