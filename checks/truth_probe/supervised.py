"""Supervised ceilings: what labels could find at the same layer. Specification: section 5.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

from checks.truth_probe.displacement import Direction
from checks.truth_probe.scores import auroc

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""L2 penalties on displacements of unit mean square (5.6)."""

FOLDS = 5
"""Cluster-grouped folds in which the penalty is chosen (5.6)."""

STEPS_MAX, GRADIENT_MAX = 200, 1e-4
"""When the fits to shuffled labels stop: their spread is far above what a closer minimum would change."""


def mass_mean(u: Float[np.ndarray, "pair width"], labels: Int[np.ndarray, " pair"]) -> Direction:
    """Return the difference of the classes' mean displacements, at unit length."""
    gap = u[labels == 1].mean(axis=0) - u[labels == 0].mean(axis=0)
    return Direction(gap / max(float(np.linalg.norm(gap)), np.finfo(float).tiny), "mass_mean")


def lr(
    u: Float[np.ndarray, "pair width"],
    labels: Int[np.ndarray, " pair"],
    cluster: Int[np.ndarray, " pair"],
    rng: np.random.Generator,
) -> tuple[Direction, float]:
    """Return the logistic direction and its penalty, chosen by cluster-grouped cross-validated AUROC."""
    scaled = u / _rms(u)
    names, index = np.unique(cluster, return_inverse=True)
    fold = (rng.permutation(len(names)) % FOLDS)[index]
    areas = [np.mean(_held_out(scaled, labels, fold, penalty)) for penalty in PENALTIES]
    penalty = PENALTIES[int(np.argmax(areas))]
    theta = fit_logistic(scaled, labels, penalty)
    return Direction(theta / max(float(np.linalg.norm(theta)), np.finfo(float).tiny), "lr"), penalty


def _rms(u: Float[np.ndarray, "pair width"]) -> float:
    return max(float(np.sqrt(np.mean(u**2))), np.finfo(float).tiny)


def _held_out(u: np.ndarray, labels: np.ndarray, fold: np.ndarray, penalty: float) -> list[float]:
    areas = []
    for number in range(FOLDS):
        out = fold == number
        # A fold without both classes, in or out, says nothing.
        if len(np.unique(labels[out])) == 2 and len(np.unique(labels[~out])) == 2:
            areas.append(float(auroc(u[out] @ fit_logistic(u[~out], labels[~out], penalty), labels[out])))
    return areas or [0.5]


def fit_logistic(
    u: Float[np.ndarray, "pair width"], labels: Int[np.ndarray, " pair"], penalty: float
) -> Float[np.ndarray, " width"]:
    """Return the minimum of the class-balanced mean log loss + penalty/2 |theta|^2, without offset (L-BFGS)."""
    t = 2.0 * labels - 1.0
    weight = class_weights(labels)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = t * (u @ theta)
        slope = -weight * t * expit(-margin)
        return float(weight @ np.logaddexp(0, -margin) + penalty / 2 * theta @ theta), u.T @ slope + penalty * theta

    found = minimize(objective, np.zeros(u.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.asarray(found.x)


def class_weights(labels: Int[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
    """Return weights that sum to 1 and give both classes one half."""
    ones = labels.mean(axis=0)
    return np.asarray(np.where(labels == 1, 0.5 / ones, 0.5 / (1 - ones)) / len(labels))


def shuffled(
    u: Float[np.ndarray, "pair width"],
    labels: Int[np.ndarray, " pair"],
    penalty: float,
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "width draw"]:
    """Return the logistic directions of permuted labels, all draws stepped together.

    Fixed-Hessian Newton (Boehning & Lindsay 1988): one factorisation bounds the curvature of every fit.
    """
    scaled = u / _rms(u)
    permuted = np.stack([rng.permutation(labels) for _ in range(draws)], axis=1)
    t, weight = 2.0 * permuted - 1.0, class_weights(permuted)
    top = float(weight.max())
    bound = cho_factor(top / 4 * scaled.T @ scaled + penalty * np.eye(u.shape[1]))
    theta = np.zeros((u.shape[1], draws))
    for _ in range(STEPS_MAX):
        slope = -weight * t * expit(-t * (scaled @ theta))
        gradient = scaled.T @ slope + penalty * theta
        if np.abs(gradient).max() < GRADIENT_MAX:
            break
        theta -= cho_solve(bound, gradient)
    return theta
