"""What a result could carry out, in bits: the one channel that a perfectly sealed cell still has.

Specs: sandbox, section 10. The count is an upper bound on what the values themselves can encode; the layout of the
document is fixed by its schema and its keys are the catalogue's, so they carry nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

BITS_PER_DIGIT = math.log2(10)
"""A significant decimal digit carries this much; a decimal of d digits is charged 1 + ceil(d x this), sign included."""

CHOICE_BITS = 8
"""A boolean, null, or one of the words that the catalogue or the order gave."""

LENGTH_BITS = 16
"""The length of an array, or which of the strings already charged is repeated."""

_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def charge_bits(value: Any, known: Collection[str]) -> int:
    """Return how many bits a JSON value can carry.

    Args:
        value: strictly parsed JSON: strings, integers, booleans, null, arrays, objects.
        known: strings that the catalogue and the order gave: names, units, words, parameters.

    Raises:
        TypeError: the value holds something else, e.g. a binary fraction.
    """
    return _charge(value, known, set())


def charge_bytes(value: Any, known: Collection[str]) -> int:
    """Return the charge in whole bytes, rounded up: the report's unit."""
    return -(-charge_bits(value, known) // 8)


def _charge(value: Any, known: Collection[str], seen: set[str]) -> int:
    if value is None or isinstance(value, bool):
        return CHOICE_BITS
    if isinstance(value, int):
        return _digits_bits(str(value))
    if isinstance(value, str):
        return _string_bits(value, known, seen)
    if isinstance(value, list):
        return LENGTH_BITS + sum(_charge(item, known, seen) for item in value)
    if isinstance(value, dict):
        keys = sum(_string_bits(key, known, seen) for key in value if key not in known)
        return keys + sum(_charge(item, known, seen) for item in value.values())
    raise TypeError(f"a result holds JSON values only, not {type(value).__name__}")


def _string_bits(text: str, known: Collection[str], seen: set[str]) -> int:
    if text in known:
        return CHOICE_BITS
    if _DECIMAL.fullmatch(text):
        return _digits_bits(text)
    if text in seen:
        return LENGTH_BITS
    seen.add(text)
    return 8 * len(text.encode())


def _digits_bits(number: str) -> int:
    significant = number.lstrip("-").replace(".", "").lstrip("0")
    return 1 + math.ceil(len(significant) * BITS_PER_DIGIT)
