"""What a model is asked is drawn the same twice, fits, and is nothing where a guard has answered already."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from checks.check import Refusal
from checks.contamination import model_texts
from checks.contamination.items import read_benchmark
from checks.contamination.model_texts import (
    TESTS,
    ModelAsked,
    needs,
    reckoned,
    rendered,
    stream,
    texts_of,
)
from checks.memory import model_facts
from checks.runtime.plan import check_needs

YES = {"demo": {"order_exchangeable": "yes", "options_randomised": "yes"}}
ASKED = ModelAsked(declares=YES, shuffles=3)
FACTS = model_facts(context=160)


def rows(count: int = 40, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    words = ["harbour", "ledger", "winter", "salt", "clerk", "moor", "lamp", "road", "tide", "glass"]
    return [
        {"benchmark": "demo", "item": f"i{at}", "kind": "choice", "question": " ".join(rng.permutation(words)[:6]),
         "choices": [f"{words[place]} {at}" for place in rng.permutation(10)[:4]], **more}
        for at in range(count)
    ]  # fmt: skip


def placebos(count: int = 40) -> list[dict[str, Any]]:
    return [{**row, "item": f"p{at}", "origin": "private"} for at, row in enumerate(rows(count, 1))]


def test_rows_that_are_wrong_are_refused_by_line() -> None:
    with pytest.raises(Refusal, match="benchmark:no_rows"):
        needs(ASKED, {"benchmark": []}, FACTS)
    with pytest.raises(Refusal, match="question"):
        needs(ASKED, {"benchmark": [{**rows(1)[0], "question": " "}]}, FACTS)
    with pytest.raises(Refusal, match="placebo"):
        needs(ASKED, {"benchmark": rows(), "placebo": [{**rows(1)[0], "origin": "somewhere"}]}, FACTS)


def test_the_limit_on_items_holds_on_the_model_side() -> None:
    asked = ModelAsked(tests=("order",), max_items=39)
    with pytest.raises(Refusal) as caught:
        texts_of(asked, {"benchmark": rows(40)}, 128)
    assert caught.value.items == ("benchmark:items:40", "benchmark:max_items:39")
    with pytest.raises(Refusal) as caught:
        texts_of(asked, {"benchmark": rows(39), "placebo": placebos(40)}, 128)
    assert caught.value.items == ("placebo:items:40", "placebo:max_items:39")


def test_texts_are_the_same_in_needs_and_in_measure_and_other_for_another_benchmark() -> None:
    given = {"benchmark": rows(), "placebo": placebos()}
    told = needs(ASKED, given, FACTS)
    assert told == needs(ASKED, given, FACTS)
    check_needs(told, FACTS)
    other = needs(ASKED, {**given, "benchmark": rows(seed=5)}, FACTS)
    assert {one.text for one in other.scored} != {one.text for one in told.scored}
    items = read_benchmark(rows())
    first = stream("demo", items, "shuffles").integers(2**60)
    assert first == stream("demo", items, "shuffles").integers(2**60)
    assert first != stream("demo", items[1:], "shuffles").integers(2**60)
    assert set(told.scored_twin) <= {one.id for one in told.scored}


def test_stretches_are_neighbours_that_fit_and_every_order_holds_the_same_items() -> None:
    (one,) = texts_of(replace(ASKED, order_span=8), {"benchmark": rows()}, 100)
    published = [rendered(item) for item in one.items]
    assert one.short == 0
    at = 0
    for stretch in one.stretches:
        assert 4 <= stretch.items <= 8
        assert stretch.texts[0] == "\n\n".join(published[at : at + stretch.items])
        assert len(stretch.texts) == len(stretch.ids) == 4
        assert len({tuple(sorted(Counter(text.split("\n\n")).items())) for text in stretch.texts}) == 1
        assert sum(reckoned(part) for part in published[at : at + stretch.items]) <= 100
        at += stretch.items
    assert at == 40


def test_cuts_do_not_hang_on_the_order_within_a_stretch() -> None:
    """Else the published order would not be one among others, and p not exact."""
    given = [{**row, "question": row["question"] + " x" * (at % 5)} for at, row in enumerate(rows())]
    (one,) = texts_of(ASKED, {"benchmark": given}, 90)
    rng = np.random.default_rng(0)
    at, mixed = 0, []
    for stretch in one.stretches:
        mixed += [given[at + int(place)] for place in rng.permutation(stretch.items)]
        at += stretch.items
    (other,) = texts_of(ASKED, {"benchmark": mixed + given[at:]}, 90)
    assert [stretch.items for stretch in other.stretches] == [stretch.items for stretch in one.stretches]


def test_what_does_not_fit_is_counted_and_too_few_stretches_are_not_asked() -> None:
    (one,) = texts_of(ASKED, {"benchmark": rows()}, 20)
    assert one.not_asked["order"] == "too_few"
    assert one.short == 40
    assert not one.stretches


def test_published_order_is_that_of_the_positions() -> None:
    given = [{**row, "position": 39 - at} for at, row in enumerate(rows())]
    (one,) = texts_of(ASKED, {"benchmark": given}, 160)
    assert [item.item for item in one.items[:2]] == ["i39", "i38"]


def test_nothing_is_run_that_is_not_vouched_for() -> None:
    for declared in ({}, {"demo": {"order_exchangeable": "no", "options_randomised": "unknown"}}):
        told = needs(replace(ASKED, declares=declared), {"benchmark": rows()}, FACTS)
        assert not told.scored
        assert not told.scored_twin
    (one,) = texts_of(replace(ASKED, tests=("order", "transfer")), {"benchmark": rows()}, 160)
    assert one.not_asked == {"options": "parameter", "surprise": "parameter"}
    assert all(one.asks(test) == (test in ("order", "transfer")) for test in TESTS)


def test_no_stretch_is_run_of_an_order_with_structure() -> None:
    given = sorted(rows(120), key=lambda row: len(row["question"]))
    (one,) = texts_of(replace(ASKED, tests=("order",)), {"benchmark": given}, 160)
    assert one.structured
    assert one.asks("order")
    assert not one.stretches


def test_options_are_asked_in_all_their_orders_with_letters_that_stay() -> None:
    (one,) = texts_of(replace(ASKED, tests=("options",)), {"benchmark": rows(), "placebo": placebos()}, 160)
    assert len(one.choices) + len(one.left_out) == 40
    for choices in one.choices:
        assert len(set(choices.texts)) == len(choices.texts) > 10
        assert all(
            [line[:3] for line in text.split("\n")[1:]] == ["A. ", "B. ", "C. ", "D. "] for text in choices.texts
        )
    assert len(one.placebo_choices) > 20
    assert not {name for part in one.choices for name in part.ids} & {
        name for part in one.placebo_choices for name in part.ids
    }


def test_surprise_needs_a_hundred_of_both_and_the_role() -> None:
    asked = replace(ASKED, tests=("surprise",))
    (one,) = texts_of(asked, {"benchmark": rows()}, 160)
    assert one.not_asked["surprise"] == "role"
    (one,) = texts_of(asked, {"benchmark": rows(100), "placebo": placebos(99)}, 160)
    assert one.not_asked["surprise"] == "too_few"
    (one,) = texts_of(asked, {"benchmark": rows(100, answer="harbour"), "placebo": placebos(100)}, 160)
    assert len(one.surprise) == 200
    assert not any(text.text.endswith("\nharbour") for text in one.surprise), "placebos may have no answer"


def test_the_twin_is_asked_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_texts, "TWIN_TEXTS", 110)
    given = {"benchmark": rows(120), "placebo": placebos(120)}
    told = needs(replace(ASKED, shuffles=1, option_orders=2), given, FACTS)
    kinds = Counter(name.split("|")[1] for name in told.scored_twin)
    assert kinds["order"] == 16 * 2
    assert kinds["surprise"] == kinds["placebo"] == 110
    assert 60 * 10 < kinds["options"] <= 60 * 24
