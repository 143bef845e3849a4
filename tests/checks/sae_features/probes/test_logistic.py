"""Logistic regression against scikit-learn, and at the places where Newton's method breaks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from checks.sae_features.probes.logistic import Fits, fit, narrowed, standardise


def drawn(n: int, p: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p))
    return x, (x[:, 0] + rng.standard_normal(n) > 0.4).astype(float)


def one(x: np.ndarray, y: np.ndarray, l2: float) -> Fits:
    return fit(x[None], y[None], np.ones((1, len(y))), np.array([l2]))


def reference(x: np.ndarray, y: np.ndarray, l2: float) -> LogisticRegression:
    return LogisticRegression(C=1 / l2, tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(x, y)


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_sum_convention_is_sklearns_c(l2: float) -> None:
    x, y = drawn(150, 20)
    found, peer = one(x, y, l2), reference(x, y, l2)
    np.testing.assert_allclose(found.beta[0], peer.coef_[0], atol=1e-7)
    np.testing.assert_allclose(found.bias[0], peer.intercept_[0], atol=1e-7)


def test_gradient_is_zero_where_it_stops() -> None:
    x, y = drawn(80, 30)
    found = one(x, y, 0.1)
    short = expit(found.scores(x[None])[0]) - y
    assert abs(short.sum()) < 1e-7
    assert np.abs(x.T @ short + 0.1 * found.beta[0]).max() < 1e-7


def test_more_features_than_rows_lose_nothing_in_the_dual() -> None:
    x, y = drawn(90, 1500)
    train = np.arange(90) < 60
    small = narrowed(x, train)
    assert small.shape == (90, 60)
    scores = one(small[train], y[train], 1.0).scores(small[None])[0]
    np.testing.assert_allclose(scores, reference(x[train], y[train], 1.0).decision_function(x), atol=1e-6)
    assert narrowed(x[:, :50], train) is not None
    assert narrowed(x[:, :50], train).shape == (90, 50)


def test_separable_and_unbalanced_rows_converge() -> None:
    x = np.linspace(-3, 3, 40)[:, None] * 100
    y = (x[:, 0] > 290).astype(float)
    found, peer = one(x, y, 0.1), reference(x, y, 0.1)
    np.testing.assert_allclose(found.scores(x[None])[0], peer.decision_function(x), rtol=1e-5)


def test_fits_at_once_are_fits_one_by_one() -> None:
    # Fits leave the iteration at different steps; none may carry another's coefficients.
    x, y = drawn(100, 8)
    flipped = np.stack([y, 1 - y, np.roll(y, 7)])
    l2 = np.array([0.1, 10.0, 1.0])
    weights = np.ones((3, 100))
    weights[2, ::3] = 0
    shared = fit(x[None], flipped, weights, l2)
    own = fit(np.stack([x, x, x]), flipped, weights, l2)
    np.testing.assert_allclose(shared.beta, own.beta, atol=1e-10)
    for at in range(3):
        held = weights[at] == 1
        np.testing.assert_allclose(shared.beta[at], one(x[held], flipped[at][held], l2[at]).beta[0], atol=1e-8)
    np.testing.assert_allclose(shared.scores(x[None]), own.scores(np.stack([x, x, x])), atol=1e-9)


def test_one_class_or_no_penalty_is_refused() -> None:
    x, y = drawn(20, 3)
    with pytest.raises(ValueError, match="both classes"):
        one(x, np.ones(20), 1.0)
    with pytest.raises(ValueError, match="both classes"):
        fit(x[None], y[None], (y == 0)[None].astype(float), np.ones(1))
    with pytest.raises(ValueError, match="penalty above 0"):
        one(x, y, 0.0)


def test_standardising_reads_train_only() -> None:
    x, _ = drawn(50, 3)
    train = np.arange(50) < 30
    other = x.copy()
    other[30:] += 100
    np.testing.assert_array_equal(standardise(x, train)[train], standardise(other, train)[train])
    np.testing.assert_allclose(standardise(x, train)[train].std(0), 1)


def test_a_feature_that_first_moves_in_test_does_not_explode() -> None:
    x = np.zeros((10, 2))
    x[8:, 0] = 1.0
    assert not standardise(x, np.arange(10) < 5).any()
