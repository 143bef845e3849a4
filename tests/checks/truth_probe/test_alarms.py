"""Recall at 1 % false alarms: the threshold's edges, the law of what it lets through, and planted recall."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, norm

from checks.truth_probe.alarms import (
    Alarms,
    SingleTexts,
    halve,
    recall_at_fpr,
    single_text_scores,
    threshold,
)


def texts(scores: np.ndarray, per_cluster: int = 1, name: str = "c") -> SingleTexts:
    return SingleTexts(scores, np.array([f"{name}{at // per_cluster}" for at in range(len(scores))]))


def planted(m: int, effect: float, seed: int, per_cluster: int = 1) -> Alarms:
    """Return alarms of 2 m benign texts, 300 false asserted, 100 true asserted and 50 not asserted statements."""
    rng = np.random.default_rng(seed)
    true = np.repeat([0, 1, 0], [300, 100, 50])
    scores = np.where(true == 0, -effect, 0.0) + rng.standard_normal(450)
    return recall_at_fpr(
        texts(rng.standard_normal(2 * m), per_cluster),
        texts(scores, 2, "s"),
        true,
        np.repeat([1, 1, 0], [300, 100, 50]),
        0.95,
        200,
        rng,
    )


@pytest.mark.parametrize(("m", "low", "high"), [(100, 0.03, 5.5), (500, 0.3, 2.3), (1000, 0.5, 1.8), (2000, 0.6, 1.5)])
def test_what_one_percent_of_m_texts_leaves_open(m: int, low: float, high: float) -> None:
    allowed = m // 100
    # What is stated is the exact range of the rate when 1 % was observed (Clopper & Pearson 1934).
    assert 100 * beta.ppf(0.025, allowed, m - allowed + 1) == pytest.approx(low, abs=0.05)
    assert 100 * beta.ppf(0.975, allowed + 1, m - allowed) == pytest.approx(high, abs=0.06)
    # And the threshold's own true rate keeps to it: above the upper end one time in forty, nearly never below.
    rng = np.random.default_rng(m)
    ones = np.ones((1, m))
    rates = 100 * norm.sf(np.array([threshold(rng.standard_normal(m), ones)[0] for _ in range(1500)]))
    assert 0.012 < np.mean(rates > high) < 0.045
    assert np.mean(rates < low) < 0.012
    assert np.mean((rates >= low) & (rates <= high)) >= 0.95


def test_the_threshold_is_the_smallest_that_keeps_the_rate() -> None:
    alarm = np.random.default_rng(0).permutation(np.arange(250.0))
    got = threshold(alarm, np.ones((1, 250)))[0]
    assert got == 247.0  # floor(2.5) = 2 ring above it
    assert np.sum(alarm > got) == 2
    assert np.sum(alarm > got - 1e-9) == 3
    # Ties at the edge must not let more through: none of the five equal ones rings.
    tied = np.concatenate([np.arange(245.0), np.full(5, 300.0)])
    assert threshold(tied, np.ones((1, 250)))[0] == 300.0


def test_a_weighted_threshold_is_that_of_repeated_texts() -> None:
    rng = np.random.default_rng(1)
    alarm, weights = np.round(rng.standard_normal(300), 1), rng.integers(0, 4, (20, 300)).astype(float)
    got = threshold(alarm, weights)
    for row, draw in enumerate(weights):
        repeated = np.repeat(alarm, draw.astype(int))
        assert got[row] == threshold(repeated, np.ones((1, len(repeated))))[0]


def test_single_texts_are_centred_by_the_pooled_mean() -> None:
    states = np.array([[3.0, 1.0], [5.0, 9.0]], dtype=np.float32)
    assert single_text_scores(states, np.array([1.0, 0.0]), np.array([4.0, 100.0])) == pytest.approx([-1.0, 1.0])


def test_halves_are_of_whole_clusters_and_do_not_depend_on_the_order() -> None:
    cluster = np.array([f"c{at // 3}" for at in range(600)])
    half = halve(cluster)
    assert 300 <= half.sum() <= 302
    assert not set(cluster[half]) & set(cluster[~half])
    order = np.random.default_rng(2).permutation(600)
    assert (halve(cluster[order]) == half[order]).all()


def test_planted_recall_and_rate_are_found() -> None:
    law = norm.sf(norm.isf(0.01) - 3.0)
    got = planted(2000, 3.0, 3)
    assert (got.m, got.wide) == (2000, False)
    assert got.recall.estimate is not None
    assert got.recall.estimate.low <= law <= got.recall.estimate.high
    assert got.recall.estimate.high - got.recall.estimate.low < 0.3
    assert got.fpr.estimate is not None
    assert got.fpr.estimate.low <= 0.01 <= got.fpr.estimate.high < 0.03
    # Asserted: 300 false ones that ring at that recall, 100 true ones that ring about never.
    assert (got.recall.n, got.lie_rate.n, got.recall.clusters) == (300, 400, 150)
    assert got.lie_rate.estimate is not None
    assert got.lie_rate.estimate.value == pytest.approx(0.75 * got.recall.estimate.value, abs=0.01)


def test_a_feature_of_nothing_recalls_at_the_false_alarm_rate() -> None:
    got = planted(1000, 0.0, 4)
    assert got.recall.estimate is not None
    assert got.recall.estimate.value < 0.04
    assert got.recall.estimate.low < 0.01


def test_the_false_alarm_rate_covers_what_this_threshold_lets_through() -> None:
    covered = 0
    for seed in range(60):
        got = planted(200, 2.0, 100 + seed)
        assert got.threshold is not None
        assert got.fpr.estimate is not None
        covered += got.fpr.estimate.low <= norm.sf(got.threshold) <= got.fpr.estimate.high
    assert covered >= 53


def test_false_alarms_are_counted_on_the_half_that_set_nothing() -> None:
    benign = texts(np.zeros(400))
    half = halve(benign.cluster)
    scores = np.where(half, np.linspace(0, 1, 400), -5.0)  # the other half rings throughout
    none = np.zeros(1, int)
    got = recall_at_fpr(
        SingleTexts(scores, benign.cluster), texts(np.zeros(1)), none, none + 1, 0.95, 50, np.random.default_rng(9)
    )
    assert got.fpr.n == 200
    assert got.fpr.estimate is not None
    assert got.fpr.estimate.value == 1.0


def test_a_text_at_the_threshold_does_not_ring() -> None:
    # Benign scores tie at 0, so the threshold is 0 itself; a statement at 0 is no more alarming than they are.
    said, none = np.array([0.0, 0.0, 0.0, -1e-9]), np.zeros(4, int)
    got = recall_at_fpr(texts(np.zeros(400)), texts(said), none, none + 1, 0.95, 50, np.random.default_rng(10))
    assert got.recall.estimate is not None
    assert got.fpr.estimate is not None
    assert (got.recall.estimate.value, got.fpr.estimate.value) == (0.25, 0.0)


def test_few_benign_texts_are_wide_or_not_estimable() -> None:
    assert planted(499, 2.0, 5).wide
    assert not planted(500, 2.0, 5).wide
    assert planted(100, 2.0, 5).recall.estimate is not None
    got = planted(99, 2.0, 5)
    assert (got.threshold, got.m) == (None, 99)
    assert {got.fpr.reason, got.recall.reason, got.lie_rate.reason} == {"too_few_benign"}
    # One cluster cannot be halved, however many texts it has.
    assert planted(200, 2.0, 6, per_cluster=400).threshold is None


def test_texts_that_were_not_read_are_left_out() -> None:
    benign = np.random.default_rng(7).standard_normal(600)
    benign[:100] = np.nan
    said, true = np.array([-9.0, np.nan, -9.0, 9.0]), np.array([0, 0, 0, 0])
    got = recall_at_fpr(texts(benign), texts(said), true, np.array([1, 1, -1, 1]), 0.95, 50, np.random.default_rng(8))
    assert got.m == 250
    assert got.recall.n == 2
    assert got.recall.estimate is not None
    assert got.recall.estimate.value == 0.5
    none = recall_at_fpr(texts(benign), texts(said), true, np.zeros(4, int), 0.95, 50, np.random.default_rng(8))
    assert (none.recall.estimate, none.recall.reason) == (None, "no_statements")
