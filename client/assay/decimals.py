"""Decimal strings and names, as `assay.result` has them, for whoever reads without its schema library."""

from __future__ import annotations

import re

DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,18})?", re.ASCII)
"""The decimal grammar: no exponent, no leading zero, at most 15 digits before and 18 after the point."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", re.ASCII)
"""The name alphabet."""

LEVEL_MIN = "0.8"
"""Least level of an interval."""

PLACES = 18
"""Digits behind the point, at most."""


def canonical_decimal(text: str) -> str:
    """Return the canonical form of a decimal string: no trailing zeros, no `-0`.

    Raises:
        ValueError: the text is outside the decimal grammar.
    """
    if not DECIMAL.fullmatch(text):
        raise ValueError(f"not a decimal: {text[:40]!r}")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "0") else text


def is_canonical(value: object) -> bool:
    """Tell whether a value is a decimal string in canonical form."""
    if not isinstance(value, str) or not DECIMAL.fullmatch(value) or value == "-0":
        return False
    return "." not in value or value[-1] != "0"


def units(decimal: str) -> int:
    """Return a decimal as a whole number of 10^-18: exact, where the decimal module would round at 28 digits."""
    whole, _, fraction = decimal.partition(".")
    return int(whole + fraction.ljust(PLACES, "0"))
