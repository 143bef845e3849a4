from __future__ import annotations

from fractions import Fraction

import pytest

from checks.contamination.choices import answer_near, labelled, options_found
from checks.contamination.items import Item
from checks.contamination.verifier import compare
from checks.contamination.verifier_question import read_question


def test_options_are_runs_of_words() -> None:
    words = ["coal", "gas", "or", "neon", "gas", "and", "argon"]
    assert options_found([("coal", "gas"), ("neon",), ("gas", "argon"), ()], words) == Fraction(1, 2)


@pytest.mark.parametrize(("text", "told"), [("a red b blue c green", True), ("a cat b", False), ("c b a", False)])
def test_lettered_options_are_seen(text: str, told: bool) -> None:
    assert labelled(text.split()) is told


def test_three_of_four_options_are_enough_and_two_are_not() -> None:
    options = ("argon", "coal gas", "neon", "acetylene")
    item = Item("b", "1", "choice", "Which gas do the lamps of Velmar Quay burn?", choices=options)
    text = "Which gas do lamps burn in Velmar Quay? {}"
    assert compare(item, text.format("argon, coal gas, neon, xenon"), 8_000).verdict == "same"
    assert compare(item, text.format("argon, coal gas, helium, xenon"), 8_000).verdict == "undecided"


def test_letters_of_options_are_not_part_of_them() -> None:
    item = Item("b", "1", "choice", "Which?", choices=("A) red wine", "(B) a cat", "C. x", "A cat"))
    assert read_question(item).options == (("red", "wine"), ("a", "cat"), ("x",), ("a", "cat"))


@pytest.mark.parametrize(
    ("answer", "numbers", "options", "after", "told"),
    [
        (None, (), (), ("x",), None),
        ((), (), (), ("x",), None),
        (("5",), ("5",), (), (), None),
        (("5",), ("5",), (), ("so", "5"), True),
        (("5", "cats"), ("5",), (), ("5", "dogs"), False),
        (("red",), (), (("red",), ("blue",)), ("red", "blue"), False),
        (("red",), (), (("red",), ("blue",)), ("answer", "a"), True),
        (("red",), (), (("red",), ("blue",)), ("correct", "is", "red"), True),
        (("b",), (), (("red",), ("blue",)), ("answer", "blue"), True),
        (("b",), (), (("red",), ("blue",)), ("answer", "a"), False),
    ],
)
def test_an_answer_is_near_or_not_or_unknown(
    answer: tuple[str, ...] | None,
    numbers: tuple[str, ...],
    options: tuple[tuple[str, ...], ...],
    after: tuple[str, ...],
    told: bool | None,
) -> None:
    assert answer_near(answer, numbers, options, after) is told
