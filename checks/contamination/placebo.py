"""Whether placebos are what they should be: as likely to match as an item that did not leak.

Specification: sections 6.9 (placebo check) and 10 (control PlaceboAsItem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import kstest

from checks.contamination.conformal import Scores, conformal
from checks.contamination.discoveries import benjamini_hochberg

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

RESTRICTED = 0.2
"""Only p-values above this enter (6.9): leaks that were not flagged lie below."""

MISMATCH = 0.001
"""Kolmogorov-Smirnov p below which placebos and items are not alike (6.9): one honest run in a thousand."""

ITEMS_MIN = 50
"""Items below which the check says nothing (6.9): at p = .001 it sees a shift of .28 at best."""

SETS = 5
"""Sets of siblings that play the items (section 10)."""

SETS_MAX = 2
"""Sets that may flag something (section 10): at q = .05 three of five do so once in a thousand runs."""


@dataclass(frozen=True)
class PlaceboCheck:
    """Kolmogorov-Smirnov test of unflagged items' p-values against their own siblings."""

    state: Literal["held", "placebo_mismatch", "too_few"]
    p: float | None
    n: int
    """Items that entered: unflagged, with a p-value above `RESTRICTED`."""


@dataclass(frozen=True)
class PlaceboSets:
    """How often siblings that play the items are flagged."""

    flagged: int
    """Sets with any flag."""
    sets: int
    items: int
    """Items in each set."""

    @property
    def held(self) -> bool:
        """Whether the control is in its band."""
        return self.flagged <= SETS_MAX


def placebo_check(scores: Scores, flags: Bool[np.ndarray, " item"], rng: np.random.Generator) -> PlaceboCheck:
    """Return whether unflagged items score like their own siblings.

    Each item is ranked among its own siblings, ties broken at random: ranks are independent between items and uniform
    where an item and its siblings are exchangeable, and so are those above .2, rescaled, whatever happens below.
    Against the siblings of all unflagged items instead, leaks that a strict q leaves unflagged raise the null through
    their siblings, and the check fires on true leaks: in 92 of 100 runs at a leak share of .5 and q = .01, against 0
    this way (planted scores). Flagged items are left out for the same reason.

    Args:
        scores: of one benchmark, or of all of a kind pooled.
        flags: items that were flagged.
        rng: breaks ties.
    """
    rest = _with_siblings(scores.kept(~flags))
    p = _among_own(rest, rng)
    kept = (p[p > RESTRICTED] - RESTRICTED) / (1 - RESTRICTED)
    if len(kept) < ITEMS_MIN:
        return PlaceboCheck("too_few", None, len(kept))
    reached = float(kstest(kept, "uniform").pvalue)
    return PlaceboCheck("placebo_mismatch" if reached < MISMATCH else "held", reached, len(kept))


def _among_own(scores: Scores, rng: np.random.Generator) -> Float[np.ndarray, " item"]:
    n = len(scores.items)
    mine = scores.items[scores.owner]
    above = np.bincount(scores.owner, scores.siblings > mine, minlength=n)
    tied = np.bincount(scores.owner, scores.siblings == mine, minlength=n)
    return np.asarray((above + rng.random(n) * (1 + tied)) / (np.bincount(scores.owner, minlength=n) + 1))


def placebo_sets(
    scores: Scores, flags: Bool[np.ndarray, " item"], q: float, rng: np.random.Generator, sets: int = SETS
) -> PlaceboSets:
    """Return how many sets flag something in which one sibling of each unflagged item plays the item.

    Args:
        scores: of one benchmark.
        flags: items that were flagged.
        q: the run's false discovery rate.
        rng: draws the siblings.
        sets: how many sets.
    """
    rest = _with_siblings(scores.kept(~flags))
    fired = 0
    for _ in range(sets):
        players = _one_each(rest.owner, rng)
        playing = np.zeros(len(rest.owner), dtype=bool)
        playing[players] = True
        p = conformal(rest.siblings[playing], rest.siblings[~playing])
        fired += bool(benjamini_hochberg(p, q).any())
    return PlaceboSets(fired, sets, len(rest.items))


def _with_siblings(scores: Scores) -> Scores:
    return scores.kept(np.isin(np.arange(len(scores.items)), scores.owner))


def _one_each(owner: Int[np.ndarray, " sibling"], rng: np.random.Generator) -> Int[np.ndarray, " item"]:
    """Return one random place of each owner."""
    shuffled = rng.permutation(len(owner))
    return np.asarray(shuffled[np.unique(owner[shuffled], return_index=True)[1]])
