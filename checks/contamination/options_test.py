"""Whether a model prefers the published order of an item's options. Specification: section 7.2.

An item whose published order is sorted is left out, since authors sort by habit. That choice looks at the published
order, so the orders it is ranked among must be such as would have been kept too: else a rank would not be uniform.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.order_test import rank_sum_p, smallest_p
from checks.contamination.shares_estimate import Estimate, averaged

if TYPE_CHECKING:
    from jaxtyping import Float

ALL_ORDERS_MAX = 4
"""Options up to which every order is asked (7.2): 4! = 24."""

TIED_PHRASES = (
    "all of the above",
    "none of the above",
    "all of these",
    "none of these",
    "all the above",
    "both of the above",
    "both a and b",
)
"""Options that name other options or their place (7.2): another order would change what they say."""

MISMATCH = 0.001
"""p of placebo items at which the test is invalid (7.2): a model cannot know the order of items it never saw."""

ITEMS_MIN = 2
"""Items below which a mean has no interval."""


@dataclass(frozen=True)
class OptionsTest:
    """The test's result over all items."""

    p: float
    p_min: float
    """Smallest p that so many items with so many orders can have."""
    mean_rank: Estimate
    """Mean of rank / largest rank of the items, as a share of it: 0 is always first, null .5."""
    left_out: tuple[tuple[str, int], ...]
    """Reasons and counts."""
    shares: Float[np.ndarray, " item"]
    """Rank / largest rank of each item."""


def left_out(choices: Sequence[str]) -> str | None:
    """Return why an item is left out: `placed`, `equal`, `few`, `sorted`; None where it is kept."""
    plain = _plain(choices)
    if any(phrase in choice for choice in plain for phrase in TIED_PHRASES):
        return "placed"
    if len(set(plain)) < len(plain):
        return "equal"
    if len(plain) < 3:
        return "few"  # two options stand in alphabetical order or in its reverse
    return "sorted" if _sorted(plain) else None


def orders(choices: Sequence[str], limit: int, rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Return the orders that an item is asked in, the published one first; none of them is sorted.

    Args:
        choices: an item's options as published; not left out.
        limit: most orders of an item with more than `ALL_ORDERS_MAX` options.
        rng: draws the orders of such an item, distinct and without the published one.

    Raises:
        ValueError: the item is left out, or `limit` is below 2.
    """
    if left_out(choices) is not None or limit < 2:
        raise ValueError("an item that is left out has no orders")
    plain = _plain(choices)
    published = tuple(range(len(plain)))
    if len(plain) <= ALL_ORDERS_MAX:
        kept = [one for one in permutations(published) if not _sorted([plain[place] for place in one])]
        return (published, *(one for one in kept if one != published))
    wanted = min(limit, factorial(len(plain)) // 2)
    drawn = {published: None}
    while len(drawn) < wanted:
        one = tuple(int(place) for place in rng.permutation(len(plain)))
        if not _sorted([plain[place] for place in one]):
            drawn[one] = None
    return tuple(drawn)


def options_test(logp: Sequence[Float[np.ndarray, " order"]], reasons: Sequence[str] = ()) -> OptionsTest | None:
    """Return the options test, or None with fewer than `ITEMS_MIN` items.

    Args:
        logp: of each item that is kept, log-probability in nats of question and options, the published order first.
        reasons: why the other items were left out, one each.

    Raises:
        ValueError: an item has one order only, or a log-probability is not finite.
    """
    if any(len(one) < 2 or not np.isfinite(one).all() for one in logp):
        raise ValueError("an item has one order, or a log-probability that is not finite")
    if len(logp) < ITEMS_MIN:
        return None
    ranks = np.array([int((one[1:] >= one[0]).sum()) for one in logp])
    tops = np.array([len(one) - 1 for one in logp])
    return OptionsTest(
        p=rank_sum_p(ranks, tops.tolist()),
        p_min=smallest_p(tops.tolist()),
        mean_rank=averaged(ranks / tops, 0.5),
        left_out=tuple(sorted(Counter(reasons).items())),
        shares=ranks / tops,
    )


def placebos_differ(told: OptionsTest | None) -> bool:
    """Return whether placebo items prefer their published order: then the test is `invalid (placebo_mismatch)`."""
    return told is not None and told.p <= MISMATCH


def _plain(choices: Sequence[str]) -> list[str]:
    return [" ".join(choice.casefold().split()).rstrip(".") for choice in choices]


def _sorted(plain: Sequence[str]) -> bool:
    """Return whether options stand in numeric or alphabetical order, or by length, either way."""
    numbers = [_number(choice) for choice in plain]
    keys: list[list[float] | list[str]] = [list(plain), [float(len(choice)) for choice in plain]]
    told = [number for number in numbers if number is not None]
    if len(told) == len(plain):
        keys.append(told)
    return any(_monotone(key) for key in keys)


def _monotone(key: Sequence[float] | Sequence[str]) -> bool:
    ranks = np.unique(np.asarray(key), return_inverse=True)[1]
    steps = np.diff(ranks)
    return bool((steps > 0).all() or (steps < 0).all())


def _number(text: str) -> float | None:
    try:
        told = float(text.replace(",", "").strip(" $%"))
    except ValueError:
        return None
    return told if np.isfinite(told) else None
