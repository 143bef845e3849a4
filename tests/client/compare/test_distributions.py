"""Pure Python distributions against scipy, to 1e-9."""

from __future__ import annotations

import itertools
import math

import pytest
from assay.compare import distributions as ours
from scipy import special, stats

FREEDOM = (1.0, 2.0, 7.0, 49.0, 399.0, 9999.0, 1e6)
SHAPES = (0.5, 1.0, 3.7, 20.0, 500.0, 1e4, 1e6)


@pytest.mark.parametrize(("a", "b"), [*itertools.product(SHAPES, SHAPES)])
def test_beta_function_loses_no_digits_where_gamma_is_large(a: float, b: float) -> None:
    mean = a / (a + b)
    for x in (0.0, 1e-9, 0.01, 0.3, 0.5, 0.77, 0.999, 1 - 1e-9, 1.0, mean, mean * 0.99):
        assert ours.beta_cdf(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-9)


@pytest.mark.parametrize("freedom", FREEDOM)
def test_t_distribution(freedom: float) -> None:
    for t in (0.0, 1e-3, 0.5, 1.96, 5.0, 30.0):
        expected = 2 * stats.t.sf(t, freedom)
        assert ours.t_two_sided(t, freedom) == pytest.approx(expected, abs=1e-9)
        assert ours.t_two_sided(-t, freedom) == ours.t_two_sided(t, freedom)
        if expected > 1e-290:
            assert ours.t_two_sided(t, freedom) == pytest.approx(expected, rel=1e-9)
    for tail in (0.9, 0.32, 0.05, 0.0025, 1e-6, 1e-12):
        assert ours.t_quantile(tail, freedom) == pytest.approx(stats.t.isf(tail / 2, freedom), rel=1e-9)


def test_normal_distribution() -> None:
    for z in (0.0, 0.1, 1.96, 6.0, 30.0):
        assert ours.normal_two_sided(z) == pytest.approx(2 * stats.norm.sf(z), rel=1e-9)
    for tail in (0.999, 0.5, 0.05, 1e-6, 1e-15):
        assert ours.normal_quantile(tail) == pytest.approx(stats.norm.isf(tail / 2), abs=1e-9)


@pytest.mark.parametrize(("low", "high"), [(68, 92), (0, 7), (5, 5), (0, 0), (4800, 5000), (1, 100_000), (5, 6)])
def test_exact_test_of_discordant_pairs(low: int, high: int) -> None:
    expected = stats.binomtest(low, low + high).pvalue if low + high else 1.0
    assert ours.binomial_half_two_sided(low, high) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert ours.binomial_half_two_sided(high, low) == ours.binomial_half_two_sided(low, high)


def test_refuses_what_is_no_chance() -> None:
    for tail in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="tail"):
            ours.normal_quantile(tail)
        with pytest.raises(ValueError, match="tail"):
            ours.t_quantile(tail, 7)
    for a, b, x in ((0.0, 1.0, 0.5), (1.0, -1.0, 0.5), (1.0, 1.0, 1.1), (1.0, 1.0, math.nan)):
        with pytest.raises(ValueError, match="beta_cdf"):
            ours.beta_cdf(a, b, x)
