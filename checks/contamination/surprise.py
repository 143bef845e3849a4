"""Whether a model is less surprised by a benchmark than by placebos. Specification: section 7.3.

Source of the score: Zhang et al. 2024 (arXiv 2404.02936, Min-K%++). The test around it is ours: the score says nothing
unless text alone cannot tell benchmark and placebos apart (`surprise_blind`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from checks.contamination.conformal import conformal
from checks.contamination.discoveries import q_values
from checks.contamination.shares_estimate import DRAWS, Estimate, cluster_weights, quantiles

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

SIGMA_MIN = 1e-4
"""Standard deviation of log-probability over the vocabulary, nats, below which a position is left out (7.3): all
tokens but one are impossible there, and the ratio is rounding."""

TOKENS_MIN = 8
"""Positions below which a text is left out (7.3): a fifth of fewer would be one token."""

TEXTS_MIN = 100
"""Items and placebos below which the test is not asked (7.3): smaller sets cannot give an item a p below .01."""

PERMUTATIONS = 9999
"""Label permutations (7.3): the smallest p is 1e-4."""

_BLOCK = 2_000_000
"""Numbers held at once, 16 MB: memory does not grow with permutations x texts."""


@dataclass(frozen=True)
class Surprise:
    """Scores of items against placebos."""

    auc: Estimate
    """P(score of an item > score of a placebo), ties one half; null .5. Interval: bootstrap by template."""
    p: float
    """Of a label permutation by template, one-sided: items score higher."""
    item_p: Float[np.ndarray, " item"]
    """Conformal, against placebos."""
    q_values: Float[np.ndarray, " item"]
    items: int
    placebos: int
    p_min: float
    """Smallest p that so many templates can be expected to give."""


def min_k_score(
    logp: Float[np.ndarray, " token"],
    mean: Float[np.ndarray, " token"],
    sd: Float[np.ndarray, " token"],
    k_percent: float,
) -> float | None:
    """Return Min-K%++: the mean of the lowest k % of z = (logp - mean) / sd; None where the text is left out.

    Args:
        logp: log-probability of each token, nats.
        mean: mean over the vocabulary at its position, weighted by probability.
        sd: standard deviation likewise; positions below `SIGMA_MIN` are left out.
        k_percent: 0-100; at least one token counts.

    Returns:
        None where fewer than `TOKENS_MIN` positions are left.

    Raises:
        ValueError: lengths differ, k lies outside (0, 100], or a number is not finite.
    """
    if not len(logp) == len(mean) == len(sd) or not 0 < k_percent <= 100:
        raise ValueError(f"{len(logp)}, {len(mean)} and {len(sd)} numbers, k {k_percent}")
    if not (np.isfinite(logp).all() and np.isfinite(mean).all() and np.isfinite(sd).all()):
        raise ValueError("a log-probability is not finite")
    kept = sd >= SIGMA_MIN
    if int(kept.sum()) < TOKENS_MIN:
        return None
    z = (logp[kept].astype(np.float64) - mean[kept]) / sd[kept]
    count = max(1, ceil(k_percent * len(z) / 100))
    return float(np.mean(np.partition(z, count - 1)[:count]))


def surprise_test(
    items: Float[np.ndarray, " item"],
    placebos: Float[np.ndarray, " placebo"],
    item_template: Int[np.ndarray, " item"],
    placebo_template: Int[np.ndarray, " placebo"],
    rng: np.random.Generator,
) -> Surprise | None:
    """Return whether items score higher than placebos, or None with fewer than `TEXTS_MIN` of either.

    Args:
        items: scores of items that are not left out.
        placebos: scores of placebos likewise.
        item_template: each item's template.
        placebo_template: each placebo's; numbers are shared with items only where templates are.
        rng: draws permutations, then the bootstrap.
    """
    if min(len(items), len(placebos)) < TEXTS_MIN:
        return None
    scores = np.concatenate([items, placebos])
    seen = np.arange(len(scores)) < len(items)
    unit = units(np.concatenate([item_template, placebo_template]), seen)
    area, p = permuted_area(scores, seen, unit, rng)
    drawn = _drawn_areas(scores, seen, unit, rng)
    low, high = quantiles(drawn)
    item_p = conformal(items, placebos)
    told = Estimate(area, min(low, area), max(high, area), len(scores), "bootstrap", 0.5)
    least = smallest_p(item_template, placebo_template)
    return Surprise(told, p, item_p, q_values(item_p), len(items), len(placebos), least)


def units(template: Int[np.ndarray, " text"], seen: Bool[np.ndarray, " text"]) -> Int[np.ndarray, " text"]:
    """Return what labels are permuted over: the texts of one template and one label."""
    return np.asarray(np.unique(np.stack([template, seen.astype(np.int64)]), axis=1, return_inverse=True)[1]).ravel()


def area_under(scores: Float[np.ndarray, " text"], seen: Bool[np.ndarray, " text"]) -> float:
    """Return Mann and Whitney's share of pairs in which the seen text scores higher, ties one half.

    Raises:
        ValueError: there is one class only.
    """
    ones, zeros = int(seen.sum()), int((~seen).sum())
    if not ones or not zeros:
        raise ValueError("an area needs both classes")
    return float((rankdata(scores)[seen].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def permuted_area(
    scores: Float[np.ndarray, " text"],
    seen: Bool[np.ndarray, " text"],
    unit: Int[np.ndarray, " text"],
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> tuple[float, float]:
    """Return the area, and p = (1 + #{permuted areas >= it}) / (1 + permutations).

    Args:
        scores: of texts.
        seen: which of them are items.
        unit: texts whose labels move together, numbers from 0; all of one unit have one label.
        rng: draws the permutations.
        permutations: how many.
    """
    ranks = rankdata(scores)
    count = int(unit.max()) + 1
    sums, sizes = np.bincount(unit, ranks, minlength=count), np.bincount(unit, minlength=count)
    label = np.zeros(count, dtype=bool)
    label[unit[seen]] = True
    total = len(scores)

    def areas(labels: Bool[np.ndarray, "draw unit"]) -> Float[np.ndarray, " draw"]:
        ones = labels @ sizes
        return np.asarray((labels @ sums - ones * (ones + 1) / 2) / np.maximum(ones * (total - ones), 1))

    # One expression for both sides, so that equal sums compare equal.
    area = float(areas(label[None, :].astype(np.float64))[0])
    above, block = 0, max(1, _BLOCK // count)
    for start in range(0, permutations, block):
        drawn = rng.permuted(np.tile(label, (min(block, permutations - start), 1)), axis=1)
        above += int((areas(drawn.astype(np.float64)) >= area - 1e-12).sum())
    return area, (1 + above) / (1 + permutations)


def smallest_p(item_template: Int[np.ndarray, " item"], placebo_template: Int[np.ndarray, " placebo"]) -> float:
    """Return the smallest p that permuted labels can be expected to give.

    A draw that repeats the labels as they are counts against them, and of few templates there are few draws.

    Args:
        item_template: each item's template.
        placebo_template: each placebo's.
    """
    seen, unseen = len(np.unique(item_template)), len(np.unique(placebo_template))
    return max(1 / (1 + PERMUTATIONS), 1 / comb(seen + unseen, seen))


def _drawn_areas(
    scores: Float[np.ndarray, " text"],
    seen: Bool[np.ndarray, " text"],
    unit: Int[np.ndarray, " text"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " draw"]:
    """Return areas of bootstrap draws of whole units, of items and placebos apart."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    clusters = [np.unique(unit[side], return_inverse=True)[1] for side in (seen, ~seen)]
    told = np.empty(DRAWS)
    block = max(1, _BLOCK // len(scores))
    for start in range(0, DRAWS, block):
        size = min(block, DRAWS - start)
        weights = np.zeros((size, len(scores)))
        for side, cluster in zip((seen, ~seen), clusters, strict=True):
            weights[:, side] = cluster_weights(cluster, size, rng)
        ones = np.add.reduceat(np.where(seen, weights, 0.0)[:, order], starts, axis=1)
        zeros = np.add.reduceat(np.where(seen, 0.0, weights)[:, order], starts, axis=1)
        below = np.cumsum(zeros, axis=1) - zeros / 2
        told[start : start + size] = (ones * below).sum(axis=1) / (ones.sum(axis=1) * zeros.sum(axis=1))
    return told


def scores_of(
    texts: Sequence[tuple[Float[np.ndarray, " token"], Float[np.ndarray, " token"], Float[np.ndarray, " token"]]],
    k_percent: float,
) -> tuple[Float[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
    """Return the scores of texts, and which texts they are of; the rest are left out.

    Args:
        texts: (logp, mean, sd) of each.
        k_percent: of Min-K%++.
    """
    told = [min_k_score(*text, k_percent) for text in texts]
    kept = [row for row, score in enumerate(told) if score is not None]
    return np.array([told[row] for row in kept], dtype=np.float64), np.array(kept, dtype=np.int64)
