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


@dataclass(frozen=True)
class Maybe:
    """A field that may be absent or null."""

    shape: Shape


@dataclass(frozen=True)
class Null:
    """A field that must be there, and may be null."""

    shape: Shape


@dataclass(frozen=True)
class Absent:
    """A field that may be absent, and is not null."""

    shape: Shape


@dataclass(frozen=True)
class Each:
    """An object whose keys are of one kind and whose values have one shape."""

    key: Kind
    value: Shape


@dataclass(frozen=True)
class Some:
    """A list of a bounded number of items."""

    shape: Shape
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Ruled:
    """A shape, and a rule over what has it: returns what is wrong, or None."""

    shape: Mapping[str, Any]
    rule: Callable[[Any], str | None]


Shape = Kind | Null | Each | Some | Ruled | Mapping[str, Any] | list[Any]
"""An object's shape is a dict."""


def exactly(text: str) -> Kind:
    """Return the kind of one string."""
    return Kind(f'"{text}"', lambda value: value == text)


def one_of(*words: str) -> Kind:
    """Return the kind of a few strings."""
    return Kind(" or ".join(words), lambda value: isinstance(value, str) and value in words)


def check(value: Any, shape: Shape | Maybe | Absent, at: str = "") -> None:
    """Check a value against a shape.

    Raises:
        Malformed: code `shape`, at the JSON pointer of the first misfit.
    """
    _CHECKS[type(shape)](value, shape, at)


def _check_kind(value: Any, shape: Kind, at: str) -> None:
    if not shape.fits(value):
        raise Malformed("shape", at or "/", f"expected {shape.name}, found {shown(value, 60)}")


def _check_unless_null(value: Any, shape: Maybe | Null, at: str) -> None:
    if value is not None:
        check(value, shape.shape, at)


def _check_list(value: Any, shape: list[Any], at: str) -> None:
    if not isinstance(value, list):
        raise Malformed("shape", at or "/", f"expected a list, found {shown(value, 60)}")
    [each] = shape
    for index, item in enumerate(value):
        check(item, each, f"{at}/{index}")


def _check_some(value: Any, shape: Some, at: str) -> None:
    _check_list(value, [shape.shape], at)
    if len(value) < shape.least or (shape.most is not None and len(value) > shape.most):
        limits = f"at least {shape.least}" if shape.most is None else f"{shape.least} to {shape.most}"
        raise Malformed("shape", at or "/", f"expected {limits} items, found {len(value)}")


def _check_each(value: Any, shape: Each, at: str) -> None:
    if not isinstance(value, dict):
        raise Malformed("shape", at or "/", f"expected an object, found {shown(value, 60)}")
    for key, inner in value.items():
        if not shape.key.fits(key):
            raise Malformed("shape", at or "/", f"expected {shape.key.name} as a key, found {shown(key, 60)}")
        check(inner, shape.value, f"{at}/{key}")


def _check_ruled(value: Any, shape: Ruled, at: str) -> None:
    check(value, shape.shape, at)
    if problem := shape.rule(value):
        raise Malformed("shape", at or "/", problem)


def _check_object(value: Any, shape: Mapping[str, Any], at: str) -> None:
    if not isinstance(value, dict):
        raise Malformed("shape", at or "/", f"expected an object, found {shown(value, 60)}")
    for field, inner in shape.items():
        kind = type(inner)
        if field not in value:
            if kind is not Maybe and kind is not Absent:
                raise Malformed("shape", f"{at}/{field}", "a required field is missing")
            continue
        child = value[field]
        # What fits here and now needs no place: naming the place of each costs more than looking at it.
        if inner.fits(child) if kind is Kind else child is None and kind in (Maybe, Null):
            continue
        check(child, inner, f"{at}/{field}")


_CHECKS: Mapping[type, Callable[[Any, Any, str], None]] = {
    Kind: _check_kind,
    Maybe: _check_unless_null,
    Null: _check_unless_null,
    Absent: lambda value, shape, at: check(value, shape.shape, at),
    Some: _check_some,
    Each: _check_each,
    Ruled: _check_ruled,
    list: _check_list,
    dict: _check_object,
}
