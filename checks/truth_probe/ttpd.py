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
    pairs: PairActivations,
    labels: Int[np.ndarray, " pair"],
    polarity: Int[np.ndarray, " pair"],
    sets: Int[np.ndarray, " pair"] | None = None,
) -> Direction | None:
    """Return the direction whose product with a displacement is logit(+) - logit(-).

    Both texts of a pair are single texts of truth tau (+ is true where the label is 1) and polarity p. Centred states
    are regressed on tau and tau p, a ~ t_G tau + t_P tau p; w_pol separates p on raw states; a logistic regression of
    tau on (a . t_G, a . w_pol) gives a logit that is linear in the state, so a pair's score is linear in x+ - x-.

    Args:
        pairs: train pairs of both polarities, raw states.
        labels: 1 where the + text is true, else 0.
        polarity: +1 affirmative, -1 negated, of both texts of a pair.
        sets: data set of each pair, as a number; states are centred within it. None is one set.

    Returns:
        The direction with the regression's intercept as offset (for states centred as here), or None with the reason
        `ONE_POLARITY` where train lacks either polarity.

    Raises:
        ValueError: a polarity is neither 1 nor -1.
    """
    if not np.isin(polarity, (-1, 1)).all():
        raise ValueError("polarity is +1 or -1")
    if len(np.unique(polarity)) < 2:
        return None
    raw = np.concatenate([pairs.pos, pairs.neg]).astype(np.float64)
    tau = np.concatenate([2.0 * labels - 1.0, 1.0 - 2.0 * labels])
    p = np.concatenate([polarity, polarity]).astype(np.float64)
    members = np.zeros(len(raw), dtype=int) if sets is None else np.concatenate([sets, sets])
    centred = _centred(raw, members)
    size = max(float(np.sqrt(np.mean(centred**2))), np.finfo(np.float64).tiny)
    centred /= size
    t_g = unit(general(centred, tau, p))
    w_pol = unit(_polarity(raw / size, p))
    weights, bias = logistic(np.stack([centred @ t_g, centred @ w_pol], axis=1), tau)
    vector = weights[0] * t_g + weights[1] * w_pol
    length = max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)
    # logit(x) = vector . x / size + bias, divided by the length of vector / size.
    return Direction(unit(vector), "ttpd", offset=bias * size / length)


def _centred(
    states: Float[np.ndarray, "text width"], members: Int[np.ndarray, " text"]
) -> Float[np.ndarray, "text width"]:
    centred = states.copy()
    for one in np.unique(members):
        rows = members == one
        centred[rows] -= states[rows].mean(axis=0)
    return centred


def general(
    centred: Float[np.ndarray, "text width"], tau: Float[np.ndarray, " text"], p: Float[np.ndarray, " text"]
) -> Float[np.ndarray, " width"]:
    """Return t_G of the least squares a ~ t_G tau + t_P tau p, by its normal equations."""
    design = np.stack([tau, tau * p], axis=1)
    return np.asarray(np.linalg.solve(design.T @ design, design.T @ centred)[0])


def _polarity(states: Float[np.ndarray, "text width"], p: Float[np.ndarray, " text"]) -> Float[np.ndarray, " width"]:
    # The free intercept makes centring no change to the optimum, only to how soon it is reached.
    rows, lift = span(states - states.mean(axis=0))
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
