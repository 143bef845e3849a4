"""Clusters of block-wise graphs: against networkx, planted groups, and what a shuffle must not mistake."""

from __future__ import annotations

import networkx  # type: ignore[import-untyped]
import numpy as np
import pytest

from checks.clusterability import graphs
from checks.clusterability.graphs import (
    embed_graph,
    graph_ks,
    graph_stability,
    graph_structure,
    newman_q,
    partition_graph,
    shuffled_within,
)
from checks.clusterability.nulls import NullTable
from checks.clusterability.scores import adjusted_rand

BLOCKS = np.repeat(np.arange(4), 8)


def noise(rng: np.random.Generator) -> np.ndarray:
    """Return edges from earlier to later blocks with nothing in them."""
    edges: np.ndarray = rng.exponential(size=(32, 32)) * (BLOCKS[:, None] < BLOCKS)
    return edges


def planted(rng: np.random.Generator, k: int, outside: float) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.permutation(32) % k
    return noise(rng) * np.where(truth[:, None] == truth, 1.0, outside), truth


def test_modularity_agrees_with_another_implementation() -> None:
    rng = np.random.default_rng(0)
    graph = noise(rng) + noise(rng).T
    graph = graph + graph.T
    labels = rng.integers(3, size=32)
    groups = [set(np.flatnonzero(labels == label).tolist()) for label in range(3)]
    other = networkx.community.modularity(networkx.from_numpy_array(graph), groups, weight="weight")
    assert newman_q(graph, labels) == pytest.approx(other, abs=1e-9)


def test_one_cluster_has_no_modularity() -> None:
    graph = noise(np.random.default_rng(1))
    assert newman_q(graph + graph.T, np.zeros(32, dtype=int)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_planted_groups_are_found_at_their_k(k: int) -> None:
    graph, truth = planted(np.random.default_rng(k), k, 0.1)
    found = graph_structure(graph, BLOCKS, (2, 3, 4), 99, seed=0)
    assert found.k == k
    assert found.p == 1 / 100
    assert adjusted_rand(found.labels, truth) >= 0.9
    assert found.excess_q > 0.1
    assert float(np.median(graph_stability(graph, found.labels, k, np.random.default_rng(0)))) > 0.7


@pytest.mark.parametrize(("runs", "most"), [(12, 3), pytest.param(100, 12, marks=pytest.mark.slow)])
def test_noise_is_rejected_at_the_level(runs: int, most: int) -> None:
    # At a rate of .05, more than 3 of 12, or 12 of 100, happen twice in a thousand.
    p = [graph_structure(noise(np.random.default_rng([9, run])), BLOCKS, (2, 3), 39, seed=run).p for run in range(runs)]
    assert sum(value <= 0.05 for value in p) <= most
    assert 0.2 < np.median(p) < 0.8


def test_degrees_alone_do_not_cluster() -> None:
    rng = np.random.default_rng(10)
    for _ in range(5):
        strong = rng.lognormal(size=32)
        graph = noise(rng) * np.outer(strong, strong)
        found = graph_structure(graph, BLOCKS, (2, 3), 39, seed=0)
        assert found.p > 0.05 or found.excess_q < 0.02


def test_strong_pairs_of_layers_alone_do_not_cluster() -> None:
    # Layers 0-1 and 2-3 linked ten times as strongly: a high modularity, and every bit of it in the null as well.
    rng = np.random.default_rng(11)
    same = BLOCKS[:, None] // 2 == BLOCKS // 2
    found = graph_structure(noise(rng) * np.where(same, 10.0, 1.0), BLOCKS, (2, 3), 99, seed=0)
    assert found.q > 0.2
    assert abs(found.excess_q) < 0.02
    assert found.p > 0.05


def test_clusters_are_not_layers() -> None:
    for seed in range(5):
        graph = noise(np.random.default_rng([12, seed]))
        for labels in partition_graph(graph + graph.T, (2, 3, 4), seed):
            assert adjusted_rand(labels, BLOCKS) < 0.1


def test_shuffles_keep_every_pair_of_blocks() -> None:
    graph = noise(np.random.default_rng(13)) * (1 + BLOCKS)
    mixed = shuffled_within(graph, BLOCKS, np.random.default_rng(0))
    assert not np.array_equal(mixed, graph)
    for first in range(4):
        for second in range(4):
            here = np.ix_(*(np.flatnonzero(np.equal(BLOCKS, block)) for block in (first, second)))
            assert np.array_equal(np.sort(mixed[here], axis=None), np.sort(graph[here], axis=None))


def test_degrees_are_deflated_away() -> None:
    strong = np.random.default_rng(14).lognormal(size=20)
    graph = np.outer(strong, strong)
    root = np.sqrt(graph.sum(axis=1))
    deflated = graph / np.outer(root, root) - np.outer(root, root) / graph.sum()
    assert np.abs(deflated).max() < 1e-12
    assert np.array_equal(embed_graph(graph, 3)[:, 0], np.ones(20))


def test_the_order_of_nodes_does_not_matter() -> None:
    rng = np.random.default_rng(15)
    for graph in (noise(rng), planted(rng, 3, 0.3)[0]):
        order = rng.permutation(32)
        plain = partition_graph(graph + graph.T, (2, 3, 4), 0)
        turned = partition_graph((graph + graph.T)[np.ix_(order, order)], (2, 3, 4), 0)
        for one, other in zip(plain, turned, strict=True):
            assert adjusted_rand(one[order], other) == pytest.approx(1.0)


def test_scale_does_not_matter_and_a_seed_gives_one_answer() -> None:
    graph, _ = planted(np.random.default_rng(16), 2, 0.3)
    first, again, scaled = (graph_structure(one, BLOCKS, (2, 3), 19, seed=4) for one in (graph, graph, 1e6 * graph))
    assert first.q_by_k == again.q_by_k
    assert np.array_equal(first.null.q, again.null.q)
    assert scaled.q == pytest.approx(first.q, abs=1e-9)
    assert scaled.p == first.p


def test_a_longer_null_starts_with_the_shorter_one() -> None:
    graph, _ = planted(np.random.default_rng(17), 2, 0.3)
    few, more = (graph_structure(graph, BLOCKS, (2,), n, seed=4).null for n in (5, 9))
    assert np.array_equal(few.q, more.q[:5])


def test_a_node_without_edges_is_dead_and_not_a_division_by_zero() -> None:
    graph, truth = planted(np.random.default_rng(18), 2, 0.05)
    graph[5], graph[:, 5] = 0.0, 0.0
    found = graph_structure(graph, BLOCKS, (2,), 19, seed=0)
    assert found.labels[5] == -1
    assert adjusted_rand(np.delete(found.labels, 5), np.delete(truth, 5)) == 1.0
    assert np.isfinite([found.q, found.excess_q, found.p]).all()


def test_graphs_that_cannot_be_tested_are_refused() -> None:
    graph = noise(np.random.default_rng(19))
    with pytest.raises(ValueError, match="finite"):
        graph_structure(np.where(graph > 3, np.nan, graph), BLOCKS, (2,), 9, 0)
    with pytest.raises(ValueError, match="negative"):
        graph_structure(-graph, BLOCKS, (2,), 9, 0)
    with pytest.raises(ValueError, match="nothing to shuffle"):
        graph_structure((BLOCKS[:, None] < BLOCKS).astype(float), BLOCKS, (2,), 9, 0)
    with pytest.raises(ValueError, match="do not make 40 clusters"):
        graph_structure(graph, BLOCKS, (40,), 9, 0)
    with pytest.raises(ValueError, match="candidates"):
        graph_structure(graph, BLOCKS, (), 9, 0)


def test_candidates_reach_an_eighth_of_the_nodes() -> None:
    assert graph_ks(32) == (2, 3, 4)
    assert graph_ks(144) == tuple(range(2, 17))
    assert graph_ks(15) == ()


def test_a_number_of_groups_with_an_empty_one_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    # At k = 8 of two exact groups six are empty, Q is the same as at 2 and the null's mean may be lower.
    rng = np.random.default_rng(20)
    groups = np.arange(32) % 2
    graph = np.triu(np.where(groups[:, None] == groups, 1.0 + 0.1 * rng.random((32, 32)), 0.0), 1)
    monkeypatch.setattr(graphs, "partition_graph", lambda *_: (groups, groups))
    null = NullTable((32, 32), (2, 8), np.array([[0.2, 0.1], [0.21, 0.11], [0.19, 0.09]]), committed=False)
    monkeypatch.setattr(graphs, "_null", lambda *_: null)
    assert graph_structure(graph, np.repeat(np.arange(4), 8), (2, 8), 3, seed=0).k == 2
