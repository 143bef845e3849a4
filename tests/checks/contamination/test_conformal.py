"""p-values are those of a loop; without placebos there is no claim; K siblings bound what can be flagged."""

from __future__ import annotations

import numpy as np
import pytest

from checks.contamination.conformal import (
    NULL_MIN,
    SUPPLIED_MIN,
    Scores,
    calibrate,
    conformal,
    flaggable_bound,
    lowest_score,
    min_flaggable,
    randomised,
)
from checks.contamination.discoveries import discover


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        conformal(np.array([0.5, np.nan]), np.array([0.1]))
    with pytest.raises(ValueError, match="not a number"):
        conformal(np.array([0.5]), np.array([np.nan]))


def test_siblings_without_an_owner_are_refused() -> None:
    with pytest.raises(ValueError, match="2 siblings have 1 owners"):
        Scores(np.array([1]), np.array([1, 2]), np.array([0]))
    with pytest.raises(ValueError, match="none of 1 items"):
        Scores(np.array([1]), np.array([1]), np.array([1]))


def test_p_is_that_of_a_loop_and_ties_count_against_us() -> None:
    rng = np.random.default_rng(1)
    scores, null = rng.integers(0, 12, 60), rng.integers(0, 12, 45)
    slow = [(1 + sum(1 for other in null if other >= score)) / (len(null) + 1) for score in scores]
    np.testing.assert_array_equal(conformal(scores, null), slow)
    assert conformal(np.array([11]), np.array([11] * 9))[0] == 1.0


def test_randomised_p_is_uniform_under_many_ties_and_never_above_the_plain_one() -> None:
    rng = np.random.default_rng(2)
    told = np.concatenate(
        [randomised(rng.integers(0, 4, 1), rng.integers(0, 4, 30), np.random.default_rng(s)) for s in range(4000)]
    )
    assert np.histogram(told, bins=10, range=(0, 1))[0].min() > 320  # 400 expected, s.d. 19
    scores, null = rng.integers(0, 4, 50), rng.integers(0, 4, 30)
    assert (randomised(scores, null, rng) <= conformal(scores, null)).all()


def test_no_claim_without_placebo() -> None:
    perfect = Scores(np.full(50, 50_000), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    told = calibrate(perfect)
    assert np.isnan(told.p).all()
    assert told.uncalibrated == 50
    assert told.lowest_score(0.05) is None
    assert not discover(told, np.zeros(50, dtype=bool), 0.05).flags.any()
    # An empty null never gives a small p, whoever asks for it.
    assert (conformal(perfect.items, perfect.siblings) == 1).all()


def test_few_siblings_are_pooled_and_many_are_not() -> None:
    def scores(count: int) -> Scores:
        return Scores(np.array([10]), np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64))

    others = np.full(1000, 20)
    few, many = calibrate(scores(NULL_MIN - 1), others), calibrate(scores(NULL_MIN), others)
    assert few.pooled
    assert few.p[0] == (1 + 1000) / (NULL_MIN + 1000)
    assert not many.pooled
    assert many.p[0] == 1 / (NULL_MIN + 1)


def test_supplied_placebos_only_ever_raise_p() -> None:
    rng = np.random.default_rng(3)
    scores = Scores(rng.integers(0, 99, 40), rng.integers(0, 99, 800), np.repeat(np.arange(40), 20))
    supplied = rng.integers(30, 99, SUPPLIED_MIN)
    plain, both = calibrate(scores), calibrate(scores, supplied=supplied)
    np.testing.assert_array_equal(both.p, np.maximum(plain.p, conformal(scores.items, supplied)))
    np.testing.assert_array_equal(calibrate(scores, supplied=supplied[1:]).p, plain.p)
    assert both.smallest_p() == 1 / (SUPPLIED_MIN + 1)


def test_an_item_without_siblings_is_uncalibrated_unless_placebos_are_supplied() -> None:
    scores = Scores(np.array([5, 5]), np.zeros(20, dtype=np.int64), np.zeros(20, dtype=np.int64))
    assert np.isnan(calibrate(scores).p).tolist() == [False, True]
    assert not np.isnan(calibrate(scores, supplied=np.zeros(SUPPLIED_MIN, dtype=np.int64)).p).any()


@pytest.mark.parametrize("level", [0.001, 0.0099, 0.01, 0.05, 0.2, 0.5, 1.0])
def test_lowest_score_is_the_lowest_by_search(level: float) -> None:
    null = np.sort(np.random.default_rng(4).integers(0, 60, 99))
    every = np.arange(0, 62)
    under = every[conformal(every, null) <= level + 1e-15]
    assert lowest_score(null, level) == (int(under[0]) if len(under) else None)


def test_bound_of_k_siblings_is_exact_in_fractions() -> None:
    assert flaggable_bound(20, 0.05) == 1
    assert flaggable_bound(4, 0.05) == 5
    assert flaggable_bound(3, 0.1) == 4
    assert flaggable_bound(20, 0.01) == 5
    for siblings in (1, 3, 4, 7, 20):
        for q in (0.01, 0.05, 0.1, 0.2):
            exact = min_flaggable(1000, 1 / (1000 * siblings + 1), q)
            assert exact in (flaggable_bound(siblings, q), flaggable_bound(siblings, q) - 1)


@pytest.mark.parametrize(("siblings", "q"), [(4, 0.05), (20, 0.05), (20, 0.01), (7, 0.02), (1, 0.1)])
def test_fewer_leaks_than_the_bound_are_never_flagged_and_the_bound_is(siblings: int, q: float) -> None:
    items = 200
    rng = np.random.default_rng(5)
    least = min_flaggable(items, 1 / (items * siblings + 1), q)
    for leaks, expected in ((least - 1, 0), (least, least)):
        best = rng.integers(0, 9000, items)
        best[:leaks] = 50_000  # nothing scores higher: the best case of any scan
        null = rng.integers(9001, 9500, items * siblings)
        told = discover(
            calibrate(Scores(best, null, np.repeat(np.arange(items), siblings))), np.zeros(items, dtype=bool), q
        )
        assert told.by_p == expected
