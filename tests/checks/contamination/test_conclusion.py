"""The whole conclusion on planted scores: false discoveries, power, and a rate that does not grow with the corpus."""

from __future__ import annotations

import numpy as np
import pytest

from checks.contamination.conformal import calibrate, flaggable_bound
from checks.contamination.discoveries import discover
from tests.checks.contamination.planted_scores import planted


def _runs(share: float, siblings: int, q: float, runs: int, items: int = 330) -> tuple[np.ndarray, np.ndarray]:
    """Return the false discovery proportion and the power of each run; power is NaN without a leak."""
    wrong, power = np.zeros(runs), np.full(runs, np.nan)
    for seed in range(runs):
        world = planted(items, siblings, share, np.random.default_rng(seed))
        flags = discover(calibrate(world.scores), np.zeros(items, dtype=bool), q).flags
        wrong[seed] = (flags & ~world.leaked).sum() / max(1, flags.sum())
        if world.leaked.any():
            power[seed] = (flags & world.leaked).sum() / world.leaked.sum()
    return wrong, power


def _upper(q: float, wrong: np.ndarray) -> float:
    """Return q and three standard errors of the mean."""
    return q + 3 * float(wrong.std(ddof=1)) / float(np.sqrt(len(wrong)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize(("siblings", "q", "runs"), [(20, 0.05, 60), (4, 0.05, 30), (20, 0.01, 30)])
def test_false_discovery_rate_is_at_most_q(share: float, siblings: int, q: float, runs: int) -> None:
    wrong, _ = _runs(share, siblings, q, runs)
    assert wrong.mean() <= _upper(q, wrong)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "power"), [(0.0, None), (0.01, 0.90), (0.05, 0.90), (0.2, 0.93), (0.5, 0.94)])
def test_false_discovery_rate_and_power_of_many_runs(share: float, power: float | None) -> None:
    wrong, found = _runs(share, 20, 0.05, 400)
    assert wrong.mean() <= _upper(0.05, wrong)
    if power is not None:
        assert found.mean() >= power - 0.05


def test_leaks_are_found_at_the_default_level() -> None:
    _, power = _runs(0.05, 20, 0.05, 20)
    assert power.mean() > 0.85


def test_siblings_bound_what_can_be_flagged() -> None:
    """One leak in a hundred (3 of 330): found with 20 siblings, out of reach with 4, which need five together."""
    assert flaggable_bound(20, 0.05) == 1
    assert flaggable_bound(4, 0.05) == 5
    assert _runs(0.01, 20, 0.05, 20)[1].mean() > 0.7
    assert _runs(0.01, 4, 0.05, 20)[1].mean() < 0.2


def test_rate_does_not_grow_with_corpus() -> None:
    """What an unrelated corpus ten and thirty times as large does to "at least one match", and to flagged items."""
    naive, flagged = [], []
    for documents in (1, 10, 30):
        matched = any_flag = 0.0
        for seed in range(20):
            world = planted(200, 20, 0.0, np.random.default_rng(seed), documents=documents)
            matched += float((world.scores.items >= 20_000).mean()) / 20
            any_flag += discover(calibrate(world.scores), np.zeros(200, dtype=bool), 0.05).flags.any() / 20
        naive.append(matched)
        flagged.append(any_flag)
    assert naive[0] < 0.4
    assert naive[1] > 0.95
    assert max(flagged) <= 0.2  # .05 of runs may; more than four of 20 do in 2 of 1000
