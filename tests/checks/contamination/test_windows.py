from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.normaliser import normalise
from checks.contamination.windows import BINS, bin_of, windows

FILLER = "The harbour office keeps a list of every boat that came in during the winter and of its crew."
QUESTION = "A baker fills 14 trays with 36 rolls each and sells 120 rolls before noon. How many rolls are left?"


@pytest.mark.parametrize("bin_words", [1, 0, -5])
def test_a_window_without_half_is_refused(bin_words: int) -> None:
    with pytest.raises(ValueError, match="half"):
        windows(normalise("a b c"), bin_words)


@pytest.mark.parametrize(("length", "bins"), [(0, BINS), (5, ())])
def test_no_bin_is_refused(length: int, bins: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no bin"):
        bin_of(length, bins)


@pytest.mark.parametrize("text", ["", " \n\n", "?!"])
def test_a_text_without_words_has_no_window(text: str) -> None:
    assert windows(normalise(text), 24) == ()


@given(st.integers(1, 1000))
def test_the_bin_is_nearest_in_log_scale(length: int) -> None:
    far = {one: abs(math.log(length / one)) for one in BINS}
    assert far[bin_of(length)] == pytest.approx(min(far.values()))


@given(
    st.lists(st.tuples(st.integers(1, 70), st.sampled_from([". ", "? ", ".\n\n"])), min_size=1, max_size=20),
    st.sampled_from([2, 7, 24, 48]),
)
@settings(max_examples=60, deadline=None)
def test_every_word_is_in_a_window(sentences: list[tuple[int, str]], bin_words: int) -> None:
    text = "".join(" ".join(["Word", *["more"] * (count - 1)]) + end for count, end in sentences)
    read = normalise(text)
    made = windows(read, bin_words)
    covered = {at for one in made for at in range(one.begin, one.end)}
    assert covered == set(range(len(read.tokens)))
    assert all(one.end - one.begin <= bin_words for one in made)
    begins = [one.begin for one in made]
    assert begins == sorted(set(begins))
    # A sentence start, or a cut of a sentence longer than a bin.
    assert all(
        any((b - first) % bin_words == 0 and first <= b < last for first, last in read.sentences) for b in begins
    )
    # At most two windows a word on average, but for the windows that close a gap.
    assert len(made) <= 2 * max(len(read.tokens), 1) / bin_words + 2 + len(sentences) / 2


def test_an_item_deep_in_a_document_has_a_window_of_its_own() -> None:
    text = f"{FILLER} {FILLER} {FILLER}\n\n{QUESTION}\n\n{FILLER} {FILLER}"
    read = normalise(text)
    at = read.words.index("baker") - 1
    count = len(normalise(QUESTION).tokens)
    best = max(min(one.end, at + count) - max(one.begin, at) for one in windows(read, bin_of(count)) if one.end > at)
    assert best >= 0.75 * count


def test_a_window_keeps_the_signs_that_close_it() -> None:
    only, *_ = windows(normalise(f"«{QUESTION}»"), 24)
    assert only.text.startswith("«a baker") or only.text.startswith('"a baker')
    assert "left?" in only.text


def test_wrapped_lines_and_paragraphs_do_not_end_a_window() -> None:
    wrapped = QUESTION.replace(" before", "\nbefore").replace(". How", ".\n\nHow")
    plain, broken = (windows(normalise(text), 24)[0] for text in (QUESTION, wrapped))
    assert plain.text.split() == broken.text.split()
