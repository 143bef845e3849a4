"""Ranks of published option orders are uniform where nobody saw them, sorted options or not."""

from __future__ import annotations

import numpy as np
import pytest

from checks.contamination.options_test import left_out, options_test, orders, placebos_differ


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (["3", "12", "40", "7,000"], "sorted"),
        (["40", "12", "3", "1"], "sorted"),
        (["$5", "$1", "$9", "$3"], None),
        (["ant", "bee", "cow", "dog"], "sorted"),
        (["zoo", "on", "map", "it"], "sorted"),
        (["a b", "ccc c", "bb", "d d d d"], None),
        (["tree", "an oak", "Pine trees", "The very old elm"], "sorted"),
        (["tree", "oak", "pine", "All of the above."], "placed"),
        (["salt and bread", "tea", "data and bias", "ink"], None),
        (["yes", "no"], "few"),
        (["yes", "Yes ", "no"], "equal"),
    ],
)
def test_items_whose_order_means_something_are_left_out(choices: list[str], reason: str | None) -> None:
    assert left_out(choices) == reason


def test_orders_of_an_item_that_is_left_out_are_refused() -> None:
    with pytest.raises(ValueError, match="left out"):
        orders(["1", "2", "3"], 24, np.random.default_rng(1))
    with pytest.raises(ValueError, match="finite"):
        options_test([np.array([0.0, np.nan])] * 3)
    with pytest.raises(ValueError, match="one order"):
        options_test([np.array([0.0])] * 3)


def test_orders_start_with_the_published_one_and_hold_no_sorted_one() -> None:
    rng = np.random.default_rng(2)
    four = orders(["tea", "an ink", "oak", "a large map"], 24, rng)
    assert four[0] == (0, 1, 2, 3)
    assert len(set(four)) == len(four)
    assert all(left_out([["tea", "an ink", "oak", "a large map"][place] for place in one]) is None for one in four)
    assert 24 - len(four) in range(2, 7)
    six = orders([f"w{place * 7 % 11} {'x' * (place * 5 % 7)}" for place in range(6)], 24, rng)
    assert (len(six), len(set(six)), six[0]) == (24, 24, (0, 1, 2, 3, 4, 5))


def test_ranks_are_uniform_given_that_sorted_items_are_left_out() -> None:
    """A model that likes sorted options: among all orders, kept items would rank too low, and p would be biased."""
    rng = np.random.default_rng(3)
    words = ["tea", "ink", "oak", "map"]
    ranks: list[float] = []
    plain: list[float] = []
    while len(ranks) < 500:
        published = [words[place] for place in rng.permutation(4)]
        if left_out(published) is not None:
            continue
        kept = orders(published, 24, rng)
        sorted_orders = 24 - len(kept)
        logp = rng.normal(size=len(kept))
        above = float((logp[1:] >= logp[0]).sum())
        ranks.append(above / (len(kept) - 1))
        plain.append((above + sorted_orders) / 23)  # the model puts every sorted order before all others
    error = np.std(ranks) / np.sqrt(len(ranks))
    assert abs(np.mean(ranks) - 0.5) < 3.5 * error
    assert np.mean(plain) - np.mean(ranks) > 0.02


def test_random_orders_reach_their_level_and_no_more() -> None:
    rng = np.random.default_rng(10)
    low = 0
    for _ in range(400):
        told = options_test([rng.normal(size=int(rng.choice([5, 17, 23]))) for _ in range(12)])
        assert told is not None
        low += told.p <= 0.05
    assert 4 < low <= 400 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 400))


def test_seen_options_are_found_and_placebos_that_are_found_invalidate() -> None:
    rng = np.random.default_rng(4)
    seen = [np.concatenate([[rng.normal(1.5)], rng.normal(size=int(rng.choice([5, 17, 23])))]) for _ in range(60)]
    told = options_test(seen, ["sorted", "few", "sorted"])
    assert told is not None
    assert told.p < 1e-6
    assert told.mean_rank.high < 0.5
    assert told.left_out == (("few", 1), ("sorted", 2))
    assert placebos_differ(told)
    assert not placebos_differ(options_test([rng.normal(size=24) for _ in range(60)]))
    assert not placebos_differ(None)
    assert options_test(seen[:1]) is None


def test_two_items_cannot_be_detected() -> None:
    found = options_test([np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0])])
    assert found is not None
    assert found.p == found.p_min == pytest.approx(1 / 6)
