"""Roles of sae_features: what is refused, by line and field, and which rows are one group."""

from __future__ import annotations

from typing import Any

import pytest

from checks.check import Refusal
from checks.sae_features.rows import CONCEPTS_MAX, in_training, read_roles


def corpus(**more: Any) -> dict[str, Any]:
    return {"id": "a", "group": "g", "text": "one two"} | more


def concept(**more: Any) -> dict[str, Any]:
    return {"id": "a", "group": "g", "concept": "open", "label": 1, "text": "one two"} | more


def contrast(**more: Any) -> dict[str, Any]:
    return {"id": "a", "group": "g", "concept": "open", "prompt": "one", "target": " two", "foil": " three"} | more


def refused(**roles: list[dict[str, Any]]) -> tuple[str, ...]:
    with pytest.raises(Refusal) as caught:
        read_roles(roles)
    assert caught.value.reason == "role_invalid"
    return caught.value.items


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": "a", "group": "g"}, "text:or_tokens_exactly_one"),
        (corpus(tokens=[1]), "text:or_tokens_exactly_one"),
        (corpus(weight=1), "weight:unknown"),
        (corpus(id=""), "id:not_text"),
        (corpus(group=3), "group:not_text"),
        ({"id": "a", "group": "g", "tokens": []}, "tokens:not_a_list_of_integers"),
        ({"id": "a", "group": "g", "tokens": [1, True]}, "tokens:not_a_list_of_integers"),
        ({"id": "a", "group": "g", "tokens": [-1]}, "tokens:out_of_range"),
        ({"id": "a", "group": "g", "tokens": [2**31]}, "tokens:out_of_range"),
    ],
)
def test_a_wrong_corpus_row_is_named_by_line_and_field(row: dict[str, Any], what: str) -> None:
    assert refused(corpus=[corpus(id="first"), row]) == (f"corpus:line:2:{what}", "total:1")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (concept(label=2), "label:not_0_or_1"),
        (concept(label=True), "label:not_0_or_1"),
        (concept(concept="a b"), "concept:outside_the_name_alphabet"),
        (concept(concept="x" * 33), "concept:outside_the_name_alphabet"),
        (concept(read_at=0), "read_at:outside_the_text"),
        (concept(read_at=8), "read_at:outside_the_text"),
        (concept(read_at=[3, 3]), "read_at:not_a_span_of_the_text"),
        (concept(read_at=[0, 99]), "read_at:not_a_span_of_the_text"),
        (concept(split="dev"), "split:not_train_val_test_null"),
        (concept(shift="<b>"), "shift:outside_the_name_alphabet"),
        ({"id": "a", "group": "g", "concept": "open", "text": "one"}, "label:missing"),
    ],
)
def test_a_wrong_concept_row_is_named_by_line_and_field(row: dict[str, Any], what: str) -> None:
    assert refused(concepts=[row]) == (f"concepts:line:1:{what}", "total:1")


def test_a_foil_that_is_the_target_and_a_missing_prompt_are_named() -> None:
    bare = contrast(id="b")
    del bare["prompt"]
    items = refused(contrast=[contrast(foil=" two"), bare])
    assert items == ("contrast:line:1:foil:is_the_target", "contrast:line:2:prompt:missing", "total:2")


def test_a_second_row_of_one_id_is_named() -> None:
    assert refused(corpus=[corpus(), corpus(text="other")]) == ("corpus:line:2:id:duplicate", "total:1")


def test_only_twenty_lines_are_named_and_all_are_counted() -> None:
    items = refused(corpus=[corpus(id=str(number), text="") for number in range(25)])
    assert len(items) == 21
    assert items[-1] == "total:25"


def test_a_group_in_two_declared_splits_is_refused() -> None:
    rows = [concept(split="train"), concept(id="b", text="other", split="test")]
    assert refused(concepts=rows) == ("concepts:line:2:group:in_two_splits", "total:1")


def test_groups_that_share_a_text_and_their_declared_splits_are_refused_too() -> None:
    # One text under two groups: what one split trains on, the other would test.
    rows = [concept(split="train"), concept(id="b", group="h", text="ONE  two", split="test")]
    assert refused(concepts=rows) == ("concepts:line:2:group:in_two_splits", "total:1")


def test_groups_that_share_a_text_are_one_group_through_any_chain() -> None:
    rows = read_roles(
        {
            "corpus": [
                corpus(id="1", group="a", text="Ein  Wort"),
                corpus(id="2", group="b", text="ein wort"),
                corpus(id="3", group="b", text="second"),
                corpus(id="4", group="c", text="SECOND"),
                corpus(id="5", group="d", text="third"),
            ]
        }
    ).corpus
    assert [row.group for row in rows] == ["a", "a", "a", "a", "d"]


def test_equal_token_sequences_are_one_group() -> None:
    rows = [{"id": "1", "group": "a", "tokens": [1, 2]}, {"id": "2", "group": "b", "tokens": [1, 2]}]
    assert [row.group for row in read_roles({"corpus": rows}).corpus] == ["a", "a"]


def test_more_concepts_than_a_report_can_tell_are_refused_with_the_limit() -> None:
    rows = [concept(id=str(n), concept=f"c{n}") for n in range(CONCEPTS_MAX + 1)]
    with pytest.raises(Refusal) as caught:
        read_roles({"concepts": rows})
    assert caught.value.reason == "too_many_concepts"
    assert caught.value.items == (f"concepts:{CONCEPTS_MAX + 1}", f"limit:{CONCEPTS_MAX}")


def test_four_fifths_of_the_groups_train_and_another_seed_draws_others() -> None:
    drawn = [[in_training(f"g{number}", seed) for number in range(4000)] for seed in (0, 1)]
    for one in drawn:
        assert 0.77 < sum(one) / len(one) < 0.83  # four standard errors of 4000 draws are .025
    assert drawn[0] != drawn[1]


def test_a_read_position_becomes_what_the_runtime_marks() -> None:
    rows = read_roles({"concepts": [concept(), concept(id="b", read_at=3), concept(id="c", read_at=[0, 3])]}).concepts
    assert [row.read for row in rows] == ["last", 3, (0, 3)]


def test_rows_without_a_split_take_the_one_that_their_group_declares() -> None:
    # Else one row of a group is drawn into train beside a sister that is declared test.
    rows = [
        concept(split="test"),
        concept(id="b", text="second"),
        concept(id="c", group="h", text="SECOND"),
        concept(id="d", group="i", text="third"),
        concept(id="e", concept="closed", text="fourth"),
    ]
    for ordered in (rows, rows[::-1]):
        read = read_roles({"concepts": ordered}).concepts
        assert {row.id: row.split for row in read} == {"a": "test", "b": "test", "c": "test", "d": None, "e": None}
