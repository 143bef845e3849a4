"""The synthetic plant of the specification's section 10, split and normalised, with the labels of both its features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from checks.truth_probe.displacement import displacement
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import auroc

CONTENT = 16


@dataclass(frozen=True)
class Plant:
    """Train and test pairs of one draw, normalised by train."""

    train: PairActivations
    test: PairActivations
    truth: np.ndarray
    """Labels of train."""
    truth_test: np.ndarray
    feature_test: np.ndarray

    def area(self, theta: np.ndarray, labels: np.ndarray | None = None) -> float:
        """Return a direction's AUROC on test, with the better of its signs."""
        found = float(auroc(displacement(self.test) @ theta, self.truth_test if labels is None else labels))
        return max(found, 1 - found)


def plant(a: float, b: float = 0.0, *, seed: int, n: int = 400, d: int = 256, content: int = CONTENT) -> Plant:
    """Return n train and n test pairs: x+- = 4 g C +- 2 o +- (a t_i t + b h_i h) / 2 + noise, o one constant axis."""
    rng = np.random.default_rng([20, seed])
    axes = np.linalg.qr(rng.standard_normal((d, content + 3)))[0].T
    truth, feature = rng.integers(0, 2, (2, 2 * n))
    shared = 4 * rng.standard_normal((2 * n, content)) @ axes[:content]
    half = 2 * axes[content] + 0.5 * (
        a * (2 * truth - 1)[:, None] * axes[content + 1] + b * (2 * feature - 1)[:, None] * axes[content + 2]
    )
    pos, neg = (shared + side * half + rng.standard_normal((2 * n, d)) for side in (1, -1))
    whole = PairActivations(pos, neg, np.zeros(2 * n, dtype=int), np.arange(2 * n))
    first = np.arange(2 * n) < n
    normaliser = Normaliser.fit(whole.take(first))
    train, test = (normaliser.apply(whole.take(rows)) for rows in (first, ~first))
    return Plant(train, test, truth[:n], truth[n:], feature[n:])
