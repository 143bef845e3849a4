"""AUROC under weights, intervals and flips: against other implementations, and by how often they cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from checks.truth_probe.scores import (
    accuracy_interval,
    auroc,
    auroc_draws,
    auroc_interval,
    auroc_intervals,
    cluster_weights,
    flip_p,
    flip_ps,
    share_from,
    share_interval,
    sides,
)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_weighted_draws_against_another_implementation(digits: int) -> None:
    # Whole numbers tie within and across the classes; a weight of zero leaves an item out.
    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal((60, 3)), digits)
    labels = rng.integers(0, 2, 60)
    weights = cluster_weights(np.arange(60) // 3, 25, rng)
    theirs = [[roc_auc_score(labels, column, sample_weight=draw) for column in scores.T] for draw in weights]
    assert auroc_draws(scores, labels, weights) == pytest.approx(np.array(theirs), abs=1e-12)


def test_equal_weights_are_the_auroc_itself() -> None:
    rng = np.random.default_rng(1)
    scores, labels = np.round(rng.standard_normal((50, 4)), 1), rng.integers(0, 2, 50)
    assert auroc_draws(scores, labels, np.ones((1, 50)))[0] == pytest.approx(auroc(scores, labels), abs=1e-12)


def test_constant_columns_are_half_under_every_draw() -> None:
    rng = np.random.default_rng(2)
    drawn = auroc_draws(np.full((40, 2), 3.7), np.arange(40) % 2, cluster_weights(np.arange(40), 50, rng))
    assert (drawn == 0.5).all()


def test_infinite_scores_are_ranked_and_nan_has_no_rank() -> None:
    labels, scores = np.array([0, 1, 0, 1]), np.array([[-np.inf], [np.inf], [0.0], [1.0]])
    assert auroc_draws(scores, labels, np.ones((1, 4)))[0, 0] == 1.0
    with pytest.raises(ValueError, match="no rank"):
        auroc_draws(np.full((4, 1), np.nan), labels, np.ones((1, 4)))


def test_a_draw_without_one_class_is_not_a_score() -> None:
    weights = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    drawn = auroc_draws(np.array([[2.0], [1.0], [0.0]]), np.array([1, 0, 0]), weights)
    assert np.isnan(drawn[0, 0])
    assert drawn[1, 0] == 1.0


def test_one_item_of_a_class_has_an_interval_that_says_so() -> None:
    # A third of the draws miss the only true item: they are left out, and the floor is 1/2.
    rng = np.random.default_rng(3)
    labels = np.array([1, *[0] * 19])
    got = auroc_interval(np.arange(20.0)[::-1], labels, np.arange(20), 0.95, 200, rng)
    assert (got.value, got.high) == (1.0, 1.0)
    assert got.low == pytest.approx(1 - 1.95996 / 2, abs=1e-4)


def test_a_single_cluster_claims_nothing() -> None:
    rng = np.random.default_rng(4)
    scores, labels = np.arange(40.0), (np.arange(40) > 19).astype(int)
    assert (lambda got: (got.low, got.high))(
        auroc_interval(scores, labels, np.zeros(40, dtype=int), 0.95, 50, rng)
    ) == (0.0, 1.0)


def test_columns_share_their_draws_and_match_one_at_a_time() -> None:
    rng = np.random.default_rng(5)
    scores, labels, cluster = rng.standard_normal((80, 3)), rng.integers(0, 2, 80), np.arange(80) // 2
    together = auroc_intervals(scores, labels, cluster, 0.9, 100, np.random.default_rng(6))
    alone = [auroc_interval(column, labels, cluster, 0.9, 100, np.random.default_rng(6)) for column in scores.T]
    assert list(together) == alone
    ps = flip_ps(scores, labels, cluster, 99, np.random.default_rng(7))
    assert list(ps) == [flip_p(column, labels, cluster, 99, np.random.default_rng(7)) for column in scores.T]


def test_auroc_interval_covers_with_clusters() -> None:
    # Noise shared by ten items of a cluster: a bootstrap over items would cover far less.
    rng = np.random.default_rng(8)
    truth, cluster, covered, narrow = float(norm.cdf(np.sqrt(2) * 0.5)), np.repeat(np.arange(40), 10), 0, 0
    for _ in range(200):
        labels = np.repeat(rng.integers(0, 2, 40), 10)
        scores = labels - 0.5 + np.sqrt(0.5) * np.repeat(rng.standard_normal(40), 10)
        scores += np.sqrt(0.5) * rng.standard_normal(400)
        got = auroc_interval(scores, labels, cluster, 0.95, 200, rng)
        covered += got.low <= truth <= got.high
        got = auroc_interval(scores, labels, np.arange(400), 0.95, 50, rng)
        narrow += got.low <= truth <= got.high
    # A normal interval over 40 clusters covers about .91; .86 is three standard errors of 200 draws below that.
    assert covered >= 172
    assert narrow <= 140


def test_shares_near_one_cover_and_are_never_a_point() -> None:
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(300):
        got = share_interval((rng.random(150) < 0.97).astype(float), np.arange(150), 0.95, 150, rng)
        covered += got.low <= 0.97 <= got.high
    assert covered >= 276
    whole = share_interval(np.ones(150), np.arange(150), 0.95, 50, rng)
    assert (whole.value, whole.high) == (1.0, 1.0)
    assert 0.97 < whole.low < 0.98  # Wilson: 150 / (150 + 1.96^2)


def test_items_of_a_cluster_that_all_agree_count_once() -> None:
    rng = np.random.default_rng(10)
    assert share_interval(np.ones(150), np.repeat(np.arange(10), 15), 0.95, 50, rng).low == pytest.approx(
        10 / (10 + 1.95996**2), abs=1e-4
    )
    hits, cluster = np.repeat(rng.integers(0, 2, 30), 10).astype(float), np.repeat(np.arange(30), 10)
    wide, narrow = share_interval(hits, cluster, 0.95, 500, rng), share_interval(hits, np.arange(300), 0.95, 500, rng)
    assert 2.5 < (wide.high - wide.low) / (narrow.high - narrow.low) < 3.7  # sqrt(10)
    assert share_from(0.5, float("inf"), 100, 1, 0.95).low < 0.1


def test_a_score_of_zero_is_on_neither_side() -> None:
    assert list(sides(np.array([0.0, 2.0, -2.0]), np.array([1, 1, 1]))) == [0.5, 1.0, 0.0]
    rng = np.random.default_rng(11)
    assert accuracy_interval(np.zeros(30), np.arange(30) % 2, np.arange(30), 0.95, 50, rng).value == 0.5
