from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from checks.contamination.items import Item
from checks.contamination.numbers import numbers
from checks.contamination.siblings import default_siblings, siblings
from checks.contamination.siblings_values import NUMBER_WORDS, places

PAIRS = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "../shared/data")) / "gsm8k_rephrase/dev.jsonl"


def item(name: str, question: str, **fields: object) -> Item:
    return Item("b", name, "prose", question, **fields)  # type: ignore[arg-type]


ITEMS = [
    item("1", "Ann has 16 eggs, eats 3 and sells 3 for $2,500 each."),
    item("2", "Bob sees 24 cats and 7 dogs in 9 towns for 1,200 days."),
    item("3", "At noon Carla Diaz meets Dan Poe."),
    item("4", "In June, Eve Low left for 31 days."),
    item("5", "why is it so"),
]


def test_zero_siblings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        siblings(ITEMS, 0, np.random.default_rng(0))


def test_a_sibling_keeps_shape_and_template() -> None:
    for made in siblings(ITEMS, 4, np.random.default_rng(3)):
        old, new = places(made.item.question), places(made.text)
        kind = "number" if made.how == "numbers" else "entity"
        assert made.text != made.item.question
        assert [p.value.shape for p in old if p.value.kind == kind] == [
            p.value.shape for p in new if p.value.kind == kind
        ]
        assert made.probe.question == made.text
        assert made.probe.answer is None


def test_equal_numbers_stay_equal_and_separators_stay() -> None:
    texts = [made.text for made in siblings(ITEMS, 6, np.random.default_rng(0)) if made.item.item == "1"]
    assert texts
    for text in texts:
        values = [place.surface for place in places(text) if place.value.kind == "number"]
        assert values[1] == values[2]
        assert values[3] == "1,200"  # the only other value of its shape


def test_different_numbers_stay_different() -> None:
    # A sibling that writes 4 for both 3 and 5 holds fewer numbers than its item, and passes as a rewrite more easily.
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
    items = [item(str(n), f"Ann has {n + 2} eggs, 5 figs and {word} nuts.") for n, word in enumerate(reversed(words))]
    made = siblings(items, 20, np.random.default_rng(0))
    assert len(made) >= 100
    for one in made:
        assert len(set(numbers(one.text))) == len(set(numbers(one.item.question))), one.text


def test_a_number_in_digits_and_in_words_stays_one() -> None:
    items = [
        item("1", "Ann has 3 eggs and eats three of 14."),
        item("2", "Bob has 7 cats and 25 dogs, five of them red."),
    ]
    made = [one for one in siblings(items, 5, np.random.default_rng(0)) if one.item.item == "1"]
    assert made
    for one in made:
        first, second, _ = numbers(one.text)
        assert first == second


def test_zero_and_one_are_never_drawn() -> None:
    # They are compared with nothing (section 6.6), so a sibling that holds one is found more easily.
    items = [item("1", "Ann has 3 eggs and 7 figs."), item("2", "Bob has 1 cat, 0 dogs, 4 hens and 9 cows.")]
    for one in siblings(items, 10, np.random.default_rng(0)):
        assert numbers(one.text).count(1) == numbers(one.item.question).count(1)
        assert numbers(one.text).count(0) == numbers(one.item.question).count(0)


def test_common_number_words_are_drawn_more_often() -> None:
    items = [item(str(n), f"Ann has two eggs and eats {word}.") for n, word in enumerate(("three", "four") * 10)]
    drawn = [number for one in siblings(items, 20, np.random.default_rng(0)) for number in numbers(one.text)]
    assert drawn.count(Fraction(2)) > 2 * drawn.count(Fraction(9)) > 0


def test_values_come_from_other_items_only() -> None:
    for made in siblings(ITEMS, 10, np.random.default_rng(1)):
        own = {place.value for place in places(made.item.question)}
        others = {p.value for one in ITEMS if one is not made.item for p in places(one.question)}
        assert {p.value for p in places(made.text)} <= own | others


def test_names_are_swapped_where_there_is_no_number() -> None:
    made = [one for one in siblings(ITEMS, 3, np.random.default_rng(2)) if one.item.item == "3"]
    assert made
    assert all(one.how == "entities" and "Eve Low" in one.text for one in made)


def test_an_item_without_values_has_no_sibling() -> None:
    assert "5" not in {made.item.item for made in siblings(ITEMS, 5, np.random.default_rng(0))}


def test_number_words_stay_in_their_class() -> None:
    made = siblings([item("1", "Three men, twenty-five cats and twelve hens.")], 20, np.random.default_rng(0))
    assert len(made) == 20
    for one in made:
        words = [place.surface for place in places(one.text)]
        assert [next(n for n, c in enumerate(NUMBER_WORDS) if word.lower() in c) for word in words] == [0, 2, 0, 1]
        assert words[0][0].isupper()
        assert len(set(one.text.split())) == len(one.text.split())


def test_options_are_swapped_alike() -> None:
    first = Item("b", "1", "choice", "Is 16 more than 24?", choices=("16 is", "24 is"))
    second = Item("b", "2", "choice", "Is 37 more than 58?", choices=("37 is", "58 is"))
    for made in siblings([first, second], 3, np.random.default_rng(0)):
        asked = [place.surface for place in places(made.text)]
        assert [choice.split()[0] for choice in made.probe.choices] == asked


def test_names_at_a_sentence_start_are_no_names() -> None:
    assert [p.surface for p in places('Tall men met Ann Lee. Then Bob left. "Go," said I to Eve')] == [
        "Ann Lee",
        "Bob",
        "Eve",
    ]


def test_the_same_stream_gives_the_same_siblings() -> None:
    first, second, other = (siblings(ITEMS, 3, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_default_number_is_clamped() -> None:
    assert [default_siblings(items) for items in (1, 330, 1000, 2000, 5000, 20_000)] == [20, 20, 20, 10, 4, 4]


@pytest.mark.skipif(not PAIRS.is_file(), reason="no rewrites: set ASSAY_DATA to the folder of gsm8k_rephrase/")
def test_every_real_word_problem_has_twenty_siblings() -> None:
    with PAIRS.open() as lines:
        rows = [json.loads(line) for line in lines][:330]
    items = [item(row["id"], row["original"]) for row in rows]
    made = siblings(items, 20, np.random.default_rng(0))
    # An item of one number below ten has seven others to become.
    assert len(made) >= 0.985 * 20 * len(items)
    assert np.mean([one.how == "numbers" for one in made]) >= 0.98
