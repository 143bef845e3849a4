"""The placebo check fires on placebos that are too easy and not on leaks."""

from __future__ import annotations

import numpy as np
import pytest

from checks.contamination.conformal import Scores, calibrate
from checks.contamination.discoveries import discover
from checks.contamination.placebo import ITEMS_MIN, placebo_check, placebo_sets
from tests.checks.contamination.planted_scores import planted

NOBODY = np.zeros(330, dtype=bool)


def _rejected(share: float, q: float, runs: int, siblings: int = 20) -> int:
    rejected = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        world = planted(330, siblings, share, rng)
        flags = discover(calibrate(world.scores), NOBODY, q).flags
        rejected += placebo_check(world.scores, flags, rng).state == "placebo_mismatch"
    return rejected


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("q", [0.05, 0.01])
def test_leaks_do_not_fire_the_placebo_check(share: float, q: float) -> None:
    assert _rejected(share, q, runs=25) == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize(("siblings", "q"), [(20, 0.05), (20, 0.01), (4, 0.05)])
def test_false_rejections_of_a_hundred_honest_runs(share: float, siblings: int, q: float) -> None:
    assert _rejected(share, q, 100, siblings) <= 1  # .1 expected; two or more in 5 of 1000 such tests


def test_siblings_that_score_too_low_are_caught() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        world = planted(330, 20, 0.0, rng, too_low=500)  # .05 in cosine
        told = placebo_check(world.scores, NOBODY, rng)
        assert told.state == "placebo_mismatch"
        assert told.p is not None
        assert told.p < 1e-6


def test_ties_alone_do_not_fire() -> None:
    scores = Scores(np.zeros(200, dtype=np.int64), np.zeros(800, dtype=np.int64), np.repeat(np.arange(200), 4))
    assert placebo_check(scores, np.zeros(200, dtype=bool), np.random.default_rng(1)).state == "held"


def test_flagged_items_do_not_enter() -> None:
    scores = Scores(np.zeros(200, dtype=np.int64), np.zeros(4000, dtype=np.int64), np.repeat(np.arange(200), 20))
    told = placebo_check(scores, np.arange(200) < 100, np.random.default_rng(6))
    assert 50 < told.n <= 100


def test_few_items_are_not_asked() -> None:
    world = planted(ITEMS_MIN, 20, 0.0, np.random.default_rng(2))
    told = placebo_check(world.scores, np.zeros(ITEMS_MIN, dtype=bool), np.random.default_rng(3))
    assert (told.state, told.p) == ("too_few", None)
    assert told.n < ITEMS_MIN
    none = np.zeros(0, dtype=np.int64)
    empty = Scores(np.arange(90), none, none)
    assert placebo_check(empty, np.zeros(90, dtype=bool), np.random.default_rng(4)).n == 0


def test_siblings_that_play_items_are_rarely_flagged_whatever_leaked() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        world = planted(200, 20, 0.2, rng)
        flags = discover(calibrate(world.scores), np.zeros(200, dtype=bool), 0.05).flags
        told = placebo_sets(world.scores, flags, 0.05, rng)
        assert told.held
        assert (told.sets, told.items) == (5, int((~flags).sum()))


def test_sets_that_flag_their_players_miss_the_control() -> None:
    # One sibling of each of five items scores far above all others: it will be drawn in some sets, and then flagged.
    siblings = np.arange(100, 2100)
    siblings[:120] = 50_000 + np.arange(120)
    scores = Scores(np.full(100, 10), siblings, np.repeat(np.arange(100), 20))
    assert not placebo_sets(scores, np.zeros(100, dtype=bool), 0.2, np.random.default_rng(5), sets=40).held
