"""Pairs and fits that the tests of CCS share, and its loss as the paper writes it."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from checks.truth_probe.ccs import CcsFit, Mode, ccs_restarts
from checks.truth_probe.displacement import displacement
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.pairs import PairActivations
from tests.checks.truth_probe.planting import pairs_of, planted_states

MODES: tuple[Mode, ...] = ("parity", "lbfgs", "subspace")


def planted(
    n: int, d: int, a: float, seed: int, *, b: float = 0.0
) -> tuple[PairActivations, PairActivations, np.ndarray]:
    """Return n train and n test pairs, both normalised by train, and the labels of test."""
    pos, neg, labels = planted_states(2 * n, d, a, np.random.default_rng([seed, 7]), b=b)
    pairs = pairs_of(pos, neg)
    train, test = pairs.take(np.arange(n)), pairs.take(np.arange(n, 2 * n))
    normaliser = Normaliser.fit(train)
    return normaliser.apply(train), normaliser.apply(test), labels[n:]


def fitted(
    pairs: PairActivations, mode: Mode = "subspace", *, restarts: int = 10, k: int = 32, seed: int = 0
) -> CcsFit:
    return ccs_restarts(pairs, mode, restarts=restarts, subspace_k=k, rng=np.random.default_rng(seed))


def best_of_sign(direction: np.ndarray, test: PairActivations, labels: np.ndarray) -> float:
    area = float(roc_auc_score(labels, displacement(test) @ direction))
    return max(area, 1 - area)


def pair_loss(theta: np.ndarray, bias: float, pairs: PairActivations) -> float:
    """Return the loss of one probe as the paper writes it, pair by pair."""
    total = 0.0
    for plus, minus in zip(pairs.pos, pairs.neg, strict=True):
        p, q = (1 / (1 + np.exp(-(theta @ x + bias))) for x in (plus, minus))
        total += (p - (1 - q)) ** 2 + min(p, q) ** 2
    return float(total / len(pairs))
