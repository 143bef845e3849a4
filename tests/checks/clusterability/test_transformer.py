"""Neurons across layers and their null: free of the residual basis, and organism F's halves found where planted."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

from checks.clusterability.nulls import NullTable, null_table
from checks.clusterability.scores import adjusted_rand, scores
from checks.clusterability.structure import Structure, structure_test
from checks.clusterability.transformer import (
    d_eff,
    product_null,
    virtual_d_eff,
    virtual_mlp,
)
from checks.organisms.halves import halves

KS = (2, 3, 4, 6)


@lru_cache(maxsize=8)
def null_of(side: int, inner: int | None, gated: bool = False) -> NullTable:
    if inner is None:
        return null_table((side, side), KS, 39)
    return product_null((side, side), inner, KS, 39, np.random.default_rng([inner, gated]), gated=gated)


# --- the product null ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inner", "tabled"), [(16, 0.125), (32, 0.107), (None, 0.099)])
def test_the_product_null_has_the_tabled_means(inner: int | None, tabled: float) -> None:
    # Specification section 5, 128x128 at k = 4.
    assert null_of(128, inner).mean[KS.index(4)] == pytest.approx(tabled, abs=0.005)


def test_a_product_alone_does_not_cluster() -> None:
    # Products of low inner size have more modularity than independent entries: the wrong null finds structure in all.
    rng = np.random.default_rng(0)
    excess = []
    for _ in range(3):
        product = virtual_mlp(rng.normal(size=(128, 16)), rng.normal(size=(16, 128)))
        inner = d_eff(product)
        assert inner is not None
        excess.append([structure_test(product, null, 0).excess_q for null in (null_of(128, inner), null_of(128, None))])
    assert np.mean(excess, axis=0)[0] < 0.005
    assert np.mean(excess, axis=0)[1] > 0.02


def test_a_gated_product_alone_does_not_cluster() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(3):
        gate, up, out = (rng.normal(size=shape) for shape in ((128, 16), (128, 16), (16, 128)))
        inner = virtual_d_eff(up, out, gate)
        assert inner in (11, 16)
        found.append(structure_test(virtual_mlp(up, out, gate), null_of(128, inner, gated=True), 0).excess_q)
    assert np.mean(found) < 0.005


def test_replicates_come_from_the_generator_alone() -> None:
    first, again = (product_null((40, 24), 4, (2, 3), 3, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.q, again.q)
    assert (first.shape, first.ks, first.n, first.committed) == ((24, 40), (2, 3), 3, False)


@pytest.mark.parametrize("inner", [8, 32, 100])
def test_inner_size_is_recovered_and_rounded_down(inner: int) -> None:
    rng = np.random.default_rng(inner)
    found = d_eff(rng.normal(size=(256, inner)) @ rng.normal(size=(inner, 192)))
    assert found is not None
    assert inner / 2 <= found <= 1.05 * inner
    assert found in {int(2 ** (half / 2)) for half in range(2, 20)}


def test_inner_size_is_conservative_for_decaying_spectra() -> None:
    rng = np.random.default_rng(2)
    decay = np.exp(-np.arange(64) / 8)
    found = d_eff(rng.normal(size=(128, 64)) * decay @ rng.normal(size=(64, 128)))
    assert found is not None
    assert found < 16


def test_loud_neurons_do_not_shrink_the_inner_size() -> None:
    # The ratio of the unbalanced matrix reads 1 to 8 here: a null above every real structure or, at 1, none at all.
    rng = np.random.default_rng(20)
    for _ in range(5):
        product = rng.normal(size=(128, 32)) @ rng.normal(size=(32, 128))
        scaled = product * rng.lognormal(size=(128, 1)) * rng.lognormal(size=(1, 128))
        assert d_eff(scaled) == d_eff(product)
        assert d_eff(scaled) in (22, 32)


def test_a_matrix_without_inner_size_says_so() -> None:
    assert d_eff(np.linalg.qr(np.random.default_rng(3).normal(size=(64, 64)))[0]) is None
    with pytest.raises(ValueError, match="all-zero"):
        d_eff(np.zeros((20, 30)))


def test_an_inner_size_of_one_is_never_used() -> None:
    # Magnitudes of one outer product balance to a constant: its null is 0, below that of every product.
    rng = np.random.default_rng(21)
    assert d_eff(np.outer(rng.normal(size=20), rng.normal(size=30))) == 2
    with pytest.raises(ValueError, match="the least is 2"):
        product_null((20, 30), 1, (2,), 3, rng)
    means = [product_null((64, 64), inner, (4,), 5, rng).mean[0] for inner in (2, 4, 8, 16, 45)]
    assert means == sorted(means, reverse=True)


def test_dead_neurons_do_not_change_the_inner_size() -> None:
    rng = np.random.default_rng(22)
    product = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 50))
    dead = np.zeros((64, 53))
    dead[:60, :50] = product
    assert d_eff(dead) == d_eff(product)


def test_inner_size_has_no_unit() -> None:
    rng = np.random.default_rng(4)
    product = rng.normal(size=(40, 8)) @ rng.normal(size=(8, 50))
    assert d_eff(product) == d_eff(1e-160 * product) == d_eff(1e160 * product) == d_eff(product.T)


# --- neurons ---------------------------------------------------------------------------------------------------------


def test_the_residual_basis_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    w_in, gate, w_out = rng.normal(size=(30, 12)), rng.normal(size=(30, 12)), rng.normal(size=(12, 25))
    turn = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    assert virtual_mlp(w_in @ turn.T, turn @ w_out) == pytest.approx(virtual_mlp(w_in, w_out))
    turned = virtual_mlp(w_in @ turn.T, turn @ w_out, gate @ turn.T)
    assert turned == pytest.approx(virtual_mlp(w_in, w_out, gate))


def test_a_gated_reader_reads_with_gate_and_up() -> None:
    rng = np.random.default_rng(7)
    up, gate, w_out = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.normal(size=(5, 4))
    found = virtual_mlp(up, w_out, gate)
    for i in range(3):
        for j in range(4):
            by_gate = (gate[i] @ w_out[:, j]) ** 2 / (gate[i] @ gate[i])
            by_up = (up[i] @ w_out[:, j]) ** 2 / (up[i] @ up[i])
            assert found[i, j] ** 2 == pytest.approx(by_gate + by_up)
    # The scale of up is free (down takes it back), the scale of the gate divides out.
    assert virtual_mlp(-7 * up, w_out, 3 * gate) == pytest.approx(found)
    up[0], gate[0] = 0.0, 0.0
    assert np.array_equal(virtual_mlp(up, w_out, gate)[0], np.zeros(4))


def test_rounding_errors_are_zeros() -> None:
    here, after = halves(0.0, 8)[:2]
    product = virtual_mlp(after.mlp_in, here.mlp_out)
    apart = after.neurons[:, None] != here.neurons
    assert np.all(product[apart] == 0)
    assert np.mean(product[~apart] == 0) < 0.001
    assert np.any((after.mlp_in @ here.mlp_out)[apart] != 0)


def agreement(found: Structure, rows: np.ndarray, columns: np.ndarray) -> float:
    truth = np.concatenate([rows, columns])
    return adjusted_rand(np.concatenate([found.partition.rows, found.partition.columns]), truth)


@pytest.mark.parametrize(
    ("leak", "excess", "ari", "raw_c"), [(0.0, 0.396, 1, 1), (0.3, 0.236, 1, 0.851), (0.5, 0.106, 0.98, 0.681)]
)
def test_virtual_mlp_finds_the_planted_halves(leak: float, excess: float, ari: float, raw_c: float) -> None:
    blocks = halves(leak, 0)
    found = []
    for here, after in pairwise(blocks):
        matrix = virtual_mlp(after.mlp_in, here.mlp_out)
        one = structure_test(matrix, null_of(256, d_eff(matrix)), 0)
        assert one.k == 2
        assert one.p == 1 / 40
        c = scores(matrix, one.partition.rows, one.partition.columns, "raw").c
        found.append([one.excess_q, agreement(one, after.neurons, here.neurons), c])
    means = np.mean(found, axis=0)
    assert means[0] == pytest.approx(excess, abs=0.02)
    assert means[1] == pytest.approx(ari, abs=0.05)
    assert means[2] == pytest.approx(raw_c, abs=0.02)


def test_virtual_mlp_finds_nothing_where_halves_leak_all() -> None:
    blocks = halves(1.0, 0)
    for here, after in pairwise(blocks):
        matrix = virtual_mlp(after.mlp_in, here.mlp_out)
        one = structure_test(matrix, null_of(256, d_eff(matrix)), 0)
        assert one.excess_q == pytest.approx(0.002, abs=0.01)
        assert abs(agreement(one, after.neurons, here.neurons)) < 0.05


def test_virtual_mlp_finds_halves_of_a_gated_mlp() -> None:
    here, after = halves(0.3, 9)[:2]
    # The neurons' gates read as another row of the same half does.
    order = np.argsort(after.neurons, kind="stable")
    gate = np.empty_like(after.mlp_in)
    for half in (0, 1):
        mine = order[after.neurons[order] == half]
        gate[mine] = after.mlp_in[np.roll(mine, 1)]
    inner = virtual_d_eff(after.mlp_in, here.mlp_out, gate)
    one = structure_test(virtual_mlp(after.mlp_in, here.mlp_out, gate), null_of(256, inner, gated=True), 0)
    assert one.k == 2
    assert one.excess_q > 0.15
    assert agreement(one, after.neurons, here.neurons) >= 0.95


def test_single_matrices_show_nothing_of_the_halves() -> None:
    # Their columns are residual axes, and the halves are rotated away from those.
    null = null_table((64, 256), (2, 3, 4, 6, 8), 199)
    for leak in (0.0, 0.3, 0.5, 1.0):
        excess = [structure_test(block.mlp_in, null, 0).excess_q for block in halves(leak, 0)]
        assert np.mean(excess) <= 0.010
        assert max(excess) < 0.02
