"""Supervised ceilings and nulls: against independent implementations and the specification's tables."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from checks.truth_probe.displacement import (
    displacement,
)
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.nulls import best_of_sign, effect_for, predicted_auroc, predicted_cos, whitened_directions
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import auroc
from checks.truth_probe.supervised import class_weights, fit_logistic, lr, mass_mean, shuffled
from tests.checks.truth_probe.planting import pairs_of, planted_states


def normalised(n: int, d: int, a: float, seed: int) -> tuple[PairActivations, np.ndarray]:
    pos, neg, labels = planted_states(n, d, a, np.random.default_rng(seed))
    pairs = pairs_of(pos, neg)
    return Normaliser.fit(pairs).apply(pairs), labels


def test_logistic_against_another_implementation() -> None:
    rng = np.random.default_rng(18)
    u = rng.standard_normal((120, 6))
    labels = (u[:, 0] + rng.standard_normal(120) > 0.8).astype(int)
    penalty = 0.05
    ours = fit_logistic(u, labels, penalty)
    theirs = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10, max_iter=1000)
    theirs.fit(u, labels, sample_weight=class_weights(labels))
    assert ours == pytest.approx(theirs.coef_[0], abs=2e-4)


def test_batched_shuffles_are_fits_to_shuffled_labels() -> None:
    rng = np.random.default_rng(19)
    u = rng.standard_normal((150, 8))
    labels = rng.integers(0, 2, 150)
    batch = shuffled(u, labels, 0.1, 5, np.random.default_rng(3))
    again = np.random.default_rng(3)
    for column in batch.T:
        alone = fit_logistic(u / np.sqrt(np.mean(u**2)), again.permutation(labels), 0.1)
        assert column @ alone / np.linalg.norm(column) / np.linalg.norm(alone) > 0.999


def test_supervised_ceilings_find_the_plant() -> None:
    pairs, labels = normalised(400, 64, 2.0, 20)
    u = displacement(pairs)
    fresh_pos, fresh_neg, fresh = planted_states(400, 64, 2.0, np.random.default_rng(20))
    held = displacement(pairs_of(fresh_pos, fresh_neg))
    direction, penalty = lr(u[:200], labels[:200], pairs.cluster[:200], np.random.default_rng(0))
    assert penalty in (1e-3, 1e-2, 1e-1, 1.0)
    assert float(auroc(held[200:] @ direction.vector, fresh[200:])) > 0.9
    assert float(auroc(held[200:] @ mass_mean(u[:200], labels[:200]).vector, fresh[200:])) > 0.85


def test_whitened_directions_whiten() -> None:
    rng = np.random.default_rng(21)
    u = rng.standard_normal((2000, 4)) * np.array([10.0, 1.0, 1.0, 0.1])
    directions = whitened_directions(u, rng)
    # Along whitened directions no axis of u dominates: scores of two are as good as uncorrelated on average.
    spread = np.square(directions * np.array([10.0, 1.0, 1.0, 0.1])[:, None]).mean(axis=1)
    assert spread[0] < 1.5 * spread[1]
    assert (best_of_sign(u, rng.integers(0, 2, 2000), directions) >= 0.5).all()


def test_spiked_prediction_matches_the_table() -> None:
    # Section 8: d 256, n 400: e 2.12 -> .997 / cos of halves .73; e 1.41 -> .945 / .41.
    assert predicted_auroc(2.12, 400, 256) == pytest.approx(0.997, abs=0.002)
    assert predicted_auroc(1.41, 400, 256) == pytest.approx(0.945, abs=0.003)
    assert predicted_cos(2.12, 200, 256) ** 2 == pytest.approx(0.73, abs=0.01)
    assert predicted_cos(0.5, 100, 400) == 0.0
    assert predicted_auroc(effect_for(0.97, 400, 64), 400, 64) == pytest.approx(0.97)
