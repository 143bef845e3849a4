"""The shape of a JSON document, as a table: required fields and their kinds. Unknown fields are ignored.

A shape is a dict (an object with at least these fields), a list of one shape (a list of such), or a `Kind`. Readers
use it where a full schema would cost its import; writers use the full schema in `assay.predicate`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from assay import moments
from assay.errors import Malformed, shown
from assay.manifest import is_sha256

_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """A leaf: its name in messages, and what belongs to it."""

    name: str
    fits: Callable[[Any], bool]


def _is_moment(value: Any) -> bool:
    try:
        moments.parse(value)
    except Malformed:
        return False
    return True


TEXT = Kind("a string", lambda value: isinstance(value, str))
COUNT = Kind("a whole number", lambda value: type(value) is int and value >= 0)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
ANY = Kind("present", lambda value: True)
SHA256 = Kind("64 lower-case hexadecimal digits", is_sha256)
AUDIT = Kind("32 lower-case hexadecimal digits", lambda value: isinstance(value, str) and bool(_HEX32.fullmatch(value)))
MOMENT = Kind("a moment like 2026-01-02T03:04:05Z", _is_moment)
SEED_MODE = Kind("derived or fixed", lambda value: value in ("derived", "fixed"))
LABELS = Kind(
    "an object of strings", lambda value: isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
)

Shape = Kind | Mapping[str, Any] | list[Any]


@dataclass(frozen=True)
class Maybe:
    """A field that may be absent or null."""

    shape: Shape


def exactly(text: str) -> Kind:
    """Return the kind of one string."""
    return Kind(f'"{text}"', lambda value: value == text)


def check(value: Any, shape: Shape | Maybe, at: str = "") -> None:
    """Check a value against a shape.

    Raises:
        Malformed: code `shape`, at the JSON pointer of the first misfit.
    """
    if isinstance(shape, Maybe):
        if value is not None:
            check(value, shape.shape, at)
    elif isinstance(shape, Kind):
        if not shape.fits(value):
            raise Malformed("shape", at or "/", f"expected {shape.name}, found {shown(value, 60)}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise Malformed("shape", at or "/", f"expected a list, found {shown(value, 60)}")
        for index, item in enumerate(value):
            check(item, shape[0], f"{at}/{index}")
    else:
        _check_object(value, shape, at)


def _check_object(value: Any, shape: Mapping[str, Any], at: str) -> None:
    if not isinstance(value, dict):
        raise Malformed("shape", at or "/", f"expected an object, found {shown(value, 60)}")
    for field, inner in shape.items():
        if field not in value and not isinstance(inner, Maybe):
            raise Malformed("shape", f"{at}/{field}", "a required field is missing")
        check(value.get(field), inner, f"{at}/{field}")
