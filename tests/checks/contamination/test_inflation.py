"""Inflation is what a plain fit says, is not difficulty, and stays finite where the data fix nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from checks.contamination.inflation import RIDGE, fit_ridge, inflation


def _world(gain: float, rng: np.random.Generator, items: int = 400, easier: float = 0.0) -> dict[str, np.ndarray]:
    flags = np.arange(items) < items // 4
    hard = rng.normal(0, 1, items) - easier * flags
    return {
        "correct": (rng.random(items) < expit(0.2 - hard + gain * flags)).astype(np.int64),
        "others": (rng.random((12, items)) < expit(0.2 - hard)).astype(np.int64),
        "flags": flags,
    }


def test_numbers_of_items_that_differ_are_refused_and_few_are_not_told() -> None:
    world = _world(0.0, np.random.default_rng(1))
    rng, single = np.random.default_rng(2), np.arange(400)
    with pytest.raises(ValueError, match="399 flags"):
        inflation(world["correct"], world["others"], world["flags"][1:], single, rng)
    assert inflation(world["correct"], world["others"][:3], world["flags"], single, rng) is None
    assert inflation(world["correct"], world["others"], single < 19, single, rng) is None
    assert inflation(world["correct"], world["others"], single >= 19, single, rng) is None


def test_fit_is_that_of_a_general_minimiser() -> None:
    rng = np.random.default_rng(3)
    design = np.stack([np.ones(80), rng.normal(size=80), rng.random(80) < 0.3], axis=1)
    correct, weights = rng.integers(0, 2, 80), rng.integers(0, 4, (3, 80)).astype(float)
    for row, theta in enumerate(fit_ridge(design, correct, weights)):

        def loss(t: np.ndarray, weight: np.ndarray = weights[row]) -> float:
            sign = 2 * correct - 1
            return float(weight @ np.logaddexp(0, -sign * (design @ t)) + RIDGE / 2 * t @ t)

        np.testing.assert_allclose(theta, minimize(loss, np.zeros(3), tol=1e-12).x, atol=2e-4)


def test_all_flagged_correct_stays_finite() -> None:
    world = _world(0.0, np.random.default_rng(4))
    world["correct"][world["flags"]] = 1
    told = inflation(world["correct"], world["others"], world["flags"], np.arange(400), np.random.default_rng(5), 200)
    assert told is not None
    assert 0 < told.adjusted.low <= told.adjusted.value <= told.adjusted.high < 1


def test_inflation_is_the_planted_one() -> None:
    held = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        world = _world(1.0, rng)
        told = inflation(world["correct"], world["others"], world["flags"], np.arange(400), rng, 300)
        assert told is not None
        held += told.adjusted.low < 0.18 < told.adjusted.high  # one logit over N(0, 1) difficulties is .18
        assert (told.flagged, told.unflagged, told.models, told.adjusted.n) == (100, 300, 12, 400)
    assert held >= 9


def test_easier_items_are_not_inflation() -> None:
    found = 0
    for seed in range(12):
        rng = np.random.default_rng(100 + seed)
        world = _world(0.0, rng, easier=1.5)
        told = inflation(world["correct"], world["others"], world["flags"], np.arange(400), rng, 300)
        assert told is not None
        assert told.raw.low > 0  # confounded, and so labelled
        found += told.adjusted.low > 0
    assert found <= 3


@pytest.mark.slow
@pytest.mark.parametrize("models", [4, 8])
def test_few_reference_models_do_not_make_easier_items_inflation(models: int) -> None:
    """Without regression calibration the lower bound is above 0 in .88 of runs with 4 models, .60 with 8."""
    found = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        world = _world(0.0, rng, easier=1.5)
        told = inflation(world["correct"], world["others"][:models], world["flags"], np.arange(400), rng, 200)
        assert told is not None
        found += told.adjusted.low > 0
    assert found <= 10  # .06 of 80 measured; .025 would be exact


def test_templates_are_drawn_whole_and_one_sided_draws_counted() -> None:
    world = _world(0.5, np.random.default_rng(6), items=80)
    template = np.where(np.arange(80) < 20, 0, np.arange(80) - 19)
    told = inflation(world["correct"], world["others"], world["flags"], template, np.random.default_rng(7), 200)
    assert told is not None
    assert 40 < told.dropped < 110  # (1 - 1/61)^61 = .365 of draws lack the one flagged template
