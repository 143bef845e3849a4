"""Rows of the roles of single texts: refused by role, line and field as strictly as pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from checks.check import Refusal
from checks.truth_probe.roles import Benign, Statement, read_benign, read_statements

BENIGN = {"id": "b0", "cluster": "c0", "text": "Good morning."}
STATEMENT = {**BENIGN, "id": "s0", "true": 0, "asserted": 1}
Reader = Callable[[list[dict[str, Any]]], object]
BOTH: list[tuple[Reader, dict[str, Any], str]] = [
    (read_benign, BENIGN, "benign"),
    (read_statements, STATEMENT, "statements"),
]


def refused(read: Reader, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    with pytest.raises(Refusal) as told:
        read(rows)
    assert told.value.reason == "role_invalid"
    return told.value.items


@pytest.mark.parametrize(("read", "good", "role"), BOTH)
@pytest.mark.parametrize(
    ("changed", "item"),
    [
        ({"colour": "red"}, "colour:unknown"),
        ({"text": ""}, "text:not_text"),
        ({"text": "half a pair: \udc00"}, "text:not_text"),
        ({"id": 7}, "id:not_text"),
        ({"cluster": None}, "cluster:not_text"),
        ({"read_at": "first"}, "read_at:not_last_or_integer"),
        ({"read_at": [1, 2]}, "read_at:not_last_or_integer"),
        ({"read_at": True}, "read_at:not_last_or_integer"),
        ({"read_at": 0}, "read_at:outside_the_text"),
        ({"read_at": 14}, "read_at:outside_the_text"),
    ],
)
def test_a_bad_row_is_named_by_role_line_and_field(
    read: Reader, good: dict[str, Any], role: str, changed: dict[str, Any], item: str
) -> None:
    assert refused(read, [good, {**good, "id": "x", **changed}]) == (f"{role}:line:2:{item}", "total:1")


@pytest.mark.parametrize(("read", "good", "role"), BOTH)
def test_a_missing_field_is_named(read: Reader, good: dict[str, Any], role: str) -> None:
    for name in good:
        row = {key: value for key, value in good.items() if key != name}
        assert refused(read, [row]) == (f"{role}:line:1:{name}:missing", "total:1")


@pytest.mark.parametrize(("read", "good", "role"), BOTH)
def test_duplicate_ids_and_the_total_are_told(read: Reader, good: dict[str, Any], role: str) -> None:
    items = refused(read, [good] * 40)
    assert items[0] == f"{role}:line:2:id:duplicate"
    assert items[-1] == "total:39"
    assert len(items) == 21


@pytest.mark.parametrize(
    ("changed", "item"),
    [
        ({"true": None}, "true:not_0_or_1"),
        ({"true": True}, "true:not_0_or_1"),
        ({"true": 2}, "true:not_0_or_1"),
        ({"asserted": False}, "asserted:not_0_1_null"),
        ({"asserted": 1.0}, "asserted:not_0_1_null"),
        ({"asserted": "yes"}, "asserted:not_0_1_null"),
    ],
)
def test_a_statement_is_true_or_false_and_never_nearly_so(changed: dict[str, Any], item: str) -> None:
    assert refused(read_statements, [{**STATEMENT, **changed}]) == (f"statements:line:1:{item}", "total:1")


def test_benign_rows_hold_no_truth() -> None:
    assert "benign:line:1:true:unknown" in refused(read_benign, [{**BENIGN, "true": 1}])


def test_texts_are_swept_under_their_role() -> None:
    assert read_benign([{**BENIGN, "read_at": 4}]) == (Benign("b0", "c0", "Good morning.", 4),)
    assert read_statements([{**STATEMENT, "asserted": None}]) == (
        Statement("s0", "c0", "Good morning.", 0, None, None),
    )
    text = read_benign([{**BENIGN, "read_at": 13}])[0].text()
    assert (text.id, text.text, text.read_at) == ("benign/b0", "Good morning.", 13)
    text = read_statements([{**STATEMENT, "read_at": "last"}])[0].text()
    assert (text.id, text.text, text.read_at) == ("statements/s0", "Good morning.", None)
    assert read_benign([]) == () == read_statements([])
