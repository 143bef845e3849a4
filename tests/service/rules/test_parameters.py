"""Parameters: text in, canonical and complete out, and every mistake named."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from assay import canonical, catalogue
from hypothesis import given
from hypothesis import strategies as st

from service.rules.parameters import read_parameters

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "threshold": {"type": "string", "default": "0.5"},
        "share": {"type": "string", "format": "decimal", "decimalMinimum": "0.1", "decimalMaximum": "1"},
        "draws": {"type": "integer", "default": 100, "minimum": 10, "maximum": 1000},
        "layers": {
            "anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "integer"}, "maxItems": 4}],
            "default": "all",
        },
        "name": {"type": "string", "default": "plain"},
        "seedless": {"type": "boolean"},
    },
}


def test_nothing_given_is_every_default() -> None:
    expected = {"draws": 100, "layers": "all", "name": "plain", "threshold": "0.5"}
    assert read_parameters("", SCHEMA) == (expected, [])
    assert read_parameters(" { } ", SCHEMA) == (expected, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.05", "0.05"),
        ("0.50", "0.5"),
        ("1e-3", "0.001"),
        ("1.0", "1"),
        ("-0.0", "0"),
        ("2", "2"),
        ("25E-2", "0.25"),
        ('"0.050"', "0.05"),
    ],
)
def test_fraction_becomes_its_exact_decimal_string(text: str, expected: str) -> None:
    found, wrong = read_parameters(f'{{"threshold": {text}}}', SCHEMA)
    assert (found["threshold"], wrong) == (expected, [])


@given(st.decimals(min_value=-1000, max_value=1000, allow_nan=False, places=17))
def test_no_digit_is_lost_to_a_float(number: Decimal) -> None:
    found, wrong = read_parameters(f'{{"threshold": {number:f}}}', SCHEMA)
    assert not wrong
    assert Decimal(found["threshold"]) == number


def test_misspelt_parameter_names_the_nearest() -> None:
    _, wrong = read_parameters('{"thresold": 0.1, "zzz": 1}', SCHEMA)
    assert wrong[0] == (".thresold", "no parameter 'thresold'; did you mean 'threshold'?")
    assert wrong[1][0] == ".zzz"
    assert "draws, layers, name" in wrong[1][1]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('{"draws": 5}', ".draws", "5 is below the minimum 10"),
        ('{"draws": 5000}', ".draws", "above the maximum 1000"),
        ('{"draws": 20.5}', ".draws", "is not of type integer"),
        ('{"draws": "20"}', ".draws", "is not of type integer"),
        ('{"name": 5}', ".name", "is not of type string"),
        ('{"layers": [1, "x"]}', ".layers", "not valid under any"),
        ('{"layers": [1,2,3,4,5]}', ".layers", "not valid under any"),
        ('{"share": 0.09}', ".share", "0.09 is below the minimum 0.1"),
        ('{"share": "1.5"}', ".share", "1.5 is above the maximum 1"),
        ('{"draws": true}', ".draws", "is not of type integer"),
    ],
)
def test_value_out_of_range_is_named(text: str, path: str, words: str) -> None:
    _, wrong = read_parameters(text, SCHEMA)
    assert len(wrong) == 1
    assert wrong[0][0].startswith(path)
    assert words in wrong[0][1]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "{",
        '{"draws":20}{}',
        '{"draws":20,"draws":30}',
        '{"threshold":NaN}',
        '{"threshold":-Infinity}',
        '{"threshold":1e999}',
        '{"threshold":1e-999999999999}',
        '{"threshold":0.' + "1" * 50 + "}",
        '{"draws":' + "9" * 5000 + "}",
        '{"draws":9007199254740993}',
        '{"name":"\\ud800"}',
        '{"name":"\\u0000"}',
        '{"name":"\\u202e"}',
        '{"layers":' + "[" * 5000 + "]" * 5000 + "}",
        '{"layers":' + "[" * 12 + "]" * 12 + "}",
        '{"name":"' + "x" * 70_000 + '"}',
    ],
)
def test_hostile_text_is_refused_whole(text: str) -> None:
    found, wrong = read_parameters(text, SCHEMA)
    assert wrong
    assert all(words.isprintable() and len(words) < 300 for _, words in wrong)
    assert found == {} or wrong[0][0] != ""


@given(st.text(max_size=60))
def test_any_text_is_answered_and_what_is_accepted_is_canonical(text: str) -> None:
    found, wrong = read_parameters(text, SCHEMA)
    if not wrong:
        assert json.loads(canonical.dumps(found)) == found


@given(st.dictionaries(st.text("abcxyz_", min_size=1), st.integers(0, 9) | st.none(), min_size=1, max_size=6))
def test_each_unknown_name_is_told_once(unknown: dict[str, Any]) -> None:
    _, wrong = read_parameters(json.dumps(unknown), SCHEMA)
    assert sorted(path for path, _ in wrong) == sorted(f".{name}" for name in unknown)


REQUIRED = {"site": "resid.0"}
"""A value of each parameter that has no default."""


def test_shipped_catalogue_accepts_its_own_defaults_and_names_a_misspelling() -> None:
    """The real schemas, as the checks generate them."""
    for entry in catalogue.load().checks:
        owed = {name: REQUIRED[name] for name in entry.params.get("required", ())}
        found, wrong = read_parameters(json.dumps(owed) if owed else "", entry.params)
        assert not wrong
        assert found.keys() == entry.params["properties"].keys()
        again, wrong = read_parameters(canonical.dumps(found).decode(), entry.params)
        assert (again, wrong) == (found, [])
        name = max(found, key=len)
        _, wrong = read_parameters(json.dumps(owed | {name[:-1]: 1}), entry.params)
        assert f"did you mean {name!r}?" in wrong[0][1]
