"""Behaviour of a function from a corpus against an item's reference, on the item's probes.

Specification: contamination, section 6.7, point 4. Both are interpreted; nothing is executed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from checks.contamination.interpreter import Outcome, Program, interpret, program
from checks.contamination.interpreter_limits import STEPS_MAX
from checks.contamination.items import Item

PROBES_MIN, OUTPUTS_MIN = 5, 3
"""Fewest probes of an item, and fewest different outputs of its reference (section 6.7): fewer tell nothing."""

ARITY_MAX = 4
"""Most arguments whose orders are tried (section 6.7): 24 orders."""

TOLERANCE = 1e-6
"""Relative difference of equal floats (section 6.7)."""

STEPS_TOTAL = 5 * STEPS_MAX
"""Steps of one comparison, over all probes and orders: 24 orders of many probes that each end just below the limit of
one run would take a minute; five whole runs take about two seconds (measured: .3 to .5 s a run)."""

FAILED: Any = type("Failed", (), {"__slots__": ()})()
"""Output of a reference that raised: no function agrees with it."""

Fault = Literal[
    "language", "entry", "probes_fewer_than_5", "outputs_fewer_than_3", "reference_undecided", "reference_error"
]


@dataclass(frozen=True)
class Reference:
    """An item whose behaviour can be compared with."""

    probes: tuple[tuple[Any, ...], ...]
    outputs: tuple[Any, ...]
    """What the reference returns for each probe."""
    program: Program
    entry: str


@dataclass(frozen=True)
class Behaviour:
    """Verdict of a comparison."""

    verdict: Literal["same", "undecided", "different"]
    undecided: str | None = None
    """Class of the node, or limit, that a run stopped at; None unless `undecided`."""
    order: tuple[int, ...] | None = None
    """For `same`: at each place of the other's arguments, the place of the item's."""
    steps: int = 0
    """Steps used."""


def reference(item: Item) -> Reference | Fault:
    """Return an item's expected outputs, or why its behaviour cannot be compared with.

    Args:
        item: of kind code.
    """
    outputs = returned(item)
    if outputs in ("language", "entry"):
        return outputs
    if len(item.probes) < PROBES_MIN:
        return "probes_fewer_than_5"
    if isinstance(outputs, str):
        return outputs
    if FAILED in outputs:
        return "reference_error"
    held = program(str(item.reference))
    if not tells_enough(outputs) or isinstance(held, str):
        return "outputs_fewer_than_3"
    return Reference(item.probes, outputs, held, str(item.entry))


def returned(item: Item) -> tuple[Any, ...] | Fault:
    """Return what an item's reference returns for each probe, `FAILED` where it raises; or why that is not known.

    Args:
        item: of kind code.
    """
    if item.language.lower() != "python":
        return "language"
    if item.entry is None or item.reference is None:
        return "entry"
    held = program(item.reference)
    if isinstance(held, str):
        return "reference_undecided"
    outputs: list[Any] = []
    for probe in item.probes:
        try:
            outcome = interpret(held, item.entry, probe)
        except ValueError:
            # A probe over the limits of the subset.
            return "reference_undecided"
        if outcome.word == "undecided":
            return "reference_undecided"
        outputs.append(FAILED if outcome.word == "error" else outcome.value)
    return tuple(outputs)


def tells_enough(outputs: Sequence[Any]) -> bool:
    """Return whether equal outputs tell of equal behaviour: there are 5 or more, of 3 or more values, and no error."""
    return FAILED not in outputs and len(outputs) >= PROBES_MIN and _distinct(outputs) >= OUTPUTS_MIN


def behaviour(expected: Reference, source: str, entry: str, steps: int = STEPS_TOTAL) -> Behaviour:
    """Return whether a function behaves as an item's reference does.

    `same`: some order of the arguments gives every expected output. `different`: every order gives some other output
    or an error. Else `undecided`.

    Args:
        expected: of the item.
        source: of any origin.
        entry: name of its function.
        steps: at most so many in all.
    """
    held = program(source)
    if isinstance(held, str):
        return Behaviour("undecided", held)
    return behaviours(expected.probes, [expected.outputs], held, entry, steps)[0]


def behaviours(
    probes: Sequence[Sequence[Any]],
    expected: Sequence[Sequence[Any]],
    held: Program,
    entry: str,
    steps: int = STEPS_TOTAL,
) -> tuple[Behaviour, ...]:
    """Return `behaviour` against many references that share their probes, as an item and its siblings do.

    The function runs once for all of them. Steps are shared, so none is decided for another's cost: where they end,
    all that is not settled is `undecided`.

    Args:
        probes: argument lists.
        expected: outputs of each reference, one for each probe.
        held: of any origin.
        entry: name of its function.
        steps: at most so many in all.
    """
    told: list[Behaviour | None] = [None] * len(expected)
    undecided: list[str | None] = [None] * len(expected)
    used = 0
    for order in orders(probes):
        alive = [place for place, one in enumerate(told) if one is None]
        if not alive:
            break
        alive, mark, spent = _in_order(probes, expected, alive, held, entry, order, steps - used)
        used += spent
        for place in alive:
            undecided[place] = undecided[place] or mark
            if mark is None:
                told[place] = Behaviour("same", order=order, steps=used)
        if used >= steps:
            undecided = [name or "limit:steps" for name in undecided]
            break
    return tuple(
        one or Behaviour("undecided" if name else "different", name, steps=used)
        for one, name in zip(told, undecided, strict=True)
    )


def orders(probes: Sequence[Sequence[Any]]) -> list[tuple[int, ...]]:
    """Return the orders of arguments that are tried, the given one first."""
    arity = len(probes[0])
    if arity > ARITY_MAX or any(len(probe) != arity for probe in probes):
        return [tuple(range(max(map(len, probes))))]
    return list(itertools.permutations(range(arity)))


def _in_order(
    probes: Sequence[Sequence[Any]],
    expected: Sequence[Sequence[Any]],
    alive: Sequence[int],
    held: Program,
    entry: str,
    order: Sequence[int],
    steps: int,
) -> tuple[list[int], str | None, int]:
    """Return which references nothing speaks against in one order, the name of an undecided run, and the steps used."""
    kept = list(alive)
    mark: str | None = None
    used = 0
    for number, probe in enumerate(probes):
        outcome = interpret(held, entry, [probe[at] for at in order if at < len(probe)], min(STEPS_MAX, steps - used))
        used += outcome.steps
        if outcome.word == "undecided":
            mark = mark or outcome.undecided
        else:
            # One other output settles it, whatever the undecided ones would have been.
            kept = [place for place in kept if _agrees(outcome, expected[place][number])]
        if not kept:
            break
        if used >= steps:
            mark = mark or "limit:steps"
            break
    return kept, mark, used


def _agrees(outcome: Outcome, output: Any) -> bool:
    return outcome.error is None and output is not FAILED and equal(outcome.value, output)


def equal(one: Any, other: Any) -> bool:
    """Return whether two plain values are equal, floats within 1e-6 of the larger; not-a-number equals itself.

    Args:
        one: at most 100 levels deep, as the interpreter's values are.
        other: likewise.
    """
    numbers = (int, float)
    if type(one) in numbers and type(other) in numbers and float in (type(one), type(other)):
        return _close(one, other)
    if type(one) is not type(other):
        # True == 1 and {1} == frozenset({1}), as in Python; a list is no tuple.
        return bool(one == other)
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if type(one) is dict:
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _close(one: Any, other: Any) -> bool:
    if one == other or (one != one and other != other):
        return True
    try:
        first, second = float(one), float(other)
    except OverflowError:
        return False
    return abs(first - second) <= TOLERANCE * max(abs(first), abs(second)) < float("inf")


def _distinct(outputs: Sequence[Any]) -> int:
    """Return the number of different outputs, counted up to `OUTPUTS_MIN`."""
    seen: list[Any] = []
    for output in outputs:
        if len(seen) < OUTPUTS_MIN and not any(equal(output, other) for other in seen):
            seen.append(output)
    return len(seen)
