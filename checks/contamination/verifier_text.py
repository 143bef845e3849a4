"""How much of an item's wording stands in a region: contiguous, in order, and as 5-grams (contamination, 6.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rapidfuzz.distance import LCSseq, Levenshtein

GRAM = 5
"""Tokens of an n-gram, and the shortest question that can be found `exact` (sections 2, 6.4)."""

STRETCH = 2
"""Wording is compared with stretches of at most 2 x item length: in a longer one chance aligns more (section 6.4)."""

SCALE = 10_000
"""Ratios are kept as integers of so many parts, like cosines."""


@dataclass(frozen=True)
class Wording:
    """Canonical words of an item or a region, with what is looked up in them, made once."""

    words: tuple[str, ...]

    @cached_property
    def distinct(self) -> frozenset[str]:
        """The distinct words."""
        return frozenset(self.words)

    @cached_property
    def grams(self) -> frozenset[tuple[str, ...]]:
        """The distinct 5-grams."""
        return frozenset(zip(*(self.words[at:] for at in range(GRAM)), strict=False))


@dataclass(frozen=True)
class TextMatch:
    """Wording in common."""

    exact: bool
    """The whole question, of at least 5 tokens, stands contiguously in the region."""
    lcs: int
    """10 000 x longest common subsequence / item tokens, of the best stretch; 0 where it cannot reach the bound."""
    overlap: int
    """10 000 x share of the item's distinct 5-grams found."""
    begin: int
    """First word of the best stretch within the region."""
    end: int
    """One past its last."""


def text_match(item: Wording, region: Wording, least_lcs: int = 0) -> TextMatch:
    """Return the wording that item and region share.

    Args:
        item: the question.
        region: the region.
        least_lcs: the bound of the tier, 10 000 parts; a region whose words cannot reach it, in whatever order, is
            not aligned, and its `lcs` is 0.
    """
    count, length = len(item.words), len(region.words)
    if not count or not length:
        return TextMatch(False, 0, 0, 0, length)
    shared = len(item.grams & region.grams)
    overlap = _parts(shared, len(item.grams)) if item.grams else 0
    at = _run(item.words, region.words) if shared == len(item.grams) > 0 else None
    if at is not None:
        return TextMatch(True, SCALE, SCALE, at, at + count)
    # No order of words aligns more of them than the region holds.
    bound = sum(map(region.distinct.__contains__, item.words))
    if _parts(bound, count) < max(least_lcs, 1) and not overlap:
        return TextMatch(False, 0, overlap, 0, length)
    best, begin = _best_stretch(item.words, region.words)
    return TextMatch(False, _parts(best, count), overlap, begin, min(begin + STRETCH * count, length))


def _best_stretch(item: tuple[str, ...], region: tuple[str, ...]) -> tuple[int, int]:
    """Return the longest common subsequence over stretches of 2 x item length, and where the first such begins."""
    best, begin = -1, 0
    length, step = STRETCH * len(item), max(len(item) // 2, 1)
    for start in range(0, max(len(region) - length, 0) + step, step):
        found = LCSseq.similarity(item, region[start : start + length])
        if found > best:
            best, begin = found, start
    return best, begin


def numbers_differ(
    item: Sequence[str], region: Sequence[str], accepted: Mapping[str, frozenset[str]], numbers: frozenset[str]
) -> bool:
    """Return whether an alignment of near texts puts another number in the place of one of the item's.

    Two numbers exchanged are two such places.

    Args:
        item: canonical words of the question.
        region: those of the stretch that it is aligned with.
        accepted: number of the item -> what counts as equal to it (a change of unit).
        numbers: the region's numbers.
    """
    for step in Levenshtein.opcodes(item, region):
        if step.tag != "replace":
            continue
        for old, new in zip(item[step.src_start : step.src_end], region[step.dest_start : step.dest_end], strict=True):
            if old in accepted and new in numbers and new not in accepted[old]:
                return True
    return False


def _parts(share: int, whole: int) -> int:
    """Return 10 000 x share / whole, rounded half up in integers."""
    return (2 * SCALE * share + whole) // (2 * whole)


def _run(item: Sequence[str], region: Sequence[str]) -> int | None:
    """Return where the item stands contiguously."""
    words = list(item)
    for at in range(len(region) - len(words) + 1):
        if region[at] == words[0] and list(region[at : at + len(words)]) == words:
            return at
    return None
