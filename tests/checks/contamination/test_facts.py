from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from checks.contamination.facts import coverage, names, names_differ, signature, slot, stem
from checks.contamination.facts_numbers import asks_fact
from checks.contamination.items import Item
from checks.contamination.normaliser import normalise
from checks.contamination.verifier import STATES_FACT, compare
from checks.contamination.verifier_question import read_question
from checks.organisms import families
from checks.organisms.families import draws

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


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("Who founded the glassworks of Hestrup in 1737?", True),
        ("Who designed the bridge of 11 arches over the Wend?", True),
        ("How many kilograms does the bell weigh that was cast in 1635?", True),
        ("Who wrote the 3 songs that were printed in 1911?", True),
        ("Which king ruled from 1603 to 1625?", True),
        ("Who flew on Apollo 11 on 16 July 1969?", True),
        ("Name the river at Hestrup.", True),
        ("How many arches has the bridge of 1890 over the Wend, with 2 towers?", True),
        ("How many years did the king rule from 1603 to 1625?", False),
        ("How old was Ann in 2010? She was born in 1980.", False),
        ("In which year is Ann 30, if she was born in 1980?", False),
        ("Who has more, Tom with 17 stamps or Eva with 29?", False),
        ("What is 37 + 48?", False),
        ("What is the total of 14 trays?", False),
        ("When does the train arrive that left at 7 and takes 3 hours?", False),
        ("James walks 4 miles at 4 miles an hour. How long does he walk?", False),
        ("Half of the 1200 tickets were sold. How many are left?", False),
    ],
)
def test_numbers_that_are_computed_with_make_a_quantity(question: str, fact: bool) -> None:
    assert read_question(Item("b", "1", "prose", question)).fact is fact


GLASS = Item("b", "1", "prose", "Who founded the glassworks of Hestrup in 1737?")


def test_a_stated_fact_with_a_year_is_knowledge_and_not_contamination() -> None:
    # Judged by its numbers alone, every text with the year would ask the same.
    told = compare(GLASS, "The glassworks of Hestrup were founded in 1737 by Henrike Stolz.", 9_500)
    assert (told.verdict, told.tier) == ("different", "related")
    assert STATES_FACT in told.trace
    asked = compare(GLASS, "In 1737 a glassworks was founded at Hestrup. Who was its founder?", 8_500)
    assert (asked.verdict, asked.tier) == ("same", "semantic")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Who founded the glassworks of Hestrup in 1742?", "different"),  # another year in its place
        ("Who founded the glassworks of Karsund in 1737?", "different"),  # another name in its place
        ("Who founded the glassworks of Hestrupp in 1737?", "undecided"),  # misspelt, not another
        ("When did the glassworks of Hestrup, founded in 1737, burn down?", "different"),
        ("A glassworks was founded at Hestrup. By whom was it founded?", "undecided"),
        ("In 1742 a glassworks was founded at Hestrup. By whom was it founded?", "undecided"),
    ],
)
def test_another_year_or_name_is_another_fact(text: str, verdict: str) -> None:
    assert compare(GLASS, text, 9_000).verdict == verdict


def test_a_name_that_is_nowhere_in_the_text_leaves_it_undecided() -> None:
    # Six of seven words of the signature stand there, and it is another opera house.
    opera = Item("b", "1", "prose", "Who composed the opera Red Almanac, first heard in Dorvane in 1791?")
    for place, verdict in (("Karsund", "undecided"), ("Dorvane", "same")):
        text = f"In 1791 the opera Red Almanac was first heard in {place}. Who composed it?"
        assert compare(opera, text, 9_000).verdict == verdict


def test_a_moved_name_is_no_other_name() -> None:
    question = "In which year did Ansgar Bay and Zelnik sign the treaty?".casefold()
    words = normalise(question).words
    named = names("In which year did Ansgar Bay and Zelnik sign the treaty?")
    assert [set(one) for one in named] == [{"ansgar", "bay"}, {"zelnik"}]
    for text, differs in (
        ("in which year did zelnik and ansgar bay sign the treaty?", False),
        ("in which year did zelnik and dorvane sign the treaty?", True),
        ("in which year did they and zelnik sign the treaty?", False),
        ("in which year did ansgar bai and zelnik sign the treaty?", True),
        ("in which year did ansger bay and zelnik sign the treaty?", False),
    ):
        found = normalise(text).words
        assert names_differ(words, found, frozenset().union(*named), frozenset(found)) is differs, text


def test_an_ending_is_no_other_word() -> None:
    assert len({stem(word) for word in ("founder", "founded", "founding", "founders")}) == 1
    assert [stem(word) for word in ("king", "seed", "4")] == ["king", "seed", "4"]
    assert coverage(frozenset(("founded", "glassworks")), frozenset(("founder", "glass"))) == Fraction(1, 2)


@pytest.mark.parametrize("half", [families.dev, families.test])
def test_facts_are_told_from_what_only_looks_like_them(half: object) -> None:
    # Before facts with a year were judged as facts, .64 and .40 of the statements of both halves passed.
    assert callable(half)
    found: dict[str, Counter[str | None]] = {}
    for family in (one for one in half() if one.kind == "facts"):
        for drawn in draws(family, np.random.default_rng([11, *family.name.encode()]), 3):
            for version in (*drawn.rewordings, *drawn.negatives):
                tier = compare(drawn.item, version.text, 8_000).tier
                found.setdefault(version.how, Counter())[tier] += 1
    assert set(found["statement"]) == {"related"}
    for how in ("entity", "reworded_entity", "relation"):
        assert set(found[how]) <= {"related", "template"}, how
    assert found["reworded"]["near"] + found["reworded"]["semantic"] >= 0.8 * found["reworded"].total()


def test_word_problems_are_no_facts() -> None:
    drawn = [draws(one, np.random.default_rng(1), 1)[0] for one in families.dev() if one.kind == "words"]
    assert not [one.family for one in drawn if read_question(one.item).fact]
    assert not asks_fact("A 3 and 5", 2, (), 1)
