"""Clusters of a weighted graph whose nodes stand in blocks (heads in layers), against edges shuffled within blocks.

Specification: section 5, `head_graph`. Newman 2006 (PNAS 103:8577) for the modularity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import eigh

from checks.clusterability.cocluster import Embedding, assign
from checks.clusterability.nulls import NullTable
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.structure import DELETED, DELETIONS, best_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int

GRAPH_K_MAX = 16
"""Largest candidate of k (section 2)."""

NODES_PER_CLUSTER = 8
"""Nodes that a candidate of k asks for (section 2: k reaches an eighth of the side)."""


class NothingToShuffle(ValueError):
    """A graph has no test: its edges are equal within every pair of blocks, or too few nodes have any."""


@dataclass(frozen=True)
class GraphStructure:
    """What the search over k found in one graph."""

    k: int
    """The candidate of largest excess whose every cluster has a node."""
    q: float
    """Newman's modularity at `k`."""
    excess_q: float
    """Q at `k`, less the null's mean Q at `k`."""
    p: float
    """(1 + replicates whose T reaches the observed) / (1 + replicates): pays for the search over k."""
    exceedances: int
    statistic: float
    """T, the largest (Q - mean) / sd over the candidates."""
    labels: Int[np.ndarray, " nodes"]
    """Clusters at `k`; -1 is a node without edges."""
    q_by_k: tuple[float, ...]
    null: NullTable
    """Q of the shuffled graphs, over the same candidates."""


def graph_ks(nodes: int) -> tuple[int, ...]:
    """Return the candidates of k for a graph when the caller names none: 2 to an eighth of its nodes."""
    return tuple(range(2, min(GRAPH_K_MAX, nodes // NODES_PER_CLUSTER) + 1))


def asked_ks(asked: Literal["auto"] | Sequence[int], nodes: int) -> tuple[int, ...]:
    """Return the candidates of k for a graph: those that a caller names, at most half of its nodes, or `graph_ks`."""
    return graph_ks(nodes) if asked == "auto" else tuple(k for k in asked if k <= nodes // 2)


def newman_q(graph: Float[np.ndarray, "nodes nodes"], labels: Int[np.ndarray, " nodes"]) -> float:
    """Return sum_c [w_cc / 2w - (d_c / 2w)^2] of a symmetric graph; nodes labelled -1 are left out."""
    kept = labels >= 0
    inner = graph[np.ix_(kept, kept)]
    members = np.eye(1 + int(labels.max()))[labels[kept]]
    blocks = members.T @ inner @ members / inner.sum()
    return float(np.trace(blocks) - np.square(blocks.sum(axis=1)).sum())


def embed_graph(graph: Float[np.ndarray, "nodes nodes"], k_max: int) -> Float[np.ndarray, "nodes k_max"]:
    """Return each node's place: a constant, then the k_max - 1 leading eigenvectors of the deflated graph.

    Deflation, D^-1/2 W D^-1/2 - D^1/2 1 1^T D^1/2 / 2w, takes away what the degrees alone give, so that no eigenvector
    is spent on them. Eigenvectors are scaled to the constant's length; signs make each sum of cubes positive.

    Args:
        graph: symmetric, no node without edges.
        k_max: largest number of clusters that will be sought, at least 2.
    """
    root = np.sqrt(graph.sum(axis=1))
    deflated = graph / np.outer(root, root) - np.outer(root, root) / graph.sum()
    nodes = len(graph)
    vectors = eigh(deflated, subset_by_index=[nodes - (k_max - 1), nodes - 1])[1][:, ::-1]
    signs = np.where((vectors**3).sum(axis=0) < 0, -1.0, 1.0)
    return np.column_stack([np.ones(nodes), vectors * signs * np.sqrt(nodes)])


def partition_graph(
    graph: Float[np.ndarray, "nodes nodes"], ks: Sequence[int], seed: int
) -> tuple[Int[np.ndarray, " nodes"], ...]:
    """Return the clusters of a symmetric graph for every candidate of k; a node without edges is labelled -1."""
    held = graph.sum(axis=1) > 0
    inner = graph[np.ix_(held, held)]
    if len(inner) < max(ks):
        raise NothingToShuffle(f"{len(inner)} nodes with edges do not make {max(ks)} clusters")
    points = embed_graph(inner, max(ks))
    found = []
    for k in ks:
        labels = np.full(len(graph), -1)
        # The co-clustering's own k-means, on a cloud that has rows only: sorted, seeded, unsorted.
        labels[held] = assign(Embedding(points, points[:0]), k, seed).rows
        found.append(labels)
    return tuple(found)


def shuffled_within(
    graph: Float[np.ndarray, "nodes nodes"], blocks: Int[np.ndarray, " nodes"], rng: np.random.Generator
) -> Float[np.ndarray, "nodes nodes"]:
    """Return a directed graph whose edges were permuted among the edges between the same two blocks.

    Args:
        graph: edges from rows to columns.
        blocks: the block of each node.
        rng: draws the permutations.
    """
    mixed = np.zeros_like(graph)
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    for first in members:
        for second in members:
            here = np.ix_(first, second)
            mixed[here] = rng.permutation(graph[here].ravel()).reshape(len(first), len(second))
    return mixed


def graph_structure(
    graph: Float[np.ndarray, "nodes nodes"],
    blocks: Int[np.ndarray, " nodes"],
    ks: Sequence[int],
    n_nulls: int,
    seed: int,
) -> GraphStructure:
    """Search over k in a graph and place the best against graphs shuffled within each pair of blocks.

    Args:
        graph: non-negative edges from rows to columns, such as earlier heads to later ones; it is symmetrised.
        blocks: the block of each node, such as its layer.
        ks: candidates of k.
        n_nulls: shuffled graphs, at least 2.
        seed: seeds k-means and the shuffles.

    Raises:
        ValueError: a negative or non-finite edge, no candidate, fewer nodes with edges than clusters, or edges that
            are equal within every pair of blocks, so that nothing can be shuffled.
    """
    _check(graph, blocks, ks)
    symmetric = graph + graph.T
    found = partition_graph(symmetric, ks, seed)
    q = np.array([newman_q(symmetric, labels) for labels in found])
    null = _null(graph, blocks, ks, n_nulls, seed)
    excess = q - null.mean
    best = best_of(excess, ks, found)
    statistic = null.statistic(q)
    exceedances = null.exceedances(statistic)
    return GraphStructure(
        k=ks[best],
        q=float(q[best]),
        excess_q=float(excess[best]),
        p=(1 + exceedances) / (1 + null.n),
        exceedances=exceedances,
        statistic=statistic,
        labels=found[best],
        q_by_k=tuple(float(value) for value in q),
        null=null,
    )


def graph_stability(
    graph: Float[np.ndarray, "nodes nodes"], whole: Int[np.ndarray, " nodes"], k: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Return, for each draw without a tenth of the nodes, the ARI with the whole partition on what was kept (4.6).

    Args:
        graph: edges from rows to columns, as `graph_structure` takes them.
        whole: clusters of the whole graph.
        k: how many.
        rng: draws the nodes and the k-means seeds.
    """
    symmetric = graph + graph.T
    nodes = len(graph)
    agreement = []
    for _ in range(DELETIONS):
        kept = np.sort(rng.permutation(nodes)[: nodes - max(1, round(DELETED * nodes))])
        again = partition_graph(symmetric[np.ix_(kept, kept)], (k,), int(rng.integers(2**31)))[0]
        first = whole[kept]
        both = (again >= 0) & (first >= 0)
        agreement.append(adjusted_rand(first[both], again[both]))
    return np.array(agreement)


def _null(
    graph: Float[np.ndarray, "nodes nodes"], blocks: Int[np.ndarray, " nodes"], ks: Sequence[int], n: int, seed: int
) -> NullTable:
    rows = []
    for index in range(n):
        # Every replicate has its own generator, so that a longer null starts with the shorter one.
        mixed = shuffled_within(graph, blocks, np.random.default_rng([seed, index]))
        mixed = mixed + mixed.T
        rows.append([newman_q(mixed, labels) for labels in partition_graph(mixed, ks, index)])
    return NullTable((len(graph), len(graph)), tuple(ks), np.array(rows), committed=False)


def _check(graph: Float[np.ndarray, "nodes nodes"], blocks: Int[np.ndarray, " nodes"], ks: Sequence[int]) -> None:
    if not np.isfinite(graph).all() or np.any(graph < 0):
        raise ValueError("edges are finite and not negative")
    if not ks or min(ks) < 2:
        raise ValueError("candidates of k are 2 or more")
    names = np.unique(blocks)
    pairs = (graph[np.ix_(blocks == first, blocks == second)] for first in names for second in names)
    if not any(np.ptp(pair) > 0 for pair in pairs):
        raise NothingToShuffle("edges are equal within every pair of blocks: there is nothing to shuffle")
