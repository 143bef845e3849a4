"""Midpoint-displacement: the closed form against descent and dense algebra, and lambda without labels."""

from __future__ import annotations

import numpy as np
import pytest

from checks.truth_probe.displacement import (
    PATH,
    PathRow,
    as_sum,
    choose_lambda,
    components,
    crossing,
    displacement,
    gap,
    halves,
    lambda0,
    lambda_path,
    loss,
    moments,
    residual,
    second_stability,
    share,
    solve_md,
    stability,
)
from checks.truth_probe.pairs import PairActivations
from tests.checks.truth_probe.planting import pairs_of
from tests.checks.truth_probe.section_ten import plant

rng = np.random.default_rng


def dense(pairs: PairActivations, lam: float) -> np.ndarray:
    u, v = pairs.pos - pairs.neg, pairs.pos + pairs.neg
    return np.asarray(lam * v.T @ v / len(v) - (1 - lam) * u.T @ u / len(u))


def lowest(pairs: PairActivations, lam: float) -> np.ndarray:
    return np.asarray(np.linalg.eigh(dense(pairs, lam))[1][:, 0])


def test_lambda_zero_is_the_top_axis_of_displacement() -> None:
    pairs = plant(2.0, seed=0, n=200, d=24).train
    top = np.linalg.svd(displacement(pairs))[2][0]
    assert abs(top @ solve_md(pairs, 0.0).vector) == pytest.approx(1.0, abs=1e-9)


def test_lambda_one_half_is_the_cross_moment() -> None:
    # VINC without its template term: the top eigenvector of -(X+'X- + X-'X+).
    pairs = plant(2.0, seed=1, n=200, d=24).train
    cross = pairs.pos.T @ pairs.neg
    top = np.linalg.eigh(-(cross + cross.T))[1][:, -1]
    assert abs(top @ solve_md(pairs, 0.5).vector) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("theirs", "ours"), [(0.9, 0.692), (0.99, 0.961), (0.999, 0.996)])
def test_the_authors_lambda_is_converted(theirs: float, ours: float) -> None:
    assert as_sum(theirs) == pytest.approx(ours, abs=5e-4)
    pairs = plant(2.0, seed=2, n=200, d=24).train
    # Their loss by hand: half the midpoint, lambda as they write it.
    u, v = pairs.pos - pairs.neg, (pairs.pos + pairs.neg) / 2
    whole = np.linalg.eigh(theirs * v.T @ v - (1 - theirs) * u.T @ u)[1][:, 0]
    assert abs(whole @ solve_md(pairs, theirs, convention="mean").vector) == pytest.approx(1.0, abs=1e-9)


def descend(pairs: PairActivations, lam: float, starts: int) -> np.ndarray:
    """Return the losses that projected gradient descent reaches from random starts, from u and v alone."""
    u, v = pairs.pos - pairs.neg, pairs.pos + pairs.neg
    step = 0.5 / (lam * np.mean(np.sum(v**2, axis=1)) + (1 - lam) * np.mean(np.sum(u**2, axis=1)))
    theta = rng(7).standard_normal((starts, u.shape[1]))
    for _ in range(1500):
        theta /= np.linalg.norm(theta, axis=1, keepdims=True)
        slope = 2 * ((lam - 1) * (theta @ u.T) @ u + lam * (theta @ v.T) @ v) / len(u)
        theta = theta - step * slope
    return np.array([loss(pairs, one / np.linalg.norm(one), lam) for one in theta])


@pytest.mark.parametrize("lam", PATH)
def test_no_descent_finds_a_lower_loss(lam: float) -> None:
    # No content: with it the step that is safe for the midpoint is too short for the rest.
    pairs = plant(1.5, seed=3, n=150, d=8, content=3).train
    best = loss(pairs, solve_md(pairs, lam).vector, lam)
    reached = descend(pairs, lam, 6)
    assert (best <= reached + 1e-9).all()
    # Descent gets there too: the closed form is not merely some low number.
    assert reached.min() == pytest.approx(best, abs=0.03 * abs(best))


@pytest.mark.parametrize("lam", PATH[:-1])
def test_width_above_pairs_is_solved_in_the_range(lam: float) -> None:
    # d > 2n: the route over the Gram matrix must give the direction of the dense route.
    pairs = plant(3.0, seed=4, n=20, d=60).train
    assert len(moments(pairs).d) == 40
    assert abs(lowest(pairs, lam) @ solve_md(pairs, lam).vector) == pytest.approx(1.0, abs=1e-7)


def test_moments_in_the_range_keep_their_traces_and_lengths() -> None:
    pairs = plant(3.0, seed=4, n=20, d=60).train
    of = moments(pairs)
    u = displacement(pairs)
    assert float(np.trace(of.d)) == pytest.approx(float(np.sum(u**2)) / 20, rel=1e-9)
    theta = of.lift(np.linalg.eigh(of.d)[1][:, -1])
    assert np.linalg.norm(theta) == pytest.approx(1.0, abs=1e-6)


def test_very_wide_states_are_flagged_restricted_and_their_residual_told() -> None:
    draw = rng(5)
    pos, neg = draw.standard_normal((2, 800, 1600))
    axis = np.zeros(1600)
    axis[3] = 1.0
    push = 40.0 * np.sign(draw.standard_normal(800))[:, None] * axis
    pairs = pairs_of(pos + push, neg - push)
    direction = solve_md(pairs, 0.1)
    assert direction.flags == ("restricted",)
    assert np.linalg.norm(direction.vector) == pytest.approx(1.0)
    assert residual(pairs, direction.vector, 0.1) < 0.05
    assert residual(pairs, draw.standard_normal(1600) / 40, 0.1) > residual(pairs, direction.vector, 0.1)


def test_residual_against_dense_algebra() -> None:
    pairs = plant(2.0, seed=5, n=100, d=24).train
    a, theta = dense(pairs, 0.3), rng(0).standard_normal(24)
    theta /= np.linalg.norm(theta)
    expected = np.linalg.norm(a @ theta - (theta @ a @ theta) * theta) / np.linalg.norm(a, 2)
    assert residual(pairs, theta, 0.3) == pytest.approx(expected, rel=1e-4)
    assert residual(pairs, solve_md(pairs, 0.3).vector, 0.3) < 1e-9


@pytest.mark.parametrize("lam", [-0.1, 1.0, float("nan")])
def test_lambda_out_of_range_is_refused(lam: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        solve_md(plant(1.0, seed=6, n=50, d=24).train, lam)


def test_components_are_the_leading_axes_on_both_routes() -> None:
    u = displacement(plant(2.0, seed=7, n=200, d=24).train)
    for rows in (u, u[:10]):
        axes, right = components(rows, 3), np.linalg.svd(rows)[2][:3]
        assert np.abs(np.sum(axes.T * right, axis=1)) == pytest.approx(1.0, abs=1e-9)


def test_past_the_crossing_is_flagged_and_never_chosen() -> None:
    # n far above d: M is far from singular, and above lambda0 no direction has a negative loss.
    pairs = plant(2.0, seed=8, n=2000, d=24).train
    at = crossing(pairs, k=24, ridge=0.0).lam
    path = lambda_path(pairs, rng(0))
    assert [row.past_crossing for row in path] == [row.lam > at for row in path]
    assert path[-1].past_crossing
    assert solve_md(pairs, 0.99).flags == ("past_crossing",)
    assert solve_md(pairs, 0.1).flags == ()
    stable = (PathRow(0.0, 0.5, False), PathRow(0.5, 0.505, False), PathRow(0.9, 0.99, True))
    assert choose_lambda(stable) == 0.0
    assert choose_lambda((PathRow(0.0, 0.1, True),)) == 0.0


def test_ties_go_to_the_smaller_lambda() -> None:
    rows = tuple(PathRow(lam, stable, False) for lam, stable in ((0.0, 0.7), (0.1, 0.795), (0.5, 0.8)))
    assert choose_lambda(rows) == 0.1


def test_rows_of_the_path_against_dense_algebra() -> None:
    pairs = plant(2.0, seed=9, n=200, d=24).train
    path = lambda_path(pairs, rng(0))
    assert tuple(row.lam for row in path) == PATH
    first = lowest(pairs, 0.0)
    for before, row in zip((path[0], *path), path, strict=False):
        values = np.linalg.eigvalsh(dense(pairs, row.lam))
        here = lowest(pairs, row.lam)
        assert row.vector is not None
        assert abs(row.vector @ here) == pytest.approx(1.0, abs=1e-8)
        assert row.cos_first == pytest.approx(abs(float(first @ here)), abs=1e-7)
        assert row.cos_previous == pytest.approx(abs(float(lowest(pairs, before.lam) @ here)), abs=1e-7)
        expected = (values[1] - values[0]) / max(abs(values[0]), abs(values[1]))
        assert row.relative_gap == pytest.approx(expected, abs=1e-9)
    squares = np.linalg.svd(displacement(pairs))[1] ** 2
    assert path[0].relative_gap == pytest.approx(1 - squares[1] / squares[0], abs=1e-9)


def test_share_is_the_part_of_the_displacement() -> None:
    found = plant(4.0, seed=10, n=400, d=64)
    theta = solve_md(found.train, 0.1).vector
    u, v = displacement(found.test) @ theta, (found.test.pos + found.test.neg) @ theta
    assert share(found.test, theta) == pytest.approx(float(np.mean(u**2) / (np.mean(u**2) + np.mean(v**2))))
    # a^2 + 2 against 2 along the planted axis.
    assert share(found.test, theta) == pytest.approx(18 / 20, abs=0.03)
    assert share(found.test, np.zeros(64)) == 0.5


def test_lambda0_is_where_the_smallest_eigenvalue_crosses_zero() -> None:
    pairs = plant(4.0, seed=11, n=4000, d=24).train
    lam = lambda0(pairs)
    of = moments(pairs)
    ridge = 0.1 * np.trace(of.m) / 24 * np.eye(24)
    assert np.linalg.eigvalsh(lam * (of.m + ridge) - (1 - lam) * of.d)[0] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize(("a", "expected"), [(4.0, 0.900), (2.0, 0.749), (1.0, 0.606)])
def test_lambda0_of_the_measured_plants(a: float, expected: float) -> None:
    # Section 5.3: n 4000, d 64, content along 16 axes; full space, no ridge. In theory 1 - 2 / (a^2 + 4).
    found = [crossing(plant(a, seed=seed, n=4000, d=64).train, k=64, ridge=0.0) for seed in range(6)]
    assert np.mean([one.lam for one in found]) == pytest.approx(expected, abs=0.01)
    assert {one.flags for one in found} == {()}


def test_lambda0_without_ten_pairs_a_dimension_says_so() -> None:
    pairs = plant(2.0, seed=13, n=300, d=64).train
    assert crossing(pairs).dimensions == 32
    assert crossing(pairs).flags == ("not_identified",)
    assert crossing(pairs, k=30).flags == ()


def test_stability_is_high_for_a_plant_and_low_for_noise() -> None:
    high, low = (float(stability(plant(a, seed=14, n=400, d=64).train, 0.1, rng(0)).mean()) for a in (4.0, 0.0))
    assert high > 0.9
    assert low < 0.3


def test_halves_never_share_a_cluster() -> None:
    cluster = np.repeat(np.arange(11), 3)
    for left, right in halves(cluster, rng(0)):
        assert not set(cluster[left]) & set(cluster[right])
        assert (left ^ right).all()


@pytest.mark.parametrize(("n", "d"), [(200, 24), (15, 40)])
def test_gap_against_centred_singular_values(n: int, d: int) -> None:
    u = rng(15).standard_normal((n, d)) * np.linspace(3, 1, d) + 5.0
    squares = np.linalg.svd(u - u.mean(axis=0))[1] ** 2
    assert gap(u) == pytest.approx(1 - squares[1] / squares[0], abs=1e-9)


def test_a_second_axis_as_real_as_the_first_is_stable() -> None:
    # One planted axis: the second is noise. Two equal ones: the plane repeats, though its axes do not.
    one, two = (plant(5.0, b, seed=16, n=400, d=64).train for b in (0.0, 5.0))
    assert second_stability(one, rng(0)) < 0.25
    assert second_stability(two, rng(0)) > 0.85
    assert gap(displacement(two)) < 0.25 < gap(displacement(one))


def test_measured_stabilities_of_the_path() -> None:
    # Section 5.3, n 400, d 256. Its .11 and .10 at a = 1 and 0 were .04 here: noise, and bounded as such.
    for a, expected, area in ((4.0, 0.85, 1.0), (3.0, 0.75, 0.996), (2.0, 0.46, 0.937)):
        found = [plant(a, seed=seed) for seed in range(4)]
        told = [(choose_lambda(lambda_path(one.train, rng(0))), one) for one in found]
        stable = np.mean([stability(one.train, lam, rng(1)).mean() for lam, one in told])
        assert stable == pytest.approx(expected, abs=0.09)
        areas = np.mean([one.area(solve_md(one.train, lam).vector) for lam, one in told])
        assert areas == pytest.approx(area, abs=0.02)
    for a in (1.0, 0.0):
        one = plant(a, seed=0)
        assert stability(one.train, choose_lambda(lambda_path(one.train, rng(0))), rng(1)).mean() < 0.20


def test_lambda0_is_worse_in_full_space_than_in_components() -> None:
    # Section 5.3, a = 4 / 3 / 2: 1.00 / .99 / .89 in 32 components, .94 / .75 / .58 in full space without a ridge.
    for a, narrow, wide in ((4.0, 1.0, 0.94), (3.0, 0.99, 0.75), (2.0, 0.89, 0.58)):
        inside, outside = [], []
        for seed in range(4):
            found = plant(a, seed=seed)
            basis = components(displacement(found.train), 32)
            small = pairs_of(found.train.pos @ basis, found.train.neg @ basis)
            inside.append(found.area(basis @ solve_md(small, lambda0(found.train)).vector))
            outside.append(found.area(solve_md(found.train, crossing(found.train, k=256, ridge=0.0).lam).vector))
        assert np.mean(inside) == pytest.approx(narrow, abs=0.03)
        assert np.mean(outside) == pytest.approx(wide, abs=0.06)
