"""Two readers must never read one document differently: each trap of Python's own reader has its code here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from assay import strict_json as client_json
from assay.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.reader import ReaderError, strict_json

HOSTILE = {
    "duplicate key": (b'{"a":1,"a":2}', "json_duplicate_key"),
    "duplicate by escape": (b'{"a":1,"\\u0061":2}', "json_duplicate_key"),
    "duplicate deep": (b'[[{"a":{"b":1,"b":1}}]]', "json_duplicate_key"),
    "NaN": (b'{"a":NaN}', "json_number"),
    "Infinity": (b"[-Infinity]", "json_number"),
    "overflowing float": (b"[1e999]", "json_number"),
    "fraction": (b"[0.5]", "json_number"),
    "minus zero": (b"[-0]", "json_number"),
    "2^53": (b"[9007199254740992]", "json_number"),
    "million digits": (b"[" + b"9" * 10**6 + b"]", "json_number"),
    "lone surrogate": (b'["\\ud800"]', "json_surrogate"),
    "reversed surrogates": (b'["\\udc00\\ud800"]', "json_surrogate"),
    "lone surrogate in a key": (b'{"\\udfff":1}', "json_surrogate"),
    "NUL by escape": (b'["\\u0000"]', "json_invalid"),
    "BOM": (b"\xef\xbb\xbf{}", "json_bom"),
    "bad UTF-8": (b'["\xff"]', "json_invalid"),
    "raw surrogate bytes": (b'["\xed\xa0\x80"]', "json_invalid"),
    "33 levels": (b"[" * 33 + b"]" * 33, "json_too_deep"),
    "10^5 levels": (b"[" * 10**5 + b"]" * 10**5, "json_too_deep"),
    "10^5 objects": (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "json_too_deep"),
    "two documents": (b"{}{}", "json_invalid"),
    "two lines": (b"{}\n{}", "json_invalid"),
    "two newlines": (b"{}\n\n", "json_invalid"),
    "leading space": (b" {}", "json_invalid"),
    "nothing": (b"", "json_invalid"),
    "control character": (b'["\x01"]', "json_invalid"),
    "single quotes": (b"{'a':1}", "json_invalid"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_trap_has_its_code(name: str) -> None:
    data, code = HOSTILE[name]
    with pytest.raises(ReaderError) as caught:
        strict_json.loads(data, cap=2 * 10**6)
    assert caught.value.code == code


@pytest.mark.parametrize("name", HOSTILE)
def test_client_refuses_what_the_sandbox_refuses(name: str) -> None:
    with pytest.raises(Malformed):
        client_json.loads(HOSTILE[name][0], 2 * 10**6)


def test_twin_is_accepted() -> None:
    deep = b"[" * 32 + b"]" * 32 + b"\n"
    assert strict_json.loads(deep, cap=100) is not None
    tricky = b'{"a":"[[[{{{\\"]]\\\\","\\ud83d\\ude00":[-9007199254740991,9007199254740991]}'
    assert strict_json.loads(tricky, cap=100) == json.loads(tricky)


def test_brackets_in_strings_are_no_depth() -> None:
    assert strict_json.loads(json.dumps(["[" * 500, '\\"' + "{" * 500]).encode(), cap=10**4)[0] == "[" * 500


def test_cap_is_checked_before_parsing() -> None:
    with pytest.raises(ReaderError) as caught:
        strict_json.loads(b"[1,2,3]", cap=6)
    assert caught.value.code == "size_cap"
    assert strict_json.loads(b"[1,2,3]", cap=7) == [1, 2, 3]


def test_fractions_only_where_asked_and_always_finite() -> None:
    assert strict_json.loads(b"[0.5,1e-5]", cap=99, fractions=True) == [0.5, 1e-5]
    with pytest.raises(ReaderError):
        strict_json.loads(b"[1e999]", cap=99, fractions=True)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def _read(data: bytes) -> Any:
    try:
        return ("ok", strict_json.loads(data, cap=10**5))
    except ReaderError as error:
        return ("no", error.code)


def _read_client(data: bytes) -> Any:
    try:
        return ("ok", client_json.loads(data, 10**5))
    except Malformed as error:
        return ("no", error.code)


@given(_VALUES, st.binary(max_size=3), st.integers(0, 200), st.booleans())
@settings(max_examples=300, deadline=None)
def test_agrees_with_the_client_and_never_crashes(value: Any, junk: bytes, place: int, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    data = data[:place] + junk + data[place:]
    ours, theirs = _read(data), _read_client(data)
    assert ours[0] == theirs[0], data
    if ours[0] == "ok":
        assert ours[1] == theirs[1]
