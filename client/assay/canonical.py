"""Canonical JSON out: one value, one sequence of bytes.

RFC 8785 (JCS) restricted to strings, integers of at most 2^53-1, booleans, null, arrays, and objects with ASCII
keys. In that subset JCS equals sorted keys, no blanks, and no escaping beyond what JSON demands, which the
standard library writes; outside it values are refused, never approximated.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from assay.errors import Malformed
from assay.strict_json import DEPTH, INTEGER_MAX, loads

_UNFIT = re.compile("[\x00\ud800-\udfff]")


def dumps(value: Any) -> bytes:
    """Return the canonical bytes of a value of plain JSON types (tuples count as arrays).

    Raises:
        Malformed: a fraction, an integer out of range, a key that is not an ASCII string, a lone surrogate or NUL,
            nesting deeper than 32, or another type; `at` is the JSON pointer.
    """
    _check(value, None, 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(value: Any) -> str:
    """Return the hex SHA-256 of a value's canonical bytes."""
    return hashlib.sha256(dumps(value)).hexdigest()


def loads_canonical(data: bytes, cap: int) -> Any:
    """Parse a document that must be canonical already, byte for byte.

    Raises:
        Malformed: as `strict_json.loads`, and `json_not_canonical`.
    """
    value = loads(data, cap)
    if dumps(value) != data:
        raise Malformed("json_not_canonical", "", "the document is not in canonical form (RFC 8785)")
    return value


_At = tuple[Any, str | int] | None
"""A place: the one that holds it, and its key there. Texts are built only for a refusal."""


def _pointer(at: _At) -> str:
    parts: list[str] = []
    while at is not None:
        at, part = at
        parts.append(f"/{part}")
    return "".join(reversed(parts))


def _check(value: Any, at: _At, level: int) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if _UNFIT.search(value):
            raise Malformed("json_surrogate", _pointer(at), "a string holds a lone surrogate or NUL")
    elif isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise Malformed("json_number", _pointer(at), "integers lie between -(2^53-1) and 2^53-1")
    elif isinstance(value, (dict, list, tuple)):
        _check_container(value, at, level)
    elif isinstance(value, float):
        raise Malformed(
            "json_number", _pointer(at), "only integers are numbers here; write fractions as decimal strings"
        )
    else:
        raise Malformed("json_invalid", _pointer(at), f"{type(value).__name__} is no JSON type")


def _check_container(value: dict[Any, Any] | list[Any] | tuple[Any, ...], at: _At, level: int) -> None:
    if level == DEPTH:
        raise Malformed("json_too_deep", _pointer(at)[:80], f"nested deeper than {DEPTH}")
    if isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str) or not key.isascii() or "\x00" in key:
                told = f"object keys are ASCII strings, this one is {ascii(key)[:40]}"
                raise Malformed("json_invalid", _pointer(at), told)
            _check(child, (at, key), level + 1)
    else:
        for index, child in enumerate(value):
            _check(child, (at, index), level + 1)
