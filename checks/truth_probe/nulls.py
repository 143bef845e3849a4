"""What random directions reach, and what a plant of known size should reach. Specification: sections 5.9 and 8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import auroc, cluster_weights
from checks.truth_probe.subspaces import leading

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Kind = Literal["whitened", "isotropic", "span"]

KINDS: tuple[Kind, ...] = ("whitened", "isotropic", "span")
"""Random directions (5.9); `whitened` is the gate's null."""

DIRECTIONS = 1000
"""Random directions of each kind (5.9)."""

SHRINK = 0.01
"""Share of the mean eigenvalue added before whitening (5.9)."""

SATURATED = 0.90
"""Isotropic p95 from which any direction reads the data (5.9)."""

SURROGATES = 200
"""Gaussian surrogates behind a kappa's null (5.9)."""


def directions(
    kind: Kind, u: Float[np.ndarray, "pair width"], rng: np.random.Generator, draws: int = DIRECTIONS
) -> Float[np.ndarray, "width draw"]:
    """Return random directions fitted on train displacements, of any length.

    Args:
        kind: `whitened` (Cov u + .01 mean eigenvalue I)^(-1/2) g, `isotropic` g, `span` U'g; g is standard normal.
        u: normalised train displacements.
        rng: draws g.
        draws: how many.
    """
    if kind == "span":
        return np.asarray(u.T @ rng.standard_normal((len(u), draws)))
    drawn = rng.standard_normal((u.shape[1], draws))
    if kind == "isotropic":
        return np.asarray(drawn)
    squares, axes = leading(u - u.mean(axis=0), u.shape[1])
    values = np.maximum(squares, 0) / (len(u) - 1)
    floor = max(SHRINK * float(values.sum()) / u.shape[1], np.finfo(np.float64).tiny)
    # Outside the range of u the covariance is the floor alone.
    weights = 1 / np.sqrt(values + floor) - 1 / np.sqrt(floor)
    return np.asarray(drawn / np.sqrt(floor) + axes @ (weights[:, None] * (axes.T @ drawn)))


def whitened_directions(
    u: Float[np.ndarray, "pair width"], rng: np.random.Generator
) -> Float[np.ndarray, "width draw"]:
    """Return directions that are isotropic once displacements are whitened (fitted on train displacements)."""
    return directions("whitened", u, rng)


def best_of_sign(
    u: Float[np.ndarray, "item width"], labels: Int[np.ndarray, " item"], directions: Float[np.ndarray, "width draw"]
) -> Float[np.ndarray, " draw"]:
    """Return each direction's AUROC with the better of its two signs: never a result, only a null."""
    areas = auroc(u @ directions, labels)
    return np.asarray(np.maximum(areas, 1 - areas))


def saturated(isotropic: Float[np.ndarray, " draw"]) -> bool:
    """Return whether any direction reads the data: the 95th percentile of isotropic best-of-sign AUROCs is .90."""
    return bool(np.percentile(isotropic, 95) >= SATURATED)


def repaired(pairs: PairActivations, rng: np.random.Generator) -> PairActivations:
    """Return pairs whose - text comes from another item at random, within a template.

    The two texts no longer share an item, so displacement and midpoint vary alike: their share must fall to one half.
    """
    order = np.arange(len(pairs))
    for template in np.unique(pairs.template):
        rows = np.flatnonzero(pairs.template == template)
        order[rows] = rng.permutation(rows)
    return PairActivations(pairs.pos, pairs.neg[order], pairs.template, pairs.cluster)


def share_error(
    pairs: PairActivations, theta: Float[np.ndarray, " width"], draws: int, rng: np.random.Generator
) -> float:
    """Return the cluster bootstrap's standard error of the displacement's share along a direction.

    Args:
        pairs: test pairs, normalised by train's statistics.
        theta: unit direction.
        draws: bootstrap draws.
        rng: generator of those draws.
    """
    weights = cluster_weights(pairs.cluster, draws, rng)
    u, v = (pairs.pos - pairs.neg) @ theta, (pairs.pos + pairs.neg) @ theta
    moved, kept = weights @ u**2, weights @ v**2
    return float(np.std(moved / np.maximum(moved + kept, np.finfo(np.float64).tiny), ddof=1))


def kappa(z: Float[np.ndarray, " pair"]) -> float:
    """Return (E|z|)^2 / E z^2 of scores: 2/pi where they are Gaussian, 1 where they are two points (5.9)."""
    square = float(np.mean(np.square(z)))
    return float(np.mean(np.abs(z))) ** 2 / square if square > 0 else 1.0


def surrogate_kappas(count: int, rng: np.random.Generator, draws: int = SURROGATES) -> Float[np.ndarray, " draw"]:
    """Return the kappas of `count` held-out pairs of Gaussian surrogates.

    A surrogate draws train and held-out displacements with the covariance D and fits the leading axis theta to the
    first. The second is independent of theta: given it, held-out scores are independent N(0, theta'D theta), and
    kappa does not change with their variance. So its law is that of `count` standard normals, whatever D, the width
    and theta are, and these are drawn directly (the long way round is the test of this function).
    """
    z = rng.standard_normal((draws, count))
    return np.asarray(np.mean(np.abs(z), axis=1) ** 2 / np.mean(z**2, axis=1))


def kappa_p(value: float, null: Float[np.ndarray, " draw"]) -> float:
    """Return how often a surrogate is as two-valued as this, one-sided, never zero."""
    return float((1 + np.sum(null >= value)) / (1 + len(null)))


def predicted_cos(effect: float, n: float, d: int) -> float:
    """Return the expected |cos| of the leading displacement axis with a planted one (spiked covariance, section 8)."""
    spike, ratio = effect**2, d / n
    return float(np.sqrt((1 - ratio / spike**2) / (1 + ratio / spike))) if spike**2 > ratio else 0.0


def predicted_stability(effect: float, n: int, d: int) -> float:
    """Return the expected |cos| of the axes of two halves: cos^2 with d/n doubled (section 8)."""
    return predicted_cos(effect, n / 2, d) ** 2


def predicted_auroc(effect: float, n: int, d: int) -> float:
    """Return the expected AUROC of that axis: Phi(sqrt 2 e cos)."""
    return float(norm.cdf(np.sqrt(2) * effect * predicted_cos(effect, n, d)))


def predicted_accuracy(effect: float, n: int, d: int) -> float:
    """Return the expected accuracy of that axis at zero: Phi(e cos)."""
    return float(norm.cdf(effect * predicted_cos(effect, n, d)))


def effect_for(area: float, n: int, d: int) -> float:
    """Return the effect at which `area` is predicted."""
    return float(brentq(lambda effect: predicted_auroc(effect, n, d) - area, 1e-3, 100.0))
