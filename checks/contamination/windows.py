"""Windows: the stretches of a text that are embedded (contamination, 6.5).

Lengths are counted in the normaliser's tokens, of texts and of items alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from checks.contamination.normaliser import Normalised
from checks.contamination.regions import span_text

BINS = (24, 48, 96, 192)
"""Default lengths in words (section 3): factors of two hold every item within a factor of 1.42 of its bin. 192 words
come to some 250 word pieces, the most that the encoder reads."""


@dataclass(frozen=True)
class Window:
    """A stretch of a document."""

    begin: int
    """First token."""
    end: int
    """One past the last token."""
    text: str
    """Window text of the stretch, what is embedded."""


def windows(normalised: Normalised, bin_words: int) -> tuple[Window, ...]:
    """Return the windows of one bin, in document order; together they hold every token.

    A window starts at a sentence start at least half a bin after the previous start and is one bin long; sentences
    longer than a bin are cut at its length. Where the next such start would leave words between two windows, the
    nearest sentence start before is taken instead.

    Args:
        normalised: the document.
        bin_words: tokens of a window.

    Raises:
        ValueError: the bin is below 2.
    """
    if bin_words < 2:
        raise ValueError(f"a window of {bin_words} words has no half")
    count = len(normalised.tokens)
    made = []
    for begin in _starts(normalised.sentences, count, bin_words):
        end = min(begin + bin_words, count)
        made.append(Window(begin, end, span_text(normalised, begin, end)))
    return tuple(made)


def bin_of(length: int, bins: Sequence[int] = BINS) -> int:
    """Return the bin nearest to a length in log scale; of two equally near ones the shorter.

    Args:
        length: tokens of an item, at least 1.
        bins: lengths of the bins.

    Raises:
        ValueError: there is no bin, or the length is below 1.
    """
    if not bins or length < 1:
        raise ValueError(f"no bin for {length} words among {len(bins)}")
    # |log(length / b)| in integers: the larger of both ratios, compared by cross multiplication.
    best = min(bins)
    for one in sorted(bins):
        far, near = (max(length, b) * min(length, o) for b, o in ((best, one), (one, best)))
        if near < far:
            best = one
    return best


def _starts(sentences: Sequence[tuple[int, int]], count: int, bin_words: int) -> Iterator[int]:
    places = sorted({at for first, last in sentences for at in range(first, last, bin_words)})
    at = 0
    while at < len(places):
        start = places[at]
        yield start
        following = at + 1
        while following < len(places) and 2 * (places[following] - start) < bin_words:
            following += 1
        upcoming = places[following] if following < len(places) else count
        # Nothing starts between half a bin and its end: the last start before, if any, leaves no gap.
        at = max(at + 1, following - 1) if upcoming > start + bin_words else following
