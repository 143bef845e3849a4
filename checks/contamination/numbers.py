"""The numbers of a text, as the normaliser `n1` reads them (contamination, 6.2)."""

from __future__ import annotations

from fractions import Fraction

from checks.contamination.normaliser import normalise


def numbers(text: str) -> tuple[Fraction, ...]:
    """Return the numbers of a text in order, repeated where the text repeats them.

    Digits, number words up to a billion, fractions, "a dozen", "twice" and percentages are read; a run of more than 40
    digits is no number.
    """
    return tuple(token.number for token in normalise(text).tokens if token.number is not None)
