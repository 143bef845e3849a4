"""Rows of the role `pairs`: what is refused, by line, and who may be fitted on whom."""

from __future__ import annotations

from typing import Any

import pytest

from checks.check import Refusal
from checks.truth_probe.pairs import folded, joined_clusters, read_pairs
from checks.truth_probe.splits import plan, require_enough
from tests.checks.truth_probe.planting import rows_of


def row(**changed: Any) -> dict[str, Any]:
    return {**rows_of([1], [None])[0], **changed}


def answer_row(**changed: Any) -> dict[str, Any]:
    base = {key: value for key, value in row(form="answer").items() if key not in ("pos", "neg")}
    return {**base, "prompt": "Is it so? ", "answer_pos": "Yes", "answer_neg": "No", **changed}


@pytest.mark.parametrize(
    ("bad", "item"),
    [
        (row(colour="red"), "line:1:colour:unknown"),
        ({key: value for key, value in row().items() if key != "cluster"}, "line:1:cluster:missing"),
        (row(item=7), "line:1:item:not_text"),
        (row(pos=""), "line:1:pos:not_text"),
        (row(label=2), "line:1:label:not_1_0_null"),
        (row(label=True), "line:1:label:not_1_0_null"),
        (row(label=1.0), "line:1:label:not_1_0_null"),
        (row(polarity="double"), "line:1:polarity:unknown_word"),
        (row(split="dev"), "line:1:split:unknown_word"),
        (row(form="question"), "line:1:form:not_answer_or_statement"),
        (row(features={"topic": 2}), "line:1:features:not_0_or_1"),
        (row(features=[1]), "line:1:features:not_0_or_1"),
        (row(read_at="first"), "line:1:read_at:not_last_or_integers"),
        (row(read_at=[1]), "line:1:read_at:not_last_or_integers"),
        (row(read_at=True), "line:1:read_at:not_last_or_integers"),
        (row(read_at=1000), "line:1:read_at:outside_the_text"),
        (row(read_at=0), "line:1:read_at:outside_the_text"),
        (row(persona=3), "line:1:persona:not_text"),
        (answer_row(pos="x"), "line:1:pos:unknown"),
        (answer_row(yes="Yes"), "line:1:yes:unknown"),
        (row(**{"a b<>": 1}), "line:1:a_b__:unknown"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(bad: dict[str, Any], item: str) -> None:
    with pytest.raises(Refusal) as told:
        read_pairs([bad])
    assert told.value.reason == "role_invalid"
    assert item in told.value.items


def test_duplicate_ids_and_the_total_are_told() -> None:
    with pytest.raises(Refusal) as told:
        read_pairs([row()] * 40)
    assert told.value.items[0] == "line:2:id:duplicate"
    assert told.value.items[-1] == "total:39"
    assert len(told.value.items) == 21


def test_forms_make_their_texts() -> None:
    pair = read_pairs([answer_row(read_at=12)])[0]
    assert (pair.pos, pair.neg) == ("Is it so? Yes", "Is it so? No")
    assert [text.read_at for text in pair.texts()] == [12, 12]
    assert [text.read_at for text in read_pairs([row(read_at=[3, 5])])[0].texts()] == [3, 5]
    assert [text.read_at for text in read_pairs([row(yes="y", no="n")])[0].texts()] == [None, None]


def many(count: int = 500, **changed: Any) -> list[dict[str, Any]]:
    labels = [number % 2 for number in range(count)]
    return [{**one, **changed} for one in rows_of(labels, [None] * count, per_cluster=2)]


def test_splits_share_no_cluster_and_no_text() -> None:
    rows = many()
    rows[0]["pos"] = rows[301]["pos"].upper() + " "  # the same text in another cluster
    drawn = plan(read_pairs(rows), max_items=1000, anchors_k=32)
    of: dict[str, set[str]] = {}
    for cluster, split in zip(drawn.clusters, drawn.splits, strict=True):
        of.setdefault(cluster, set()).add(split)
    assert all(len(splits) == 1 for splits in of.values())
    texts = {
        split: {folded(t) for p, s in zip(drawn.pairs, drawn.splits, strict=True) if s == split for t in (p.pos, p.neg)}
        for split in ("train", "anchor", "test")
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["anchor"]
    assert not texts["anchor"] & texts["test"]


def test_duplicates_force_clusters_into_one() -> None:
    rows = many(6)
    rows[0]["pos"] = rows[4]["neg"]
    clusters = joined_clusters(read_pairs(rows))
    assert clusters[0] == clusters[4] == clusters[1]
    assert clusters[2] not in (clusters[0],)


def test_shares_and_anchors_are_as_asked() -> None:
    drawn = plan(read_pairs(many(1000)), max_items=1000, anchors_k=32)
    count = {split: drawn.splits.count(split) for split in ("train", "anchor", "test")}
    anchors = [p.label for p, s in zip(drawn.pairs, drawn.splits, strict=True) if s == "anchor"]
    assert sorted(map(str, anchors)) == ["0"] * 16 + ["1"] * 16
    assert count["train"] / (count["train"] + count["test"]) == pytest.approx(0.55, abs=0.01)


def test_the_split_does_not_depend_on_file_order() -> None:
    rows = many()
    first = plan(read_pairs(rows), max_items=1000, anchors_k=32)
    second = plan(read_pairs(rows[::-1]), max_items=1000, anchors_k=32)
    assert dict(zip([p.id for p in first.pairs], first.splits, strict=True)) == dict(
        zip([p.id for p in second.pairs], second.splits, strict=True)
    )


def test_what_is_left_out_is_counted() -> None:
    rows = many(600)
    rows[0]["polarity"] = "negated"
    rows[2]["neg"] = rows[2]["pos"]
    drawn = plan(read_pairs(rows), max_items=400, anchors_k=32)
    told = dict(drawn.left_out)
    assert told["negated_pairs:1"] == "negated_not_fitted"
    assert told["item:i2"] == "branches_alike"
    assert told["items:198"] == "over_max_items"


def test_declared_splits_are_kept_and_must_not_cross() -> None:
    rows = many(400, split="train")
    for one in rows[200:]:
        one["split"] = "test"
    drawn = plan(read_pairs(rows), max_items=1000, anchors_k=32)
    assert set(drawn.splits) == {"train", "test"}
    rows[1]["split"] = "test"  # shares its cluster with row 0
    with pytest.raises(Refusal, match="split_conflict: cluster:c0"):
        plan(read_pairs(rows), max_items=1000, anchors_k=32)


def test_several_sets_are_refused_by_name() -> None:
    rows = many(10)
    rows[3]["set"] = "other"
    with pytest.raises(Refusal, match="many_sets: set:other, set:planted"):
        plan(read_pairs(rows), max_items=1000, anchors_k=32)


def refused(rows: list[dict[str, Any]]) -> Refusal:
    with pytest.raises(Refusal) as told:
        require_enough(plan(read_pairs(rows), max_items=1000, anchors_k=32))
    return told.value


def test_too_few_items_are_refused_with_the_counts() -> None:
    told = refused(many(150))
    assert told.reason == "too_few_items"
    assert any(item.startswith("test_items:") and item.endswith("least:100") for item in told.items)
    assert refused(many(600, cluster="one")).reason == "too_few_items"
    assert refused([]).reason == "too_few_items"
    assert refused(many(1)).reason == "too_few_items"


def test_one_sided_and_missing_labels_are_refused() -> None:
    assert refused(many(500, label=1)).reason == "one_sided_labels"
    assert refused(many(500, label=None)).reason == "unlabelled"


def test_many_pairs_with_alike_branches_are_refused() -> None:
    rows = many(500)
    for one in rows[:40]:
        one["neg"] = one["pos"]
    with pytest.raises(Refusal, match="branches_alike"):
        plan(read_pairs(rows), max_items=1000, anchors_k=32)
