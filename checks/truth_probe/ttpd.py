"""Training of Truth and Polarity Direction: truth that holds under negation, from labelled single texts.

Bürger et al. 2024 (arXiv 2407.12831, section 5). Specification: section 5.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from checks.truth_probe.direction import Direction, unit
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.subspaces import span

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RIDGE = 1e-4
"""Penalty of both logistic regressions, on states of unit mean square (5.6)."""

ONE_POLARITY = "one_polarity"
"""Why there is no direction: train holds affirmative rows only, or negated ones only."""

STEPS_MAX = 2000
"""Steps of L-BFGS: polarity is usually separable, and a small ridge makes its minimum far away."""


def ttpd(
    affirmative: PairActivations,
    labels: Int[np.ndarray, " pair"],
    negated: PairActivations,
    negated_labels: Int[np.ndarray, " negated"],
) -> Direction | None:
    """Return the direction whose product with a displacement is logit(+) - logit(-).

    Both texts of a pair are single texts of truth tau (+ is true where the label is 1) and polarity p. States centred
    over the set are regressed on tau and tau p, a ~ t_G tau + t_P tau p; w_pol separates p; a logistic regression of
    tau on (a . t_G, a . w_pol) gives a logit that is linear in the state, so a pair's score is linear in x+ - x-.

    Args:
        affirmative: affirmative train pairs of one data set. Raw, or less one constant: it leaves every term alone.
        labels: 1 where the + text is true, else 0.
        negated: negated train pairs of the set, less the same constant.
        negated_labels: theirs.

    Returns:
        The direction with the regression's intercept as offset (for states centred over these texts), or None with
        the reason `ONE_POLARITY` where train lacks either polarity.
    """
    if not len(affirmative) or not len(negated):
        return None
    states = np.concatenate([affirmative.pos, affirmative.neg, negated.pos, negated.neg]).astype(np.float64)
    tau = np.concatenate([2.0 * labels - 1, 1 - 2.0 * labels, 2.0 * negated_labels - 1, 1 - 2.0 * negated_labels])
    p = np.repeat([1.0, -1.0], [2 * len(affirmative), 2 * len(negated)])
    states -= states.mean(axis=0)
    size = max(float(np.sqrt(np.mean(states**2))), np.finfo(np.float64).tiny)
    states /= size
    t_g, w_pol = unit(general(states, tau, p)), unit(_polarity(states, p))
    weights, bias = logistic(np.stack([states @ t_g, states @ w_pol], axis=1), tau)
    vector = weights[0] * t_g + weights[1] * w_pol
    # logit(x) = vector . x / size + bias, divided by the length of vector / size.
    length = max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)
    return Direction(unit(vector), "ttpd", offset=bias * size / length)


def general(
    centred: Float[np.ndarray, "text width"], tau: Float[np.ndarray, " text"], p: Float[np.ndarray, " text"]
) -> Float[np.ndarray, " width"]:
    """Return t_G of the least squares a ~ t_G tau + t_P tau p, by its normal equations."""
    design = np.stack([tau, tau * p], axis=1)
    return np.asarray(np.linalg.solve(design.T @ design, design.T @ centred)[0])


def _polarity(states: Float[np.ndarray, "text width"], p: Float[np.ndarray, " text"]) -> Float[np.ndarray, " width"]:
    # On raw states by rights; the free intercept makes centring no change to the optimum, only to how soon it comes.
    rows, lift = span(states)
    return lift(logistic(rows, p)[0])


def logistic(
    features: Float[np.ndarray, "text feature"], t: Float[np.ndarray, " text"]
) -> tuple[Float[np.ndarray, " feature"], float]:
    """Return weights and free intercept at the minimum of the mean log loss + ridge/2 |weights|^2; t is +1 or -1."""

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = t * (features @ theta[:-1] + theta[-1])
        slope = -t * expit(-margin) / len(t)
        value = float(np.mean(np.logaddexp(0, -margin))) + RIDGE / 2 * float(theta[:-1] @ theta[:-1])
        return value, np.append(features.T @ slope + RIDGE * theta[:-1], slope.sum())

    options = {"maxiter": STEPS_MAX, "ftol": 1e-15, "gtol": 1e-8}
    found = minimize(objective, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x[:-1]), float(found.x[-1])
