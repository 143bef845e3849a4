"""What a result could carry out, in bits: the one channel that a perfectly sealed cell still has.

Specs: sandbox, section 10. Two counts are made and the larger is charged. The first is the specification's formula, so
much for each number, word and length. The second is the length of the document in a code that any JSON value has
(Shannon 1948: a code that can be undone has at most 2^c values of length c or less); what a program packs into digits,
scales, lengths or the choice of words can therefore never be more than the charge. The code learns as it goes on (each
key has counts of what stood there before), so that a field that always says the same costs next to nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
from typing import Any

from sandbox.cell import STEP_PARTS, Filled, Slot

BITS_PER_DIGIT = math.log2(10)
"""A significant decimal digit carries this much; a decimal of d digits is charged 1 + ceil(d x this), sign included."""

CHOICE_BITS = 8
"""A boolean, null, or one of the words that the catalogue or the order gave."""

LENGTH_BITS = 16
"""The length of an array, or which of the strings already charged is repeated."""

_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def charge_bits(value: Any, known: Collection[str]) -> int:
    """Return how many bits a JSON value can carry: the larger of `formula_bits` and `code_bits`.

    Args:
        value: strictly parsed JSON: strings, integers, booleans, null, arrays, objects.
        known: strings that the catalogue and the order gave: names, units, words, parameters.

    Raises:
        TypeError: the value holds something else, e.g. a binary fraction.
    """
    words = frozenset(known)
    return max(formula_bits(value, words), code_bits(value, words))


def slots_bits(slots: Sequence[Slot], filled: Sequence[Filled]) -> int:
    """Return what the released slots of a cell can carry: 8 bits a byte, and their lengths.

    Args:
        slots: as the order declared them; those that are not released stay in the service and cost nothing.
        filled: what was taken out of them.
    """
    released = {slot.name for slot in slots if slot.released}
    return sum(8 * one.size + _length_bits(one.size) for one in filled if one.name in released)


def progress_bits(steps: int) -> int:
    """Return what a cell's progress can carry: each step's parts, 0 of 20 to 20 of 20, are told or not told.

    Nothing else is told, and in one order only, so no more than 2^(21 x steps) histories differ: 16 bytes for the six
    steps of a cell that measures. It is charged whether anything was told or not. When each was told is not counted;
    at most one a second leaves, as the seconds that a run takes do.

    Args:
        steps: how many step ids the order gave.
    """
    return steps * (STEP_PARTS + 1)


def formula_bits(value: Any, known: Collection[str]) -> int:
    """Return the specification's count: a number by its significant digits, a word 8, a length 16, text 8 a byte.

    Args:
        value: strictly parsed JSON: strings, integers, booleans, null, arrays, objects.
        known: strings that the catalogue and the order gave: names, units, words, parameters.

    Raises:
        TypeError: the value holds something else, e.g. a binary fraction.
    """
    return _charge(value, known, set())


def charge_bytes(value: Any, known: Collection[str]) -> int:
    """Return the charge in whole bytes, rounded up: the report's unit."""
    return -(-charge_bits(value, known) // 8)


def _charge(value: Any, known: Collection[str], seen: set[str]) -> int:
    if value is None or isinstance(value, bool):
        return CHOICE_BITS
    if isinstance(value, int):
        return _digits_bits(str(value))
    if isinstance(value, str):
        return _string_bits(value, known, seen)
    if isinstance(value, list):
        return LENGTH_BITS + sum(_charge(item, known, seen) for item in value)
    if isinstance(value, dict):
        keys = sum(_string_bits(key, known, seen) for key in value if key not in known)
        return keys + sum(_charge(item, known, seen) for item in value.values())
    raise TypeError(f"a result holds JSON values only, not {type(value).__name__}")


def _string_bits(text: str, known: Collection[str], seen: set[str]) -> int:
    if text in known:
        return CHOICE_BITS
    if _DECIMAL.fullmatch(text):
        return _digits_bits(text)
    if text in seen:
        return LENGTH_BITS
    seen.add(text)
    return 8 * len(text.encode())


def _digits_bits(number: str) -> int:
    significant = number.lstrip("-").replace(".", "").lstrip("0")
    return 1 + math.ceil(len(significant) * BITS_PER_DIGIT)


def code_bits(value: Any, known: Collection[str]) -> int:
    """Return the length of a value in an adaptive code: no set of values is coded shorter than it can be told apart.

    Args:
        value: strictly parsed JSON.
        known: what needs no spelling.

    Raises:
        TypeError: the value holds something else.
    """
    coder = _Coder(known)
    coder.add(value, "")
    return math.ceil(coder.bits)


_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]{0,16})(?:\.([0-9]{1,18}))?")
_KIND_BITS = 4
"""Null, true, false, word, integer, decimal, text, spelt integer, array, object: ten kinds of symbols."""
_SCALE_BITS = math.log2(2 * 18 * 19)
"""A sign, 0 to 17 digits before the point and 0 to 18 after it."""


class _Coder:
    """Adds up a code's length. What stands under one key is one context; an array's items stand under its key.

    In a context a symbol that was seen costs log2((seen in all + 1) / seen so often). A new one costs
    log2(seen in all + 1), and then its spelling. A number's symbol is its sign and scale; its digits come on top.
    """

    def __init__(self, known: Collection[str]) -> None:
        self.bits = 0.0
        self.known = known
        self.word_bits = math.log2(max(1, len(known)))
        self.contexts: defaultdict[str, Counter[Hashable]] = defaultdict(Counter)
        self.totals: Counter[str] = Counter()

    def add(self, value: Any, key: str) -> None:
        if value is None or isinstance(value, bool):
            self._symbol(key, ("constant", value), 0)
        elif isinstance(value, int):
            self._number(key, "integer", str(value))
        elif isinstance(value, str):
            self._text(key, value)
        elif isinstance(value, list):
            self._symbol(key, ("list", len(value)), _length_bits(len(value)))
            for item in value:
                self.add(item, key)
        elif isinstance(value, dict):
            keys = tuple(sorted(value))
            self._symbol(key, ("object", keys), _length_bits(len(keys)) + sum(map(self._key_bits, keys)))
            for name in keys:
                self.add(value[name], name)
        else:
            raise TypeError(f"a result holds JSON values only, not {type(value).__name__}")

    def _text(self, key: str, text: str) -> None:
        if text in self.known:
            self._symbol(key, ("word", text), self.word_bits)
        elif _NUMBER.fullmatch(text):
            self._number(key, "decimal", text)
        else:
            self._symbol(key, ("text", text), _spelling_bits(text))

    def _number(self, key: str, kind: str, text: str) -> None:
        found = _NUMBER.fullmatch(text)
        if found is None:  # more digits than an order's integers have: spelt out
            self._symbol(key, (kind, text), _spelling_bits(text))
            return
        sign, whole, part = found.groups(default="")
        whole = whole if whole != "0" else ""
        self._symbol(key, (kind, sign, len(whole), len(part)), _SCALE_BITS)
        self.bits += BITS_PER_DIGIT * (len(whole) + len(part))

    def _key_bits(self, key: str) -> float:
        return 1 + (self.word_bits if key in self.known else _spelling_bits(key))

    def _symbol(self, key: str, symbol: Hashable, spelling: float) -> None:
        seen, total = self.contexts[key][symbol], self.totals[key]
        self.bits += math.log2((total + 1) / seen) if seen else math.log2(total + 1) + _KIND_BITS + spelling
        self.contexts[key][symbol] += 1
        self.totals[key] += 1


def _length_bits(length: int) -> int:
    """Return the length of a number from 0 in Elias' gamma code (1975): it says itself where it ends."""
    return 2 * (length + 1).bit_length() - 1


def _spelling_bits(text: str) -> int:
    data = text.encode()
    return _length_bits(len(data)) + 8 * len(data)
