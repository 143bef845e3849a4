"""Areas under ROC curves with mid-ranks: of many scores, under many draws of weights, under many permuted labels.

Specification of `sae_features`, section 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def auroc(scores: Float[np.ndarray, "*many row"], labels: Int[np.ndarray, "*many row"]) -> np.ndarray:
    """Return the area of each row of scores; ties count half, one class alone gives NaN.

    Args:
        scores: one row of scores, or several.
        labels: 0 or 1; one row for all, or one each.
    """
    ranks = rankdata(scores, axis=-1)
    return from_ranks(ranks, labels)


def from_ranks(ranks: Float[np.ndarray, "*many row"], labels: Int[np.ndarray, "*many row"]) -> np.ndarray:
    """Return the areas of scores of which the mid-ranks are known."""
    ones = np.asarray(labels).sum(-1)
    zeros = np.asarray(labels).shape[-1] - ones
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(((ranks * labels).sum(-1) - ones * (ones + 1) / 2) / (ones * zeros))


def permuted_areas(
    ranks: Float[np.ndarray, "column row"], labels: Int[np.ndarray, "draw row"]
) -> Float[np.ndarray, "draw column"]:
    """Return the area of every column under every row of labels, by one product."""
    ones = labels.sum(1, dtype=np.float64)[:, None]
    zeros = labels.shape[1] - ones
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((labels.astype(np.float64) @ ranks.T - ones * (ones + 1) / 2) / (ones * zeros))


def weighted(
    scores: Float[np.ndarray, "column row"], positive: Bool[np.ndarray, " row"], weights: Float[np.ndarray, "draw row"]
) -> Float[np.ndarray, "column draw"]:
    """Return the area of every column under every draw of row weights; NaN where a class has no weight.

    A positive row wins the weight of the negative rows below it and half of that of its ties.
    """
    up, down = np.ascontiguousarray(weights[:, positive].T, dtype=np.float64), weights[:, ~positive].T
    mass = up.sum(0) * down.sum(0)
    below = np.zeros((len(down) + 1, len(weights)))
    found = np.empty((len(scores), len(weights)))
    for column, values in enumerate(scores):
        order = np.argsort(values[~positive], kind="stable")
        ranked = values[~positive][order]
        np.cumsum(down[order], axis=0, out=below[1:])
        lower = below[np.searchsorted(ranked, values[positive], "left")]
        lower += below[np.searchsorted(ranked, values[positive], "right")]
        lower *= up
        found[column] = lower.sum(0) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(mass > 0, found / mass, np.nan))
