from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from checks.contamination.items import Item
from checks.contamination.operator_swaps import hard_negatives, measured, operator_swap_pass

TABLE = Path(__file__).parents[3] / "benchmarks/contamination_families.json"
ITEM = Item("b", "1", "prose", "Eva has 150 stamps and buys 50 stamps a month. How many has she after 14 months?")
SWAP = "Eva has 150 stamps and sells 50 stamps a month. How many has she after 14 months?"


class Flat:
    """Texts at one cosine to each other."""

    def __init__(self, cosine: float) -> None:
        self.cosine = cosine

    def embed(self, texts: list[str]) -> np.ndarray:
        rows = [(1.0, 0.0), (self.cosine, float(np.sqrt(1 - self.cosine**2)))]
        return np.array([rows[at % 2] for at in range(len(texts))])


def test_nothing_is_counted_of_nothing() -> None:
    assert operator_swap_pass([]) == (0, 0)
    assert operator_swap_pass([], Flat(0.9)) == (0, 0)


def test_a_swap_passes_only_at_the_floor() -> None:
    pairs = [(ITEM, SWAP), (ITEM, SWAP.replace("150", "170"))]
    assert operator_swap_pass(pairs) == (1, 2)
    assert operator_swap_pass(pairs, Flat(0.51)) == (1, 2)
    assert operator_swap_pass(pairs, Flat(0.49)) == (0, 2)


@pytest.mark.parametrize("half", ["test"])
def test_the_share_is_that_of_the_committed_table(half: str) -> None:
    kept = json.loads(TABLE.read_text())[half]["words"]["classes"]["operator"]
    passed, n = measured()
    assert n == kept["n"]
    assert passed / n == pytest.approx(kept["same"][0], abs=0.001)


def test_hard_negatives_do_not_pass() -> None:
    passed, n = hard_negatives()
    assert n == 384
    assert passed <= 0.05 * n
