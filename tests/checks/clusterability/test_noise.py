"""Laws of noise: they are what they say, and none of them is called clustered."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kurtosis, ttest_1samp

from checks.clusterability.noise import DENSE, MASKS, SHAPE, laplace_lognormal, lognormal
from checks.clusterability.nulls import COMMITTED_N, NullTable, auto_ks, null_table, sweep
from checks.clusterability.structure import structure_test
from checks.clusterability.views import balanced_squares, normal_scores

FLOOR = 0.02
"""The default floor of the excess."""

EVERY = {**DENSE, **MASKS}


@pytest.fixture(scope="module")
def table() -> NullTable:
    return null_table(SHAPE, auto_ks(SHAPE), COMMITTED_N)


@pytest.mark.parametrize("name", EVERY)
def test_a_law_is_repeatable_and_of_the_shape(name: str) -> None:
    first, again, other = (EVERY[name](np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == SHAPE
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("name", "zeros", "within"),
    [
        ("iid", 0.0, 0.0),
        ("zeros-1", 0.01, 1e-4),
        ("zeros-10", 0.1, 1e-4),
        ("zeros-20", 0.2, 1e-4),
        ("uneven-zeros-20", 0.19, 0.01),
        ("rounded", 0.16, 0.01),
        ("mask-30", 0.7, 1e-4),
        ("mask-10", 0.9, 1e-4),
        ("mask-05", 0.95, 1e-4),
        ("mask-10-uneven", 0.9, 0.01),
    ],
)
def test_a_law_has_the_zeros_of_its_route(name: str, zeros: float, within: float) -> None:
    shares = [float(np.mean(EVERY[name](np.random.default_rng(seed)) == 0)) for seed in range(12)]
    assert shares == pytest.approx([zeros] * 12, abs=within)
    # More than a fifth goes to the mask route: no draw may change sides.
    assert all((share > 0.2) == (name in MASKS) for share in shares)


def test_tails_and_scales_are_what_the_names_say() -> None:
    rng = np.random.default_rng(3)
    drawn = {name: law(rng) for name, law in DENSE.items()}
    assert kurtosis(drawn["iid"].ravel()) == pytest.approx(0.0, abs=0.2)
    assert kurtosis(drawn["laplace"].ravel()) == pytest.approx(3.0, abs=0.6)
    assert kurtosis(drawn["uniform"].ravel()) == pytest.approx(-1.2, abs=0.05)
    assert len(np.unique(drawn["rounded"])) <= 15
    for name, sd in (("iid", 0.0), ("lognormal", 1.0), ("laplace-x-lognormal", 1.0), ("t4-x-lognormal", 1.0)):
        logs = np.log(np.abs(drawn[name]))
        assert np.std(logs.mean(axis=1)) == pytest.approx(sd, abs=0.2), name
        assert np.std(logs.mean(axis=0)) == pytest.approx(sd, abs=0.2), name


def test_uneven_zeros_are_uneven() -> None:
    for name in ("uneven-zeros-20", "mask-10-uneven"):
        held = EVERY[name](np.random.default_rng(4)) != 0
        even = np.random.default_rng(4).random(SHAPE) < held.mean()
        assert np.std(held.sum(axis=1)) > 2.5 * np.std(even.sum(axis=1)), name
        assert np.std(held.sum(axis=0)) > 2.5 * np.std(even.sum(axis=0)), name


def test_tails_alone_do_not_cluster(table: NullTable) -> None:
    # Normal scores give every continuous law the null's own scores. The same null against balanced squares, the flaw,
    # calls each of these matrices clustered.
    for name in ("laplace", "t3", "contaminated"):
        excess, squares = [], []
        for seed in range(6):
            weights = DENSE[name](np.random.default_rng([5, seed]))
            excess.append(structure_test(weights, table, seed).excess_q)
            q = sweep(balanced_squares(weights).mass, table.ks, seed)
            squares.append((1 + table.exceedances(table.statistic(q))) / (1 + table.n))
        assert max(excess) < FLOOR, name
        assert max(squares) <= 0.01, name


def test_degrees_alone_do_not_cluster(table: NullTable) -> None:
    # Row and column scales alone: the same Q as without them, and no draw of the control's law near the floor.
    plain = np.random.default_rng(6).standard_normal(SHAPE)
    scaled = lognormal(np.random.default_rng(6))
    first, second = (structure_test(weights, table, 0) for weights in (plain, scaled))
    assert first.q == pytest.approx(second.q, abs=1e-6)
    assert first.p == second.p
    found = [structure_test(laplace_lognormal(np.random.default_rng([7, seed])), table, seed) for seed in range(12)]
    assert max(one.excess_q for one in found) < FLOOR
    assert sum(one.p <= 0.05 for one in found) <= 5


def test_null_of_an_already_normalised_matrix() -> None:
    # Shuffling the entries of a matrix that was balanced gives matrices that are not. Their Q is another one's, and
    # a sum of squared singular values tells every noise matrix from its own shuffles. Ours balances each replicate.
    shape, k = (48, 80), 3
    null = null_table(shape, (k,), 80)
    own, shuffled, energy = [], [], []
    for seed in range(80):
        rng = np.random.default_rng([8, seed])
        mass = normal_scores(rng.standard_normal(shape)).mass
        moved = mass.ravel()[rng.permutation(mass.size)].reshape(shape)
        own.append(sweep(mass, (k,), seed)[0])
        shuffled.append(own[-1] - sweep(moved, (k,), seed)[0])
        energy.append(_energy(mass) > _energy(moved))
    assert np.mean(energy) > 0.95
    assert ttest_1samp(shuffled, 0.0).pvalue < 0.01
    se = np.hypot(np.std(own), float(null.sd[0])) / np.sqrt(80)
    assert abs(np.mean(own) - null.mean[0]) < 3.3 * se


def _energy(mass: np.ndarray) -> float:
    b = mass / np.sqrt(np.outer(mass.sum(axis=1), mass.sum(axis=0)))
    return float(np.square(np.linalg.svd(b, compute_uv=False)).sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSE)
def test_no_law_is_called_clustered(name: str) -> None:
    # The whole rule, as the calibration runs it.
    from benchmarks.clusterability_calibration import draws_of

    row = draws_of(name, 99, 40)
    assert row.flagged == 0
    assert max(one.excess for one in row.draws) < FLOOR
