"""The set `comparison`: which of two numbers is larger; affirmative, or negated for the set `negation`.

A cluster is an unordered pair of numbers and holds two items of one template, with the numbers in one order: one says
"larger" (or "greater"), the other "smaller" (or "less"). The branches of a statement differ in the order of the numbers
and not in that word. So truth is the order and the word taken together. Were the branches "larger" and "smaller", truth
would be the order alone, and how high the first number begins would tell it: a probe of a randomly initialised network
then read it with an AUROC of .61.
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

WORDS = {
    "larger": ("larger", "smaller"),
    "less": ("greater", "less"),
    "verify": ("larger", "smaller"),
    "ask": ("larger", "smaller"),
}
"""Templates, and the words for more and for less in each."""


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
    templates = tuple(WORDS)
    for number, drawn in enumerate(rng.permutation(CLUSTERS)):
        low, high = pairs[int(drawn)]
        numbers = (high, low) if number // 4 % 2 else (low, high)
        rows += [_row(templates[number % 4], numbers, more, negated) for more in (True, False)]
    return rows


def _row(template: str, numbers: tuple[int, int], more: bool, negated: bool) -> Row:
    """Return one row; `numbers` are in the order of the + text, `more` says whether it is about being larger."""
    a, b = numbers
    head = Head(
        item=f"{a}-{b}-{template}-{'more' if more else 'less'}{'-not' if negated else ''}",
        cluster=f"{min(a, b)}-{max(a, b)}",
        set="comparison",
        template=template,
        label=(more == (a > b)) != negated,
        features={"larger_first": a > b, "close": abs(a - b) < CLOSE, "says_more": more},
        negated=negated,
    )
    word = ("not " if negated else "") + WORDS[template][0 if more else 1]
    if template == "ask":
        return answered(head, f"Of the numbers {a} and {b}, the one that is {word} is", str(a), str(b))
    if template == "verify":
        return verified(head, f"{a} is {word} than {b}")
    tail = TRUE_OR_FALSE if template == "larger" else IS_THAT_RIGHT
    return stated(head, (f"{one} is {word} than {other}" for one, other in ((a, b), (b, a))), tail=tail)
