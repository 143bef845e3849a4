"""p-values of scores against what items certainly unseen reach. Specification: sections 6.9 and 7.3.

Sources: Vovk, Gammerman & Shafer 2005 (conformal p-values); Bates et al. 2023 (arXiv 2104.08279: p-values that share
one null are positively dependent, so Benjamini-Hochberg holds for them).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Real

NULL_MIN = 400
"""Siblings below which a benchmark takes those of all benchmarks of its kind (6.9): at q = .05 a null of 400 still lets
the first of 20 items be flagged."""

SUPPLIED_MIN = 100
"""Supplied placebos from which their p-value is computed too (6.9): fewer cannot give a p below .01."""

ROUNDING = 1e-12
"""Relative slack of a comparison of two float64 products that are equal as fractions; changes an error rate by as
little."""


@dataclass(frozen=True)
class Scores:
    """Best scores over the corpus of the items of one (benchmark, kind) and of their siblings."""

    items: Int[np.ndarray, " item"]
    siblings: Int[np.ndarray, " sibling"]
    owner: Int[np.ndarray, " sibling"]
    """Index of the item that each sibling was made from."""

    def __post_init__(self) -> None:
        if len(self.owner) != len(self.siblings):
            raise ValueError(f"{len(self.siblings)} siblings have {len(self.owner)} owners")
        if len(self.owner) and not 0 <= int(self.owner.min()) <= int(self.owner.max()) < len(self.items):
            raise ValueError(f"a sibling's owner is none of {len(self.items)} items")

    def kept(self, rows: Bool[np.ndarray, " item"]) -> Scores:
        """Return some items and their own siblings only."""
        place = np.cumsum(rows) - 1
        mine = rows[self.owner]
        return Scores(self.items[rows], self.siblings[mine], place[self.owner[mine]])


@dataclass(frozen=True)
class Calibration:
    """p-values of items, and the null behind them."""

    p: Float[np.ndarray, " item"]
    """NaN where an item is uncalibrated: it has no sibling, and too few placebos were supplied."""
    null: Int[np.ndarray, " null"]
    """Scores of siblings, ascending; of all benchmarks of the kind where `pooled`."""
    supplied: Int[np.ndarray, " placebo"]
    """Scores of supplied placebos, ascending; empty where there were too few to use."""
    pooled: bool

    @property
    def uncalibrated(self) -> int:
        """Items without a p-value."""
        return int(np.isnan(self.p).sum())

    def lowest_score(self, level: float) -> int | None:
        """Return the lowest score whose p-value is at most `level`; None where no score has one."""
        nulls = [one for one in (self.null, self.supplied) if len(one)]
        lowest = [lowest_score(one, level) for one in nulls]
        told = [one for one in lowest if one is not None]
        return max(told) if told and len(told) == len(nulls) else None

    def smallest_p(self) -> float:
        """Return the smallest p-value that an item could have; 1 without a null."""
        return max((1 / (len(one) + 1) for one in (self.null, self.supplied) if len(one)), default=1.0)


def conformal(scores: Real[np.ndarray, " n"], null: Real[np.ndarray, " null"]) -> Float[np.ndarray, " n"]:
    """Return p = (1 + #{null >= score}) / (n_null + 1): ties count against a claim; 1 without a null.

    Raises:
        ValueError: a score is not a number.
    """
    if np.isnan(scores).any() or np.isnan(null).any():
        raise ValueError("a score is not a number")
    ranked = np.sort(null)
    at_least = len(ranked) - np.searchsorted(ranked, scores, side="left")
    return np.asarray((1 + at_least) / (len(ranked) + 1), dtype=np.float64)


def randomised(
    scores: Real[np.ndarray, " n"], null: Real[np.ndarray, " null"], rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Return p-values with ties broken at random: exactly uniform where scores and null are exchangeable.

    A diagnostic only: no item is flagged by these.
    """
    ranked = np.sort(null)
    above = len(ranked) - np.searchsorted(ranked, scores, side="right")
    tied = len(ranked) - above - np.searchsorted(ranked, scores, side="left")
    return np.asarray((above + rng.random(len(scores)) * (1 + tied)) / (len(ranked) + 1))


def calibrate(
    scores: Scores,
    others: Int[np.ndarray, " other"] | None = None,
    supplied: Int[np.ndarray, " placebo"] | None = None,
) -> Calibration:
    """Return p-values of one benchmark's items.

    Args:
        scores: its items and siblings.
        others: sibling scores of the other benchmarks of the kind, used where its own are fewer than `NULL_MIN`.
        supplied: scores of supplied placebos of the kind; from `SUPPLIED_MIN` on the larger of both p-values counts.
    """
    null = scores.siblings
    pooled = len(null) < NULL_MIN and others is not None and len(others) > 0
    if pooled and others is not None:
        null = np.concatenate([null, others])
    known = np.isin(np.arange(len(scores.items)), scores.owner)
    p = np.where(known, conformal(scores.items, null), np.nan)
    used = supplied if supplied is not None and len(supplied) >= SUPPLIED_MIN else np.zeros(0, dtype=np.int64)
    if len(used):
        p = np.fmax(p, conformal(scores.items, used))  # the number where the other is NaN
    return Calibration(p, np.sort(null), np.sort(used), pooled)


def lowest_score(null: Int[np.ndarray, " null"], level: float) -> int | None:
    """Return the lowest integer score with conformal p at most `level` against an ascending null, or None."""
    allowed = floor(level * (len(null) + 1) * (1 + ROUNDING)) - 1
    if allowed < 0:
        return None
    return 0 if allowed >= len(null) else int(null[len(null) - 1 - allowed]) + 1


def flaggable_bound(siblings: int, q: float) -> int:
    """Return ceil(1 / (K q)): fewer leaked items than this cannot be flagged with K siblings an item (6.9)."""
    if siblings < 1 or not 0 < q < 1:
        raise ValueError(f"{siblings} siblings at q {q}")
    return ceil(1 / (siblings * Fraction(str(q))))  # as a fraction: .1 x 3 is not .3 in float64


def min_flaggable(items: int, smallest_p: float, q: float) -> int:
    """Return the fewest items that can be flagged together out of `items`, given the smallest p that one can have.

    The same as `flaggable_bound` where every item has K siblings; smaller where the null is pooled, larger where
    supplied placebos are few. May exceed `items`: then nothing can be flagged.
    """
    return max(1, ceil(items * smallest_p / q * (1 - ROUNDING)))
