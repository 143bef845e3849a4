"""What must not matter does not: order, sign, scale, orientation, precision. Bounds hold for any masses and labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.clusterability.cocluster import Partition, cocluster
from checks.clusterability.controls import planted
from checks.clusterability.nulls import null_table
from checks.clusterability.scores import Scores, adjusted_rand, scores, scores_of
from checks.clusterability.structure import structure_test
from checks.clusterability.views import View, unit_in_norm

CLOSE = 1e-6
"""What the specification allows an invariance, section 9."""

SEEDS = st.integers(0, 2**31 - 1)
SHAPES = st.sampled_from([(24, 40), (40, 24), (32, 32), (48, 130)])
some = settings(max_examples=12, deadline=None, derandomize=True)
invariant: tuple[View, ...] = ("balanced", "normal_scores")


def joint(part: Partition) -> np.ndarray:
    return np.concatenate([part.rows, part.columns])


def numbers(got: Scores) -> list[float]:
    assert got.c_adj is not None
    return [got.c, got.c_exp, got.q_b, got.c_max, got.c_adj, got.ncut, *got.shares]


def of(weights: np.ndarray, part: Partition, view: View, k: int = 3) -> list[float]:
    return numbers(scores(weights, part.rows, part.columns, view, k))


@some
@given(seed=SEEDS, shape=SHAPES, rho=st.sampled_from([0.3, 1.0]))
def test_order_of_rows_and_columns_does_not_matter(seed: int, shape: tuple[int, int], rho: float) -> None:
    rng = np.random.default_rng(seed)
    weights, _ = planted(shape, 3, rho, rng)
    rows, columns = (rng.permutation(side) for side in shape)
    first, second = cocluster(weights, 3, seed), cocluster(weights[np.ix_(rows, columns)], 3, seed)
    assert adjusted_rand(joint(second), joint(Partition(first.rows[rows], first.columns[columns]))) == 1.0
    for view in invariant:
        moved = Partition(first.rows[rows], first.columns[columns])
        assert of(weights[np.ix_(rows, columns)], moved, view) == pytest.approx(of(weights, first, view), abs=CLOSE)


@some
@given(seed=SEEDS, shape=SHAPES)
def test_signs_do_not_matter(seed: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(shape)
    flipped = weights * rng.choice([-1.0, 1.0], shape)
    first, second = cocluster(weights, 3, seed), cocluster(flipped, 3, seed)
    assert np.array_equal(joint(first), joint(second))
    for view in ("raw", "balanced", "normal_scores", "unit_in_norm"):
        assert of(weights, first, view) == of(flipped, second, view)


@some
@given(seed=SEEDS, shape=SHAPES, spread=st.floats(0.1, 2.0))
def test_positive_scales_do_not_matter(seed: int, shape: tuple[int, int], spread: float) -> None:
    rng = np.random.default_rng(seed)
    weights, truth = planted(shape, 3, 0.2, rng)
    rescaled = weights * rng.lognormal(0, spread, shape[0])[:, None] * rng.lognormal(0, spread, shape[1])
    for view in invariant:
        a, b = (scores(w, truth.rows, truth.columns, view) for w in (weights, rescaled))
        assert (a.c, a.q_b, a.c_max, a.c_adj) == pytest.approx((b.c, b.q_b, b.c_max, b.c_adj), abs=CLOSE)
    assert adjusted_rand(joint(cocluster(weights, 3, 0)), joint(cocluster(rescaled, 3, 0))) == 1.0


@some
@given(seed=SEEDS, spread=st.floats(0.1, 2.0))
def test_rescaling_a_relu_layer_does_not_matter(seed: int, spread: float) -> None:
    # (in_i, out_i) -> (c in_i, out_i / c) leaves a ReLU network's outputs, so it must leave what is said of it.
    rng = np.random.default_rng(seed)
    reading, read = planted((40, 24), 3, 0.2, rng)
    writing, written = planted((30, 40), 3, 0.2, rng)
    factors = rng.lognormal(0, spread, 40)
    moved = reading * factors[:, None], writing / factors
    for before, after, truth in zip((reading, writing), moved, (read, written), strict=True):
        for view in invariant:
            assert of(after, truth, view) == pytest.approx(of(before, truth, view), abs=10 * CLOSE)
        assert adjusted_rand(joint(cocluster(before, 3, 0)), joint(cocluster(after, 3, 0))) == 1.0
    for before, after in zip(unit_in_norm((reading, writing)), unit_in_norm(moved), strict=True):
        assert after == pytest.approx(before)


@some
@given(seed=SEEDS, shape=SHAPES)
def test_orientation_does_not_matter(seed: int, shape: tuple[int, int]) -> None:
    weights = np.random.default_rng(seed).standard_normal(shape)
    first, turned = cocluster(weights, 3, seed), cocluster(weights.T, 3, seed)
    assert adjusted_rand(joint(first), joint(Partition(turned.columns, turned.rows))) == 1.0
    for view in invariant:
        got = scores(weights.T, turned.rows, turned.columns, view)
        assert numbers(got)[:5] == pytest.approx(of(weights, first, view)[:5], abs=CLOSE)


def bfloat16(weights: np.ndarray) -> np.ndarray:
    bits = weights.astype(np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


@some
@given(seed=SEEDS, rho=st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_half_the_precision_gives_the_same_c(seed: int, rho: float) -> None:
    weights, _ = planted((96, 256), 4, rho, np.random.default_rng(seed))
    coarse = bfloat16(weights)
    assert 1e-4 < np.abs(coarse / np.where(weights == 0, 1, weights) - (weights != 0)).max() <= 2**-8
    a, b = cocluster(weights, 4, 0), cocluster(coarse, 4, 0)
    for view in ("raw", "balanced", "normal_scores"):
        told = [scores(w, part.rows, part.columns, view).c for w, part in ((weights, a), (coarse, b))]
        assert told[0] == pytest.approx(told[1], abs=0.01)


@some
@given(seed=SEEDS, dead=st.integers(1, 5))
def test_dead_nodes_change_nothing_for_the_others(seed: int, dead: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((24, 40))
    rows, columns = (np.sort(rng.choice(side, dead, replace=False)) for side in (24, 40))
    wide = np.insert(np.insert(weights, rows, 0.0, axis=0), columns, 0.0, axis=1)
    first, second = cocluster(weights, 3, seed), cocluster(wide, 3, seed)
    assert np.array_equal(second.rows[second.rows >= 0], first.rows)
    assert np.array_equal(second.columns[second.columns >= 0], first.columns)
    assert (second.rows < 0).sum() == (second.columns < 0).sum() == dead
    assert of(wide, second, "balanced") == of(weights, first, "balanced")


@some
@given(value=st.floats(1e-3, 1e3), shape=SHAPES, k=st.integers(1, 4))
def test_a_constant_matrix_has_no_modularity(value: float, shape: tuple[int, int], k: int) -> None:
    weights = np.full(shape, -value)
    part = cocluster(weights, k, 0)
    for view in ("raw", "balanced", "normal_scores", "unit_in_norm"):
        got = scores(weights, part.rows, part.columns, view, k)
        assert got.q_b == pytest.approx(0.0, abs=1e-9)


@some
@given(seed=SEEDS, shape=SHAPES, k=st.integers(1, 6))
def test_one_seed_gives_the_same_bytes(seed: int, shape: tuple[int, int], k: int) -> None:
    weights = np.random.default_rng(seed).standard_normal(shape)
    first, second = (joint(cocluster(weights.copy(), k, seed)).tobytes() for _ in range(2))
    assert first == second


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(1, 12), m=st.integers(1, 12), k=st.integers(1, 5), zeros=st.floats(0, 0.9))
def test_scores_lie_in_their_bounds(seed: int, n: int, m: int, k: int, zeros: float) -> None:
    rng = np.random.default_rng(seed)
    mass = rng.random((n, m)) * (rng.random((n, m)) >= zeros)
    mass[0, 0] += 0.1
    mass /= mass.sum()
    got = scores_of(mass, rng.integers(0, k, n), rng.integers(0, k, m), k)
    slack = 1e-12
    assert -slack <= got.c <= got.c_max + slack <= 1 + 2 * slack
    assert -slack <= got.c_exp <= got.c_max + slack
    assert -1 <= got.q_b <= 1
    assert -slack <= got.ncut <= k
    assert sum(got.shares) == pytest.approx(1.0)
    assert got.size_entropy is None or 0 <= got.size_entropy <= 1 + slack
    assert got.c_adj is None or got.c_adj <= 1 + 1e-6
    assert (got.c_adj is None) == (got.c_max - got.c_exp <= 1e-12)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_the_whole_test_does_not_depend_on_order_or_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, _ = planted((64, 256), 3, 0.4, rng)
    moved = weights[rng.permutation(64)][:, rng.permutation(256)] * rng.lognormal(size=64)[:, None]
    null = null_table((64, 256), (2, 3, 4), 199)
    first, second = structure_test(weights, null, seed), structure_test(moved.T, null, seed)
    assert (first.k, first.p) == (second.k, second.p)
    assert first.q == pytest.approx(second.q, abs=CLOSE)
