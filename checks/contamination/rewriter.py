"""Rewrites that keep what a question asks: what a scan's recall is measured with. Specification: section 6.11.

Each depth holds those before it, but for the dress of depth 1. A rewrite is only made where its meaning is safe: some
texts have none at a depth. Tables are in synonyms.json; no word in them changes a quantity or what is asked for.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

DEEPEST = 4
"""Deepest rewrite made here (6.11); depth 5 is reworded by a person."""

WORDED_MAX = 999
"""Largest number written in words: above it digits are what people write, and 1000-2999 are mostly years."""

UNITS: Mapping[str, tuple[int, str]] = {
    "hours": (60, "minutes"),
    "minutes": (60, "seconds"),
    "days": (24, "hours"),
    "weeks": (7, "days"),
    "years": (12, "months"),
    "km": (1000, "m"),
    "kilometers": (1000, "meters"),
    "meters": (100, "centimeters"),
    "kg": (1000, "g"),
    "kilograms": (1000, "grams"),
    "feet": (12, "inches"),
    "dollars": (100, "cents"),
}
"""Exact conversions by factors that the verifier knows (6.6), plural forms only."""

_SMALL_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_SMALL = _SMALL_TEXT.split()
_TENS_TEXT = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = _TENS_TEXT.split()
_VALUES = {word: value for value, word in enumerate(_SMALL) if value > 1} | {
    word: 10 * value for value, word in enumerate(_TENS) if value > 1
}

_TENS_WORD = "|".join(_TENS[2:])
_WORDED = rf"(?:{_TENS_WORD})-(?:{'|'.join(_SMALL[1:10])})|{'|'.join(_VALUES)}"
_NUMBER = re.compile(
    r"\$(?P<money>\d{1,6})(?![\d,]|\.\d| ?(?:million|billion|bill|worth|an? |per |/))"
    r"|(?<![\w.,/:$€£+*=^-])(?<![-+*/=^x\u00d7] )(?P<digits>\d{1,6})(?P<percent>%?)"
    r"(?![\w/:+*=^-]|[.,]\d| ?[+*/=^x\u00d7])"
    rf"|(?<![\w-])(?P<word>{_WORDED})(?![\w-]| (?:hundred|thousand|million|billion|and a ))",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    rf"(?<![\w$.,/:-])(?P<number>\d{{1,4}}|{_WORDED}) (?P<unit>{'|'.join(UNITS)})\b"
    r"(?! (?:a|an|per|each|every|in|of|ago|old|apart)\b|/)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_ARTICLE_WORD = re.compile(r"\b(?P<article>an?\s+)?(?P<word>[A-Za-z]+)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|vs|No|etc|approx|[A-Z])\.")
_POINTS_BACK_TEXT = (
    "he she it they him her them his hers its their theirs this that these those then there also another other others "
    "rest remaining left same both each next later after afterwards first second third last finally instead however so "
    "if but and former latter total now who which"
)
_POINTS_BACK = frozenset(_POINTS_BACK_TEXT.split())


def rewrite(text: str, depth: int, rng: np.random.Generator) -> str | None:
    """Return a rewrite of a question, or None where none is safe or the result would say the same in the same words.

    Args:
        text: the question.
        depth: 0 verbatim; 1 white space, markup, case; 2 names renamed, digits <-> words; 3 = 2 + synonyms + sentence
            order; 4 = 3 + one unit changed.
        rng: draws names, places and the unit.

    Raises:
        ValueError: the depth lies outside 0..4.
    """
    if not 0 <= depth <= DEEPEST:
        raise ValueError(f"depth {depth} is not made here")
    if depth == 0:
        return text
    if depth == 1:
        dressed = _dressed(text, rng)
        return dressed if dressed != text else None
    changed = _unit_changed(text, rng) if depth == DEEPEST else text
    if changed is None:
        return None
    told = _renumbered(_renamed(changed, rng))
    if depth > 2:
        told = _reordered(_with_synonyms(told))
    return told if words_of(told) != words_of(text) else None


def words_of(text: str) -> list[str]:
    """Return a text's words without case, white space and signs."""
    return _WORD.findall(text.casefold())


@cache
def tables() -> Mapping[str, Mapping[str, str] | Mapping[str, Sequence[str]]]:
    """Return the tables `synonyms`, `names` and `french` of synonyms.json."""
    read = json.loads(files("checks.contamination").joinpath("synonyms.json").read_text("utf-8"))
    assert isinstance(read, dict)
    return read


def in_words(number: int) -> str:
    """Return 0..999 in words.

    Raises:
        ValueError: the number lies outside.
    """
    if not 0 <= number <= WORDED_MAX:
        raise ValueError(f"{number} is not written in words")
    if number >= 100:
        rest = number % 100
        return f"{_SMALL[number // 100]} hundred" + (f" {in_words(rest)}" if rest else "")
    if number < 20:
        return _SMALL[number]
    return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")


def _value(text: str) -> int:
    if text.isdigit():
        return int(text)
    return sum(_VALUES.get(part, 1) for part in text.casefold().split("-"))  # "one" is no entry of its own


def _dressed(text: str, rng: np.random.Generator) -> str:
    """Return the text in other white space, with a mark of Markdown and in one case."""
    spaced = re.sub(r" ", "  ", text, count=1 + int(rng.integers(0, 3)))
    lines = _SENTENCE_END.split(spaced)
    told = "\n".join(lines) if len(lines) > 1 else f"{spaced} "
    told = f"**{told}**" if rng.random() < 0.5 else f"> {told}"
    return told.upper() if rng.random() < 0.5 else told.lower()


def _renamed(text: str, rng: np.random.Generator) -> str:
    """Return the text with first names of the table replaced, women's by women's; facts keep theirs.

    A text without a number is about the people that it names.
    """
    if not any(_value(found.group("money") or found.group("digits") or found.group("word")) > 1 for found in
               _NUMBER.finditer(text)):  # fmt: skip
        return text
    present = set(_WORD.findall(text))
    mapping: dict[str, str] = {}
    for group in tables()["names"].values():
        held = sorted(present.intersection(group))
        free = [name for name in group if name not in present]
        mapping |= {
            old: free[int(new)] for old, new in zip(held, rng.permutation(len(free))[: len(held)], strict=False)
        }
    return _WORD.sub(lambda found: mapping.get(found.group(), found.group()), text)


def _renumbered(text: str) -> str:
    """Return the text with numbers in digits written in words and the other way round, where both are usual."""

    def told(found: re.Match[str]) -> str:
        whole, money, digits = found.group(), found.group("money"), found.group("digits")
        if money is not None:
            value = int(money)
            return f"{in_words(value)} dollar{'s' if value != 1 else ''}" if value <= WORDED_MAX else whole
        if digits is not None:
            percent = " percent" if found.group("percent") else ""
            return in_words(int(digits)) + percent if int(digits) <= WORDED_MAX else whole
        return str(_value(found.group("word")))

    changed = _NUMBER.sub(told, text)
    return changed[:1].upper() + changed[1:] if text[:1].isupper() or text[:1] in "$0123456789" else changed


def _with_synonyms(text: str) -> str:
    """Return the text with words of the table replaced, never by a word that stands in the text already."""
    present = set(words_of(text))
    table = tables()["synonyms"]
    chosen: dict[str, str] = {}
    for word in sorted(present):
        other = table.get(word)
        if isinstance(other, str) and other not in present and other not in chosen.values():
            chosen[word] = other

    def told(found: re.Match[str]) -> str:
        article, word = found.group("article") or "", found.group("word")
        other = chosen.get(word.casefold())
        if other is None or (word[:1].isupper() and found.start("word") > 0 and not article):
            return found.group()  # a capital inside a text may belong to a name
        if article:
            # "a" and "an" follow the sound of the word behind them.
            article = article[0] + ("n" if other[0] in "aeiou" else "") + article[len(article.rstrip()) :]
        return article + (other.capitalize() if word[:1].isupper() else other)

    return _ARTICLE_WORD.sub(told, text)


def _reordered(text: str) -> str:
    """Return the text with two independent statements exchanged, or else its question first."""
    sentences = _SENTENCE_END.split(text.strip())
    if len(sentences) < 2 or _ABBREVIATION.search(text):
        return text
    for place, (one, two) in enumerate(pairwise(sentences)):
        free = _POINTS_BACK.isdisjoint(words_of(one)) and _POINTS_BACK.isdisjoint(words_of(two))
        if free and not one.endswith("?") and not two.endswith("?"):
            return " ".join([*sentences[:place], two, one, *sentences[place + 2 :]])
    if sentences[-1].endswith("?") and not any(one.endswith("?") for one in sentences[:-1]):
        return " ".join([sentences[-1], *sentences[:-1]])
    return text


def _unit_changed(text: str, rng: np.random.Generator) -> str | None:
    """Return the text with one quantity in a smaller unit; None where no quantity has one."""
    found = list(_QUANTITY.finditer(text))
    if not found:
        return None
    chosen = found[int(rng.integers(len(found)))]
    factor, unit = UNITS[chosen.group("unit").casefold()]
    number = Fraction(_value(chosen.group("number"))) * factor
    return f"{text[: chosen.start()]}{number} {unit}{text[chosen.end() :]}"
