"""How well a score separates, and how sure that is: AUROC, shares, cluster bootstrap, cluster flips.

Specification: section 5.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and level."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Reading:
    """A number with its interval, or the reason why there is none."""

    estimate: Estimate | None
    n: int
    """Items behind the number, or those that were too few."""
    clusters: int
    reason: str = ""
    """Empty where there is an estimate; in the name alphabet."""


@dataclass(frozen=True)
class ScoredItems:
    """One score for each item: positive says that the + text is the true one."""

    scores: Float[np.ndarray, " item"]
    labels: Int[np.ndarray, " item"]
    """1 where the + text is true, else 0."""
    cluster: Int[np.ndarray, " item"]
    """Cluster of each item, as a number or a name."""

    def take(self, rows: np.ndarray) -> ScoredItems:
        """Return the items at some rows (indices or a mask)."""
        return ScoredItems(self.scores[rows], self.labels[rows], self.cluster[rows])

    def finite(self) -> ScoredItems:
        """Return the items whose score is a number."""
        return self.take(np.isfinite(self.scores))

    def __len__(self) -> int:
        return len(self.scores)


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


def auroc_draws(
    scores: Float[np.ndarray, "item column"],
    labels: Int[np.ndarray, " item"],
    weights: Float[np.ndarray, "draw item"],
) -> Float[np.ndarray, "draw column"]:
    """Return the weighted AUROC of every column of scores under every draw of item weights; ties count half, exactly.

    One sort a column: a true item wins the weight of the false items below it, which is a cumulative sum. All columns
    share the draws, so differences between columns are paired.

    Args:
        scores: one column a direction.
        labels: 0 or 1.
        weights: not negative; NaN is returned for a draw that gives one of the classes no weight.

    Raises:
        ValueError: a score is NaN, which has no rank.
    """
    if np.isnan(scores).any():
        raise ValueError("a score that is not a number has no rank")
    positive = labels == 1
    w1, w0 = np.ascontiguousarray(weights[:, positive].T), np.ascontiguousarray(weights[:, ~positive].T)
    mass = w1.sum(axis=0) * w0.sum(axis=0)
    won = np.empty((scores.shape[1], len(weights)))
    below = np.zeros((len(w0) + 1, len(weights)))
    for column, values in enumerate(scores.T):
        order = np.argsort(values[~positive], kind="stable")
        ranked = values[~positive][order]
        np.cumsum(w0[order], axis=0, out=below[1:])
        first = np.searchsorted(ranked, values[positive], "left")
        last = np.searchsorted(ranked, values[positive], "right")
        won[column] = np.einsum("id,id->d", w1, below[first] + below[last]) / 2
    return np.asarray(np.divide(won, mass, out=np.full_like(won, np.nan), where=mass > 0).T)


def least_error(labels: Int[np.ndarray, " item"]) -> float:
    """Return the smallest standard error that an AUROC may claim, 1 / (2 min(n1, n0)) (5.7)."""
    positive = int(np.sum(labels == 1))
    return 1.0 / (2 * min(positive, len(labels) - positive))


def spread(draws: Float[np.ndarray, " draw"]) -> float:
    """Return the standard deviation of the draws that are numbers; infinite where fewer than two are."""
    held = draws[np.isfinite(draws)]
    return float(np.std(held, ddof=1)) if len(held) > 1 else math.inf


def interval(value: float, error: float, level: float, *, low: float = 0.0, high: float = 1.0) -> Estimate:
    """Return a number with a normal interval.

    Args:
        value: the estimate.
        error: its standard error; infinite gives the whole range.
        level: coverage level of the two-sided interval.
        low: bound below which the quantity cannot lie.
        high: bound above which it cannot lie.
    """
    reach = NormalDist().inv_cdf(0.5 + level / 2) * error
    return Estimate(value, max(low, value - reach), min(high, value + reach), level)


def auroc_intervals(
    scores: Float[np.ndarray, "item column"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Estimate, ...]:
    """Return the AUROC of every column with a normal interval from the cluster bootstrap's standard error.

    The error is floored at 1 / (2 min(n1, n0)), so that perfect separation does not claim certainty. A single cluster
    tells nothing of its own variation: the interval is then the whole range.
    """
    areas = auroc_draws(scores, labels, cluster_weights(cluster, draws, rng))
    least = least_error(labels) if len(np.unique(cluster)) > 1 else math.inf
    values = auroc(scores, labels)
    return tuple(
        interval(float(value), max(spread(column), least), level) for value, column in zip(values, areas.T, strict=True)
    )


def auroc_interval(
    scores: Float[np.ndarray, " item"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> Estimate:
    """Return the AUROC of one column of scores with its interval (`auroc_intervals`)."""
    return auroc_intervals(scores[:, None], labels, cluster, level, draws, rng)[0]


def accuracy_interval(
    scores: Float[np.ndarray, " item"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> Estimate:
    """Return the share of items on the right side of zero, with a cluster bootstrap interval; zero counts half."""
    return share_interval(sides(scores, labels), cluster, level, draws, rng)


def sides(scores: Float[np.ndarray, " item"], labels: Int[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Return 1 for each score on its label's side of zero, else 0; a score of zero gives one half."""
    return np.where(scores == 0, 0.5, ((scores > 0) == (labels == 1)).astype(np.float64))


def share_interval(
    hits: Float[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> Estimate:
    """Return the mean of hits in 0..1 with a cluster bootstrap interval (`share_from`)."""
    weights = cluster_weights(cluster, draws, rng)
    error = spread(weights @ hits / weights.sum(axis=1))
    return share_from(float(hits.mean()), error, len(hits), len(np.unique(cluster)), level)


def share_from(value: float, error: float, n: int, clusters: int, level: float) -> Estimate:
    """Return a share with Wilson's interval at the number of independent items that its standard error amounts to.

    A normal interval of a share near 0 or 1 is too short and, at 0 or 1, a point. That number is value (1 - value) /
    error^2, with the bootstrap's k / (k - 1) for k clusters, between one and the items there are. Where no item
    differs the error says nothing about how alike the items of a cluster are, so each cluster counts once.

    Args:
        value: share in 0..1.
        error: bootstrap standard error.
        n: items.
        clusters: clusters of those items.
        level: coverage level.
    """
    variance = value * (1 - value)
    if variance == 0 or clusters < 2 or not math.isfinite(error):
        independent = float(clusters)
    else:
        corrected = error**2 * clusters / (clusters - 1)
        independent = n if corrected * n <= variance else max(1.0, variance / corrected)
    # Wilson's interval is a function of share and n alone: the count is rounded down, to claim no more.
    trials = max(1, int(independent))
    low, high = proportion_interval(value * trials, trials, level)
    return Estimate(value, min(low, value), max(high, value), level)


def cluster_weights(
    cluster: Int[np.ndarray, " item"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw item"]:
    """Return how often each item occurs when whole clusters are drawn with replacement."""
    names, index = np.unique(cluster, return_inverse=True)
    # Counting drawn clusters is a seventh of the price of multinomial draws, and the same law.
    drawn = rng.integers(0, len(names), size=(draws, len(names))) + len(names) * np.arange(draws)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=draws * len(names)).reshape(draws, len(names))
    return np.asarray(counts[:, index], dtype=np.float64)


def flip_ps(
    scores: Float[np.ndarray, "item column"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " column"]:
    """Return each column's two-sided p of its AUROC when the labels of whole clusters are flipped at random."""
    names, index = np.unique(cluster, return_inverse=True)
    flipped = rng.integers(0, 2, size=(draws, len(names)))[:, index] ^ labels
    n1 = flipped.sum(axis=1)[:, None]
    n0 = len(labels) - n1
    sums = flipped @ rankdata(scores, axis=0)
    # All labels alike leave nothing to rank; such a draw counts as reaching the observed value.
    areas = np.where(n1 * n0 > 0, (sums - n1 * (n1 + 1) / 2) / np.maximum(n1 * n0, 1), np.inf)
    observed = np.abs(auroc(scores, labels) - 0.5)
    return np.asarray((1 + np.sum(np.abs(areas - 0.5) >= observed - 1e-12, axis=0)) / (1 + draws))


def flip_p(
    scores: Float[np.ndarray, " item"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    draws: int,
    rng: np.random.Generator,
) -> float:
    """Return the two-sided p of one column of scores (`flip_ps`)."""
    return float(flip_ps(scores[:, None], labels, cluster, draws, rng)[0])
