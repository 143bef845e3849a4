from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from checks.clusterability import network
from checks.clusterability.network import (
    View,
    embed_nodes,
    network_partition,
    network_q,
    views_of,
)
from checks.clusterability.network_tests import (
    NetworkNull,
    network_ks,
    network_null,
    network_stability,
    network_test,
    null_of,
    surrogates,
)
from checks.clusterability.scores import adjusted_rand, scores

SIZES = (40, 48, 36, 12)


def chain(
    k: int, rho: float, rng: np.random.Generator, sizes: tuple[int, ...] = SIZES
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return layers of a net whose nodes belong to k hidden groups, weights between groups rho times as large."""
    truth = [rng.permutation(np.arange(size) % k) for size in sizes]
    layers = [
        rng.standard_normal((len(rows), len(columns))) * np.where(rows[:, None] == columns, 1.0, rho)
        for columns, rows in pairwise(truth)
    ]
    return layers, truth


def noise(rng: np.random.Generator, sizes: tuple[int, ...] = SIZES) -> list[np.ndarray]:
    return [rng.standard_normal((n, m)) for m, n in pairwise(sizes)]


@pytest.mark.parametrize("k", [2, 3, 4])
def test_planted_groups_run_through_all_layers(k: int) -> None:
    layers, truth = chain(k, 0.3, np.random.default_rng(k))
    found = network_partition(layers, k, seed=0)
    assert [len(labels) for labels in found.layers] == list(SIZES)
    assert adjusted_rand(found.joined, np.concatenate(truth)) >= 0.95
    assert np.array_equal(found.hidden, np.concatenate(found.layers[1:3]))


def test_embedding_against_the_eigenvectors_of_the_whole_matrix() -> None:
    # Plainly: the symmetric matrix over all nodes with the deflated blocks beside the diagonal.
    views = views_of(chain(3, 0.5, np.random.default_rng(1))[0])
    starts = np.cumsum([0, *SIZES])
    whole = np.zeros((sum(SIZES), sum(SIZES)))
    for layer, view in enumerate(views):
        p = view.mass
        expected = np.sqrt(np.outer(p.sum(axis=1), p.sum(axis=0)))
        columns, rows = slice(*starts[layer : layer + 2]), slice(*starts[layer + 1 : layer + 3])
        whole[rows, columns] = p / expected - expected
    vectors = np.linalg.eigh(whole + whole.T)[1][:, ::-1]
    for layer, points in enumerate(embed_nodes(views, 5)):
        assert np.array_equal(points[:, 0], np.ones(SIZES[layer]))
        at = slice(*starts[layer : layer + 2])
        for column in range(4):
            # An eigenvector halves its norm between the two parities of layers; its sign is free.
            plain = vectors[at, column] * np.sqrt(SIZES[layer]) * np.sqrt(2.0)
            mine = points[:, column + 1]
            assert min(np.abs(mine - plain).max(), np.abs(mine + plain).max()) < 1e-7


def test_lanczos_finds_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    views = views_of(chain(3, 0.5, np.random.default_rng(2))[0])
    exact = embed_nodes(views, 4)
    monkeypatch.setattr(network, "SIDE_EXACT", 0)
    # Blocks without any weight between them have one eigenvalue k - 1 times over.
    blocks, truth = chain(4, 0.0, np.random.default_rng(3))
    assert adjusted_rand(network_partition(blocks, 4, seed=0).joined, np.concatenate(truth)) == 1.0
    for a, b in zip(exact, embed_nodes(views, 4), strict=True):
        assert a == pytest.approx(b, abs=1e-7)


def test_order_of_neurons_and_their_scales_change_nothing() -> None:
    rng = np.random.default_rng(3)
    layers = noise(rng)
    whole = network_partition(layers, 3, seed=5)
    orders = [rng.permutation(size) for size in SIZES]
    moved = [w[np.ix_(rows, columns)] for w, (columns, rows) in zip(layers, pairwise(orders), strict=True)]
    again = network_partition(moved, 3, seed=5)
    for labels, found, order in zip(whole.layers, again.layers, orders, strict=True):
        assert np.array_equal(labels[order], found)
    # A ReLU neuron's incoming weights times c and its outgoing weights over c: the same function.
    scale = np.exp(rng.standard_normal(SIZES[1]))
    scaled = [layers[0] * scale[:, None], layers[1] / scale, layers[2]]
    assert np.array_equal(network_partition(scaled, 3, seed=5).joined, whole.joined)


def layer_ari(layers: list[np.ndarray], k: int) -> float:
    """Return how far the clusters are the layers."""
    found = network_partition(layers, k, seed=0)
    return adjusted_rand(found.joined, np.repeat(np.arange(len(found.layers)), [len(x) for x in found.layers]))


def test_clusters_are_not_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, truth = chain(2, 0.7, np.random.default_rng(4), (64, 64, 64, 64))
    assert abs(layer_ari(layers, 2)) < 0.05
    for labels in network_partition(layers, 2, seed=0).layers:
        assert 0.25 < labels.mean() < 0.75
    assert adjusted_rand(network_partition(layers, 2, seed=0).joined, np.concatenate(truth)) > 0.8
    # Without deflation the first vectors are waves along the net, and the clusters are whole layers.
    monkeypatch.setattr(
        View, "deflated", property(lambda v: v.mass / np.sqrt(np.outer(v.mass.sum(axis=1), v.mass.sum(axis=0))))
    )
    assert layer_ari(layers, 2) > 0.3


def test_dead_neurons_are_in_no_cluster() -> None:
    layers, truth = chain(2, 0.2, np.random.default_rng(5))
    layers[0][3], layers[1][:, 3] = 0.0, 0.0  # a hidden neuron that reads nothing and is not read
    layers[0][:, 7] = 0.0  # an unread input
    layers[1][:, 5] = 0.0  # a hidden neuron that writes nothing, and reads
    found = network_partition(layers, 2, seed=0)
    dead = [(layer, int(node)) for layer, labels in enumerate(found.layers) for node in np.flatnonzero(labels < 0)]
    assert dead == [(0, 7), (1, 3)]
    held = found.joined >= 0
    assert adjusted_rand(found.joined[held], np.concatenate(truth)[held]) >= 0.95
    assert np.isfinite(network_q(views_of(layers), found))


def test_layers_that_do_not_meet_are_named() -> None:
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match="layer 1 reads 9 nodes, layer 0 writes 8"):
        network_partition([rng.standard_normal((8, 6)), rng.standard_normal((5, 9))], 2, seed=0)
    with pytest.raises(ValueError, match="layer 0 has no weight"):
        network_partition([np.zeros((8, 6))], 2, seed=0)


def test_statistic_is_the_mean_over_layers() -> None:
    layers, _ = chain(3, 0.4, np.random.default_rng(7))
    found = network_partition(layers, 3, seed=0)
    each = [
        scores(weights, rows, columns, "normal_scores").q_b
        for weights, (columns, rows) in zip(layers, pairwise(found.layers), strict=True)
    ]
    assert network_q(views_of(layers), found) == pytest.approx(np.mean(each))


def test_k_is_chosen_by_excess_and_its_search_is_in_the_p_value() -> None:
    shapes, ks = [(n, m) for m, n in pairwise(SIZES)], (2, 3, 4)
    null = network_null(shapes, ks, 59, np.random.default_rng(8))
    planted = network_test(chain(3, 0.4, np.random.default_rng(9))[0], null, seed=0)
    assert (planted.k, planted.p) == (3, 1 / 60)
    assert planted.excess_q > 0.05
    assert planted.exceedances == 0
    assert len(planted.q) == 3
    assert planted.at(3) is planted.partition
    z = (np.array(planted.q) - null.q.mean(axis=0)) / null.q.std(axis=0, ddof=1)
    assert planted.statistic == pytest.approx(z.max()) != z[0]
    # The largest Q is not the largest excess where the null's own Q at that k is larger still.
    high = NetworkNull(ks, null.q + np.array([0.0, 0.5, 0.0]))
    other = network_test(chain(3, 0.4, np.random.default_rng(9))[0], high, seed=0)
    assert int(np.argmax(other.q)) == 1
    assert other.k != 3
    # Testing the best k as if it were fixed would be p = (1 + smallest count) / 100.
    plain = [network_test(noise(np.random.default_rng([10, i])), null, seed=0) for i in range(30)]
    best_k = [min((1 + int((null.q[:, j] >= test.q[j]).sum())) / 60 for j in range(3)) for test in plain]
    assert all(test.p >= 1 / 60 for test in plain)
    assert np.mean([test.p for test in plain]) > np.mean(best_k) + 0.05
    assert sum(test.p <= 0.05 for test in plain) <= 5
    assert abs(np.mean([test.excess_q for test in plain])) < 0.02


def test_null_repeats_from_its_seed() -> None:
    shapes = [(n, m) for m, n in pairwise(SIZES)]
    first, again, other = (network_null(shapes, (2, 3), 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.q, again.q)
    assert not np.array_equal(first.q, other.q)


def test_sparse_layers_are_tested_against_masks_of_their_own_degrees() -> None:
    rng = np.random.default_rng(11)
    layers = [np.where(rng.random(w.shape) < 0.25, w, 0.0) for w in noise(rng)]
    drawn = [draw(np.random.default_rng(0)) for draw in surrogates(layers)]
    for weights, other in zip(layers, drawn, strict=True):
        assert not np.array_equal(weights, other)
        assert np.array_equal((weights != 0).sum(axis=0), (other != 0).sum(axis=0))
        assert np.array_equal((weights != 0).sum(axis=1), (other != 0).sum(axis=1))
        assert np.array_equal(np.sort(weights.ravel()), np.sort(other.ravel()))
        assert not np.array_equal(np.sort(weights, axis=1), np.sort(other, axis=1))
    null = null_of(surrogates(layers), (2, 3), 39, rng)
    assert network_test(layers, null, seed=0).p > 0.05
    kept = [truth[:, None] == other for other, truth in pairwise(chain(2, 0.0, np.random.default_rng(12))[1])]
    blocks = [
        np.where(inside | (rng.random(w.shape) < 0.1), w, 0.0) for inside, w in zip(kept, noise(rng), strict=True)
    ]
    assert network_test(blocks, null_of(surrogates(blocks), (2, 3), 39, rng), seed=0).p == pytest.approx(1 / 40)


def test_dense_surrogates_keep_dead_nodes() -> None:
    layers = noise(np.random.default_rng(13))
    layers[0][:, 4] = 0.0
    drawn = surrogates(layers)[0](np.random.default_rng(0))
    assert np.array_equal(np.flatnonzero(~drawn.any(axis=0)), [4])
    assert np.count_nonzero(drawn) == np.count_nonzero(layers[0])


def test_small_outputs_do_not_bound_the_candidates() -> None:
    assert network_ks([(64, 64), (64, 64), (10, 64)], (2, 3, 4, 6, 8, 12)) == (2, 3, 4, 6, 8)
    assert network_ks([(32, 64), (12, 32), (10, 12)], (2, 3, 4, 6)) == (2, 3, 4)
    assert network_ks([(8, 8), (8, 8)], (3, 4)) == (2,)


def test_stability_tells_plants_from_noise() -> None:
    rng = np.random.default_rng(14)
    for layers, low, high in ((chain(3, 0.3, rng)[0], 0.9, 1.0), (noise(rng), -0.1, 0.6)):
        agreement = network_stability(layers, network_partition(layers, 3, seed=0), 3, rng)
        assert len(agreement) == 10
        assert low <= np.median(agreement) <= high


def test_a_draw_that_breaks_the_chain_counts_as_no_agreement() -> None:
    # The last layer reads one of 32 neurons: a tenth of the draws leave that one out, and no weight with it.
    rng = np.random.default_rng(15)
    layers = [rng.standard_normal(shape) for shape in ((32, 24), (32, 32), (10, 32))]
    layers[2][:, 1:] = 0.0
    whole = network_partition(layers, 2, seed=0)
    drawn = np.concatenate([network_stability(layers, whole, 2, np.random.default_rng(seed)) for seed in range(6)])
    assert len(drawn) == 60
    assert 1 <= (drawn == 0).sum() <= 20
    assert np.isfinite(drawn).all()
