"""Which words of an item were matched: told on the benchmark's text alone (contamination, 9.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rapidfuzz.distance import LCSseq

from checks.contamination.languages import FUNCTION_WORDS
from checks.contamination.normaliser import Token, normalise

IN_ORDER = frozenset({"exact", "near"})
"""Tiers in which words stand in the item's order; in the others they may stand anywhere."""


def highlights(question: str, span: bytes, tier: str) -> tuple[tuple[int, int], ...]:
    """Return the stretches of a question that were matched, as (first byte, end byte) of its UTF-8, in order.

    Of tiers that rest on the order of words: the longest common subsequence. Of the others: words and numbers that the
    span holds too, function words left out, which any text holds.

    Args:
        question: of the item.
        span: bytes of the match.
        tier: of the match.
    """
    asked = normalise(question).tokens
    there = normalise(span.decode("utf-8", "replace")).words
    if tier in IN_ORDER:
        blocks = LCSseq.opcodes([one.text for one in asked], there)
        held = {at for one in blocks if one.tag == "equal" for at in range(one.src_start, one.src_end)}
    else:
        words = frozenset(there) - FUNCTION_WORDS
        held = {at for at, token in enumerate(asked) if token.text in words}
    return _joined(asked, held)


def _joined(tokens: Sequence[Token], held: Collection[int]) -> tuple[tuple[int, int], ...]:
    """Return bytes of tokens, neighbours as one stretch."""
    told: list[tuple[int, int]] = []
    for at, token in enumerate(tokens):
        if at in held and at - 1 in held:
            told[-1] = (told[-1][0], token.end)
        elif at in held:
            told.append((token.begin, token.end))
    return tuple(told)
