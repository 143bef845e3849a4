"""Regions: the stretch of a text that is compared with an item, with what stands right after it.

Specification: contamination, sections 2, 6.5 and 6.6. A region is a window with the sentences that it cuts completed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from checks.contamination.normaliser import Normalised, Token, normalise
from checks.contamination.verifier_text import Wording

REGION_MOST = (5, 2)
"""A region is at most 2.5 bins long, as a fraction (section 6.6)."""

AFTER = 60
"""Words after a region in which options and an answer are looked for (section 6.6)."""


@dataclass(frozen=True)
class Region:
    """A stretch of a text, as canonical tokens."""

    begin: int
    """First token within its document."""
    end: int
    """One past the last."""
    tokens: tuple[Token, ...]
    wording: Wording
    """Canonical texts of the tokens."""
    numbers: frozenset[str]
    """Canonical texts of the distinct numbers."""
    text: str
    """The window text of the stretch, with the signs that close it."""
    questions: tuple[tuple[str, ...], ...]
    """Words of each sentence that ends with a question mark."""
    after: tuple[str, ...]
    """Canonical texts of up to 60 tokens after the region."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return the canonical texts of the tokens."""
        return self.wording.words


def region(normalised: Normalised, begin: int, end: int, bin_words: int) -> Region:
    """Return the region of a window: the sentences it cuts are completed while that fits in 2.5 bins.

    Args:
        normalised: the document.
        begin: first token of the window.
        end: one past its last token.
        bin_words: length of the window's bin, in tokens.

    Raises:
        ValueError: the window is empty or outside the document.
    """
    if not 0 <= begin < end <= len(normalised.tokens):
        raise ValueError(f"no window {begin}..{end} in a text of {len(normalised.tokens)} tokens")
    most = max(bin_words * REGION_MOST[0] // REGION_MOST[1], end - begin)
    starts = [first for first, last in normalised.sentences if last > begin][:1]
    ends = [last for first, last in normalised.sentences if first < end][-1:]
    # The end first: a question stands at the end of an item more often than at its start.
    last = min(ends[0] if ends else end, begin + most)
    last = max(last, end)
    first = max(starts[0] if starts else begin, last - most)
    return stretch(normalised, min(first, begin), last)


def stretch(normalised: Normalised, begin: int, end: int) -> Region:
    """Return exactly these tokens of a document as a region."""
    tokens = normalised.tokens[begin:end]
    asked: list[tuple[str, ...]] = []
    for first, last in normalised.sentences:
        low, high = max(first, begin), min(last, end)
        # A question whose end is cut off is not known to be one.
        if low < high == last and "?" in closing(normalised, last - 1):
            asked.append(tuple(token.text for token in normalised.tokens[low:high]))
    return Region(
        begin=begin,
        end=end,
        tokens=tokens,
        wording=Wording(tuple(token.text for token in tokens)),
        numbers=frozenset(token.text for token in tokens if token.number is not None),
        text=span_text(normalised, begin, end),
        questions=tuple(asked),
        after=tuple(token.text for token in normalised.tokens[end : end + AFTER]),
    )


def passage(text: str, after: str = "") -> Region:
    """Return a whole text as one region.

    Args:
        text: as written.
        after: the text that follows it.
    """
    read = normalise(text)
    found = stretch(read, 0, len(read.tokens))
    following: Sequence[Token] = normalise(after).tokens[:AFTER] if after else ()
    return replace(found, after=tuple(token.text for token in following))


def span_text(normalised: Normalised, begin: int, end: int) -> str:
    """Return the window text of a range of tokens, with the signs around it up to the next space."""
    if begin >= end:
        return ""
    first = normalised.places[begin][0]
    floor = normalised.places[begin - 1][1] if begin else 0
    while first > floor and not normalised.window_text[first - 1].isspace():
        first -= 1
    return normalised.window_text[first : normalised.places[end - 1][1]] + closing(normalised, end - 1)


def closing(normalised: Normalised, at: int) -> str:
    """Return the signs that follow a token directly, up to a space or the next token."""
    low = normalised.places[at][1]
    high = normalised.places[at + 1][0] if at + 1 < len(normalised.places) else len(normalised.window_text)
    signs = normalised.window_text[low:high]
    space = next((place for place, letter in enumerate(signs) if letter.isspace()), len(signs))
    # "... left ?" is a question too: a mark set apart by a space is common in tokenised text.
    rest = signs[space:].lstrip()
    return signs[:space] + (rest[:1] if rest[:1] in ("?", "!", ".") else "")
