"""JSON as the report's rules have it: one reading, or a refusal.

Python's own reader accepts NaN, duplicate keys, `1e999` as infinity and lone surrogates, and can be made to recurse or
to convert million-digit integers. Each of those is a code here, found before or during parsing.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from math import isfinite
from typing import Any

from sandbox.reader.error import ReaderError, shown

INTEGER_MAX = 2**53 - 1
"""Largest integer that every JSON reader reads exactly."""

_INTEGER_DIGITS = len(str(INTEGER_MAX)) + 1
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_NOT_STRUCTURE = bytes(sorted(set(range(256)) - set(b'"[]{}')))
_STEP = [0] * 256
for _byte, _delta in ((ord("["), 1), (ord("{"), 1), (ord("]"), -1), (ord("}"), -1)):
    _STEP[_byte] = _delta
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def loads(data: bytes, *, cap: int, depth: int = 32, fractions: bool = False) -> Any:
    """Return the one value that `data` holds.

    Args:
        data: the whole document, UTF-8; one trailing newline is allowed.
        cap: most bytes.
        depth: most nested arrays and objects.
        fractions: also accept finite fractions and exponents (configurations and data files).

    Raises:
        ReaderError: size_cap, json_bom, json_invalid, json_too_deep, json_number, json_duplicate_key, json_surrogate.
    """
    if len(data) > cap:
        raise ReaderError("size_cap", f"offset:{cap}")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ReaderError("json_bom", "offset:0")
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise ReaderError("json_invalid", f"offset:{error.start}") from None
    body = text.removesuffix("\n")
    if body != body.strip(" \t\r\n"):
        raise ReaderError("json_invalid", f"offset:{len(body) if body[:1] == body.lstrip()[:1] else 0}")
    if _deepest(data) > depth:
        raise ReaderError("json_too_deep", "offset:0")
    return _parse(body, fractions)


def _deepest(data: bytes) -> int:
    """Return the deepest nesting, without recursion and without building anything."""
    bare = _ESCAPE.sub(b"", data) if b"\\" in data else data
    brackets = _STRING.sub(b"", bare.translate(None, _NOT_STRUCTURE))
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _parse(text: str, fractions: bool) -> Any:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_fraction if fractions else _no_number,
            parse_constant=_no_number,
        )
    except json.JSONDecodeError as error:
        raise ReaderError("json_invalid", f"offset:{error.pos}") from None
    except RecursionError:
        raise ReaderError("json_too_deep", "offset:0") from None
    if _SURROGATE_ESCAPE.search(text) or "\\u0000" in text:
        _check_strings(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ReaderError("json_duplicate_key", f"key:{shown(key)}")
            seen.add(key)
    return made


def _integer(digits: str) -> int:
    # The length is checked before conversion: converting a million digits is quadratic.
    if len(digits) > _INTEGER_DIGITS or digits == "-0":
        raise ReaderError("json_number", f"key:{shown(digits[:32])}")
    value = int(digits)
    if abs(value) > INTEGER_MAX:
        raise ReaderError("json_number", f"key:{shown(digits)}")
    return value


def _fraction(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise ReaderError("json_number", f"key:{shown(digits[:32])}")
    return value


def _no_number(digits: str) -> Any:
    raise ReaderError("json_number", f"key:{shown(digits[:32])}")


def _check_strings(value: Any) -> None:
    """Refuse lone surrogates and NUL, which only escapes can have brought in."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            if _SURROGATE.search(one):
                raise ReaderError("json_surrogate", f"key:{shown(one)}")
            if "\0" in one:
                raise ReaderError("json_invalid", f"key:{shown(one)}")
        elif isinstance(one, dict):
            pending += one.keys()
            pending += one.values()
        elif isinstance(one, list):
            pending += one
