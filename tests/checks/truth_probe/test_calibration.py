"""Probabilities: fitted on anchors alone, and their error measured where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from checks.truth_probe.calibration import RIDGE, calibration, fit_platt


def test_platt_against_another_implementation() -> None:
    # Smoothed targets are two weighted copies of each item; the ridge is sklearn's on scores of unit size.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    scores = 3 * (labels - 0.3 + rng.standard_normal(64))
    n1, n0 = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    scale = np.sqrt(np.mean(scores**2))
    # sklearn: C times the summed loss plus w^2 / 2; ours: the mean loss plus RIDGE w^2 / 2.
    theirs = LogisticRegression(C=1 / (RIDGE * 64), tol=1e-10).fit(
        np.tile(scores / scale, 2)[:, None], np.repeat([1, 0], 64), np.concatenate([target, 1 - target])
    )
    got = fit_platt(scores, labels)
    assert got.slope == pytest.approx(theirs.coef_[0, 0] / scale, rel=1e-4)
    assert got.offset == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_perfect_anchors_claim_no_certainty() -> None:
    labels = np.arange(32) % 2
    got = fit_platt(2.0 * labels - 1, labels)
    assert got.probability(np.array([1.0]))[0] == pytest.approx(17 / 18, abs=0.01)
    assert 0.03 < got.probability(np.array([-1.0]))[0] < 0.07


def test_scaling_scores_changes_no_probability() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.standard_normal(32), rng.integers(0, 2, 32)
    a, b = fit_platt(scores, labels), fit_platt(1e6 * scores, labels)
    assert a.probability(scores) == pytest.approx(b.probability(1e6 * scores), abs=1e-6)
    assert fit_platt(np.zeros(32), np.arange(32) % 2).probability(np.zeros(1))[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="anchors"):
        fit_platt(np.array([np.nan]), np.array([1]))


def test_calibrated_forecasts_have_small_error_and_overconfident_ones_large() -> None:
    rng = np.random.default_rng(2)
    logit = 1.5 * rng.standard_normal(4000)
    labels = (rng.random(4000) < expit(logit)).astype(int)
    good = calibration(expit(logit), labels, np.arange(4000), 0.95, 200, rng)
    bad = calibration(expit(4 * logit), labels, np.arange(4000), 0.95, 200, rng)
    assert good.ece.value < 0.03
    assert bad.ece.low > 0.08
    assert bad.brier.value > good.brier.high
    assert good.brier.value == pytest.approx(brier_score_loss(labels, expit(logit)), abs=1e-12)
    assert [one.n for one in good.bins] == [400] * 10
    assert [one.observed for one in good.bins] == pytest.approx([one.predicted for one in good.bins], abs=0.08)


def test_ece_by_hand() -> None:
    probability = np.repeat([0.2, 0.9], 50)
    labels = np.concatenate([np.arange(50) < 20, np.arange(50) < 35]).astype(int)  # .4 and .7 are true
    got = calibration(probability, labels, np.arange(100), 0.95, 100, np.random.default_rng(3))
    assert got.ece.value == pytest.approx(0.2)
    assert [(round(one.predicted, 9), one.observed, one.n) for one in got.bins] == [(0.2, 0.4, 50), (0.9, 0.7, 50)]


def test_equal_forecasts_share_a_bin() -> None:
    # Cut by place in the file, a constant .5 on items sorted by label would look wrong by .5.
    labels = (np.arange(200) < 100).astype(int)
    got = calibration(np.full(200, 0.5), labels, np.arange(200), 0.95, 100, np.random.default_rng(4))
    assert got.ece.value == 0.0
    assert got.brier.value == 0.25
    assert len(got.bins) == 1


def test_clusters_widen_the_brier_interval() -> None:
    rng = np.random.default_rng(5)
    labels, cluster = np.repeat(rng.integers(0, 2, 40), 10), np.repeat(np.arange(40), 10)
    chance = np.full(400, 0.7)
    wide = calibration(chance, labels, cluster, 0.95, 300, np.random.default_rng(6)).brier
    narrow = calibration(chance, labels, np.arange(400), 0.95, 300, np.random.default_rng(6)).brier
    assert 2.4 < (wide.high - wide.low) / (narrow.high - narrow.low) < 4.0  # sqrt(10)
