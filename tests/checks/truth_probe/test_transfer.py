"""Directions on other sets: diagonal and off-diagonal of planted sets, and what counts as inverted."""

from __future__ import annotations

import numpy as np
import pytest

from checks.truth_probe.scores import Estimate, auroc_interval
from checks.truth_probe.transfer import Target, Transfer, polarity_inverted, transfer_matrix

DIRECTIONS = {"plain": np.array([1.0, 0.0, 0.0]), "other": np.array([0.0, 1.0, 0.0])}


def target(shift: tuple[float, float, float], seed: int, n: int = 200) -> Target:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return Target(np.outer(2 * labels - 1, shift) + rng.standard_normal((n, 3)), labels, np.arange(n) // 2)


def cells_of(*, seed: int = 0) -> dict[tuple[str, str], Transfer]:
    sets = {"plain": target((2, 0, 0), 1), "other": target((0, 2, 0), 2), "negated": target((-2, 0, 0), 3)}
    return {
        (one.train, one.to): one for one in transfer_matrix(DIRECTIONS, sets, 0.95, 200, np.random.default_rng(seed))
    }


def value(one: Transfer) -> float:
    assert one.auroc.estimate is not None
    return one.auroc.estimate.value


def test_a_direction_reads_its_own_set_and_not_an_unrelated_one() -> None:
    got = cells_of()
    assert len(got) == 6
    assert value(got["plain", "plain"]) > 0.98
    assert value(got["other", "other"]) > 0.98
    assert value(got["plain", "other"]) == pytest.approx(0.5, abs=0.12)
    assert not got["plain", "other"].inverted


def test_a_direction_that_reads_matches_is_inverted_on_negated_rows() -> None:
    got = cells_of()
    assert value(got["plain", "negated"]) < 0.02  # signed: never folded up to .98
    assert got["plain", "negated"].inverted
    assert not got["other", "negated"].inverted


@pytest.mark.parametrize(("high", "inverted"), [(0.49, True), (0.5, False), (0.51, False)])
def test_inverted_wants_the_whole_interval_below_half(high: float, inverted: bool) -> None:
    assert polarity_inverted(Estimate(0.3, 0.1, high, 0.95)) is inverted


def test_every_entry_is_the_auroc_of_its_own_column() -> None:
    one = target((0.5, -0.5, 0), 4)
    got = transfer_matrix(DIRECTIONS, {"one": one}, 0.9, 100, np.random.default_rng(5))
    for entry in got:
        alone = auroc_interval(
            one.u @ DIRECTIONS[entry.train], one.labels, one.cluster, 0.9, 100, np.random.default_rng(5)
        )
        assert entry.auroc.estimate == alone
        assert (entry.auroc.n, entry.auroc.clusters) == (200, 100)


def test_a_set_of_one_class_has_a_reason() -> None:
    flat = Target(np.ones((10, 3)), np.ones(10, dtype=int), np.arange(10))
    got = transfer_matrix(DIRECTIONS, {"flat": flat}, 0.95, 50, np.random.default_rng(6))
    assert [(one.auroc.estimate, one.auroc.reason, one.inverted) for one in got] == [(None, "one_class", False)] * 2
