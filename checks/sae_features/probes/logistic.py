"""Logistic regression by iteratively reweighted least squares, many fits at once; wide features in their dual.

Objective, in the sum convention: sum_i w_i log(1 + exp(-t_i (x_i·beta + b))) + l2/2 ‖beta‖², t = ±1, b not penalised;
scikit-learn's C is 1 / l2. Specification of `sae_features`, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import qr
from scipy.special import expit

if TYPE_CHECKING:
    from jaxtyping import Float

TOLERANCE = 1e-8
"""Largest change of a coefficient in the last step, relative to the largest coefficient (specification, section 7)."""

STEPS_MAX, HALVINGS_MAX = 100, 30
"""Newton steps of a fit and halvings of a step. A concept table of 600 rows took eight steps a fit and no halving."""

CHUNK_NUMBERS = 4_000_000
"""Numbers of the weighted features that stand in memory at once: 32 MB."""

SD_FLOOR = 1e-6
"""Least standard deviation that a feature is divided by; one that does not vary in train stays zero there."""


@dataclass(frozen=True, eq=False)
class Fits:
    """Minima of as many objectives as penalties were given."""

    beta: Float[np.ndarray, "fit p"]
    bias: Float[np.ndarray, " fit"]

    def scores(self, x: Float[np.ndarray, "shared row p"]) -> Float[np.ndarray, "fit row"]:
        """Return x·beta + b; x is one array for all fits, or one a fit."""
        if len(x) == 1:
            return np.asarray(self.beta @ x[0].T + self.bias[:, None])
        return np.asarray((x @ self.beta[:, :, None])[:, :, 0] + self.bias[:, None])


def fit(
    x: Float[np.ndarray, "shared row p"],
    labels: Float[np.ndarray, "fit row"],
    weights: Float[np.ndarray, "fit row"],
    l2: Float[np.ndarray, " fit"],
) -> Fits:
    """Return the minimum of each objective.

    Args:
        x: features, float64; one array for all fits (first axis 1), or one a fit.
        labels: 0 or 1; where the weight is not zero both are present.
        weights: of each row, not negative; 0 leaves the row out.
        l2: penalties, above 0.

    Raises:
        ValueError: a fit has one class only, or a penalty is not positive.
    """
    ones, mass = (weights * labels).sum(1), weights.sum(1)
    if not ((ones > 0) & (ones < mass)).all():
        raise ValueError("a logistic regression needs rows of both classes")
    if not (l2 > 0).all():
        raise ValueError("a logistic regression needs a penalty above 0: separable rows have no other minimum")
    beta = np.zeros((len(l2), x.shape[2]))
    bias = np.log(ones / (mass - ones))
    left = np.arange(len(l2))
    for _ in range(STEPS_MAX):
        problem = _Problem(x if len(x) == 1 else x[left], labels[left], weights[left], l2[left])
        step, offset = problem.newton(beta[left], bias[left])
        taken = problem.search(beta[left], bias[left], step, offset)
        beta[left] += taken[:, None] * step
        bias[left] += taken * offset
        moved = taken * np.maximum(np.abs(step).max(1, initial=0.0), np.abs(offset))
        size = 1.0 + np.maximum(np.abs(beta[left]).max(1, initial=0.0), np.abs(bias[left]))
        left = left[moved > TOLERANCE * size]
        if not len(left):
            break
    return Fits(beta, bias)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Objectives that are still on their way."""

    x: Float[np.ndarray, "shared row p"]
    labels: Float[np.ndarray, "fit row"]
    weights: Float[np.ndarray, "fit row"]
    l2: Float[np.ndarray, " fit"]

    def newton(
        self, beta: Float[np.ndarray, "fit p"], bias: Float[np.ndarray, " fit"]
    ) -> tuple[Float[np.ndarray, "fit p"], Float[np.ndarray, " fit"]]:
        """Return the full Newton step, which is that of reweighted least squares."""
        p = beta.shape[1]
        mean = expit(Fits(beta, bias).scores(self.x))
        short = self.weights * (self.labels - mean)
        curve = self.weights * mean * (1 - mean)
        system = np.empty((len(beta), p + 1, p + 1))
        slope = np.empty((len(beta), p + 1))
        at_once = max(1, CHUNK_NUMBERS // max(1, self.x.shape[1] * p))
        for start in range(0, len(beta), at_once):
            some = slice(start, start + at_once)
            x = self.x if len(self.x) == 1 else self.x[some]
            weighted = x * curve[some, :, None]
            system[some, :p, :p] = np.swapaxes(weighted, 1, 2) @ x
            system[some, :p, p] = system[some, p, :p] = weighted.sum(1)
            slope[some, :p] = (short[some, None, :] @ x)[:, 0]
        system[:, p, p] = curve.sum(1)
        diagonal = np.arange(p)
        system[:, diagonal, diagonal] += self.l2[:, None]
        slope[:, :p] -= self.l2[:, None] * beta
        slope[:, p] = short.sum(1)
        solved = np.linalg.solve(system, slope[:, :, None])[:, :, 0]
        return solved[:, :p], solved[:, p]

    def search(
        self,
        beta: Float[np.ndarray, "fit p"],
        bias: Float[np.ndarray, " fit"],
        step: Float[np.ndarray, "fit p"],
        offset: Float[np.ndarray, " fit"],
    ) -> Float[np.ndarray, " fit"]:
        """Return how much of each step to take: halved until the objective does not rise; 0 where rounding decides."""
        start, along = Fits(beta, bias).scores(self.x), Fits(step, offset).scores(self.x)
        inner = [(one * two).sum(1) for one, two in ((beta, beta), (beta, step), (step, step))]
        before = self._value(start, inner[0])
        taken = np.ones(len(beta))
        slack = 1e-12 * (1 + np.abs(before))
        for _ in range(HALVINGS_MAX):
            norm = inner[0] + 2 * taken * inner[1] + taken**2 * inner[2]
            rises = self._value(start + taken[:, None] * along, norm) > before + slack
            if not rises.any():
                return taken
            taken[rises] /= 2
        return np.where(rises, 0.0, taken)

    def _value(self, scores: Float[np.ndarray, "fit row"], norm: Float[np.ndarray, " fit"]) -> np.ndarray:
        losses = np.logaddexp(0, np.where(self.labels == 1, -scores, scores))
        return np.asarray((self.weights * losses).sum(1) + self.l2 / 2 * norm)


def standardise(x: Float[np.ndarray, "row p"], train: np.ndarray) -> Float[np.ndarray, "row p"]:
    """Return features less their mean over their standard deviation, both of train; float64."""
    exact = np.asarray(x, dtype=np.float64)
    held = exact[train]
    mean, sd = held.mean(0), held.std(0)
    centred = exact - mean
    # A feature that train never saw vary would turn rounding, or its first appearance in test, into huge numbers.
    centred[:, sd < SD_FLOOR] = 0.0
    return np.asarray(centred / np.maximum(sd, SD_FLOOR))


def narrowed(x: Float[np.ndarray, "row p"], train: np.ndarray) -> Float[np.ndarray, "row r"]:
    """Return features in an orthonormal basis of the train rows where those are fewer than the features: the dual.

    The penalty does not see rotations and the minimum lies in the span of the train rows, so nothing is lost.
    """
    if x.shape[1] <= int(np.count_nonzero(train)):
        return x
    basis = qr(x[train].T, mode="economic")[0]
    return np.asarray(x @ basis)
