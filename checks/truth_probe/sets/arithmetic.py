"""The set `arithmetic`: sums, differences and products of numbers of one or two digits.

Two problems whose results are 1, 2 or 10 apart exchange their results: "12 + 7 = 19" against "12 + 7 = 20", and
"12 + 8 = 19" against "12 + 8 = 20". So a false result is off by +1 as often as by -1 and so on, and no number is true
more often than false; were false results only shifted true ones, odd numbers and those outside the multiplication
table would be false. A cluster is the two problems, that is, two unordered operand pairs of one operation; a pair
occurs in no second cluster of its operation. Products have an operand of one digit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks.truth_probe.sets.rows import IS_THAT_RIGHT, TRUE_OR_FALSE, Head, Row, answered, stated, verified

SEED = 20_261_104
"""The set is one fixed list; another seed would be another set under the same name."""

CLUSTERS = 200

OFF = (1, 2, 10)
"""How far a false result is off, either way."""

HIGHEST = 99
ONE_DIGIT = 9

OPERATIONS = (("plus", "+"), ("minus", "-"), ("times", "*"))

Problem = tuple[int, int]
"""The operands, as written."""

Twin = tuple[Problem, Problem]
"""Two problems of one operation; the second's result is the larger one."""


def arithmetic() -> list[Row]:
    """Return 800 rows: 200 clusters by two forms and two problems."""
    rng = np.random.default_rng(SEED)
    used: list[set[frozenset[int]]] = [set(), set(), set()]
    rows = []
    for number in range(CLUSTERS):
        operation, off = number % 3, OFF[number // 3 % 3]
        twin = _drawn(rng, operation, off, used[operation])
        if operation != 1 and rng.integers(2):
            twin = (twin[0][::-1], twin[1][::-1])
        larger = number // 4 % 2
        for template in (("ask", "verify")[number % 2], ("equals", "words")[number // 2 % 2]):
            rows += [_row(twin, operation, template, larger, at) for at in range(2)]
    return rows


def result(operation: int, problem: Problem) -> int:
    """Return what a problem amounts to."""
    a, b = problem
    return (a + b, a - b, a * b)[operation]


def _drawn(rng: np.random.Generator, operation: int, off: int, used: set[frozenset[int]]) -> Twin:
    """Draw a twin of unused problems, both with the larger operand first, and take note of them."""
    draw: Callable[[np.random.Generator, int], Twin] = (_sums, _differences, _products)[operation]
    while True:
        twin = draw(rng, off)
        pairs = [frozenset(problem) for problem in twin]
        in_range = all(a > b >= 1 and a <= HIGHEST for a, b in twin)
        if in_range and result(operation, twin[1]) - result(operation, twin[0]) == off and not used & set(pairs):
            used.update(pairs)
            return twin


def _sums(rng: np.random.Generator, off: int) -> Twin:
    a, b = (int(one) for one in rng.integers(2, HIGHEST + 1, size=2))
    return (a, b), (a + off, b)


def _differences(rng: np.random.Generator, off: int) -> Twin:
    a, b = (int(one) for one in rng.integers(2, HIGHEST + 1, size=2))
    return ((a, b), (a + off, b)) if rng.integers(2) else ((a, b + off), (a, b))


def _products(rng: np.random.Generator, off: int) -> Twin:
    (a, b), (c, d) = ((int(rng.integers(3, HIGHEST + 1)), int(rng.integers(2, ONE_DIGIT + 1))) for _ in range(2))
    # Most draws are not `off` apart and are drawn again by the caller.
    return (a, b), (c, d)


def _row(twin: Twin, operation: int, template: str, larger: int, at: int) -> Row:
    """Return the row of one problem; `larger` says whether the + text names the larger of the two results."""
    (a, b), name = twin[at], OPERATIONS[operation][0]
    pos, neg = (result(operation, twin[which]) for which in (larger, 1 - larger))
    low, high = ("-".join(map(str, sorted(problem))) for problem in twin)
    head = Head(
        item=f"{a}-{name}-{b}-{template}",
        cluster=f"{name}.{low}.{high}",
        set="arithmetic",
        template=template,
        label=at == larger,
        features={"product": operation == 2, "larger_first": a > b, "pos_larger": larger == 1},
    )
    symbols, words = f"{a} {OPERATIONS[operation][1]} {b}", f"{a} {name} {b}"
    if template == "ask":
        return answered(head, f"Question: What is {symbols}? Answer:", str(pos), str(neg))
    if template == "verify":
        return verified(head, f"{words} is {pos}")
    if template == "equals":
        return stated(head, (f"{symbols} = {value}" for value in (pos, neg)), tail=TRUE_OR_FALSE)
    return stated(head, (f"{words} equals {value}" for value in (pos, neg)), tail=IS_THAT_RIGHT)
