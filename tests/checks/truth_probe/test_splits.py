"""Who may be fitted on whom: bad sets refused each for itself, leaks between splits, and what is left out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest

from checks.check import Refusal
from checks.truth_probe.pairs import digest, folded
from checks.truth_probe.splits import Plan, plans, require_enough
from tests.checks.truth_probe.drawing import ASKED, Rows, drawn, everything, many, of_split, outcomes, pinned, told_of


def refused(rows: Rows, **asked: Any) -> Refusal:
    (made,) = outcomes(rows, **asked).values()
    if isinstance(made, Refusal):
        return made
    with pytest.raises(Refusal) as told:
        require_enough(made)
    return told.value


def assert_apart(plan: Plan) -> None:
    """No cluster, no item and no text stands on two sides."""
    sides: dict[tuple[str, str], set[str]] = {}
    for pair, cluster, split in zip(plan.pairs, plan.clusters, plan.splits, strict=True):
        for held in (
            ("cluster", pair.cluster),
            ("joined", cluster),
            ("item", pair.item),
            ("text", folded(pair.pos)),
            ("text", folded(pair.neg)),
        ):
            sides.setdefault(held, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert {"train", "test"} <= set(plan.splits)


# What is refused.


def test_too_few_items_are_refused_with_the_counts() -> None:
    told = refused(many(150))
    assert told.reason == "too_few_items"
    assert [item.rsplit(":", 1)[1] for item in told.items] == ["100", "100", "20"]
    assert any(item.startswith("test_items:") for item in told.items)
    assert refused(many(600, cluster="one")).reason == "too_few_items"
    assert refused(many(1)).reason == "too_few_items"
    assert refused(many(500, polarity="negated")).items[0] == "train_pairs:0:least:100"


def test_a_set_without_rows_is_no_set() -> None:
    assert plans((), max_items=1000, anchors_k=32, seed=0) == {}


def test_one_sided_and_missing_labels_are_refused() -> None:
    told = refused(many(500, label=1))
    assert (told.reason, told.items[0].split(":")[0]) == ("one_sided_labels", "train")
    assert refused(many(500, label=None)).reason == "unlabelled"


def test_a_test_split_without_labels_is_named() -> None:
    rows = many(500)
    plan = drawn(rows)
    test = of_split(plan)["test"]
    blind = [{**row, "label": None} if row["id"] in test else row for row in pinned(plan, rows)]
    told = refused(blind)
    assert (told.reason, told.items) == ("unlabelled", ("test:labelled:0",))


def test_unlabelled_test_items_do_not_make_up_the_number() -> None:
    rows = many(600)
    plan = drawn(rows)
    blind = set(sorted(of_split(plan)["test"])[99:])
    told = refused([{**row, "label": None} if row["id"] in blind else row for row in pinned(plan, rows)])
    assert told.reason == "too_few_items"
    assert "labelled_test_items:99:least:100" in told.items


def test_labels_of_five_percent_are_enough_and_fewer_are_not() -> None:
    rows = many(420)
    for number, row in enumerate(rows):
        row["split"] = "train" if number < 200 else "test" if number < 400 else "anchor"
        row["label"] = int(number % 20 != 0)
    require_enough(drawn(rows))
    rows[0]["label"] = 1
    assert refused(rows).items == ("train:true:191:of:200",)


def test_a_cluster_in_two_declared_splits_is_refused_by_name() -> None:
    rows = many(400, split="train")
    for row in rows[200:]:
        row["split"] = "test"
    assert Counter(drawn(rows).splits) == {"train": 200, "test": 200}
    rows[1]["split"] = rows[7]["split"] = "test"
    told = refused(rows)
    assert (told.reason, told.items) == ("split_conflict", ("cluster:c0", "cluster:c3", "total:2"))
    assert refused(rows, max_items=100).items == told.items  # whether or not its rows are used


def test_clusters_that_a_shared_text_joins_may_not_be_declared_apart() -> None:
    rows = many(400, split="train")
    for row in rows[200:]:
        row["split"] = "test"
    rows[0]["pos"] = rows[301]["neg"].upper() + " "
    told = refused(rows)
    assert (told.reason, told.items) == ("split_conflict", ("cluster:c0", "cluster:c150", "total:2"))


def test_many_conflicts_are_counted() -> None:
    rows = many(60, split="train")
    for row in rows[1::2]:
        row["split"] = "test"
    told = refused(rows)
    assert len(told.items) == 21
    assert told.items[-1] == "total:30"


def test_a_persona_that_nobody_has_is_refused_with_those_there_are() -> None:
    rows = many(500, persona="A") + many(500, suffix=" b", persona="B")
    told = refused(rows, fit_persona="C", test_persona="D")
    assert told.reason == "persona_absent"
    assert told.items == ("fit_persona:C", "test_persona:D", "persona:A", "persona:B")
    assert refused(many(), fit_persona="A").items == ("fit_persona:A",)
    assert refused(many(persona="A"), fit_persona="A", test_persona="B").items == ("test_persona:B", "persona:A")


def test_the_refusal_of_one_set_leaves_the_others() -> None:
    torn = many(4, suffix=" t", set="torn", split="train")
    torn[0]["split"] = "test"
    made = outcomes(many(set="b") + torn + many(suffix=" a", set="a"))
    assert list(made) == ["a", "b", "torn"]
    assert isinstance(made["torn"], Refusal)
    assert [len(plan.pairs) > 400 for plan in made.values() if isinstance(plan, Plan)] == [True, True]


# Who is where.


def test_splits_share_no_cluster_no_item_and_no_text() -> None:
    rows = many()
    rows[0]["pos"] = rows[301]["pos"].upper() + " "  # the same text in another cluster
    rows[10]["item"] = rows[401]["item"]
    assert_apart(drawn(rows))


def test_duplicates_across_kinds_join_their_clusters_too() -> None:
    rows = many(persona="A")
    negated = many(60, suffix=" not", persona="A", polarity="negated")
    other = many(60, suffix=" b", persona="B")
    for number in range(60):
        negated[number] |= {"cluster": f"n{number}", "item": f"n{number}", "pos": rows[number]["neg"].upper()}
        other[number] |= {"cluster": f"o{number}", "item": f"o{number}", "neg": f" {rows[100 + number]['pos']}"}
    plan = drawn(rows + negated + other, fit_persona="A", test_persona="B")
    assert set(plan.kinds) == {"main", "negated", "other"}
    assert_apart(plan)


def test_shares_and_anchors_are_as_asked() -> None:
    plan = drawn(many(1000))
    count = Counter(plan.splits)
    labels = [pair.label for pair, split in zip(plan.pairs, plan.splits, strict=True) if split == "anchor"]
    assert Counter(labels) == {0: 16, 1: 16}
    assert count["train"] / (count["train"] + count["test"]) == pytest.approx(0.55, abs=0.01)


def test_clusters_go_in_the_order_of_their_hash() -> None:
    plan = drawn(many(400))
    of = dict(zip(plan.clusters, plan.splits, strict=True))
    order = sorted((f"c{number}" for number in range(200)), key=lambda name: digest(name, 0))
    ranks = {split: [order.index(cluster) for cluster in of if of[cluster] == split] for split in set(of.values())}
    assert max(ranks["anchor"]) < min(ranks["train"])
    assert max(ranks["train"]) < min(ranks["test"])


def test_file_order_decides_nothing() -> None:
    rows = everything()
    first = drawn(rows, **ASKED)
    shuffled = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]
    second = drawn(shuffled, **ASKED)
    assert told_of(first) == told_of(second)
    assert sorted(first.left_out) == sorted(second.left_out)
    assert [pair.id for pair in first.pairs] == [pair.id for pair in second.pairs]


def test_another_seed_is_another_split() -> None:
    rows = many()
    assert told_of(drawn(rows)) == told_of(drawn(rows))
    assert told_of(drawn(rows)) != told_of(drawn(rows, seed=1))


def test_a_plan_of_its_own_rows_is_the_same_plan() -> None:
    # Controls hand on planned rows with their splits declared, and labels of their own.
    rows = everything()
    plan = drawn(rows, **ASKED)
    again = drawn(pinned(plan, rows), **ASKED)
    assert told_of(again) == told_of(plan)
    assert again.left_out == ()


def test_declared_anchors_are_the_only_ones() -> None:
    rows = many(500)
    for row in rows[:20]:
        row["split"] = "anchor"
    plan = drawn(rows)
    assert of_split(plan)["anchor"] == {row["id"] for row in rows[:20]}
    assert len(plan.pairs) == 500


def test_labels_of_train_and_test_move_nobody() -> None:
    rows = many()
    plan = drawn(rows)
    scored = of_split(plan)["test"] | of_split(plan)["train"]
    other = [{**row, "label": 1 - row["label"]} if row["id"] in scored else row for row in rows]
    assert told_of(drawn(other)) == told_of(plan)


# Kinds.


def test_negated_rows_follow_their_cluster_and_never_orient() -> None:
    plan = drawn(many() + many(suffix=" not", polarity="negated"))
    main, negated = of_split(plan), of_split(plan, "negated")
    assert negated["anchor"] == set()
    assert {one.removesuffix(" not") for one in negated["train"]} == main["train"]
    assert {one.removesuffix(" not") for one in negated["test"]} == main["test"]
    # Surplus items of the anchors' clusters have negations too.
    surplus = sum(int(item.split(":")[1]) for item, why in plan.left_out if why == "surplus_anchor")
    assert (f"pairs:{32 + surplus}", "negated_anchor") in plan.left_out


def test_negated_rows_of_clusters_of_their_own_are_shared_out() -> None:
    negated = many(200, suffix=" not", polarity="negated")
    for number, row in enumerate(negated):
        row["cluster"], row["item"] = f"n{number // 2}", f"n{number}"
    alone = drawn(many())
    plan = drawn(many() + negated)
    assert of_split(plan) == of_split(alone)
    assert Counter(s for s, k in zip(plan.splits, plan.kinds, strict=True) if k == "negated") == {
        "train": 110,
        "test": 90,
    }


def test_the_other_persona_is_kept_where_it_is_tested_and_counted_elsewhere() -> None:
    rows = many(persona="A") + many(suffix=" b", persona="B") + many(20, suffix=" c", persona="C")
    rows += many(30, suffix=" not", persona="B", polarity="negated") + many(5, suffix=" who", persona=None)
    plan = drawn(rows, fit_persona="A", test_persona="B")
    main, other = of_split(plan), of_split(plan, "other")
    assert other["train"] == other["anchor"] == set()
    assert {one.removesuffix(" b") for one in other["test"]} == main["test"]
    assert set(plan.kinds) == {"main", "other"}
    assert ("pairs:25", "persona_not_asked") in plan.left_out
    untested = sum(int(item.split(":")[1]) for item, why in plan.left_out if why == "other_persona_not_tested")
    assert untested == 500 - len(main["test"]) + 30


def test_the_other_persona_in_clusters_of_its_own_is_all_tested() -> None:
    other = many(40, suffix=" b", persona="B")
    for number, row in enumerate(other):
        row["cluster"], row["item"] = f"o{number // 2}", f"o{number}"
    plan = drawn(many(persona="A") + other, fit_persona="A", test_persona="B")
    assert len(of_split(plan, "other")["test"]) == 40


def test_without_a_persona_to_fit_anyone_is_fitted_save_the_tested_one() -> None:
    rows = many(persona="A") + many(suffix=" b", persona="B") + many(suffix=" who", persona=None)
    assert set(drawn(rows).kinds) == {"main"}
    plan = drawn(rows, test_persona="B")
    of = {kind: {p.persona for p, k in zip(plan.pairs, plan.kinds, strict=True) if k == kind} for kind in plan.kinds}
    assert of == {"main": {"A", None}, "other": {"B"}}


def test_the_persona_that_is_fitted_may_be_tested_as_itself() -> None:
    assert set(drawn(many(persona="A"), fit_persona="A", test_persona="A").kinds) == {"main"}


def test_max_items_hold_for_each_kind_by_the_hash_of_the_item() -> None:
    rows = everything(300)
    plan = drawn(rows, max_items=200, fit_persona="A", test_persona="B")
    first = set(sorted({row["item"] for row in rows}, key=lambda item: digest(item, 0))[:200])
    assert {pair.item for pair in plan.pairs} <= first
    told = [one for one in plan.left_out if one[1] == "over_max_items"]
    assert [item for item, _ in told] == ["items:100", "negated_items:100", "other_items:100"]


def test_a_plan_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        drawn(many()).seed = 1  # type: ignore[misc]
