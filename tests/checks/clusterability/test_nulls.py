"""The null and the p-value: what peers got wrong, and whether the committed table is what the code gives."""

from __future__ import annotations

import numpy as np
import pytest

from checks.clusterability.controls import planted
from checks.clusterability.nulls import (
    COMMITTED_N,
    COMMITTED_SHAPES,
    NullTable,
    auto_ks,
    null_table,
    replicate,
)
from checks.clusterability.structure import confirmation_null, stability, structure_test
from checks.holm import holm


@pytest.mark.parametrize("shape", COMMITTED_SHAPES)
def test_committed_replicates_are_what_the_code_gives(shape: tuple[int, int]) -> None:
    table = null_table(shape, auto_ks(shape), COMMITTED_N)
    assert table.committed
    assert table.n == COMMITTED_N
    for index in range(5):
        assert replicate(shape, auto_ks(shape), index) == pytest.approx(table.q[index], abs=1e-5)


def test_the_null_has_the_tabled_moments() -> None:
    # Specification 4.5, 96x256: .0712 .0867 .0914 .0927 .0915 at k = 2, 3, 4, 6, 8.
    table = null_table((96, 256), (2, 3, 4, 6, 8), COMMITTED_N)
    assert table.mean == pytest.approx([0.0712, 0.0867, 0.0914, 0.0927, 0.0915], abs=0.003)
    assert all(0.0015 < sd < 0.0045 for sd in table.sd)


def test_p_is_never_zero() -> None:
    weights, _ = planted((96, 256), 4, 0.2, np.random.default_rng(0))
    found = structure_test(weights, null_table((96, 256), (2, 3, 4), 199), seed=0)
    assert found.exceedances == 0
    assert found.p == 1 / 200


def test_the_largest_replicate_counts_itself() -> None:
    table = NullTable((4, 4), (2, 3), np.random.default_rng(1).normal(size=(99, 2)), committed=False)
    assert table.exceedances(float(table.statistics[-1])) == 1
    assert table.exceedances(float(table.statistics[0])) == 99


def test_k_selection_is_in_the_p_value() -> None:
    """Peers test the best k as if it had been fixed, which rejects too often.

    The null's own replicates must reject at the level that they promise.
    """
    table = null_table((96, 256), (2, 3, 4, 6, 8), COMMITTED_N)
    z = (table.q - table.mean) / table.sd
    fixed = np.sort(z, axis=0)
    naive = [min((1 + np.sum(fixed[:, k] >= row[k])) / (1 + table.n) for k in range(len(table.ks))) for row in z]
    ours = [(1 + table.exceedances(table.statistic(row))) / (1 + table.n) for row in table.q]
    assert np.mean(np.array(ours) <= 0.05) == pytest.approx(0.05, abs=0.005)
    assert np.mean(np.array(naive) <= 0.05) > 0.12


def test_fresh_noise_is_rejected_at_the_level() -> None:
    table = null_table((96, 256), (2, 3, 4), COMMITTED_N)
    p = []
    for seed in range(60):
        noise = np.random.default_rng([77, seed]).laplace(size=(96, 256))
        p.append(structure_test(noise, table, seed).p)
    # At 60 runs and a rate of .12, the specification's own for Laplace, 15 or more happen once in a thousand.
    assert sum(value <= 0.05 for value in p) < 15
    assert 0.2 < np.median(p) < 0.8


def test_k_is_the_planted_one() -> None:
    for k, rho in ((2, 0.4), (4, 0.5), (6, 0.5)):
        weights, _ = planted((96, 256), k, rho, np.random.default_rng(k))
        assert structure_test(weights, null_table((96, 256), (2, 3, 4, 6, 8), 199), seed=1).k == k


def test_prefixes_of_a_computed_null_agree() -> None:
    few = null_table((24, 40), (2, 3), 20)
    more = null_table((40, 24), (2, 3), 30)
    assert not more.committed
    assert np.array_equal(few.q, more.q[:20])


def test_stability_tracks_the_plant() -> None:
    table = null_table((96, 256), (2, 3, 4, 6, 8), COMMITTED_N)
    clear, _ = planted((96, 256), 4, 0.5, np.random.default_rng(20))
    noise, _ = planted((96, 256), 4, 1.0, np.random.default_rng(21))
    agreement = []
    for weights in (clear, noise):
        part = structure_test(weights, table, seed=0).at(4)
        agreement.append(float(np.median(stability(weights, part, 4, np.random.default_rng(0)))))
    assert agreement[0] > 0.9
    assert agreement[1] < 0.6


def test_low_rank_alone_is_no_structure() -> None:
    # A dense rank-4 matrix at three times the bulk edge has excess over the primary null, not over its own.
    rng = np.random.default_rng(22)
    n, m = 96, 256
    left, right = (np.linalg.qr(rng.standard_normal((side, 4)))[0] for side in (n, m))
    weights = 3 * (np.sqrt(n) + np.sqrt(m)) * left @ right.T + rng.standard_normal((n, m))
    found = structure_test(weights, null_table((n, m), (2, 3, 4, 6, 8), COMMITTED_N), seed=0)
    confirm = confirmation_null(weights, found.k, np.random.default_rng(0))
    assert confirm is not None
    own = found.q[found.null.ks.index(found.k)] - confirm.mean()
    assert own < found.excess_q - 0.005
    assert confirmation_null(rng.standard_normal((n, m)), 4, np.random.default_rng(0)) is None


def test_holm_against_the_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()
