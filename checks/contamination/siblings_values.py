"""Numbers, number words and names in a question, as values that can be swapped for others of the same shape.

Specification: contamination, section 6.1. Works on the text as written, so that a sibling reads like its item; the
normaliser's canonical numbers are for comparing, not for writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

from checks.contamination.numbers_reading import TEENS, TENS, UNITS
from checks.contamination.quantity import UNTOLD

DIGITS = re.compile(r"[0-9]+")
WORD = re.compile(r"[^\W\d_]+")

NUMBER_WORDS = (
    ("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
)
"""Classes within which number words are swapped. Section 6.1 names the first and the last; ten to nineteen are a
class of their own, so that an item whose only number is "twelve" has siblings too, and "twenty-five" never becomes
"ten-five"."""

NOT_NAMES = frozenset(("i", "mr", "mrs", "ms", "dr", "prof", "st"))
"""Capitalised in any sentence without naming anything; a title left standing keeps the sibling readable."""

ZEROS_TOLD = 2
"""Trailing zeros that a shape tells apart: min(zeros, 2) (section 6.1)."""


@dataclass(frozen=True)
class Value:
    """One value, however often it stands in a question."""

    kind: Literal["number", "entity"]
    text: str
    """Digits without thousands separators, a number word in lower case, or a name as written."""
    shape: tuple[object, ...]
    """What a replacement must share: of digits (digits of the integer part, min(trailing zeros, 2), has decimals),
    of number words their class, of names the number of words."""

    @cached_property
    def amount(self) -> Fraction | None:
        """Return the number that it names; None for a name."""
        if self.kind == "entity":
            return None
        return Fraction(_AMOUNT[self.text] if self.shape[0] == "word" else self.text)

    @property
    def told(self) -> bool:
        """Return whether it is swapped at all: 0 and 1 say nothing, and are compared with nothing (section 6.6)."""
        return self.amount not in UNTOLD

    def written(self, amount: Fraction | None) -> Value | None:
        """Return another amount as a value of this shape: "7" beside "seven"; None where the shape has none."""
        if amount is None or amount.denominator != 1:
            return None
        if self.shape[0] == "word":
            words = NUMBER_WORDS[int(str(self.shape[1]))]
            word = next((word for word in words if _AMOUNT[word] == amount), None)
            return None if word is None else Value("number", word, self.shape)
        told = _number(str(amount))
        return told if told.shape == self.shape else None


@dataclass(frozen=True)
class Place:
    """Where a value stands."""

    begin: int
    """First character."""
    end: int
    """One past the last character."""
    surface: str
    value: Value


_CLASS = {word: number for number, words in enumerate(NUMBER_WORDS) for word in words}
_AMOUNT = {word: amount for table in (UNITS, TEENS, TENS) for word, amount in table.items()}


def places(text: str) -> tuple[Place, ...]:
    """Return the values of a text in order; they do not overlap."""
    found = [*_digits(text), *_words(text)]
    return tuple(sorted(found, key=lambda place: place.begin))


def rendered(value: Value, surface: str) -> str:
    """Return a value written the way another was: with separators, capitals or none."""
    if value.kind == "entity":
        return value.text
    if value.shape[0] == "word":
        return value.text.capitalize() if surface[:1].isupper() else value.text
    whole, point, decimals = value.text.partition(".")
    if "," in surface:
        whole = f"{int(whole):,}"
    return whole + point + decimals


def _digits(text: str) -> Iterator[Place]:
    """Yield numbers in digits: 80,000 and 2.5 are one number each, 3/4 are two."""
    runs = [(run.start(), run.end()) for run in DIGITS.finditer(text)]
    at = 0
    while at < len(runs):
        begin, end = runs[at]
        at += 1
        # Groups of three after a comma; a first group of four digits has no separators.
        while at < len(runs) and end - begin > 0 and _joined(text, begin, end, runs[at]):
            end = runs[at][1]
            at += 1
        if at < len(runs) and text[end] == "." and runs[at][0] == end + 1:
            end = runs[at][1]
            at += 1
        surface = text[begin:end]
        yield Place(begin, end, surface, _number(surface.replace(",", "")))


def _joined(text: str, begin: int, end: int, run: tuple[int, int]) -> bool:
    first = text[begin:end].partition(",")[0]
    return text[end] == "," and run[0] == end + 1 and run[1] - run[0] == 3 and len(first) <= 3 and first[0] != "0"


def _number(text: str) -> Value:
    whole, _, decimals = text.partition(".")
    zeros = min(len(whole) - len(whole.rstrip("0")), ZEROS_TOLD)
    return Value("number", text, ("digits", len(whole), zeros, bool(decimals)))


def _words(text: str) -> Iterator[Place]:
    words = [(run.start(), run.end()) for run in WORD.finditer(text)]
    at = 0
    while at < len(words):
        begin, end = words[at]
        at += 1
        word = text[begin:end]
        if word.lower() in _CLASS:
            yield Place(begin, end, word, Value("number", word.lower(), ("word", _CLASS[word.lower()])))
        elif _named(text, begin, end):
            count = 1
            while at < len(words) and text[end : words[at][0]] == " " and _named(text, *words[at]):
                end = words[at][1]
                at, count = at + 1, count + 1
            yield Place(begin, end, text[begin:end], Value("entity", text[begin:end], ("name", count)))


def _named(text: str, begin: int, end: int) -> bool:
    """Return whether a word is capitalised, is no number word or title, and begins no sentence."""
    word = text[begin:end]
    if not word[0].isupper() or word.lower() in NOT_NAMES or word.lower() in _CLASS:
        return False
    before = text[max(0, begin - 4) : begin].rstrip(" \t\"'([“‘")  # noqa: RUF001 (quotes as texts hold them)
    return bool(before) and before[-1] not in ".?!:;\n\r"
