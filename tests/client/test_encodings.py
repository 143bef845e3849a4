"""Strict JSON in, canonical JSON out, moments: what two readers could read differently is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import rfc8785
from assay import canonical, manifest, moments, strict_json
from assay.errors import AssayError, Malformed
from hypothesis import given
from hypothesis import strategies as st

from sandbox.reader import names
from sandbox.reader import strict_json as other
from sandbox.reader.error import ReaderError

CAP = 1 << 20
JCS = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[2] / "../shared/data")) / "vectors" / "jcs"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"a":1,"a":2}', "json_duplicate_key"),
        (b'{"x":[{"a":1,"\\u0061":2}]}', "json_duplicate_key"),
        (b"\xef\xbb\xbf{}", "json_bom"),
        (b"{} {}", "json_invalid"),
        (b"{}\n\n", "json_invalid"),
        (b" {}", "json_invalid"),
        (b"{}\r\n", "json_invalid"),
        (b"{}\x00", "json_invalid"),
        (b"", "json_invalid"),
        (b"[1,]", "json_invalid"),
        (b"{'a':1}", "json_invalid"),
        (b'"\xff"', "json_invalid"),
        (b'"\xed\xa0\x80"', "json_invalid"),
        (b'"a\nb"', "json_invalid"),
        (b"1.0", "json_number"),
        (b"1e3", "json_number"),
        (b"1E400", "json_number"),
        (b"-0", "json_number"),
        (b"NaN", "json_number"),
        (b"[Infinity]", "json_number"),
        (b"[-Infinity]", "json_number"),
        (b"9007199254740992", "json_number"),
        (b"-9007199254740992", "json_number"),
        (b"1" * 100_000, "json_number"),
        (b'"\\ud800"', "json_surrogate"),
        (b'{"\\udc00":1}', "json_surrogate"),
        (b'["\\u0000"]', "json_invalid"),
        (b"\xff\xfe{\x00}\x00", "json_bom"),
        (b"[" * 33 + b"]" * 33, "json_too_deep"),
        (b"[" * 100_000, "json_too_deep"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "json_too_deep"),
        (b'"' + b"a" * CAP + b'"', "size_cap"),
    ],
)
def test_ambiguous_json_is_refused(text: bytes, code: str) -> None:
    with pytest.raises(Malformed) as caught:
        strict_json.loads(text, CAP)
    assert caught.value.code == code
    assert str(caught.value).isprintable()


def test_edges_that_are_fine() -> None:
    assert strict_json.loads(b'{"a":[-9007199254740991,true,null,"\\ud83d\\ude02"]}\n', CAP) == {
        "a": [-9007199254740991, True, None, "😂"]
    }
    deep = strict_json.loads(b"[" * 32 + b"]" * 32, CAP)
    assert canonical.dumps(deep) == b"[" * 32 + b"]" * 32


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(min_codepoint=1, max_codepoint=127)), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_canonical_form_equals_an_independent_rfc8785(value: object) -> None:
    data = canonical.dumps(value)
    assert data == rfc8785.dumps(value)  # type: ignore[arg-type]
    assert strict_json.loads(data, CAP) == value
    assert canonical.loads_canonical(data, CAP) == value


@given(st.binary(max_size=40))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    try:
        value = strict_json.loads(data, CAP)
    except AssayError:
        return
    assert value == json.loads(data)


# fmt: off
PIECES = (
    "{", "}", "[", "]", '"a"', '"b"', ":", ",", "1", "-0", "-1", "1.5", "9007199254740992", "null", "NaN", " ", "\n",
    '"\\ud800"', '"\\u0000"', '"\\ud83d\\ude02"', '"\\\\"', "\ufeff", '"é"',
)
# fmt: on


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.binary(max_size=30))
def test_both_strict_readers_agree(document: str | bytes) -> None:
    """The sandbox has a reader of its own, because it imports nothing of ours; the rules are the same."""
    data = document.encode() if isinstance(document, str) else document
    results: list[tuple[str, object]] = []
    try:
        results.append(("value", strict_json.loads(data, CAP)))
    except Malformed as error:
        results.append(("refused", error.code))
    try:
        results.append(("value", other.loads(data, cap=CAP)))
    except ReaderError as error:
        results.append(("refused", error.code))
    # Of two faults in one document, each may be the first that a reader meets.
    assert results[0][0] == results[1][0]
    assert results[0][0] == "refused" or results[0] == results[1]


@given(st.text("aA.-_/ é\n", max_size=12) | st.just("x" * 129) | st.just("x" * 128))
def test_both_path_rules_agree(path: str) -> None:
    assert (manifest.check_path(path) is None) == (names.check_path(path) is None)


@pytest.mark.parametrize("value", [1.5, 2**53, float("nan"), "\ud800", "a\x00", {"é": 1}, {1: 2}, b"x", {"a": {1}}])
def test_values_outside_the_subset_are_refused(value: object) -> None:
    with pytest.raises(Malformed):
        canonical.dumps({"v": value})


def test_a_document_that_is_not_canonical_is_named() -> None:
    with pytest.raises(Malformed, match="json_not_canonical"):
        canonical.loads_canonical(b'{"b":1, "a":2}', CAP)


@pytest.mark.skipif(not JCS.is_dir(), reason="no JCS vectors: set ASSAY_DATA to the folder that holds vectors/jcs")
@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_published_jcs_vectors(name: str) -> None:
    source = (JCS / "input" / f"{name}.json").read_bytes()
    expected = (JCS / "output" / f"{name}.json").read_bytes()
    if name in ("structures", "values"):
        with pytest.raises(Malformed, match="json_number"):
            strict_json.loads(source.strip(), CAP)
        return
    value = strict_json.loads(source.strip(), CAP)
    if name in ("french", "weird"):  # keys outside ASCII sort differently by UTF-16 and by code point: not ours
        with pytest.raises(Malformed, match="ASCII"):
            canonical.dumps(value)
        return
    assert canonical.dumps(value) == expected.strip()


@pytest.mark.parametrize(
    "text",
    ["2026-02-30T00:00:00Z", "2026-01-02T03:04:05+00:00", "2026-01-02 03:04:05Z", 5, None, "٢026-01-02T03:04:05Z"],
)
def test_other_spellings_of_a_moment_are_refused(text: object) -> None:
    with pytest.raises(Malformed):
        moments.parse(text)


def test_a_moment_survives() -> None:
    assert moments.from_ms(1_767_323_045_999) == "2026-01-02T03:04:05Z"
    assert moments.parse("2026-01-02T03:04:05Z").timestamp() == 1_767_323_045
    with pytest.raises(Malformed):
        moments.from_ms(-1)
    with pytest.raises(Malformed):
        moments.from_ms(10**18)
