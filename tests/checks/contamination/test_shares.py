"""Shares are counted exactly, and corrected only where a scan tells leaks from placebos."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from checks.contamination.shares import corrected_share, placebo_rate, raw_share
from checks.contamination.shares_estimate import DRAWS, Estimate, averaged, cluster_index, cluster_weights, counted


def _case(rng: np.random.Generator, share: float, se: float, fpr: float, items: int = 300) -> dict[str, np.ndarray]:
    leaked = rng.random(items) < share
    return {
        "flags": np.where(leaked, rng.random(items) < se, rng.random(items) < fpr),
        "template": np.arange(items),
        "hits": rng.random(100) < se,
        "false_hits": rng.random(2000) < fpr,
        "owner": np.repeat(np.arange(100), 20),
    }


def _of(case: dict[str, np.ndarray], seed: int, draws: int = DRAWS) -> Estimate | None:
    rng = np.random.default_rng(10_000 + seed)
    return corrected_share(case["flags"], case["template"], case["hits"], case["false_hits"], case["owner"], rng, draws)


@pytest.mark.parametrize(("successes", "n"), [(0, 40), (7, 40), (40, 40)])
def test_raw_share_is_that_of_scipy(successes: int, n: int) -> None:
    told = raw_share(np.arange(n) < successes, 0.01)
    exact = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert (told.low, told.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert (told.value, told.n, told.method, told.null) == (successes / n, n, "clopper-pearson", 0.01)


def test_no_item_no_share() -> None:
    with pytest.raises(ValueError, match="0 trials"):
        raw_share(np.zeros(0, dtype=bool))
    with pytest.raises(ValueError, match="5 successes"):
        counted(5, 4)
    with pytest.raises(ValueError, match="1 values"):
        averaged(np.ones(1))


def test_placebo_rate_counts_at_the_threshold() -> None:
    null = np.array([1, 5, 9, 9])
    told = placebo_rate(null, 9)
    assert told is not None
    assert (told.value, told.n) == (0.5, 4)
    none = placebo_rate(null, None)
    assert none is not None
    assert none.value == 0
    assert placebo_rate(np.zeros(0, dtype=np.int64), 3) is None


def test_corrected_share_is_null_where_the_scan_tells_nothing() -> None:
    case = _case(np.random.default_rng(1), 0.3, 0.8, 0.0)
    case["hits"] = np.arange(100) < 15
    case["false_hits"] = np.arange(2000) < 120  # .15 - .06 < .1
    assert _of(case, 2) is None
    case["hits"] = np.zeros(0, dtype=bool)
    assert _of(case, 2) is None


def test_corrected_share_is_the_formula_and_its_interval_holds_it() -> None:
    case = _case(np.random.default_rng(3), 0.3, 0.6, 0.02)
    told = _of(case, 4)
    assert told is not None
    specificity = 1 - case["false_hits"].mean()
    expected = (case["flags"].mean() + specificity - 1) / (case["hits"].mean() + specificity - 1)
    assert told.value == pytest.approx(expected, abs=1e-12)
    assert told.low <= told.value <= told.high
    assert told.n == 300


def test_nothing_flagged_still_has_an_interval() -> None:
    case = _case(np.random.default_rng(5), 0.0, 0.9, 0.0)
    told = _of(case, 6)
    assert told is not None
    assert (told.value, told.low) == (0.0, 0.0)
    assert told.high > 0.009  # exact bound of 0 of 300 is .0122, over Se near .9


def test_items_of_one_template_are_drawn_together() -> None:
    case = _case(np.random.default_rng(7), 0.0, 0.9, 0.0)
    case["flags"] = np.arange(300) < 60
    alone = _of(case, 8)
    case["template"] = np.arange(300) // 30
    together = _of(case, 8)
    assert alone is not None
    assert together is not None
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_interval_holds_the_planted_share() -> None:
    assert _covered(0.05, 0.7, runs=30, draws=200) >= 24  # of 95 %: fewer in 6 of 10 000


@pytest.mark.slow
@pytest.mark.parametrize(("share", "se"), [(0.0, 0.9), (0.05, 0.7), (0.3, 0.6), (0.8, 0.9)])
def test_interval_of_the_corrected_share_covers_the_planted_one(share: float, se: float) -> None:
    assert _covered(share, se, runs=200, draws=1000) >= 180  # of 95 %: fewer in 12 of 10 000


def _covered(share: float, se: float, runs: int, draws: int) -> int:
    """Return how many intervals hold the generator's share."""
    held = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        told = _of(_case(rng, share, se, 0.01), seed, draws)
        assert told is not None
        held += told.low <= share <= told.high
    return held


def test_clusters_are_drawn_whole() -> None:
    index = cluster_index(["a", "b", None, "a", None])
    assert index.tolist() == [0, 1, 2, 0, 3]
    weights = cluster_weights(index, 50, np.random.default_rng(9))
    np.testing.assert_array_equal(weights[:, 0], weights[:, 3])
    np.testing.assert_array_equal(weights[:, [0, 1, 2, 4]].sum(axis=1), np.full(50, 4))
