"""Control sets: as large as what they stand for, and honest about how far they had to look."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from checks.sae_features.probes.matched import matched_sets

MASSES = np.exp(0.099 * np.arange(41))  # neighbours are just below .1 apart in log mass
LIVE = np.ones(41, dtype=bool)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("latents", [[], [3, 3], [-1], [41]])
def test_no_set_of_latents_is_refused(latents: list[int]) -> None:
    with pytest.raises(ValueError, match="not a set of latents"):
        matched_sets(latents, MASSES, LIVE, 5, rng())


def test_too_few_live_latents_are_no_controls() -> None:
    live = np.zeros(41, dtype=bool)
    live[[3, 4, 5]] = True  # one is left beside the set
    assert matched_sets([3, 4], MASSES, live, 5, rng()) is None


def test_members_are_live_outside_and_none_twice() -> None:
    live = LIVE.copy()
    live[18] = False
    found = matched_sets([19, 20, 21], MASSES, live, 4, rng())
    assert found is not None
    assert not np.isin(found.sets, [18, 19, 20, 21]).any()
    assert all(len(set(one)) == 3 for one in found.sets.tolist())
    apart = np.abs(np.log(MASSES[found.sets]) - np.log(MASSES[[19, 20, 21]]))
    assert apart.max() <= 0.3 + 1e-9
    assert found.widenings == Counter({"0.3": 12})
    assert found.well == 1.0


def test_each_column_matches_its_own_member() -> None:
    found = matched_sets([2, 38], MASSES, LIVE, 20, rng())
    assert found is not None
    assert (found.sets[:, 0] < 6).all()
    assert (found.sets[:, 1] > 34).all()


def test_a_near_latent_is_not_taken_for_a_matched_one() -> None:
    # Log masses 0 and then .5, 1.0, 5.0 away: the first is found at .6, the second at 1.2, then only the nearest.
    masses = np.exp(np.array([0.0, 0.0, 0.0, 0.5, 1.0, 5.0]))
    live = np.array([False, False, False, True, True, True])
    found = matched_sets([0, 1, 2], masses, live, 10, rng())
    assert found is not None
    assert found.widenings == Counter({"0.6": 1, "1.2": 1, "nearest": 1})
    assert len(found.sets) == 1  # three latents make one set of three
    assert sorted(found.sets[0].tolist()) == [3, 4, 5]
    assert found.well == pytest.approx(1 / 3)


def test_a_silent_latent_is_matched_to_the_least_one() -> None:
    masses = np.array([0.0, 1.0, 2.0, 0.5])
    found = matched_sets([0], masses, np.array([False, True, True, True]), 3, rng())
    assert found is not None
    assert found.sets[0].tolist() == [3]  # the least of those that fire
    assert sorted(found.sets.ravel().tolist()) == [1, 2, 3]
    assert found.widenings == Counter({"nearest": 3})


def test_all_latents_of_the_width_are_drawn_alike() -> None:
    counts: Counter[int] = Counter()
    for seed in range(3000):
        found = matched_sets([20], MASSES, LIVE, 1, rng(seed))
        assert found is not None
        counts.update(found.sets.ravel().tolist())
    assert sorted(counts) == [17, 18, 19, 21, 22, 23]
    assert all(abs(count - 500) < 4 * 21 for count in counts.values())


def test_the_same_set_is_no_second_control() -> None:
    # One latent is within .3: 99 draws of it would make p .01 from a single comparison.
    masses = np.exp(np.array([0.0, 0.1, *np.linspace(0.5, 3.0, 60)]))
    found = matched_sets([0], masses, np.ones(62, dtype=bool), 20, rng())
    assert found is not None
    assert len({frozenset(one) for one in found.sets.tolist()}) == 20
    assert found.sets[0].tolist() == [1]
    assert found.widenings["0.3"] == 1
    assert found.well == (found.widenings["0.3"] + found.widenings["0.6"]) / 20
    # Nearer ones are used up before farther ones.
    assert set(found.sets.ravel().tolist()) <= set(range(1, 19 + 1 + 12))
    assert {1, 2, 3, 4} <= set(found.sets.ravel().tolist())


def test_order_in_a_set_makes_no_second_control() -> None:
    found = matched_sets([20, 21], MASSES, LIVE, 300, rng())
    assert found is not None
    assert len({frozenset(one) for one in found.sets.tolist()}) == len(found.sets) == 300


def test_a_small_pool_gives_fewer_controls_rather_than_the_same_again() -> None:
    live = np.zeros(41, dtype=bool)
    live[[17, 18, 19, 21]] = True
    found = matched_sets([20, 22], MASSES, live, 99, rng())
    assert found is not None
    assert {frozenset(one) for one in found.sets.tolist()} == {
        frozenset(pair) for pair in itertools.combinations([17, 18, 19, 21], 2)
    }
    assert len(found.sets) == 6


def test_replacements_do_not_depend_on_the_order_of_calls() -> None:
    one, other = (matched_sets([2, 30], MASSES, LIVE, 50, rng(4)) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.sets.tobytes() == other.sets.tobytes()
