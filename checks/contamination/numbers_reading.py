"""Step 5 of the normaliser `n1`: numbers of folded text as canonical rationals (contamination, 6.2).

Reads from left to right and never looks further than a chain of digits, number words and what joins them, so that a
chain read on its own gives the same numbers: the byte path rests on that (`tokens_chains`).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

UNITS = {
    word: n for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
}
TEENS = {
    word: n
    for n, word in enumerate(
        ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"],
        start=10,
    )
}
TENS = {
    word: 10 * n
    for n, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2)
}
HUNDRED = "hundred"
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
PARTS = {
    "half": 2,
    "halves": 2,
    "quarter": 4,
    "quarters": 4,
    **{
        word: n
        for n, word in enumerate(["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], start=3)
    },
    **{
        f"{word}s": n
        for n, word in enumerate(["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], start=3)
    },
}
"""Fractions; read after a number below ten or "a" only ("the third day" holds no number), above one as plurals only:
"5 fourth graders" are five."""
MULTIPLES = {"twice": 2, "double": 2, "thrice": 3, "triple": 3}
"""With "thrice", which section 6.2 does not list: "three times" is often reworded so. With
it and a bare "half" the share of items whose numbers are all found rises from .927 to .939 on 660 real rewrites."""
GROUPS = {"dozen": 12, "couple": 2, "pair": 2}
ARTICLES = frozenset({"a", "an"})
PERCENT = frozenset({"%", "percent"})
NUMERIC = frozenset({*UNITS, *TEENS, *TENS, HUNDRED, *SCALES, *PARTS, *MULTIPLES, *GROUPS})
"""Words that may be numbers, or parts of one."""
AFTER_ARTICLE = frozenset({HUNDRED, *SCALES, *PARTS, *GROUPS})
"""Words that "a" counts one of."""

DIGITS_MAX = 40
"""Digits of a number; longer runs are identifiers (6.2)."""

JOINTS = ("", " ", "-")
"""What may stand between the words of one number."""


class Raw(NamedTuple):
    """A raw token of folded text and where it stands in that text."""

    text: str
    begin: int
    end: int


class Read(NamedTuple):
    """A canonical token made of raw ones."""

    text: str
    number: Fraction | None
    first: int
    """First raw token."""
    after: int
    """The raw token behind the last."""


class _Reader:
    """Reads the number, if any, that begins at a raw token."""

    def __init__(self, text: str, raws: Sequence[Raw]) -> None:
        self.text = text
        self.raws = raws

    def gap(self, i: int) -> str | None:
        """Return what stands between raw token i and the next; None at the end."""
        if i + 1 >= len(self.raws):
            return None
        begin, end = self.raws[i].end, self.raws[i + 1].begin
        return self.text[begin:end] if end - begin <= 1 else "  "

    def word(self, i: int) -> str:
        """Return the raw token behind i where it may belong to the same number, else nothing."""
        return self.raws[i + 1].text if self.gap(i) in JOINTS else ""

    def digits(self, i: int) -> bool:
        return i < len(self.raws) and self.raws[i].text.isdecimal()

    def read(self, i: int) -> Read | None:
        """Return the number that begins at raw token i."""
        word = self.raws[i].text
        if word.isdecimal():
            return self._from_digits(i)
        if word in ARTICLES:
            following = self.word(i)
            if following in AFTER_ARTICLE:
                return self._after_article(i, following)
            return None
        if word in UNITS or word in TEENS or word in TENS or word == HUNDRED or word in SCALES:
            value, last = self._cardinal(i)
            return self._finish(Fraction(value), i, last)
        if word in MULTIPLES:
            return self._done(Fraction(MULTIPLES[word]), i, i)
        if word in GROUPS:
            return self._done(Fraction(GROUPS[word]), i, i)
        if word == "half" and self.word(i) in ARTICLES and self.word(i + 1) in GROUPS:
            return self._done(Fraction(GROUPS[self.word(i + 1)], 2), i, i + 2)
        if word == "half":
            return self._done(Fraction(1, 2), i, i)
        return None

    def _after_article(self, i: int, following: str) -> Read:
        if following in PARTS:
            return self._done(Fraction(1, PARTS[following]), i, i + 1)
        if following in GROUPS:
            return self._done(Fraction(GROUPS[following]), i, i + 1)
        value, last = self._cardinal(i + 1)
        return self._finish(Fraction(value), i, last)

    def _cardinal(self, i: int) -> tuple[int, int]:
        """Return the value of the number words from raw token i on, and the last of them; a bare scale counts one."""
        total, group, ceiling = 0, 0, 10**12
        state, word, last = "start", self.raws[i].text, i
        while True:
            if word in UNITS and (state in ("start", "scale", "hundred") or (state == "tens" and UNITS[word])):
                group, state = group + UNITS[word], "unit"
            elif (word in TEENS or word in TENS) and state in ("start", "scale", "hundred"):
                group, state = group + (TEENS.get(word) or TENS[word]), "teen" if word in TEENS else "tens"
            elif word == HUNDRED and (state == "start" or (state in ("unit", "teen", "tens") and 0 < group < 100)):
                group, state = (group or 1) * 100, "hundred"
            elif word in SCALES and state != "scale" and SCALES[word] < ceiling and (group or state == "start"):
                ceiling = SCALES[word]
                total, group, state = total + (group or 1) * ceiling, 0, "scale"
            else:
                return total + group, last - 1
            following, last = self.word(last), last + 1
            if following == "and" and state in ("hundred", "scale") and self._counts(self.word(last)):
                following, last = self.word(last), last + 1
            word = following

    @staticmethod
    def _counts(word: str) -> bool:
        return word in UNITS or word in TEENS or word in TENS

    def _from_digits(self, i: int) -> Read | None:
        value, last = self._literal(i)
        if value is None:
            begin, end = self.raws[i].begin, self.raws[last].end
            return Read(self.text[begin:end], None, i, last + 1)
        if self._slashed(i, last):
            return self._quotient(value, i, last)
        if value.denominator == 1 and self.gap(last) == " " and self.digits(last + 1):
            below, end = self._literal(last + 1)
            if below is not None and self._slashed(last + 1, end):
                part = self._quotient(below, last + 1, end, finish=False)
                if part is not None and part.number is not None and part.number < 1:
                    return self._finish(value + part.number, i, part.after - 1)
        while self.word(last) == HUNDRED or self.word(last) in SCALES:
            last += 1
            value *= SCALES.get(self.raws[last].text, 100)
        return self._finish(value, i, last)

    def _literal(self, i: int) -> tuple[Fraction | None, int]:
        """Return the value of 1,234.5 from raw token i on and its last raw token; None over `DIGITS_MAX` digits."""
        whole, last = self.raws[i].text, i
        if len(whole) <= 3:
            while self.gap(last) == "," and self.digits(last + 1) and len(self.raws[last + 1].text) == 3:
                last += 1
                whole += self.raws[last].text
        below = ""
        if self.gap(last) == "." and self.digits(last + 1):
            last += 1
            below = self.raws[last].text
        if len(whole) + len(below) > DIGITS_MAX:
            return None, last
        return Fraction(int(whole + below), 10 ** len(below)), last

    def _slashed(self, first: int, last: int) -> bool:
        """Return whether a slash and digits follow closely, and no slash and digits stand closely before."""
        before = (
            first >= 2 and self.gap(first - 1) == "" and self.raws[first - 1].text == "/" and self.gap(first - 2) == ""
        )
        if before and self.digits(first - 2):
            return False
        return (
            self.gap(last) == ""
            and self.raws[last + 1].text == "/"
            and self.gap(last + 1) == ""
            and self.digits(last + 2)
        )

    def _quotient(self, above: Fraction, first: int, last: int, finish: bool = True) -> Read | None:
        below, end = self._literal(last + 2)
        again = (
            self.gap(end) == "" and self.raws[end + 1].text == "/" and self.gap(end + 1) == "" and self.digits(end + 2)
        )
        if not below or again:  # a date or a path, or nothing to divide by
            return self._done(above, first, last)
        return self._finish(above / below, first, end) if finish else self._done(above / below, first, end)

    def _finish(self, value: Fraction, first: int, last: int) -> Read:
        """Read what may follow a number: a part, "and a half", a dozen, percent."""
        following = self.word(last)
        if following in PARTS and (
            value == 1 or (following.endswith("s") and value.denominator == 1 and 0 < value < 10)
        ):
            return self._percent(value / PARTS[following], first, last + 1)
        if following == "dozen":
            return self._done(value * 12, first, last + 1)
        if following == "and" and value.denominator == 1:
            part, end = self._part(last + 1)
            if part:
                return self._percent(value + part, first, end)
        return self._percent(value, first, last)

    def _part(self, i: int) -> tuple[Fraction, int]:
        """Return the part below one that stands behind raw token i ("a half", "three quarters"); 0 where none does."""
        word = self.word(i)
        if word in ARTICLES and self.word(i + 1) in PARTS:
            return Fraction(1, PARTS[self.word(i + 1)]), i + 2
        count = UNITS.get(word, 0) or (int(word) if len(word) == 1 and word.isdecimal() else 0)
        if count and self.word(i + 1) in PARTS and count < PARTS[self.word(i + 1)]:
            return Fraction(count, PARTS[self.word(i + 1)]), i + 2
        return Fraction(0), i

    def _percent(self, value: Fraction, first: int, last: int) -> Read:
        if self.word(last) in PERCENT:
            return self._done(value / 100, first, last + 1)
        return self._done(value, first, last)

    @staticmethod
    def _done(value: Fraction, first: int, last: int) -> Read:
        return Read(str(value), value, first, last + 1)


def read_numbers(text: str, raws: Sequence[Raw]) -> list[Read]:
    """Return canonical tokens: every number as a rational in lowest terms, every other raw token as it stands.

    Args:
        text: folded text; where raw tokens belong together is told by what stands between them.
        raws: its raw tokens, in order.
    """
    reader = _Reader(text, raws)
    out: list[Read] = []
    i = 0
    while i < len(raws):
        word = raws[i].text
        found = None
        if word in NUMERIC or word in ARTICLES or word.isdecimal():
            found = reader.read(i)
        out.append(found or Read(word, None, i, i + 1))
        i = out[-1].after
    return out
