"""Authored pairs that compare two numbers, "17 is larger than 12." against its opposite.

Both branches hold the same two numbers in the same order, so no word alone tells which is true. A cluster is the
unordered pair of numbers: its two orders never fall into different splits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LOWEST, HIGHEST = 2, 999

SEED = 20_240_917
"""The set is one fixed list; another seed would be another set under the same name."""

CLUSTERS = 300
"""Unordered pairs of numbers; each gives two items, one in each order."""

WORDINGS = (
    ("larger", "{a} is larger than {b}.", "{a} is smaller than {b}."),
    ("greater", "{a} is greater than {b}.", "{a} is less than {b}."),
)
"""Template name, and the two branches' wording."""


def comparison_pairs() -> list[dict[str, Any]]:
    """Return 600 rows of the role `pairs`; half the + branches are true, within each template."""
    rng = np.random.default_rng(SEED)
    chosen: set[tuple[int, int]] = set()
    while len(chosen) < CLUSTERS:
        a, b = sorted(int(one) for one in rng.integers(LOWEST, HIGHEST + 1, size=2))
        if a != b:
            chosen.add((a, b))
    rows = []
    for number, (low, high) in enumerate(sorted(chosen)):
        template, more, less = WORDINGS[number % 2]
        # Both orders of a cluster name the same relation first, so one is true and the other false, and over
        # clusters the relation alternates: neither the relation nor the order tells the label.
        forms = (more, less) if number // 2 % 2 else (less, more)
        rows += [_row(template, forms, a, b) for a, b in ((low, high), (high, low))]
    return rows


def _row(template: str, forms: tuple[str, str], a: int, b: int) -> dict[str, Any]:
    pos, neg = (form.format(a=a, b=b) for form in forms)
    says_more = "larger" in pos or "greater" in pos
    item = f"{a}-{b}"
    return {
        "id": f"comparison-{item}",
        "item": f"comparison-{item}",
        "cluster": f"{min(a, b)}-{max(a, b)}",
        "set": "comparison",
        "template": template,
        "form": "statement",
        "pos": pos,
        "neg": neg,
        "label": int(says_more == (a > b)),
        "polarity": "affirmative",
        "read_at": "last",
        "split": None,
        "persona": None,
        "features": {"larger_first": int(a > b), "pos_says_more": int(says_more)},
    }
