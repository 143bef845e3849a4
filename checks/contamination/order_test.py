"""Whether a model prefers a benchmark's published order to random ones. Specification: section 7.1.

Source of the idea: Oren et al. 2023 (arXiv 2310.17623). Their t-test over shards is replaced by the exact law of a sum
of ranks: a shard's rank among random orders is uniform when the published order is one random order among others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.shares_estimate import Estimate, averaged

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FLOOR = 1e-12
"""No p-value is told below this (7.1)."""

STRETCHES_MIN = 4
"""Stretches below which the test is not asked (7.1): with 31 shuffles the smallest p of three is 1 / 32^3 = 3e-5."""

NEGLIGIBLE = 1e-40
"""Probabilities of single sums below this are dropped at both ends of a convolution: all of them together change a p
by less than 1e-33, and its cost then grows with the spread of the sum and not with its range."""


@dataclass(frozen=True)
class OrderTest:
    """The test's result over all stretches."""

    p: float
    p_min: float
    """Smallest p that so many stretches with so many shuffles can have."""
    effect: Estimate
    """Mean of (published - mean of shuffles) / their s.d.; null 0. Stretches without spread are left out of it."""
    ranks: Int[np.ndarray, " stretch"]
    """Number of shuffles at least as likely as the published order."""
    shuffles: int


def rank_sum_p(ranks: Sequence[int] | Int[np.ndarray, " r"], top: int | Sequence[int]) -> float:
    """Return P(sum of r independent uniforms on 0..top <= sum of ranks), exact, never below `FLOOR`.

    Args:
        ranks: each 0..top; small is evidence.
        top: the largest rank, of all or of each.

    Raises:
        ValueError: there is no rank, one is outside its range, or tops and ranks differ in number.
    """
    tops = [top] * len(ranks) if isinstance(top, int) else [int(one) for one in top]
    if not len(ranks) or len(tops) != len(ranks):
        raise ValueError(f"{len(ranks)} ranks, {len(tops)} ranges")
    if any(not 0 <= int(rank) <= largest for rank, largest in zip(ranks, tops, strict=True)):
        raise ValueError("a rank is outside its range")
    reached, whole = sum(map(int, ranks)), sum(tops)
    # The law is symmetric: the shorter tail is summed, so that nothing is lost near 1.
    if 2 * reached >= whole:
        return max(FLOOR, 1 - _lower_tail(tops, whole - reached - 1))
    return max(FLOOR, _lower_tail(tops, reached))


def smallest_p(top: int | Sequence[int], count: int | None = None) -> float:
    """Return the p of ranks that are all 0: nothing that is found can have a smaller one.

    Args:
        top: the largest rank, of all `count` or of each.
        count: how many ranks there are; None where `top` tells of each.

    Raises:
        ValueError: there is no rank.
    """
    tops = [top] * (count or 0) if isinstance(top, int) else list(top)
    return rank_sum_p([0] * len(tops), tops)


def ranks_of(
    published: Float[np.ndarray, " stretch"], shuffled: Float[np.ndarray, "stretch shuffle"]
) -> Int[np.ndarray, " stretch"]:
    """Return how many shuffles of each stretch are at least as likely as the published order; ties count against."""
    return np.asarray((shuffled >= published[:, None]).sum(axis=1))


def order_test(
    published: Float[np.ndarray, " stretch"], shuffled: Float[np.ndarray, "stretch shuffle"]
) -> OrderTest | None:
    """Return the order test, or None with fewer than `STRETCHES_MIN` stretches or two shuffles.

    Args:
        published: log-probability of each stretch in its published order, nats.
        shuffled: of the same items in random orders.

    Raises:
        ValueError: a log-probability is not finite.
    """
    if not (np.isfinite(published).all() and np.isfinite(shuffled).all()):
        raise ValueError("a log-probability is not finite")
    if len(published) < STRETCHES_MIN or shuffled.shape[1] < 2:
        return None
    ranks = ranks_of(published, shuffled)
    spread = shuffled.std(axis=1, ddof=1)
    moves = spread > 0
    effects = (published[moves] - shuffled[moves].mean(axis=1)) / spread[moves]
    effect = averaged(effects, 0.0) if len(effects) > 1 else Estimate(0.0, 0.0, 0.0, len(effects), "none", 0.0)
    top = shuffled.shape[1]
    return OrderTest(rank_sum_p(ranks, top), smallest_p(top, len(ranks)), effect, ranks, top)


def shuffles(size: int, count: int, rng: np.random.Generator) -> Int[np.ndarray, "shuffle item"]:
    """Return random orders of one stretch, drawn independently: the published one may be among them."""
    return rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)


@dataclass(frozen=True)
class _Law:
    """Probabilities of the sums first, first + 1, ..."""

    first: int
    mass: Float[np.ndarray, " sum"]

    def plus(self, other: _Law) -> _Law:
        mass = np.convolve(self.mass, other.mass)  # all terms are positive: no digits are lost
        kept = np.flatnonzero(mass >= NEGLIGIBLE)
        return _Law(self.first + other.first + int(kept[0]), mass[kept[0] : kept[-1] + 1])


def _lower_tail(tops: Sequence[int], reached: int) -> float:
    if reached < 0:
        return 0.0
    law = _Law(0, np.ones(1))
    for top, count in sorted(Counter(tops).items()):
        square = _Law(0, np.full(top + 1, 1 / (top + 1)))
        while count:
            if count & 1:
                law = law.plus(square)
            count >>= 1
            if count:
                square = square.plus(square)
    return float(min(1.0, law.mass[: max(0, reached - law.first + 1)].sum()))
