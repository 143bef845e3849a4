"""The charge is what the values could carry, no less; and a plain answer does not cost its punctuation."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import Slot
from sandbox.budget import charge_bits, charge_bytes, code_bits, formula_bits, slots_bits
from tests.service.worker.scripted import filled

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
    assert formula_bits(value, KNOWN) == bits
    assert charge_bits(value, KNOWN) >= bits


def test_bytes_are_rounded_up() -> None:
    assert charge_bytes("0", KNOWN) == -(-charge_bits("0", KNOWN) // 8)


def test_a_long_plain_answer_costs_the_formula_and_no_more() -> None:
    """A field that always says the same tells nothing; the formula's 8 bits for it pay for the rest of the code."""
    chance = random.Random(1)
    rows = [
        {"labels": {"layer": str(n)}, "value": f"0.{chance.randrange(10, 99)}", "better": "auroc", "unit": "value"}
        for n in range(300)
    ]
    known = KNOWN | {"better", "unit"}
    assert code_bits(rows, known) < formula_bits(rows, known) == charge_bits(rows, known)


def test_binary_fractions_are_no_result() -> None:
    for count in (charge_bits, formula_bits, code_bits):
        with pytest.raises(TypeError, match="float"):
            count(0.5, KNOWN)


def test_released_slots_cost_eight_bits_a_byte_and_their_length() -> None:
    slots = (Slot(name="a", max_bytes=99, released=True), Slot(name="b", max_bytes=99, released=False))
    assert slots_bits(slots, [filled("a", b"x" * 99), filled("b", b"x" * 99)]) == 8 * 99 + 13
    assert slots_bits(slots, [filled("b", b"x" * 99)]) == 0
    assert slots_bits(slots, [filled("a", b"")]) == 1  # empty or not is an answer, too


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


# S38: whatever a program packs into a document, what a decoder can get back out is charged.

WORDS = tuple(f"word{n}" for n in range(512))
"""More names than the 256 that the formula's 8 bits for a word can tell apart."""


def take(bits: list[int], count: int) -> int:
    """Return the next bits as a number; zeros when there are no more."""
    found = [bits.pop(0) if bits else 0 for _ in range(count)]
    return int("".join(map(str, found)) or "0", 2)


def give(number: int, count: int) -> list[int]:
    return [int(one) for one in f"{number:0{count}b}"] if count else []


def into_digits(bits: list[int]) -> Any:
    return [str(take(bits, 29)) for _ in range(-(-len(bits) // 29))]


def from_digits(value: Any) -> list[int]:
    return [bit for text in value for bit in give(int(text), 29)]


def into_scales(bits: list[int]) -> Any:
    """Each number has one significant digit; where it stands tells four bits, its sign one, itself three."""
    made = []
    while bits:
        sign, places, digit = "-" * take(bits, 1), take(bits, 4), 1 + take(bits, 3)
        made.append(f"{sign}0.{'0' * places}{digit}")
    return made


def from_scales(value: Any) -> list[int]:
    found = []
    for text in value:
        part = text.split(".")[1]
        found += [*give(int(text[0] == "-"), 1), *give(len(part) - 1, 4), *give(int(part[-1]) - 1, 3)]
    return found


def into_lengths(bits: list[int]) -> Any:
    return [[0] * take(bits, 6) for _ in range(-(-len(bits) // 6))]


def from_lengths(value: Any) -> list[int]:
    return [bit for one in value for bit in give(len(one), 6)]


def into_words(bits: list[int]) -> Any:
    return [WORDS[take(bits, 9)] for _ in range(-(-len(bits) // 9))]


def from_words(value: Any) -> list[int]:
    return [bit for one in value for bit in give(WORDS.index(one), 9)]


def into_keys(bits: list[int]) -> Any:
    """Which of twenty labels are there at all."""
    made = []
    while bits:
        made.append({WORDS[n]: "0" for n, bit in enumerate(give(take(bits, 20), 20)) if bit})
    return made


def from_keys(value: Any) -> list[int]:
    return [int(WORDS[n] in one) for one in value for n in range(20)]


def into_zeros(bits: list[int]) -> Any:
    """Labels are names, and a name may be nothing but zeros: how many is five bits."""
    return [{"layer": "0" * (1 + take(bits, 5))} for _ in range(-(-len(bits) // 5))]


def from_zeros(value: Any) -> list[int]:
    return [bit for one in value for bit in give(len(one["layer"]) - 1, 5)]


def into_text(bits: list[int]) -> Any:
    return ["".join(chr(0x61 + take(bits, 4)) for _ in range(16)) for _ in range(-(-len(bits) // 64))]


def from_text(value: Any) -> list[int]:
    return [bit for one in value for character in one for bit in give(ord(character) - 0x61, 4)]


def into_types(bits: list[int]) -> Any:
    return [[None, False, True, 0, "0", [], {}, "value"][take(bits, 3)] for _ in range(-(-len(bits) // 3))]


def from_types(value: Any) -> list[int]:
    known = ["None", "False", "True", "0", "'0'", "[]", "{}", "'value'"]
    return [bit for one in value for bit in give(known.index(repr(one)), 3)]


HIDING: dict[str, tuple[Callable[[list[int]], Any], Callable[[Any], list[int]]]] = {
    "digits": (into_digits, from_digits),
    "scales": (into_scales, from_scales),
    "lengths of lists": (into_lengths, from_lengths),
    "choice of words": (into_words, from_words),
    "which keys": (into_keys, from_keys),
    "runs of zeros": (into_zeros, from_zeros),
    "text": (into_text, from_text),
    "kinds of values": (into_types, from_types),
}


def hidden(name: str, data: bytes) -> tuple[Any, bytes]:
    """Return a document that carries the bytes in this way, and what a decoder gets out of its JSON."""
    into, out_of = HIDING[name]
    value = into([bit for byte in data for bit in give(byte, 8)])
    bits = out_of(json.loads(json.dumps(value)))[: 8 * len(data)]
    return value, bytes(int("".join(map(str, bits[place : place + 8])), 2) for place in range(0, len(bits), 8))


@pytest.mark.parametrize("name", HIDING)
@given(data=st.binary(min_size=1, max_size=200))
@settings(max_examples=25, deadline=None)
def test_no_way_of_hiding_carries_more_than_its_charge(name: str, data: bytes) -> None:
    value, found = hidden(name, data)
    assert found == data, "the control: the bytes do come out"
    assert 8 * len(data) <= 8 * charge_bytes(value, {*KNOWN, *WORDS})


@pytest.mark.parametrize("name", HIDING)
def test_a_kibibyte_comes_out_and_is_charged(name: str) -> None:
    data = random.Random(38).randbytes(1024)
    value, found = hidden(name, data)
    assert found == data
    assert charge_bytes(value, {*KNOWN, *WORDS}) >= 1024


@pytest.mark.parametrize("name", ["scales", "choice of words", "which keys", "runs of zeros"])
def test_the_formula_alone_would_let_it_out(name: str) -> None:
    """Why there are two counts: each of these got more out than the formula charges."""
    data = random.Random(38).randbytes(1024)
    assert formula_bits(hidden(name, data)[0], frozenset({*KNOWN, *WORDS})) < 8 * len(data)


def family() -> Sequence[Any]:
    """Return every list of up to three of some values: as much choice as a small document has."""
    values: list[Any] = [None, True, False, "value", "layer", "x", "ab", {}, [], {"value": None}]
    values += [*range(-9, 30), *(f"{sign}{n / 10:g}" for sign in ("", "-") for n in range(1, 30)), "00", "000"]
    return [list(chosen) for length in range(3) for chosen in product(values, repeat=length)]


def test_no_more_documents_than_the_charge_can_tell_apart() -> None:
    """The bound itself, by counting: at most 2^c documents are charged c bits or less."""
    charges = Counter(charge_bits(value, KNOWN) for value in family())
    assert sum(charges.values()) > 10_000
    below = 0
    for bits in range(max(charges) + 1):
        below += charges[bits]
        assert below <= 2**bits, bits
    assert sum(count * 2.0**-bits for bits, count in charges.items()) <= 1
