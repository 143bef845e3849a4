"""Supervised ceilings: what labels could find at the same layer. Specification: section 5.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.optimize import minimize
from scipy.special import expit

from checks.truth_probe.direction import Direction, unit
from checks.truth_probe.scores import auroc
from checks.truth_probe.subspaces import components, span

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""L2 penalties on displacements of unit mean square (5.6)."""

FOLDS = 5
"""Cluster-grouped folds in which the penalty is chosen (5.6)."""

TILT = 0.1
"""Share of the mean diagonal added to the within-class covariance before a tilt inverts it (5.6)."""

NARROW_MAX, NARROW = 512, 256
"""Above this width the fits to shuffled labels run in this many leading components (5.9)."""

STEPS_MAX, GRADIENT_MAX = 200, 1e-3
"""When the fits to shuffled labels stop: their spread is far above what a closer minimum would change."""


def mass_mean(
    u: Float[np.ndarray, "pair width"], labels: Int[np.ndarray, " pair"], *, tilted: bool = False
) -> Direction:
    """Return the difference of the classes' mean displacements (Marks & Tegmark 2023, section 5).

    Args:
        u: displacements.
        labels: 0 or 1, both present.
        tilted: multiply by (within-class covariance + .1 of its mean diagonal)^-1, as linear discriminants do.
    """
    means = [u[labels == side].mean(axis=0) for side in (0, 1)]
    step = means[1] - means[0]
    if not tilted:
        return Direction(unit(step), "mass_mean")
    within = u - np.where((labels == 1)[:, None], means[1], means[0])
    return Direction(unit(_tilt(within / np.sqrt(len(u)), step)), "mass_mean_tilted")


def _tilt(rows: Float[np.ndarray, "pair width"], step: Float[np.ndarray, " width"]) -> Float[np.ndarray, " width"]:
    """Return (R'R + ridge I)^-1 step, through the smaller Gram matrix."""
    n, width = rows.shape
    ridge = max(TILT * float(np.sum(rows**2)) / width, np.finfo(np.float64).tiny)
    if width <= n:
        return np.asarray(cho_solve(cho_factor(rows.T @ rows + ridge * np.eye(width)), step))
    # Woodbury: the inverse of d x d by that of n x n.
    inner = cho_solve(cho_factor(rows @ rows.T + ridge * np.eye(n)), rows @ step)
    return np.asarray((step - rows.T @ inner) / ridge)


def lr(
    u: Float[np.ndarray, "pair width"],
    labels: Int[np.ndarray, " pair"],
    cluster: Int[np.ndarray, " pair"],
    rng: np.random.Generator,
) -> tuple[Direction, float]:
    """Return the logistic direction and its penalty, chosen by cluster-grouped cross-validated AUROC.

    The penalty is rotation-invariant, so displacements wider than they are many are fitted in their own range.

    Args:
        u: displacements.
        labels: 0 or 1, both present; the classes weigh the same.
        cluster: no cluster is in two folds.
        rng: deals clusters to folds.
    """
    scaled, lift = span(u / rms(u))
    names, index = np.unique(cluster, return_inverse=True)
    fold = (rng.permutation(len(names)) % FOLDS)[index]
    areas = [np.mean(_held_out(scaled, labels, fold, penalty)) for penalty in PENALTIES]
    penalty = PENALTIES[int(np.argmax(areas))]
    return Direction(unit(lift(fit_logistic(scaled, labels, penalty))), "lr"), penalty


def rms(u: Float[np.ndarray, "pair width"]) -> float:
    """Return the root mean square of all numbers of u, never zero: penalties are for u divided by it."""
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
    """Return the logistic directions of permuted labels, all draws stepped together; wide states in 256 components.

    Fixed-Hessian Newton (Boehning & Lindsay 1988) in the eigenbasis of the second moment, where the bound on every
    fit's curvature is diagonal, with Nesterov's momentum: a small penalty would otherwise take hundreds of steps.
    """
    basis = components(u, NARROW) if u.shape[1] > NARROW_MAX else None
    scaled = u / rms(u) if basis is None else u @ basis / rms(u)
    permuted = np.stack([rng.permutation(labels) for _ in range(draws)], axis=1)
    t, weight = 2.0 * permuted - 1.0, class_weights(permuted)
    squares, axes = eigh(scaled.T @ scaled)
    x, step = scaled @ axes, 1.0 / (float(weight.max()) / 4 * squares + penalty)[:, None]
    theta = ahead = np.zeros((x.shape[1], draws))
    momentum = 1.0
    for _ in range(STEPS_MAX):
        gradient = x.T @ (-weight * t * expit(-t * (x @ ahead))) + penalty * ahead
        if np.abs(gradient).max() < GRADIENT_MAX:
            break
        before, theta = theta, ahead - step * gradient
        last, momentum = momentum, (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = theta + (last - 1.0) / momentum * (theta - before)
    found = axes @ ahead
    return found if basis is None else np.asarray(basis @ found)


def control_task_labels(cluster: Int[np.ndarray, " pair"], rng: np.random.Generator) -> Int[np.ndarray, " pair"]:
    """Return one random label a cluster, both labels present wherever there are two clusters.

    A probe that does well on these reads who the text is about, not whether it is true (Hewitt & Liang 2019).
    """
    names, index = np.unique(cluster, return_inverse=True)
    drawn = rng.integers(0, 2, len(names))
    while len(names) > 1 and drawn.min() == drawn.max():
        drawn = rng.integers(0, 2, len(names))
    return np.asarray(drawn[index])
