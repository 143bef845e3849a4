"""Which items are flagged at a false discovery rate. Specification: section 6.9.

Source: Benjamini & Hochberg 1995 (JRSS B 57:289).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.conformal import ROUNDING, Calibration

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

IDENTITY_TOKENS = 13
"""Tokens from which a whole question found word for word is identity and needs no p-value (6.9); 13 is the length of
the n-grams that published training reports call an overlap (Brown et al. 2020, appendix C)."""


@dataclass(frozen=True)
class Discoveries:
    """Flagged items of one benchmark."""

    flags: Bool[np.ndarray, " item"]
    q_values: Float[np.ndarray, " item"]
    """Smallest level at which an item is flagged by its p-value; NaN where it has none."""
    level: float
    """Largest p-value that is flagged in this run; where nothing is, that of the first item that could be."""
    lowest: int | None
    """Lowest score with such a p-value; None where no score has one."""
    by_p: int
    """Items flagged by p-value; the rest of `flags` by identity."""


def benjamini_hochberg(p: Float[np.ndarray, " n"], q: float) -> Bool[np.ndarray, " n"]:
    """Return which hypotheses are rejected at false discovery rate q; NaN entries are no hypotheses.

    Raises:
        ValueError: q lies outside (0, 1), or a p-value outside [0, 1].
    """
    if not 0 < q < 1:
        raise ValueError(f"level {q} is outside (0, 1)")
    return np.asarray(q_values(p) <= q * (1 + ROUNDING))


def q_values(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the smallest level at which each hypothesis is rejected; NaN stays NaN and does not count.

    Raises:
        ValueError: a p-value lies outside [0, 1].
    """
    known = np.flatnonzero(~np.isnan(p))
    told = np.full(len(p), np.nan)
    if not len(known):
        return told
    if p[known].min() < 0 or p[known].max() > 1:
        raise ValueError("a p-value is outside [0, 1]")
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    told[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return told


def level(p: Float[np.ndarray, " n"], q: float, smallest_p: float) -> float:
    """Return the run's threshold on p: q x rejected / hypotheses; nothing rejected: max(q/m, smallest p) (6.9).

    Args:
        p: p-values; NaN entries do not count.
        q: false discovery rate.
        smallest_p: the smallest p-value that the null can give.
    """
    hypotheses = int((~np.isnan(p)).sum())
    rejected = int(benjamini_hochberg(p, q).sum())
    if rejected:
        return q * rejected / hypotheses
    return max(q / hypotheses, smallest_p) if hypotheses else smallest_p


def discover(calibration: Calibration, identity: Bool[np.ndarray, " item"], q: float) -> Discoveries:
    """Return the flagged items of one benchmark.

    Args:
        calibration: its p-values and their null.
        identity: items found whole, word for word, with `IDENTITY_TOKENS` tokens or more: flagged without a p-value.
        q: false discovery rate over the calibrated items.
    """
    chosen = benjamini_hochberg(calibration.p, q)
    threshold = level(calibration.p, q, calibration.smallest_p())
    return Discoveries(
        flags=chosen | identity,
        q_values=q_values(calibration.p),
        level=threshold,
        lowest=calibration.lowest_score(threshold),
        by_p=int(chosen.sum()),
    )
