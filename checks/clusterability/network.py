"""One partition of all neurons of a feed-forward net, inputs and outputs included.

Every layer's view is deflated by its marginals before the layers are joined, so that clusters run through the net
instead of being its layers. Specification: section 5, `network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh

from checks.clusterability.cocluster import kmeans
from checks.clusterability.scores import scores_of
from checks.clusterability.views import balanced_squares, in_range, live, normal_scores

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

ZERO_SHARE_DENSE = 0.2
"""Default of the parameter `zero_share_dense`: with more exact zeros a layer's balanced squares are its view."""

SIDE_EXACT = 512
"""Nodes of the smaller parity up to which the Gram matrix is solved whole; Lanczos above, to machine precision, at a
fifth to a fifteenth of the time (784-512-512-10, and 1024 throughout). It gave the same partitions in 36 of 36 plants,
12 of them exact blocks, whose vectors are degenerate. Data and null are of one shape, so they take the same road."""


@dataclass(frozen=True)
class NetworkPartition:
    """One label for every node of every layer, inputs first; equal labels are one cluster, -1 is a dead node."""

    layers: tuple[Int[np.ndarray, " nodes"], ...]

    @property
    def hidden(self) -> Int[np.ndarray, " unit"]:
        """Labels of the hidden neurons, layer by layer: what lesions ablate."""
        return np.concatenate(self.layers[1:-1]) if len(self.layers) > 2 else np.zeros(0, dtype=np.int64)

    @property
    def joined(self) -> Int[np.ndarray, " node"]:
        """Labels of all nodes."""
        return np.concatenate(self.layers)


@dataclass(frozen=True)
class View:
    """A layer's mass between its live nodes; total 1."""

    mass: Float[np.ndarray, "live_out live_in"]
    rows: Bool[np.ndarray, " out"]
    columns: Bool[np.ndarray, " in"]

    @cached_property
    def deflated(self) -> Float[np.ndarray, "out in"]:
        """B = P / sqrt(r s) - sqrt(r s): what is left of the mass once its marginals are taken out; 0 at dead nodes."""
        expected = np.sqrt(np.outer(self.mass.sum(axis=1), self.mass.sum(axis=0)))
        whole = np.zeros((len(self.rows), len(self.columns)))
        whole[np.ix_(self.rows, self.columns)] = self.mass / expected - expected
        return whole


def network_partition(
    layers: Sequence[Float[np.ndarray, "out in"]], k: int, seed: int, *, zero_share_dense: float = ZERO_SHARE_DENSE
) -> NetworkPartition:
    """Return k clusters that run through a chain of layers.

    Args:
        layers: weights in order; each reads what the one before it writes.
        k: clusters, at least 2.
        seed: seeds k-means.
        zero_share_dense: layers with a greater share of exact zeros are read by their balanced squares.

    Raises:
        ValueError: a layer does not read as many nodes as the one before it writes, or has no weight.
    """
    views = views_of(layers, zero_share_dense)
    return assign_nodes(embed_nodes(views, k), alive_nodes(views), k, seed)


def views_of(
    layers: Sequence[Float[np.ndarray, "out in"]], zero_share_dense: float = ZERO_SHARE_DENSE
) -> tuple[View, ...]:
    """Return each layer's test view.

    Raises:
        ValueError: a layer does not read as many nodes as the one before it writes, or has no weight.
    """
    for index, (writer, reader) in enumerate(pairwise(layers)):
        if reader.shape[1] != writer.shape[0]:
            raise ValueError(f"layer {index + 1} reads {reader.shape[1]} nodes, layer {index} writes {writer.shape[0]}")
    return tuple(_view(weights, index, zero_share_dense) for index, weights in enumerate(layers))


def _view(weights: Float[np.ndarray, "out in"], index: int, zero_share_dense: float) -> View:
    values = in_range(weights)
    rows, columns = live(values)
    kept = values[np.ix_(rows, columns)]
    if not kept.size:
        raise ValueError(f"layer {index} has no weight")
    dense = float(np.mean(kept == 0)) <= zero_share_dense
    return View((normal_scores(kept) if dense else balanced_squares(kept)).mass, rows, columns)


def alive_nodes(views: Sequence[View]) -> tuple[Bool[np.ndarray, " nodes"], ...]:
    """Return for each layer of nodes which of them are read or written by any weight."""
    written = [np.zeros(len(views[0].columns), dtype=bool), *(view.rows for view in views)]
    read = [*(view.columns for view in views), np.zeros(len(views[-1].rows), dtype=bool)]
    return tuple(a | b for a, b in zip(written, read, strict=True))


def embed_nodes(views: Sequence[View], k_max: int) -> tuple[Float[np.ndarray, "nodes k"], ...]:
    """Return for each layer of nodes a constant column and the k_max - 1 top eigenvectors of the joined blocks.

    The blocks join only neighbouring layers, so the symmetric matrix over all nodes is that of a bipartite graph
    between even and odd layers: its top eigenvectors are singular vectors, which one Gram matrix over the smaller of
    the two sides gives. Nothing is ever laid out over all nodes.
    """
    blocks = [view.deflated for view in views]
    sizes = [blocks[0].shape[1], *(len(block) for block in blocks)]
    side = 0 if sum(sizes[::2]) <= sum(sizes[1::2]) else 1
    count = min(k_max - 1, sum(sizes[side::2]))
    squares, vectors = _top(blocks, sizes, side, count)
    near = dict(zip(range(side, len(sizes), 2), _split(vectors, sizes[side::2]), strict=True))
    far = _across(blocks, near)
    singular = np.sqrt(np.maximum(squares, np.finfo(float).tiny))
    found = [near[layer] if layer in near else far[layer] / singular for layer in range(len(sizes))]
    whole = [points * np.sqrt(size) for points, size in zip(found, sizes, strict=True)]
    signs = np.where(sum((points**3).sum(axis=0) for points in whole) < 0, -1.0, 1.0)
    return tuple(np.concatenate([np.ones((len(points), 1)), points * signs], axis=1) for points in whole)


def _across(blocks: Sequence[np.ndarray], near: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return what the layers of the other parity receive from those of one."""
    found: dict[int, np.ndarray] = {}
    for layer, points in near.items():
        if layer < len(blocks):
            found[layer + 1] = found.get(layer + 1, 0.0) + blocks[layer] @ points
        if layer > 0:
            found[layer - 1] = found.get(layer - 1, 0.0) + blocks[layer - 1].T @ points
    return found


def _split(points: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    return np.split(points, np.cumsum(sizes)[:-1])


def _top(
    blocks: Sequence[np.ndarray], sizes: Sequence[int], side: int, count: int
) -> tuple[Float[np.ndarray, " count"], Float[np.ndarray, "near count"]]:
    """Return the largest eigenvalues of the Gram matrix of one parity and their vectors, largest first."""
    layers, lengths = range(side, len(sizes), 2), sizes[side::2]
    total = sum(lengths)

    def gram(points: np.ndarray) -> np.ndarray:
        near = dict(zip(layers, _split(points.reshape(total, -1), lengths), strict=True))
        back = _across(blocks, _across(blocks, near))
        return np.concatenate([back[layer] for layer in layers])

    if total <= SIDE_EXACT or count >= total - 1:
        whole = gram(np.eye(total))
        squares, vectors = eigh((whole + whole.T) / 2, subset_by_index=[total - count, total - 1])
    else:
        # Fixed and not constant: a constant start is near the null space that deflation made.
        start = np.random.default_rng(0).standard_normal(total)
        squares, vectors = eigsh(LinearOperator((total, total), matvec=gram, dtype=float), k=count, v0=start)
    order = np.argsort(squares)[::-1]
    return squares[order], vectors[:, order]


def assign_nodes(
    points: Sequence[Float[np.ndarray, "nodes k_max"]], alive: Sequence[Bool[np.ndarray, " nodes"]], k: int, seed: int
) -> NetworkPartition:
    """Return k clusters of embedded nodes by one k-means over all layers; dead nodes get -1.

    Nodes are sorted by their second coordinate before k-means and unsorted after, which makes the seeded starts
    independent of the order of neurons.
    """
    lengths = [len(layer) for layer in points]
    held = np.concatenate(list(alive))
    cloud = np.concatenate([layer[:, :k] for layer in points])[held]
    cloud = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    order = np.argsort(cloud[:, 1], kind="stable")
    found = np.empty(len(cloud), dtype=np.int64)
    found[order] = kmeans(cloud[order], k, np.random.default_rng([seed, k]))
    labels = np.full(len(held), -1)
    labels[held] = found
    return NetworkPartition(tuple(_split(labels, lengths)))


def network_q(views: Sequence[View], partition: NetworkPartition) -> float:
    """Return the statistic: the mean over layers of Q_B of each layer's own view."""
    pairs = zip(views, pairwise(partition.layers), strict=True)
    return float(np.mean([scores_of(v.mass, rows[v.rows], columns[v.columns]).q_b for v, (columns, rows) in pairs]))
