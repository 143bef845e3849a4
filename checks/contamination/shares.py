"""How large a share of a benchmark is in the corpus, as counted and corrected for what a scan misses.

Specification: section 6.9. Source of the correction: Rogan & Gladen 1978 (Am J Epidemiol 107:71).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from checks.contamination.shares_estimate import DRAWS, Estimate, cluster_weights, counted, quantiles

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

INFORMATIVE_MIN = 0.1
"""Se + Sp - 1 below which no share is corrected (6.9): errors of the raw share would be multiplied by more than ten."""


def raw_share(flags: Bool[np.ndarray, " item"], placebo_rate: float | None = None) -> Estimate:
    """Return flagged / items with Clopper and Pearson's interval "as a sample of its generator".

    Args:
        flags: of one benchmark's items.
        placebo_rate: share of placebos at the run's threshold: what an unleaked benchmark would show.

    Raises:
        ValueError: there is no item.
    """
    return counted(int(flags.sum()), len(flags), placebo_rate)


def placebo_rate(null: Int[np.ndarray, " null"], lowest: int | None) -> Estimate | None:
    """Return the share of placebos that score as a flagged item must; None without a placebo."""
    if not len(null):
        return None
    return counted(0 if lowest is None else int((null >= lowest).sum()), len(null))


def corrected_share(
    flags: Bool[np.ndarray, " item"],
    template: Int[np.ndarray, " item"],
    hits: Bool[np.ndarray, " plant"],
    false_hits: Bool[np.ndarray, " placebo"],
    owner: Int[np.ndarray, " placebo"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Estimate | None:
    """Return (raw + Sp - 1) / (Se + Sp - 1) within [0, 1], or None where Se + Sp - 1 < `INFORMATIVE_MIN`.

    Items are drawn by template, plants one by one, placebos by the item they were made from. A draw whose Se + Sp - 1
    is below the limit says nothing: it counts as 0 for the lower bound and as 1 for the upper. Where all items or none
    are flagged a bootstrap has no spread, so the exact bounds of the raw share are corrected and included.

    Args:
        flags: of the benchmark's items.
        template: each item's template, numbers from 0 without gaps.
        hits: whether each plant of one depth was found.
        false_hits: whether each placebo scores at the run's threshold.
        owner: each placebo's item, numbers from 0 without gaps.
        rng: generator of the draws.
        draws: how many.
    """
    if not (len(flags) and len(hits) and len(false_hits)):
        return None
    raw, se, fpr = float(flags.mean()), float(hits.mean()), float(false_hits.mean())
    if se - fpr < INFORMATIVE_MIN:
        return None
    value = float(_corrected(np.array([raw]), se, fpr)[0])
    shares = _drawn(flags, template, draws, rng)
    drawn_se = rng.binomial(len(hits), se, draws) / len(hits)
    drawn_fpr = _drawn(false_hits, owner, draws, rng)
    useful = drawn_se - drawn_fpr >= INFORMATIVE_MIN
    told = _corrected(shares, np.where(useful, drawn_se, 1.0), np.where(useful, drawn_fpr, 0.0))
    low, high = quantiles(np.where(useful, told, 0.0))[0], quantiles(np.where(useful, told, 1.0))[1]
    method = "bootstrap"
    if not 0 < raw < 1:
        exact = raw_share(flags)
        ends = _corrected(np.array([exact.low, exact.high]), se, fpr)
        low, high, method = min(low, float(ends[0])), max(high, float(ends[1])), "bootstrap_and_clopper-pearson"
    return Estimate(value, min(low, value), max(high, value), len(flags), method, 0.0)


def _corrected(
    raw: Float[np.ndarray, " n"], se: Float[np.ndarray, " n"] | float, fpr: Float[np.ndarray, " n"] | float
) -> Float[np.ndarray, " n"]:
    return np.asarray(np.clip((raw - fpr) / (np.asarray(se) - fpr), 0.0, 1.0))


def _drawn(
    marked: Bool[np.ndarray, " unit"], cluster: Int[np.ndarray, " unit"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draw"]:
    """Return the marked share in each draw of whole clusters, from sums by cluster: units are never copied."""
    count = int(cluster.max()) + 1
    sizes, sums = np.bincount(cluster, minlength=count), np.bincount(cluster, marked, minlength=count)
    told = np.empty(draws)
    block = max(1, _BLOCK // count)
    for start in range(0, draws, block):
        weights = cluster_weights(np.arange(count), min(block, draws - start), rng)
        told[start : start + len(weights)] = (weights @ sums) / (weights @ sizes)
    return told


_BLOCK = 4_000_000
"""Weights held at once, 32 MB: memory does not grow with draws x items."""
