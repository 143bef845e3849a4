"""The set `comparison`: which of two numbers is larger; affirmative, or negated for the set `negation`.

A cluster is an unordered pair of numbers and holds two items of one template. In three templates they are the two
orders of the numbers; in `ask`, whose answers are the numbers themselves, they ask for the larger and for the smaller
one. The + text says "larger" throughout `larger` and "less" throughout `less`, so that the first number being the
larger one is the label in the one, its opposite in the other, and unrelated to it over the set.
"""

from __future__ import annotations

import numpy as np

from checks.truth_probe.sets.rows import IS_THAT_RIGHT, TRUE_OR_FALSE, Head, Row, answered, stated, verified

LOWEST, HIGHEST = 2, 999

SEED = 20_261_101
"""The set is one fixed list; another seed would be another set under the same name."""

CLUSTERS = 300

CLOSE = 300
"""Two numbers less than this apart are `close`; about half of all pairs are."""

TEMPLATES = ("larger", "less", "verify", "ask")


def comparison(*, negated: bool = False) -> list[Row]:
    """Return 600 rows: 300 unordered pairs of numbers by two items."""
    rng = np.random.default_rng(SEED)
    chosen: set[tuple[int, int]] = set()
    while len(chosen) < CLUSTERS:
        low, high = sorted(int(one) for one in rng.integers(LOWEST, HIGHEST + 1, size=2))
        if low != high:
            chosen.add((low, high))
    pairs = sorted(chosen)
    rows = []
    for number, drawn in enumerate(rng.permutation(CLUSTERS)):
        template, side = TEMPLATES[number % 4], number // 4 % 2 == 1
        low, high = pairs[int(drawn)]
        numbers = (high, low) if side else (low, high)
        if template == "ask":
            rows += [_row(template, numbers, more, negated) for more in (True, False)]
        else:
            more = {"larger": True, "less": False, "verify": side}[template]
            rows += [_row(template, order, more, negated) for order in ((low, high), (high, low))]
    return rows


def _row(template: str, numbers: tuple[int, int], more: bool, negated: bool) -> Row:
    """Return one row; `more` says whether the + text, or the question, is about the larger number."""
    a, b = numbers
    ending = ("-most" if more else "-least") if template == "ask" else ""
    head = Head(
        item=f"{a}-{b}-{template}{ending}{'-not' if negated else ''}",
        cluster=f"{min(a, b)}-{max(a, b)}",
        set="comparison",
        template=template,
        label=(more == (a > b)) != negated,
        features={"larger_first": a > b, "close": abs(a - b) < CLOSE, "says_more": more},
        negated=negated,
    )
    no = "not " if negated else ""
    if template == "ask":
        word = "larger" if more else "smaller"
        return answered(head, f"Of the numbers {a} and {b}, the one that is {no}{word} is", str(a), str(b))
    if template == "verify":
        return verified(head, f"{a} is {no}{'larger' if more else 'smaller'} than {b}")
    words, tail = (
        (("larger", "smaller"), TRUE_OR_FALSE) if template == "larger" else (("less", "greater"), IS_THAT_RIGHT)
    )
    return stated(head, (f"{a} is {no}{word} than {b}" for word in words), tail=tail)
