"""Siblings: items with their numbers, or else their names, swapped for those of other items.

Specification: contamination, section 6.1. Siblings are the null that scores of items are held against: same template,
same domain, certainly not the item. Siblings that happen to resemble their item stay in (dropping them raises power
and breaks the false-discovery rate: measured there). Code items get none here: theirs are mutations of the reference
(section 6.7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from checks.contamination.items import Item
from checks.contamination.siblings_values import NUMBER_WORDS, Place, Value, places, rendered

TRIES = 40
"""Draws for one sibling that is neither its item nor an earlier sibling; then the item has fewer. Two numbers of a
pool of five give 25 texts: twelve draws find the last of four siblings with probability above .999."""

SIBLINGS_LEAST, SIBLINGS_MOST, SIBLINGS_TOTAL = 4, 20, 20_000
"""Default number of siblings per item: clamp(floor(20 000 / items), 4, 20) (section 3)."""


NOBODY = -1
"""Owner of the number words that a pool holds besides those of the items."""


@dataclass(frozen=True)
class Sibling:
    """One probe of the null."""

    item: Item
    """The item that it was made from."""
    text: str
    """The question with other values."""
    probe: Item
    """The sibling as an item: its text, its options swapped alike, no answer; its name is "item.s1", "item.s2"."""
    how: Literal["numbers", "entities"]


@dataclass(frozen=True)
class Pool:
    """Values of one kind by shape, each with the items that hold it."""

    owners: Mapping[object, tuple[tuple[int, Value], ...]]
    """shape -> (item's place in the benchmark, value), one entry per item and value."""

    def draw(self, shape: object, owner: int, rng: np.random.Generator) -> Value | None:
        """Return a value of a shape from an item other than `owner`; None where no other item holds one."""
        held = self.owners.get(shape, ())
        first, last = _span(held, owner)
        others = len(held) - (last - first)
        if not others:
            return None
        at = int(rng.integers(others))
        return held[at if at < first else at + last - first][1]


def default_siblings(items: int) -> int:
    """Return K of `siblings = auto` for so many items (section 3)."""
    return min(max(SIBLINGS_TOTAL // max(items, 1), SIBLINGS_LEAST), SIBLINGS_MOST)


def siblings(items: Sequence[Item], k: int, rng: np.random.Generator) -> tuple[Sibling, ...]:
    """Return up to k siblings of each prose and choice item, in item order.

    An item has fewer, or none, where its values allow fewer distinct texts; none is listed by the caller as
    `uncalibrated`.

    Args:
        items: of any number of benchmarks; values are drawn within a benchmark.
        k: siblings per item, at least 1.
        rng: the stream "siblings".

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"{k} siblings per item: at least 1 is needed")
    made: list[Sibling] = []
    for benchmark in dict.fromkeys(item.benchmark for item in items):
        own = [item for item in items if item.benchmark == benchmark and item.kind != "code"]
        found = [places(item.question) for item in own]
        numbers, entities = _pool(found, "number"), _pool(found, "entity")
        for owner, item in enumerate(own):
            texts = _drawn(item, owner, found[owner], "number", numbers, k, rng)
            how: Literal["numbers", "entities"] = "numbers"
            if not texts:
                texts, how = _drawn(item, owner, found[owner], "entity", entities, k, rng), "entities"
            made += (_sibling(item, number, text, choices, how) for number, (text, choices) in enumerate(texts, 1))
    return tuple(made)


def _sibling(
    item: Item, number: int, text: str, choices: tuple[str, ...], how: Literal["numbers", "entities"]
) -> Sibling:
    probe = replace(item, item=f"{item.item}.s{number}", question=text, choices=choices, answer=None, context=None)
    return Sibling(item=item, text=text, probe=probe, how=how)


def _pool(found: Sequence[Sequence[Place]], kind: str) -> Pool:
    owners: dict[object, list[tuple[int, Value]]] = {}
    if kind == "number":
        # Every word of a class may be drawn, the commoner ones more often: "two" for "three" rather than "nine".
        for number, words in enumerate(NUMBER_WORDS):
            shape = ("word", number)
            owners[shape] = [(NOBODY, Value("number", word, shape)) for word in words]
    for owner, held in enumerate(found):
        for value in dict.fromkeys(place.value for place in held if place.value.kind == kind and place.value.told):
            owners.setdefault(value.shape, []).append((owner, value))
    return Pool({shape: tuple(values) for shape, values in owners.items()})


def _span(held: Sequence[tuple[int, Value]], owner: int) -> tuple[int, int]:
    # Entries stand in owner order, so one owner's are contiguous.
    from bisect import bisect_left

    return bisect_left(held, owner, key=lambda entry: entry[0]), bisect_left(
        held, owner + 1, key=lambda entry: entry[0]
    )


def _drawn(
    item: Item, owner: int, found: Sequence[Place], kind: str, pool: Pool, k: int, rng: np.random.Generator
) -> list[tuple[str, tuple[str, ...]]]:
    """Return up to k distinct (question, options), none of them the item's own question."""
    if not any(place.value.kind == kind and place.value.told for place in found):
        return []
    options = [places(choice) for choice in item.choices]
    texts: dict[str, tuple[str, ...]] = {}
    for _ in range(k):
        for _ in range(TRIES):
            drawn = _replacements((found, *options), kind, owner, pool, rng)
            text = item.question if drawn is None else _swapped(item.question, found, drawn)
            if drawn is not None and text != item.question and text not in texts:
                texts[text] = tuple(
                    _swapped(choice, held, drawn) for choice, held in zip(item.choices, options, strict=True)
                )
                break
        else:
            break
    return list(texts.items())


def _replacements(
    texts: Sequence[Sequence[Place]], kind: str, owner: int, pool: Pool, rng: np.random.Generator
) -> dict[Value, Value] | None:
    """Return what each value becomes: equal values alike, different values differently; None where a draw fails.

    Were 3 and 5 to become one 4, the sibling would hold fewer numbers than its item and be found more easily: measured
    on real items, most siblings that passed as a rewrite of their item were such.
    """
    drawn: dict[Value, Value] = {}
    for value in dict.fromkeys(place.value for held in texts for place in held if place.value.kind == kind):
        new = _free(value, owner, pool, drawn, rng) if value.told else value
        if new is None:
            return None
        drawn[value] = new
    return drawn


def _free(value: Value, owner: int, pool: Pool, drawn: Mapping[Value, Value], rng: np.random.Generator) -> Value | None:
    """Return a value of the same shape that nothing else of the item has become; its own where none is drawn.

    None where another value of the item has become that one.
    """
    taken = {_key(new) for new in drawn.values()}
    alike = next((new for old, new in drawn.items() if _key(old) == _key(value)), None)
    if alike is not None and (told := value.written(alike.amount)) is not None:
        return told
    for _ in range(TRIES):
        new = pool.draw(value.shape, owner, rng) or value
        if _key(new) not in taken:
            return new
    return None if _key(value) in taken else value


def _key(value: Value) -> object:
    # "2" and "two" are one number.
    return value.text if value.amount is None else value.amount


def _swapped(text: str, found: Sequence[Place], drawn: Mapping[Value, Value]) -> str:
    """Return the text with each value replaced."""
    parts: list[str] = []
    at = 0
    for place in found:
        if place.value in drawn:
            parts += (text[at : place.begin], rendered(drawn[place.value], place.surface))
            at = place.end
    return "".join((*parts, text[at:]))
