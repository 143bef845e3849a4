"""An item read once for all its comparisons (contamination, 6.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from checks.contamination.choices import LABELS
from checks.contamination.facts import Slot, names, signature, slot
from checks.contamination.facts_numbers import asks_fact
from checks.contamination.items import Item, Kind
from checks.contamination.normaliser import Normalised, normalise
from checks.contamination.quantity import asked_classes, equal_numbers, negations, told_numbers
from checks.contamination.regions import closing
from checks.contamination.verifier_text import Wording

CACHED = 65_536
"""Questions kept read: items and siblings of a plan at the default limits, some 30 kB each at most."""


@dataclass(frozen=True)
class Question:
    """What `compare` needs of an item."""

    kind: Kind
    wording: Wording
    """Canonical words of the question."""
    accepted: tuple[frozenset[str], ...]
    """For each distinct number other than 0 and 1: the canonical texts that count as equal."""
    equal: Mapping[str, frozenset[str]]
    """The same for every number, by its canonical text."""
    asked: tuple[str, ...]
    """Words of the sentence that asks: the last with a question mark, else the last."""
    marked: bool
    """Whether it has a question mark."""
    negated: int
    """Parity of its negators."""
    classes: frozenset[str]
    """What it asks for, of a quantity."""
    slot: Slot | None
    """What it asks for, of a fact."""
    signature: frozenset[str]
    fact: bool
    """Whether it is judged as a fact: it has no number, or none that is computed with."""
    named: tuple[frozenset[str], ...]
    """Canonical words of each of its names."""
    told: frozenset[str]
    """Canonical texts of its numbers other than 0 and 1."""
    options: tuple[tuple[str, ...], ...]
    answer: tuple[str, ...] | None
    answer_numbers: tuple[str, ...]


def read_question(item: Item, rarity: Mapping[str, int] | None = None) -> Question:
    """Return an item as `compare` reads it; read once for each distinct text where no rarity is given.

    Args:
        item: of kind prose or choice.
        rarity: number of items that hold a word, for the signature of facts.

    Raises:
        ValueError: the item is code; its behaviour is compared elsewhere (section 6.7).
    """
    if item.kind == "code":
        raise ValueError("code is compared by its behaviour, not by its words")
    if rarity is None:
        return _read(item.kind, item.question, item.choices, item.answer)
    return _made(item.kind, item.question, item.choices, item.answer, rarity)


@lru_cache(maxsize=CACHED)
def _read(kind: Kind, question: str, choices: tuple[str, ...], answer: str | None) -> Question:
    return _made(kind, question, choices, answer, None)


def _made(
    kind: Kind, question: str, choices: tuple[str, ...], answer: str | None, rarity: Mapping[str, int] | None
) -> Question:
    read = normalise(question)
    numbers = [token.number for token in read.tokens if token.number is not None]
    asked, marked = _asking(read)
    told = told_numbers(numbers)
    solution = normalise(answer).tokens if answer is not None else ()
    return Question(
        kind=kind,
        wording=Wording(read.words),
        accepted=tuple(equal_numbers(number) for number in told),
        equal={token.text: equal_numbers(token.number) for token in read.tokens if token.number is not None},
        asked=asked,
        marked=marked,
        negated=negations(asked),
        classes=asked_classes(asked),
        slot=slot(asked),
        signature=signature(question, rarity),
        fact=asks_fact(question, len(told), asked, len(read.sentences)),
        named=names(question),
        told=frozenset(map(str, told)),
        options=tuple(_option(choice) for choice in choices),
        answer=None if answer is None else tuple(token.text for token in solution),
        answer_numbers=tuple(token.text for token in solution if token.number is not None),
    )


def _asking(read: Normalised) -> tuple[tuple[str, ...], bool]:
    for first, last in reversed(read.sentences):
        if last > first and "?" in closing(read, last - 1):
            return read.words[first:last], True
    return (read.words[slice(*read.sentences[-1])] if read.sentences else ()), False


def _option(choice: str) -> tuple[str, ...]:
    """Return an option's words without its own letter: "B) Paris" and "Paris" are one option."""
    words = normalise(choice).words
    lettered = choice.lstrip("( \t")[1:2] in (")", ".", ":") and len(words) > 1 and words[0] in LABELS
    return words[1:] if lettered else words
