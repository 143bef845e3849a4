"""What random directions reach, and what a plant of known size should reach. Specification: sections 5.9 and 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import brentq
from scipy.stats import norm

from checks.truth_probe.scores import auroc

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DIRECTIONS = 1000
"""Random directions (5.9)."""

SHRINK = 0.01
"""Share of the mean eigenvalue added before whitening (5.9)."""


def whitened_directions(
    u: Float[np.ndarray, "pair width"], rng: np.random.Generator
) -> Float[np.ndarray, "width draw"]:
    """Return directions that are isotropic once displacements are whitened (fitted on train displacements)."""
    covariance = np.cov(u, rowvar=False)
    values, vectors = eigh(covariance + SHRINK * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    draws = rng.standard_normal((u.shape[1], DIRECTIONS))
    return np.asarray((vectors / np.sqrt(values)) @ (vectors.T @ draws))


def best_of_sign(
    u: Float[np.ndarray, "item width"], labels: Int[np.ndarray, " item"], directions: Float[np.ndarray, "width draw"]
) -> Float[np.ndarray, " draw"]:
    """Return each direction's AUROC with the better of its two signs: never a result, only a null."""
    areas = auroc(u @ directions, labels)
    return np.asarray(np.maximum(areas, 1 - areas))


def predicted_cos(effect: float, n: int, d: int) -> float:
    """Return the expected |cos| of the leading displacement axis with a planted one (spiked covariance, section 8)."""
    spike, ratio = effect**2, d / n
    return float(np.sqrt((1 - ratio / spike**2) / (1 + ratio / spike))) if spike**2 > ratio else 0.0


def predicted_auroc(effect: float, n: int, d: int) -> float:
    """Return the expected AUROC of that axis: Phi(sqrt 2 e cos)."""
    return float(norm.cdf(np.sqrt(2) * effect * predicted_cos(effect, n, d)))


def effect_for(area: float, n: int, d: int) -> float:
    """Return the effect at which `area` is predicted."""
    return float(brentq(lambda effect: predicted_auroc(effect, n, d) - area, 1e-3, 100.0))
