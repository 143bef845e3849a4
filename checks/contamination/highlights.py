"""Which words of an item were matched: told on the benchmark's text alone (contamination, 9.3)."""

from __future__ import annotations

from collections.abc import Iterable

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
        return _joined(token for at, token in enumerate(asked) if at in held)
    words = frozenset(there) - FUNCTION_WORDS
    return _joined(token for token in asked if token.text in words)


def _joined(tokens: Iterable[Token]) -> tuple[tuple[int, int], ...]:
    """Return bytes of tokens, those that one sign or space lies between at most as one stretch."""
    told: list[tuple[int, int]] = []
    for token in tokens:
        if told and token.begin <= told[-1][1] + 1:
            told[-1] = (told[-1][0], max(told[-1][1], token.end))
        else:
            told.append((token.begin, token.end))
    return tuple(told)
