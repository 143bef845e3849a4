"""Benjamini-Hochberg is scipy's; identity needs no p-value; the threshold is that of the run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from checks.contamination.conformal import Scores, calibrate, conformal
from checks.contamination.discoveries import benjamini_hochberg, discover, level, q_values


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1])
def test_a_level_that_is_none_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        benjamini_hochberg(np.array([0.1]), q)


def test_a_p_value_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        q_values(np.array([0.1, 1.5]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_q_values_are_those_of_scipy(counts: list[int]) -> None:
    p = np.array(counts) / 400
    told = false_discovery_control(p, method="bh")
    np.testing.assert_allclose(q_values(p), told, rtol=1e-12)
    for q in (0.01, 0.05, 0.2):
        np.testing.assert_array_equal(benjamini_hochberg(p, q), told <= q * (1 + 1e-12))


def test_a_p_that_equals_its_bound_is_rejected_whatever_rounding_says() -> None:
    for m in (3, 7, 11, 19, 49):
        for rank in range(1, m + 1):
            p = np.ones(m)
            p[:rank] = rank / (m * 10)  # exactly q x rank / m at q = .1
            assert benjamini_hochberg(p, 0.1).sum() == rank


def test_items_without_p_are_no_hypotheses() -> None:
    p = np.array([0.001, np.nan, 0.04, 0.2, np.nan])
    told = q_values(p)
    np.testing.assert_array_equal(np.isnan(told), np.isnan(p))
    np.testing.assert_allclose(told[[0, 2, 3]], false_discovery_control(np.array([0.001, 0.04, 0.2])))
    assert not benjamini_hochberg(np.full(3, np.nan), 0.05).any()


def test_the_level_flags_what_was_flagged_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    scores = Scores(
        np.concatenate([rng.integers(0, 9000, 90), rng.integers(28_000, 29_500, 10)]),
        rng.integers(0, 9500, 2000),
        np.repeat(np.arange(100), 20),
    )
    told = discover(calibrate(scores), np.zeros(100, dtype=bool), 0.05)
    assert told.flags.sum() >= 10
    assert told.lowest is not None
    np.testing.assert_array_equal(told.flags, scores.items >= told.lowest)
    below = conformal(np.array([told.lowest - 1]), scores.siblings)[0]
    assert below > told.level


def test_level_where_nothing_is_flagged_is_that_of_the_first_item() -> None:
    assert level(np.full(40, 0.5), 0.05, 1 / 801) == max(0.05 / 40, 1 / 801)
    assert level(np.full(40, 0.5), 0.05, 1 / 101) == 1 / 101
    assert level(np.full(40, np.nan), 0.05, 1 / 101) == 1 / 101


def test_identity_is_flagged_without_a_p_value() -> None:
    none = np.zeros(0, dtype=np.int64)
    told = discover(calibrate(Scores(np.array([50_000, 0]), none, none)), np.array([True, False]), 0.05)
    assert told.flags.tolist() == [True, False]
    assert told.by_p == 0
