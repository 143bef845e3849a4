"""The charge is what the values could carry, no less; and a plain answer does not cost its punctuation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.budget import charge_bits, charge_bytes

KNOWN = {"value", "labels", "layer", "auroc"}


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        ("0.512", 11),  # three digits: 1 + ceil(3 x 3.32)
        ("-0.512", 11),
        ("0", 1),
        (12, 8),
        (True, 8),
        (None, 8),
        ("auroc", 8),
        ("secret", 48),
        ([], 16),
        (["secret", "secret"], 16 + 48 + 16),
        ({"value": "0.5"}, 5),
        ({"unknown": "0.5"}, 5 + 56),
    ],
)
def test_planted_values_cost_what_the_table_says(value: Any, bits: int) -> None:
    assert charge_bits(value, KNOWN) == bits


def test_bytes_are_rounded_up() -> None:
    assert charge_bytes("0", KNOWN) == 1


def test_binary_fractions_are_no_result() -> None:
    with pytest.raises(TypeError, match="float"):
        charge_bits(0.5, KNOWN)


@given(st.binary(max_size=40))
def test_bytes_hidden_in_digits_or_text_are_charged_in_full(hidden: bytes) -> None:
    digits = str(int.from_bytes(b"\x01" + hidden, "big"))
    assert charge_bits(digits, KNOWN) >= 8 * len(hidden)
    assert charge_bits(hidden.hex() or "x", KNOWN) >= 4 * len(hidden)


LEAVES = st.one_of(st.integers(-(10**9), 10**9), st.booleans(), st.none(), st.text(max_size=8))


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner)))
def test_the_charge_grows_with_every_part(value: Any) -> None:
    assert charge_bits([value, "more than before"], KNOWN) > charge_bits([value], KNOWN) > 0
    assert charge_bits(json.loads(json.dumps(value)), KNOWN) == charge_bits(value, KNOWN)
