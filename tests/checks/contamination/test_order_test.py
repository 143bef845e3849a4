"""The order test's p is exact; an order with structure of its own proves nothing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from checks.contamination.order_test import FLOOR, order_test, rank_sum_p, ranks_of, shuffles, smallest_p
from checks.contamination.order_test_guards import order_structured


@pytest.mark.parametrize(
    ("ranks", "top"), [([], 3), ([4], 3), ([-1], 3), ([1, 1], [3])], ids=["none", "above", "below", "unequal"]
)
def test_ranks_that_are_none_are_refused(ranks: list[int], top: int | list[int]) -> None:
    with pytest.raises(ValueError, match="rank"):
        rank_sum_p(ranks, top)


def test_order_p_is_exact() -> None:
    sums = [sum(one) for one in product(range(4), repeat=3)]
    for reached in range(10):
        ranks = [min(3, max(0, reached - 3 * place)) for place in range(3)]
        assert rank_sum_p(ranks, 3) == pytest.approx(sum(one <= reached for one in sums) / 64, rel=1e-13)
    mixed = [sum(one) for one in product(range(2), range(6), range(24))]
    for ranks3 in ((0, 0, 0), (1, 2, 7), (0, 5, 12), (1, 5, 23)):
        expected = sum(one <= sum(ranks3) for one in mixed) / len(mixed)
        assert rank_sum_p(ranks3, [1, 5, 23]) == pytest.approx(expected, rel=1e-12)


def test_order_p_is_that_of_monte_carlo() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 32, (200_000, 16)).sum(axis=1)
    for reached in (160, 200, 248, 290):
        ranks = np.full(16, reached // 16)
        ranks[: reached - int(ranks.sum())] += 1
        share = float(np.mean(drawn <= reached))
        assert rank_sum_p(ranks, 31) == pytest.approx(share, abs=4.5 * np.sqrt(share * (1 - share) / len(drawn)) + 1e-6)


def test_tail_keeps_its_digits_and_ends_at_the_floor() -> None:
    # C(s + r, r) points of the simplex below any cap: p is known in integers where the sum is at most top.
    assert rank_sum_p([7, 0, 0, 0, 0], 31) == pytest.approx(792 / 32**5, rel=1e-12)  # C(12, 5)
    assert rank_sum_p([0] * 7, 31) == pytest.approx(32.0**-7, rel=1e-12)
    assert rank_sum_p([0] * 16, 31) == FLOOR
    assert rank_sum_p([31] * 16, 31) == 1.0
    assert rank_sum_p([16] * 20_000, 31) > 1 - 1e-12


def test_many_items_of_many_kinds_stay_exact_to_their_symmetry() -> None:
    rng = np.random.default_rng(2)
    tops = rng.choice([1, 5, 23], 5000)
    ranks = rng.integers(0, tops + 1)
    ranks[:300] = 0
    below = rank_sum_p(ranks, tops.tolist())
    mirrored = tops - ranks
    mirrored[np.flatnonzero(mirrored > 0)[0]] -= 1  # P(S <= s) = 1 - P(S <= N - s - 1)
    assert below + rank_sum_p(mirrored, tops.tolist()) == pytest.approx(1.0, abs=1e-12)
    sd = np.sqrt(np.sum(tops * (tops + 2) / 12))
    assert below == pytest.approx(float(norm.cdf((ranks.sum() - tops.sum() / 2 + 0.5) / sd)), rel=0.02)


def test_p_of_random_orders_is_at_most_its_level() -> None:
    """An order among orders: p <= .05 in at most .05 + 3 standard errors of 2000 runs, ties and all."""
    rng = np.random.default_rng(3)
    below = 0
    for _ in range(2000):
        drawn = np.round(rng.normal(size=(8, 16)), 1)
        told = order_test(drawn[:, 0], drawn[:, 1:])
        assert told is not None
        below += told.p <= 0.05
    assert below / 2000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert below > 0


def test_seen_order_is_found_and_its_effect_is_the_planted_one() -> None:
    rng = np.random.default_rng(4)
    shuffled = rng.normal(-300, 2.0, (40, 31))
    told = order_test(rng.normal(-300, 2.0, 40) + 3.0, shuffled)
    assert told is not None
    assert told.p < 1e-6
    assert told.effect.low < 1.5 < told.effect.high
    assert (told.effect.n, told.effect.method, told.effect.null) == (40, "t", 0.0)


def test_too_few_stretches_are_not_asked_and_infinite_numbers_refused() -> None:
    assert order_test(np.zeros(3), np.zeros((3, 31))) is None
    with pytest.raises(ValueError, match="finite"):
        order_test(np.array([0.0, -np.inf, 0, 0]), np.zeros((4, 31)))


def test_ties_count_against_the_published_order() -> None:
    assert ranks_of(np.zeros(2), np.zeros((2, 5))).tolist() == [5, 5]
    told = order_test(np.zeros(4), np.zeros((4, 5)))
    assert told is not None
    assert told.p == 1.0
    assert told.effect.n == 0


def test_shuffles_are_orders() -> None:
    drawn = shuffles(6, 40, np.random.default_rng(5))
    assert (np.sort(drawn, axis=1) == np.arange(6)).all()
    assert len({tuple(one) for one in drawn.tolist()}) > 30


def _texts(count: int, rng: np.random.Generator) -> list[str]:
    words = ["stone", "river", "lamp", "Ant", "blue", "cart", "dish", "egg", "fox", "glass", "hen", "ink"]
    return [" ".join(rng.choice(words, int(rng.integers(5, 30)))) for _ in range(count)]


@pytest.mark.parametrize("flaw", ["lengths", "answers", "alternating", "letters", "subjects", "numbers"])
def test_structured_order_is_invalid(flaw: str) -> None:
    rng = np.random.default_rng(6)
    texts = _texts(120, rng)
    answers: list[str | None] = [str(one) for one in rng.choice(list("ABCD"), 120)]
    match flaw:
        case "lengths":
            texts.sort(key=len)
        case "answers":
            answers.sort(key=str)
        case "alternating":
            answers = ["yes", "no"] * 60
        case "letters":
            texts.sort()
        case "subjects":
            texts = [f"{text} {'algebra ring' if row // 20 % 2 else 'bird nest'}" for row, text in enumerate(texts)]
        case _:
            answers = [str(number) for number in sorted(rng.integers(0, 5000, 120).tolist())]
    told = order_structured(texts, answers, rng)
    assert told.structured
    assert min(guard.p for guard in told.guards) == 0.001


def test_random_orders_are_structured_as_rarely_as_chance_has_it() -> None:
    """Seven statistics, each at .001, 15 orders: .1 alarms expected, three or more in 2 of 10 000."""
    alarms = 0
    for seed in range(15):
        rng = np.random.default_rng(seed)
        texts = _texts(60, rng)
        answers: list[str | None] = [str(one) for one in rng.choice(list("ABCD"), 60)]
        alarms += order_structured(texts, answers, rng).structured
    assert alarms <= 2


def test_items_without_answers_and_equal_lengths_have_their_other_statistics() -> None:
    told = order_structured(["a b", "a c", "b c", "c a"], [None] * 4, np.random.default_rng(7))
    assert {guard.name for guard in told.guards} == {
        "first_letter.trend",
        "first_letter.neighbours",
        "words.neighbours",
    }
    with pytest.raises(ValueError, match="2 questions"):
        order_structured(["a", "b"], [None, None], np.random.default_rng(8))


def test_no_p_lies_below_the_smallest() -> None:
    assert smallest_p(7, 4) == pytest.approx(8**-4)
    assert smallest_p([2, 1]) == pytest.approx(1 / 6)
    assert smallest_p(31, 16) == FLOOR
    found = order_test(np.ones(4), np.zeros((4, 7)))
    assert found is not None
    assert found.p == found.p_min == pytest.approx(8**-4)
    other = order_test(np.zeros(4), np.ones((4, 7)))
    assert other is not None
    assert (other.p, other.p_min) == (1, found.p_min)
