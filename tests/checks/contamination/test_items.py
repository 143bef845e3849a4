from __future__ import annotations

from typing import Any

import pytest

from checks.check import Refusal
from checks.contamination.items import (
    Item,
    read_benchmark,
    read_placebo,
    read_scores,
)
from checks.contamination.rewrites import read_rewrites

ROW: dict[str, Any] = {"benchmark": "gsm", "item": "1", "kind": "prose", "question": "How many hens are left?"}
CODE: dict[str, Any] = {
    **ROW,
    "kind": "code",
    "entry": "f",
    "reference": "def f(x):\n    return x\n",
    "probes": [[1], [2]],
}
SURROGATE = "\ud800"


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != field}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**ROW, "colour": "red"}, "colour:unknown"),
        (without("question"), "question:missing"),
        ({**ROW, "question": ""}, "question:not_text"),
        ({**ROW, "question": None}, "question:not_text"),
        ({**ROW, "question": SURROGATE}, "question:not_text"),
        ({**ROW, "question": " \n"}, "question:empty"),
        ({**ROW, "question": "a" * 20_001}, "question:too_long"),
        ({**ROW, "item": 7}, "item:not_text"),
        ({**ROW, "item": "a b"}, "item:not_a_name"),
        ({**ROW, "benchmark": "b" * 33}, "benchmark:not_a_name"),
        ({**ROW, "kind": "essay"}, "kind:not_prose_choice_code"),
        ({**ROW, "language": "e n"}, "language:not_a_tag"),
        ({**ROW, "position": True}, "position:not_a_count"),
        ({**ROW, "position": -1}, "position:not_a_count"),
        ({**ROW, "choices": "abc"}, "choices:not_texts"),
        ({**ROW, "kind": "choice", "choices": ["a"]}, "choices:fewer_than_2"),
        ({**ROW, "kind": "choice"}, "choices:fewer_than_2"),
        ({**ROW, "kind": "code"}, "entry:missing"),
        ({**CODE, "entry": "f()"}, "entry:not_an_identifier"),
        ({**CODE, "probes": [1]}, "probes:not_lists"),
        ({**ROW, "answer": 18}, "answer:not_text"),
    ],
)
def test_bad_items_are_named_by_line_and_field(row: dict[str, Any], told: str) -> None:
    good = {**ROW, "item": "0"}
    with pytest.raises(Refusal) as refused:
        read_benchmark([good, row])
    assert refused.value.reason == "role_invalid"
    assert f"benchmark:line:2:{told}" in refused.value.items


def test_refusals_count_every_problem_and_name_twenty() -> None:
    with pytest.raises(Refusal) as refused:
        read_benchmark([{**ROW, "item": f"{number}", "question": ""} for number in range(30)])
    assert len(refused.value.items) == 21
    assert refused.value.items[-1] == "total:30"


def test_duplicate_items_are_refused_within_a_benchmark_only() -> None:
    assert len(read_benchmark([ROW, {**ROW, "benchmark": "other"}])) == 2
    with pytest.raises(Refusal, match="line:2:id:duplicate"):
        read_benchmark([ROW, ROW])


def test_too_many_items_are_refused() -> None:
    with pytest.raises(Refusal, match="max_items:1"):
        read_benchmark([ROW, {**ROW, "item": "2"}], max_items=1)
    with pytest.raises(Refusal, match="no_rows"):
        read_benchmark([])


def test_no_refusal_repeats_text_of_a_row() -> None:
    with pytest.raises(Refusal) as refused:
        read_benchmark([{**ROW, "kind": "CANARY7", "item": "CANARY7 !", "language": "CANARY7 !"}])
    assert "CANARY7" not in str(refused.value)


def test_null_columns_of_parquet_are_absent_fields() -> None:
    (item,) = read_benchmark([{**ROW, "answer": None, "choices": None, "position": None, "probes": None}])
    assert item == Item(benchmark="gsm", item="1", kind="prose", question=ROW["question"])
    assert item.name == "gsm/1"


def test_more_than_thirty_benchmarks_are_refused_with_both_numbers() -> None:
    row = {"item": "i", "kind": "prose", "question": "How many are 2 and 3?"}
    rows = [{"benchmark": f"b{at}", **row} for at in range(31)]
    assert len(read_benchmark(rows[:30])) == 30
    with pytest.raises(Refusal) as told:
        read_benchmark(rows)
    assert (told.value.reason, told.value.items) == ("role_invalid", ("benchmark:benchmarks:31", "benchmark:most:30"))


def test_code_in_other_languages_needs_no_reference() -> None:
    (item,) = read_benchmark([{**ROW, "kind": "code", "language": "c++"}])
    assert item.language == "c++"
    (python,) = read_benchmark([CODE])
    assert python.language == "python"
    assert python.probes == ((1,), (2,))


def test_a_placebo_says_why_it_is_unseen() -> None:
    (placebo,) = read_placebo([{**ROW, "origin": "private"}])
    assert placebo.origin == "private"
    assert placebo.item.item == "1"
    with pytest.raises(Refusal, match="placebo:line:1:origin:missing"):
        read_placebo([ROW])
    with pytest.raises(Refusal, match="origin:not_after_cutoff"):
        read_placebo([{**ROW, "origin": ["guess"]}])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"item": "2"}, "item:not_in_benchmark"),
        ({"depth": 6}, "depth:not_0_to_5"),
        ({"depth": True}, "depth:not_0_to_5"),
        ({"text": " "}, "text:empty"),
        ({"text": 3}, "text:not_text"),
    ],
)
def test_bad_rewrites_are_refused(change: dict[str, Any], told: str) -> None:
    row = {"benchmark": "gsm", "item": "1", "text": "How many remain?", "depth": 5}
    items = read_benchmark([ROW])
    assert read_rewrites([row], items)[0].depth == 5
    with pytest.raises(Refusal, match=f"rewrites:line:1:{told}"):
        read_rewrites([{**row, **change}], items)


def test_copies_of_a_question_are_no_rewordings() -> None:
    """Twenty copies with blanks behind them, told as depth 5: neither reworded nor twenty."""
    items = read_benchmark([ROW])
    row = {"benchmark": items[0].benchmark, "item": items[0].item, "depth": 5}
    question = items[0].question
    with pytest.raises(Refusal) as refused:
        read_rewrites([row | {"text": question + " " * blanks} for blanks in range(20)], items)
    assert refused.value.items[:2] == ("rewrites:line:1:text:same_words", "rewrites:line:2:text:same_words")
    assert len(read_rewrites([row | {"text": question + " " * blanks, "depth": 1} for blanks in range(3)], items)) == 3
    with pytest.raises(Refusal, match="rewrites:line:2:id:duplicate"):
        read_rewrites(
            [row | {"text": text} for text in ("Said in other words, 7?", "said in  other words: seven")], items
        )


@pytest.mark.parametrize(
    ("change", "told"),
    [({"correct": True}, "correct:not_0_or_1"), ({"model": "a b"}, "model:not_a_name"), ({"item": None}, "item:not")],
)
def test_bad_scores_are_refused(change: dict[str, Any], told: str) -> None:
    row = {"model": "target", "benchmark": "gsm", "item": "1", "correct": 1}
    assert read_scores([row, {**row, "model": "other"}])[1].model == "other"
    with pytest.raises(Refusal, match=f"scores:line:1:{told}"):
        read_scores([{**row, **change}])
    with pytest.raises(Refusal, match="duplicate"):
        read_scores([row, row])
