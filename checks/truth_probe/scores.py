"""How well a score separates, and how sure that is: AUROC, accuracy, cluster bootstrap, cluster flips.

Specification: section 5.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and level."""

    value: float
    low: float
    high: float
    level: float


def auroc(scores: Float[np.ndarray, "item ..."], labels: Int[np.ndarray, " item"]) -> np.ndarray:
    """Return the area under the ROC curve with mid-ranks; constant scores give exactly one half.

    Args:
        scores: one column of scores, or several.
        labels: 0 or 1, both present.
    """
    positive = labels == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores, axis=0)
    return np.asarray((ranks[positive].sum(axis=0) - n1 * (n1 + 1) / 2) / (n1 * n0))


def auroc_interval(
    scores: Float[np.ndarray, " item"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> Estimate:
    """Return the AUROC with a normal interval from the cluster bootstrap's standard error.

    The error is floored at 1 / (2 min(n1, n0)), so that perfect separation does not claim certainty.
    """
    weights = cluster_weights(cluster, draws, rng)
    positive = labels == 1
    # won[i, j]: item i (true) outranks item j (false); ties count half.
    gap = scores[positive][:, None] - scores[~positive][None, :]
    won = (gap > 0) + 0.5 * (gap == 0)
    w1, w0 = weights[:, positive], weights[:, ~positive]
    mass = w1.sum(axis=1) * w0.sum(axis=1)
    held = mass > 0
    areas = np.einsum("bi,bi->b", w1[held] @ won, w0[held]) / mass[held]
    least = 1.0 / (2 * min(int(positive.sum()), int((~positive).sum())))
    return _normal(float(auroc(scores, labels)), max(float(np.std(areas, ddof=1)), least), level)


def accuracy_interval(
    scores: Float[np.ndarray, " item"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> Estimate:
    """Return the share of items on the right side of zero, with a cluster bootstrap interval."""
    right = ((scores > 0) == (labels == 1)).astype(np.float64)
    right[scores == 0] = 0.5
    weights = cluster_weights(cluster, draws, rng)
    shares = weights @ right / weights.sum(axis=1)
    return _normal(float(right.mean()), max(float(np.std(shares, ddof=1)), 0.5 / len(right)), level)


def _normal(value: float, error: float, level: float) -> Estimate:
    reach = NormalDist().inv_cdf(0.5 + level / 2) * error
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach), level)


def cluster_weights(
    cluster: Int[np.ndarray, " item"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw item"]:
    """Return how often each item occurs when whole clusters are drawn with replacement."""
    names, index = np.unique(cluster, return_inverse=True)
    counts = rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=draws)
    return np.asarray(counts[:, index], dtype=np.float64)


def flip_p(
    scores: Float[np.ndarray, " item"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    draws: int,
    rng: np.random.Generator,
) -> float:
    """Return the two-sided p of the AUROC when the labels of whole clusters are flipped at random."""
    names, index = np.unique(cluster, return_inverse=True)
    flipped = rng.integers(0, 2, size=(draws, len(names)))[:, index] ^ labels
    n1 = flipped.sum(axis=1)
    n0 = len(labels) - n1
    sums = flipped @ rankdata(scores)
    # All labels alike leave nothing to rank; such a draw counts as reaching the observed value.
    areas = np.where(n1 * n0 > 0, (sums - n1 * (n1 + 1) / 2) / np.maximum(n1 * n0, 1), np.inf)
    observed = abs(float(auroc(scores, labels)) - 0.5)
    return float((1 + np.sum(np.abs(areas - 0.5) >= observed - 1e-12)) / (1 + draws))
