"""Numbers are read the same however they are written, and words that are none stay words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.normaliser import normalise
from checks.contamination.numbers import numbers

PAIRS = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "../shared/data")) / "gsm8k_rephrase/dev.jsonl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234 and 1,234,567.5", ["1234", "2469135/2"]),
        ("12,34 and 1234,567", ["12", "34", "1234", "567"]),
        ("forty-five or forty five", ["45", "45"]),
        ("one hundred and five", ["105"]),
        ("two hundred thousand and sixty-one", ["200061"]),
        ("three million two hundred thousand four", ["3200004"]),
        ("a thousand, a hundred and two", ["1000", "102"]),
        ("nineteen eighty four", ["19", "84"]),
        ("one, two three", ["1", "2", "3"]),
        ("two point", ["2"]),
        ("2.5 million", ["2500000"]),
        ("3 hundred thousand", ["300000"]),
        ("three and a half", ["7/2"]),
        ("2 1/2 cups, 2\u00bd cups", ["5/2", "5/2"]),
        ("2 and three quarters", ["11/4"]),
        ("3/4 and 3 / 4", ["3/4", "3", "4"]),
        ("1/0", ["1", "0"]),
        ("11/21/2026", ["11", "21", "2026"]),
        ("a half, half of it, a third, two thirds, one fourth, a tenth", ["1/2", "1/2", "1/3", "2/3", "1/4", "1/10"]),
        ("the third day of the fourth grade", []),
        ("5 fourth graders", ["5"]),
        ("twice, double, triple, a dozen, a couple, a pair", ["2", "2", "3", "12", "2", "2"]),
        ("two dozen and half a dozen", ["24", "6"]),
        ("150%, 150 percent, fifty percent", ["3/2", "3/2", "1/2"]),
        ("$.75 and 0.75", ["3/4", "3/4"]),
        ("10-20", ["10", "20"]),
        ("\\frac{3}{8} of $5 \\times 3$", ["3/8", "5", "3"]),
        ("\u0664\u0665", ["45"]),
        ("1.2.3", ["6/5", "3"]),
        ("9" * 40, ["9" * 40]),
        ("9" * 41, []),
        ("9" * 30 + "." + "9" * 11, []),
        ("a and an, no one's", ["1"]),
    ],
)
def test_number_is_read_however_written(text: str, expected: list[str]) -> None:
    assert numbers(text) == tuple(map(Fraction, expected))


@pytest.mark.parametrize("break_", ["\n\n", "\n- ", "\n  ", ". ", ", ", "; "])
def test_numbers_are_not_joined_across_a_break(break_: str) -> None:
    assert numbers(f"she had forty{break_}five came") == (Fraction(40), Fraction(5))


def test_numbers_are_joined_across_a_wrapped_line() -> None:
    assert numbers("she had forty\nfive and three and\na half") == (Fraction(45), Fraction(7, 2))


def _words(n: int) -> str:
    """Write a number below 10^9 in words, from the grammar of English and not from the reader's tables."""
    small = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ]
    tens = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if n < 20:
        return small[n]
    if n < 100:
        return tens[n // 10] + (f"-{small[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{small[n // 100]} hundred" + (f" and {_words(n % 100)}" if n % 100 else "")
    for scale, name in ((10**6, "million"), (10**3, "thousand")):
        if n >= scale:
            return f"{_words(n // scale)} {name}" + (f" {_words(n % scale)}" if n % scale else "")
    raise AssertionError(n)


@settings(deadline=None)
@given(st.integers(0, 10**9 - 1))
def test_number_words_are_their_digits(n: int) -> None:
    assert (
        numbers(f"of {_words(n)} apples") == numbers(f"of {n:,} apples") == numbers(f"of {n} apples") == (Fraction(n),)
    )


@settings(deadline=None)
@given(st.fractions(min_value=0, max_value=10**6, max_denominator=1000))
def test_quotient_is_read_in_lowest_terms(value: Fraction) -> None:
    assert numbers(f"is {3 * value.numerator}/{3 * value.denominator} of it") == (value,)


@pytest.mark.parametrize("text", ["9" * 5000, "1 " * 5000, "one " * 5000, "1/" * 5000, "1," * 5000, "1.1" * 3000])
def test_long_runs_of_numbers_are_read(text: str) -> None:
    assert normalise(text).tokens


def test_number_recall_on_real_rewrites() -> None:
    """Section 6.2: .950 of all distinct numbers, .909 as multiset, .973 of three quarters; without 0 and 1 (6.6)."""
    if not PAIRS.exists():
        pytest.skip(f"{PAIRS.name} is not in the shared data folder (ASSAY_DATA)")
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]

    def told(text: str) -> list[Fraction]:
        return [number for number in numbers(text) if number not in (0, 1)]

    read = [(told(pair["original"]), told(pair["rephrase"])) for pair in pairs]
    assert len(read) == 660
    share = _share(set(item) <= set(rewrite) for item, rewrite in read)
    multiset = _share(all(rewrite.count(n) >= item.count(n) for n in item) for item, rewrite in read)
    most = _share(4 * len(set(item) & set(rewrite)) >= 3 * len(set(item)) for item, rewrite in read)
    assert share == pytest.approx(0.950, abs=0.03)
    assert multiset == pytest.approx(0.909, abs=0.03)
    assert most == pytest.approx(0.973, abs=0.03)


def _share(found: Iterable[bool]) -> float:
    flags = list(found)
    return sum(flags) / len(flags)
