"""Numbers of a comparison as decimal strings, bounds rounded outwards."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from math import isfinite

from assay.errors import CouldNotTell
from assay.result import canonical_decimal

DIGITS = 6
"""Significant digits: those to which the specification's planted pairs are given (section 19)."""

FINEST = -18
"""Exponent of the last digit that the decimal grammar has."""

LARGEST = 999_999 * 10**9
"""The decimal grammar has 15 digits before the point, of which six are told."""


def value_text(number: float) -> str:
    """Return a number to six significant digits, half to even."""
    return _text(number, ROUND_HALF_EVEN)


def low_text(number: float) -> str:
    """Return a lower bound, rounded down."""
    return _text(number, ROUND_FLOOR)


def high_text(number: float) -> str:
    """Return an upper bound or a p-value, rounded up."""
    return _text(number, ROUND_CEILING)


def _text(number: float, rounding: str) -> str:
    if not (isfinite(number) and abs(number) < LARGEST):
        raise CouldNotTell(f"a difference or bound of {number:.3g} is too large to be written as a decimal")
    exact = Decimal(number)
    with localcontext(Context(prec=60)):
        place = max(exact.adjusted() - DIGITS + 1, FINEST) if exact else 0
        return canonical_decimal(f"{exact.quantize(Decimal(1).scaleb(place), rounding=rounding):f}")
