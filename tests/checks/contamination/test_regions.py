from __future__ import annotations

import pytest

from checks.contamination.normaliser import normalise
from checks.contamination.regions import AFTER, passage, region, stretch

TEXT = "One two three four. Five six seven eight nine ten? Eleven twelve thirteen. " + "tail " * 100


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (3, 2), (-1, 2), (0, 1000)])
def test_a_window_outside_the_text_is_refused(begin: int, end: int) -> None:
    with pytest.raises(ValueError, match="no window"):
        region(normalise(TEXT), begin, end, 24)


def test_sentences_that_a_window_cuts_are_completed() -> None:
    read = normalise("Ann saw a cat. Bob saw a dog and a hen? Eve saw a cow.")
    found = region(read, 5, 8, 24)
    assert found.text == "bob saw a dog and a hen?"
    assert found.questions == (("bob", "saw", "a", "dog", "and", "a", "hen"),)
    assert found.after == ("eve", "saw", "a", "cow")


@pytest.mark.parametrize("begin", [0, 60, 180])
def test_a_region_is_at_most_two_and_a_half_bins(begin: int) -> None:
    read = normalise("word " * 200)
    found = region(read, begin, begin + 8, 8)
    assert found.begin <= begin
    assert found.end >= begin + 8
    assert len(found.tokens) <= 20


def test_a_question_that_is_cut_off_is_none() -> None:
    read = normalise("Did Ann see the cat and the hen? No.")
    assert stretch(read, 0, 4).questions == ()
    assert len(stretch(read, 0, 8).questions) == 1


@pytest.mark.parametrize("text", ["How many?", "How many ?", 'He asked: "How many?"', "How many?!", "How many??"])
def test_question_marks_are_seen_as_written(text: str) -> None:
    assert any(words[-1] == "many" for words in passage(text).questions)


def test_a_mark_of_the_next_sentence_is_not_taken() -> None:
    assert passage("All is well. Is it?").questions == (("is", "it"),)
    assert passage("All is well").questions == ()


def test_what_follows_is_sixty_words() -> None:
    assert len(passage("A b c.", "word " * 100).after) == AFTER
    assert len(stretch(normalise(TEXT), 0, 4).after) == AFTER
    assert passage("A b c.").after == ()


def test_numbers_of_a_region_are_canonical() -> None:
    assert passage("Half a dozen, 1,200 and forty-five, 50%").numbers >= {"1200", "45", "1/2"}
