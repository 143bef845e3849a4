"""Authored families: word problems, facts and code, with rewordings and hard negatives whose truth is computed.

Specification: contamination, section 11. A family is data: a program that gives the answer, an original wording with
places for values, three rewordings by their own sentences, and texts that look alike and ask something else. Facts are
about invented entities. Answers come from the program, never from a verifier. 60 in 100 families are for development;
no threshold is set on the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from checks.contamination.interpreter import Program, interpret, program
from checks.contamination.items import Item
from checks.contamination.rewriter import WORDED_MAX, in_words
from checks.organisms.families_reading import Family, Kind, Version, read_all

Values = Mapping[str, "int | str"]

BENCHMARK = "families"

DRAWS = 8
"""Items of a family (section 11)."""

DEV_SHARE = 0.6
"""Share of the names' SHA-256 that is for development (section 11)."""

PLANTED = 80
"""Items of the test families that a plan plants (section 6.11)."""

TRIES = 2000
"""Draws for values that fit a family's conditions: were they to hold in one of a hundred, all fail once in 5e8."""

PLACE = re.compile(r"\{([A-Za-z]+)(#?)\}")
"""A value's place in a text; "#" asks for words instead of digits."""

NAMES = frozenset(("people", "places"))
"""Pools whose members can be exchanged without changing what a word problem asks."""


@dataclass(frozen=True)
class Drawn:
    """One item of a family with its rewordings and hard negatives."""

    family: str
    kind: Kind
    values: Values
    item: Item
    light: str | None
    """Words: other names, numbers in words; depth 2."""
    rewordings: tuple[Version, ...]
    """Depth 5."""
    negatives: tuple[Version, ...]
    """Each asks something else than the item, by the program; `statement` asks nothing."""


def dev() -> tuple[Family, ...]:
    """Return the families that thresholds may be looked at with."""
    return tuple(family for family in read_all() if is_dev(family.name))


def test() -> tuple[Family, ...]:
    """Return the families that only measurements and controls read."""
    return tuple(family for family in read_all() if not is_dev(family.name))


test.__test__ = False  # type: ignore[attr-defined]  # pytest collects what is called so


def is_dev(name: str) -> bool:
    """Return whether a family is for development: decided by its name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < int(DEV_SHARE * 2**64)


def draws(family: Family, rng: np.random.Generator, count: int = DRAWS) -> tuple[Drawn, ...]:
    """Return items of a family, no two with the same values.

    Raises:
        ValueError: the family's conditions leave too few; it is named.
    """
    made: list[Values] = []
    while len(made) < count:
        made.append(_values(family, rng, made))
    return tuple(_drawn(family, number, values, rng) for number, values in enumerate(made, 1))


def authored(rng: np.random.Generator, count: int = PLANTED) -> tuple[tuple[Item, str], ...]:
    """Return prose items of the test families, each with one rewording of it, in random order."""
    held = [drawn for family in test() if family.kind != "code" for drawn in draws(family, rng)]
    chosen = [held[int(at)] for at in rng.permutation(len(held))[:count]]
    return tuple((one.item, one.rewordings[int(rng.integers(len(one.rewordings)))].text) for one in chosen)


def filled(text: str, values: Values, worded: bool = False) -> str:
    """Return a text with its places filled; numbers of places that ask for it, or all, in words.

    Braces around anything that is no value stay: they are code.
    """

    def told(found: re.Match[str]) -> str:
        value = values.get(found.group(1))
        if value is None:
            return found.group()
        as_words = isinstance(value, int) and (worded or found.group(2)) and 0 <= value <= WORDED_MAX
        return in_words(int(value)) if as_words else str(value)

    made = PLACE.sub(told, text)
    return made[:1].upper() + made[1:] if PLACE.match(text) else made


def evaluated(expression: str, values: Values) -> Any:
    """Return what an expression over values comes to; it is interpreted, never executed.

    Raises:
        ValueError: it comes to an error, or is outside the interpreter's subset.
    """
    outcome = interpret(_parsed(expression, tuple(values)), "answer", [*values.values()])
    if outcome.word != "value":
        raise ValueError(f"an expression of a family came to {outcome.error or outcome.undecided}")
    return outcome.value


@cache
def _parsed(expression: str, names: tuple[str, ...]) -> Program:
    read = program(f"def answer({', '.join(names)}):\n    return {expression}\n")
    if isinstance(read, str):
        raise ValueError(f"an expression of a family came to {read}")
    return read


def _values(family: Family, rng: np.random.Generator, taken: Sequence[Values]) -> Values:
    """Return values that fit the conditions, all different, and not taken yet."""
    for _ in range(TRIES):
        found = _completed(family, {name: _number(held, rng) for name, held in family.values.items()})
        if found is None:
            continue
        names: dict[str, int | str] = {}
        for name, held in family.picks.items():
            free = [one for one in held if one not in names.values()]
            names[name] = free[int(rng.integers(len(free)))]
        made = {**found, **names}
        if made not in taken:
            return made
    raise ValueError(f"{family.name}: no values fit")


def _number(held: tuple[int, int, int], rng: np.random.Generator) -> int:
    low, high, step = held
    return low + step * int(rng.integers((high - low) // step + 1))


def _completed(family: Family, numbers: Mapping[str, int]) -> dict[str, int | str] | None:
    """Return numbers with those derived from them; None where two are equal or a condition fails."""
    if len(set(numbers.values())) < len(numbers) or not all(evaluated(one, numbers) for one in family.when):
        return None
    found: dict[str, int | str] = {**numbers, **{name: evaluated(one, numbers) for name, one in family.derived.items()}}
    return found if family.kind != "words" or _told_apart(family, found) else None


def _told_apart(family: Family, numbers: Values) -> bool:
    """Return whether every authored negative has another answer than the item, and the item a positive one."""
    answer = evaluated(str(family.original.program), numbers)
    others = [evaluated(one.program, numbers) for one in family.negatives if one.program is not None]
    return bool(answer > 0) and answer not in others


def _drawn(family: Family, number: int, values: Values, rng: np.random.Generator) -> Drawn:
    original = _version(family.original, values)
    item = Item(BENCHMARK, f"{family.name}.{number}", "prose", original.text, template=family.name)
    rewordings = tuple(_version(one, values) for one in family.rewordings)
    negatives = tuple(_version(one, values) for one in family.negatives)
    light = None
    if family.kind == "code":
        item = replace(
            item, kind="code", language="python", entry=original.entry, reference=original.program, probes=family.probes
        )
    else:
        item = replace(item, answer=str(evaluated(str(family.original.program), values)))
        negatives = (*_other_values(family, values, rng), *negatives)
    if family.kind == "words":
        light = filled(family.original.text, _renamed(family, values, rng), worded=True)
    if family.statement is not None:
        negatives = (*negatives, Version("statement", filled(family.statement, values)))
    return Drawn(family.name, family.kind, values, item, light, rewordings, negatives)


def _version(held: Version, values: Values) -> Version:
    # An expression is told over the values' names and stays as it is; source is written for these values.
    source = held.program if held.entry is None or held.program is None else filled(held.program, values)
    return replace(held, text=filled(held.text, values), program=source)


def _other_values(family: Family, values: Values, rng: np.random.Generator) -> tuple[Version, ...]:
    """Return the original with one number changed, and original and a rewording with all values changed."""
    other = _unlike(family, values, rng)
    reworded = family.rewordings[int(rng.integers(len(family.rewordings)))]
    if family.kind == "facts":
        return (
            Version("entity", filled(family.original.text, other)),
            Version("reworded_entity", filled(reworded.text, other)),
        )
    return (
        Version("number", filled(family.original.text, _one_changed(family, values, rng))),
        Version("template", filled(family.original.text, other)),
        Version("reworded_numbers", filled(reworded.text, other)),
    )


def _one_changed(family: Family, values: Values, rng: np.random.Generator) -> Values:
    """Return the values with one number changed so that the answer changes."""
    truth = str(family.original.program)
    numbers = {name: int(values[name]) for name in family.values}
    for _ in range(TRIES):
        name = list(numbers)[int(rng.integers(len(numbers)))]
        new = _number(family.values[name], rng)
        found = _completed(family, {**numbers, name: new}) if new not in numbers.values() else None
        if found is not None and evaluated(truth, found) != evaluated(truth, values):
            return {**values, **found}
    raise ValueError(f"{family.name}: no single number can be changed")


def _unlike(family: Family, values: Values, rng: np.random.Generator) -> Values:
    """Return values of which none is the item's, with another answer; a thing of a short list may stay."""
    kept = {*family.values, *family.pools}
    truth = str(family.original.program)
    for _ in range(TRIES):
        other = _values(family, rng, ())
        differs = all(other[name] != values[name] for name in kept)
        if differs and evaluated(truth, other) != evaluated(truth, values):
            return other
    raise ValueError(f"{family.name}: no other values fit")


def _renamed(family: Family, values: Values, rng: np.random.Generator) -> Values:
    """Return the values with other people and places."""
    renamed = dict(values)
    for name, pool in family.pools.items():
        if pool in NAMES:
            free = [one for one in family.picks[name] if one not in renamed.values()]
            renamed[name] = free[int(rng.integers(len(free)))]
    return renamed
