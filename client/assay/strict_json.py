"""Strict JSON in: what two readers could read differently is refused.

Refused beyond RFC 8259: a byte order mark, anything around the one document but a single final newline, duplicate
keys at any depth, fractions, exponents, `-0`, NaN, Infinity, integers beyond 2^53-1, lone surrogates, NUL, and
nesting deeper than 32. The rules are section 3 of the report's specification; `sandbox.reader.strict_json` obeys
the same ones on the other side of the wall.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any, NoReturn

from assay.errors import Malformed

INTEGER_MAX = 2**53 - 1
"""Largest integer that a reader with 64-bit floats (JavaScript) reads exactly."""

INTEGER_DIGITS = 16
"""2^53-1 has 16 digits: longer text is refused before `int` spends time on it."""

DEPTH = 32
"""Nesting that every reader survives; our own documents stay under 12."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = " \t\n\r"


def loads(data: bytes, cap: int, *, depth: int = DEPTH, fractions: bool = False) -> Any:
    """Parse one strict JSON document.

    Args:
        data: the bytes of the document.
        cap: most bytes to accept; checked before anything is parsed.
        depth: most arrays and objects inside one another.
        fractions: also accept finite fractions and exponents, as model configurations and data files hold them.

    Raises:
        Malformed: codes `size_cap`, `json_bom`, `json_invalid`, `json_number`, `json_duplicate_key`,
            `json_surrogate`, `json_too_deep`.
    """
    if len(data) > cap:
        raise Malformed("size_cap", "", f"the document has {len(data)} bytes, the limit is {cap}")
    text = _decode(data)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_fraction if fractions else _no_fraction,
            parse_constant=_no_fraction,
        )
    except json.JSONDecodeError as error:
        raise Malformed("json_invalid", f"offset:{error.pos}", f"not JSON: {error.msg}") from None
    except RecursionError:
        raise Malformed("json_too_deep", "", f"nested deeper than {depth}") from None
    _walk(value, depth, escaped="\\u" in text)
    return value


def _decode(data: bytes) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Malformed("json_bom", "offset:0", "the document starts with a byte order mark; save it without one")
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise Malformed("json_invalid", f"offset:{error.start}", "not UTF-8") from None
    body = text.removesuffix("\n")
    if body != body.strip(_SPACE):
        raise Malformed("json_invalid", "", "white space around the document (one final newline is allowed)")
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Malformed("json_duplicate_key", _printable(key), "a key appears twice in one object")
            seen.add(key)
    return value


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > INTEGER_DIGITS or text == "-0" or abs(int(text)) > INTEGER_MAX:
        raise Malformed("json_number", _printable(text), "integers lie between -(2^53-1) and 2^53-1, and -0 is none")
    return int(text)


def _fraction(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise Malformed("json_number", _printable(text), "a number is too large for a 64-bit float")
    return value


def _no_fraction(text: str) -> NoReturn:
    raise Malformed("json_number", _printable(text), "only integers are numbers here; write fractions as strings")


def _walk(root: Any, depth: int, *, escaped: bool) -> None:
    """Check depth and strings, level by level; places are built only for a refusal.

    Args:
        root: the parsed document.
        depth: most containers inside one another.
        escaped: whether the text holds an escape by number. Without one no string can hold NUL or a lone surrogate: a
            raw NUL is no JSON, and UTF-8 has no surrogates.
    """
    level = [root]
    for _ in range(depth + 1):
        if escaped:
            for value in level:
                for text in value if isinstance(value, dict) else (value,):
                    if isinstance(text, str):
                        _check_text(text)
        containers = [value for value in level if isinstance(value, dict | list)]
        if not containers:
            return
        level = [
            child
            for value in containers
            for child in (value.values() if isinstance(value, dict) else value)
            if escaped or isinstance(child, dict | list)
        ]
    raise Malformed("json_too_deep", "", f"nested deeper than {depth}")


def _check_text(text: str) -> None:
    if not text.isascii() or "\x00" in text:
        if "\x00" in text:
            raise Malformed("json_invalid", _printable(text), "a string holds NUL")
        if _SURROGATE.search(text):
            raise Malformed("json_surrogate", _printable(text), "a string holds a lone surrogate")


def _printable(text: str) -> str:
    return ascii(text[:40])[1:-1]
