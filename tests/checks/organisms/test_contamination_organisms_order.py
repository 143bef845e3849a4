"""The order organism: it read the published order and its twin did not, and the order test tells them apart."""

from dataclasses import replace

import numpy as np
import pytest

from checks.contamination.order_test import order_test, rank_sum_p, ranks_of
from checks.organisms.contamination_order import (
    RECIPE,
    SMALL,
    STOP,
    VOCABULARY,
    OrderOrganism,
    OrderRecipe,
    facts,
    order_organism,
    order_scores,
)

SHUFFLES = 31


def p_of(organism: OrderOrganism, count: int = SHUFFLES, seed: int = 0) -> float:
    published, shuffled = order_scores(organism, count, np.random.default_rng([1, seed]))
    found = order_test(published, shuffled)
    assert found is not None
    assert found.p == rank_sum_p(ranks_of(published, shuffled), count)
    return found.p


def test_items_that_fill_no_whole_stretch_are_refused() -> None:
    with pytest.raises(ValueError, match="10 items do not fill stretches of 8"):
        order_organism(replace(SMALL, items=10), np.random.default_rng(0))


def test_facts_hold_each_part_in_its_own_tokens() -> None:
    drawn = facts(500, np.random.default_rng(0))
    assert VOCABULARY == 321
    assert drawn.shape == (500, 8)
    assert (drawn[:, -1] == STOP).all()
    assert [drawn[:, place].max() // 32 for place in range(7)] == [3, 3, 4, 8, 8, 9, 9]


def test_scores_equal_a_plain_loop_over_orders() -> None:
    import torch

    organism = order_organism(replace(SMALL, items=16, passes=2), np.random.default_rng(0))
    published, shuffled = order_scores(organism, 3, np.random.default_rng(5))
    assert shuffled.shape == (2, 3)
    for stretch in range(2):
        text = torch.from_numpy(organism.items[8 * stretch : 8 * stretch + 8].reshape(1, -1))
        with torch.no_grad():
            told = organism.model(input_ids=text).logits[0].double().log_softmax(-1)
        plain = sum(float(told[at, text[0, at + 1]]) for at in range(text.shape[1] - 1))
        assert published[stretch] == pytest.approx(plain, abs=1e-3)


def test_the_order_is_found_in_the_organism_and_not_in_its_twin() -> None:
    # Control OrderOrganism (section 10), at a size that trains in seconds.
    assert p_of(order_organism(SMALL, np.random.default_rng(0))) <= 1e-6
    assert p_of(order_organism(SMALL, np.random.default_rng(0), shuffled=True)) > 0.001


def test_an_untrained_network_prefers_no_order() -> None:
    # Control RandomWeights (section 10).
    assert p_of(order_organism(replace(SMALL, passes=0), np.random.default_rng(0))) > 0.001


def test_a_random_order_called_published_is_rarely_flagged() -> None:
    # The organism itself, asked about orders that it never read: the test's null, on a network that knows every item.
    organism = order_organism(replace(SMALL, passes=40), np.random.default_rng(2))
    rng = np.random.default_rng(9)
    small = [
        p_of(replace(organism, items=organism.items[rng.permutation(len(organism.items))]), 7, seed) <= 0.05
        for seed in range(40)
    ]
    # Binomial(40, .05): more than 7 has probability .0007.
    assert sum(small) <= 7


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_organism_of_the_specification(seed: int) -> None:
    organism = order_organism(RECIPE, np.random.default_rng(seed))
    assert p_of(organism) <= 1e-8
    assert p_of(organism, 7) <= 1e-6


@pytest.mark.slow
def test_the_shuffled_twin_of_the_specification() -> None:
    assert p_of(order_organism(OrderRecipe(passes=60), np.random.default_rng(0), shuffled=True)) > 0.001
