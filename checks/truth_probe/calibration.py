"""From scores to probabilities, and how far they can be trusted: Platt scaling on anchors, ECE, Brier, reliability.

Specification: section 5.7 (a later refinement there). Platt 1999, "Probabilistic outputs for support vector machines",
with the smoothed targets of that paper. A probability may be told only beside these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from checks.truth_probe.scores import Estimate, cluster_weights, interval, spread

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RIDGE = 1e-3
"""Weight of slope^2 / 2 beside the mean loss, on scores of unit root mean square: keeps the fit finite where anchors
separate perfectly and changes the slope by less than the anchors' own uncertainty elsewhere."""

BINS = 10
"""Bins of equal mass in the calibration error; Naeini et al. 2015 and later work use 10 to 15."""

GRADIENT = 1e-10
"""Slope of the mean loss at which the fit ends; it is strictly convex, so this is the minimum."""


@dataclass(frozen=True)
class Platt:
    """P(the + text is true) = sigmoid(slope * score + offset)."""

    slope: float
    """Per unit of score."""
    offset: float
    anchors: int
    """Items behind the fit."""

    def probability(self, scores: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
        """Return the probability of each item."""
        return np.asarray(expit(self.slope * scores + self.offset))


@dataclass(frozen=True)
class Bin:
    """One point of a reliability plot."""

    predicted: float
    """Mean probability told."""
    observed: float
    """Share that is true."""
    n: int


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from what happens."""

    ece: Estimate
    """Expected calibration error over bins of equal mass. Biased upward: by chance a bin is off by about
    sqrt(p (1 - p) / n)."""
    brier: Estimate
    """Mean squared error; .25 for a constant .5."""
    bins: tuple[Bin, ...]


def fit_platt(scores: Float[np.ndarray, " anchor"], labels: Int[np.ndarray, " anchor"]) -> Platt:
    """Return the scaling that anchors give; only anchors are looked at.

    Targets are (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), so that no probability claims more than the anchors can bear.

    Args:
        scores: signed scores of the anchors.
        labels: 1 where the + text is true.

    Raises:
        ValueError: no anchors, or a score is not finite.
    """
    if len(scores) == 0 or not np.isfinite(scores).all():
        raise ValueError("a scaling wants anchors with finite scores")
    positive = labels == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    scale = float(np.sqrt(np.mean(np.square(scores, dtype=np.float64)))) or 1.0
    design = np.stack([scores / scale, np.ones(len(scores))], axis=1)
    ridge = np.array([RIDGE, 0.0])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ weights
        value = np.mean(np.logaddexp(0, z) - target * z) + ridge @ weights**2 / 2
        return float(value), design.T @ (expit(z) - target) / len(z) + ridge * weights

    def curve(weights: np.ndarray) -> np.ndarray:
        chance = expit(design @ weights)
        return np.asarray((design * (chance * (1 - chance))[:, None]).T @ design / len(design) + np.diag(ridge))

    fitted = minimize(loss, np.zeros(2), jac=True, hess=curve, method="trust-exact", options={"gtol": GRADIENT})
    return Platt(float(fitted.x[0] / scale), float(fitted.x[1]), len(scores))


def calibration(
    probability: Float[np.ndarray, " item"],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> Calibration:
    """Return ECE and Brier score with cluster bootstrap intervals, and the points of a reliability plot.

    Args:
        probability: of the + text being true, fitted on other items than these.
        labels: 1 where the + text is true.
        cluster: cluster of each item.
        level: coverage level.
        draws: bootstrap draws.
        rng: the generator of this bootstrap.
    """
    true = (labels == 1).astype(np.float64)
    member = _bins(probability)
    weights = cluster_weights(cluster, draws, rng)
    mass = weights.sum(axis=1)
    off = (member * (probability - true)[:, None]).astype(np.float64)
    square = (probability - true) ** 2
    ece = float(np.abs(off.sum(axis=0)).sum() / len(true))
    counts = member.sum(axis=0)
    return Calibration(
        ece=interval(ece, spread(np.abs(weights @ off).sum(axis=1) / mass), level),
        brier=interval(float(square.mean()), spread(weights @ square / mass), level),
        bins=tuple(
            Bin(float(probability @ one / n), float(true @ one / n), int(n))
            for one, n in zip(member.T, counts, strict=True)
        ),
    )


def _bins(probability: Float[np.ndarray, " item"]) -> Float[np.ndarray, "item bin"]:
    """Return membership in bins of equal mass, empty ones left out.

    Equal probabilities share a bin: cut by their order in the file, a constant forecast would look miscalibrated.
    """
    place = (rankdata(probability) - 0.5) / len(probability)
    of_item = np.minimum((BINS * place).astype(int), BINS - 1)
    return np.asarray((of_item[:, None] == np.unique(of_item)[None, :]).astype(np.float64))
