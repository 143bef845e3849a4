"""Step 3 of the normaliser `n1`, and where its sentences and paragraphs end (contamination, 6.2)."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Sequence

from checks.contamination.normaliser_mapped import Mapped

_SPACE = re.compile(r"(?: \s+|[^\S ]\s*)(?=([-*+\u2022][ \t]|[0-9]{1,3}[.)][ \t])?)")
"""White space that is not one plain space, and the list mark behind it."""

_PARAGRAPH = re.compile(r"\n\n")

_SENTENCE = re.compile(r"[.!?][\"')\]]{0,4}(?=[ \n])|\n|[\u3002\uff01\uff1f]")
"""A sentence ends at a stop before white space, at a line that stands, or at a CJK stop."""

ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "vs",
        "e.g",
        "i.e",
        "etc",
        "fig",
        "eq",
        "no",
        "approx",
        "ca",
        "jr",
        "sr",
        "inc",
        "ltd",
        "co",
        "u.s",
    ]
)
"""Words whose point ends no sentence: titles and the commonest Latin ones (our list, written from use)."""


def reflow(text: str) -> str:
    """Return text with its lines joined: the window text."""
    return _SPACE.sub(_joined, text)


def reflow_mapped(mapped: Mapped) -> Mapped:
    """Return what `reflow` returns, with the bytes that each character came from."""
    return mapped.sub(_SPACE, _joined)


def _joined(found: re.Match[str]) -> str:
    white = found.group()
    lines = white.count("\n")
    if lines >= 2:
        return "\n\n"
    if lines and (not white.endswith("\n") or found.group(1)):
        return "\n"
    return " "


def paragraphs(text: str, begins: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the ranges of tokens between blank lines; no range is empty.

    Args:
        text: window text.
        begins: where each token begins in it.
    """
    return _ranges([found.end() for found in _PARAGRAPH.finditer(text)], begins)


def sentences(text: str, begins: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the ranges of tokens that make a sentence; no range is empty."""
    return _ranges([found.end() for found in _SENTENCE.finditer(text) if _ends(text, found)], begins)


def _ends(text: str, found: re.Match[str]) -> bool:
    if found.group()[0] != ".":
        return True
    # The word before the point, at most as long as the longest abbreviation.
    word = text[max(0, found.start() - 7) : found.start()].replace("\n", " ").rpartition(" ")[2].lstrip("(\"'")
    return word not in ABBREVIATIONS and not (len(word) == 1 and word.isalpha() and word != "i")


def _ranges(cuts: Sequence[int], begins: Sequence[int]) -> tuple[tuple[int, int], ...]:
    edges = [0, *(bisect_left(begins, cut) for cut in cuts), len(begins)]
    return tuple((a, b) for a, b in itertools.pairwise(edges) if b > a)
