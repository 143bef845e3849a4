from __future__ import annotations

from fractions import Fraction

import pytest

from checks.contamination.facts import coverage, signature, slot
from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.verifier import STATES_FACT, compare
from checks.contamination.verifier_question import read_question

QUESTION = "Which river flows through the old town of Velmar Quay before it meets the Orsk Sea?"
ITEM = Item("b", "1", "prose", QUESTION)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who built it?", ("who", "")),
        ("The bridge was built by whom?", ("who", "")),
        ("In which year was it built?", ("when", "")),
        ("When was it built?", ("when", "")),
        ("What number of boats came?", ("how many", "")),
        ("How many boats came?", ("how many", "")),
        ("How far is it?", ("how", "far")),
        ("What is the name of the river?", ("what", "river")),
        ("Which rivers meet there?", ("what", "river")),
        ("Name the river.", None),
        ("what", ("what", "")),
        ("how", ("how", "")),
        ("", None),
    ],
)
def test_slots(text: str, expected: tuple[str, str] | None) -> None:
    assert slot(normalise(text).words) == expected


def test_a_signature_holds_names_numbers_and_three_rare_words() -> None:
    found = signature(QUESTION)
    assert {"velmar", "quay", "orsk", "sea"} <= found
    assert len(found) == 7
    assert not found & {"which", "the", "through", "before"}


def test_rare_words_are_rare_among_the_probes() -> None:
    rarity = {"flows": 9, "river": 9, "meets": 9, "town": 1, "old": 1}
    assert {"town", "old"} <= signature(QUESTION, rarity)
    assert "river" in signature(QUESTION, {**rarity, "river": 0})
    assert read_question(ITEM, rarity).signature == signature(QUESTION, rarity)


def test_coverage_of_nothing_is_nothing() -> None:
    assert coverage(frozenset(), frozenset(("a",))) == 0
    assert coverage(frozenset(("a", "b")), frozenset(("a",))) == Fraction(1, 2)


def test_a_stated_fact_is_knowledge_and_not_contamination() -> None:
    told = compare(ITEM, "The Orn flows through the old town of Velmar Quay before it meets the Orsk Sea.", 9_500)
    assert told.tier == "related"
    assert STATES_FACT in told.trace
    asked = compare(ITEM, "The Orn? It flows through the old town of Velmar Quay before it meets the Orsk Sea.", 9_500)
    assert asked.tier == "near"


def test_an_item_without_a_question_mark_needs_none_in_the_text() -> None:
    item = Item("b", "1", "prose", "Name the river of the old town of Velmar Quay.")
    assert compare(item, "Please name that river in Velmar Quay, the old town.", 8_000).tier == "semantic"


def test_half_a_signature_is_undecided() -> None:
    told = compare(ITEM, "Which river of the plain meets the Orsk Sea?", 7_000)
    assert (told.verdict, told.tier) == ("undecided", "related")
