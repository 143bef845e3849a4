"""Is a net clustered as a whole: the null of one partition over all its layers, the best k, p, and stability.

Specification: sections 4.5, 4.6 and 5, `network`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.masks import TRADES, traded
from checks.clusterability.network import (
    ZERO_SHARE_DENSE,
    NetworkPartition,
    View,
    alive_nodes,
    assign_nodes,
    embed_nodes,
    network_partition,
    network_q,
    views_of,
)
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.structure import DELETED, DELETIONS, best_of
from checks.clusterability.views import in_range, live

if TYPE_CHECKING:
    from jaxtyping import Float

SIDE_MIN = 16
"""Layers of fewer nodes take part, and do not bound the candidates of k: such a matrix is never tested alone."""


@dataclass(frozen=True)
class NetworkNull:
    """Replicates of the statistic over the candidates of k, for one chain of shapes."""

    ks: tuple[int, ...]
    q: Float[np.ndarray, "replicates ks"]
    """Mean over layers of Q_B."""

    @property
    def n(self) -> int:
        """Number of replicates."""
        return len(self.q)

    @cached_property
    def mean(self) -> Float[np.ndarray, " ks"]:
        """Mean for each k."""
        return np.asarray(self.q.mean(axis=0))

    @cached_property
    def sd(self) -> Float[np.ndarray, " ks"]:
        """Standard deviation for each k."""
        return np.asarray(self.q.std(axis=0, ddof=1))

    @cached_property
    def statistics(self) -> Float[np.ndarray, " replicates"]:
        """T = max over k of (Q - mean) / sd of every replicate: the search over k is paid for here."""
        return np.asarray(((self.q - self.mean) / self.sd).max(axis=1))


@dataclass(frozen=True)
class NetworkStructure:
    """What the search over k found in a net."""

    k: int
    """The candidate of largest excess."""
    excess_q: float
    """Mean Q_B over layers at `k`, less the null's mean there."""
    p: float
    """(1 + exceedances) / (1 + replicates): pays for the search over k."""
    exceedances: int
    """Replicates whose T reaches `statistic`."""
    statistic: float
    """T, the largest (Q - mean) / sd over the candidates."""
    q: tuple[float, ...]
    """Mean Q_B over layers at every candidate."""
    partitions: tuple[NetworkPartition, ...]
    null: NetworkNull

    @property
    def partition(self) -> NetworkPartition:
        """The partition at `k`."""
        return self.at(self.k)

    def at(self, k: int) -> NetworkPartition:
        """Return the partition found at a candidate."""
        return self.partitions[self.null.ks.index(k)]


Draw = Callable[[np.random.Generator], "Float[np.ndarray, 'out in']"]
"""Draws a surrogate of one layer: Gaussian noise, or a traded mask with permuted magnitudes."""


def network_ks(shapes: Sequence[tuple[int, int]], candidates: Sequence[int]) -> tuple[int, ...]:
    """Return the candidates of k up to an eighth of the smallest layer of neurons, and always 2.

    Inputs, outputs and layers below `SIDE_MIN` take part without a say: ten outputs would leave no candidate.
    """
    return tuple(k for k in candidates if k <= max(2, network_width(shapes) // 8)) or (2,)


def network_width(shapes: Sequence[tuple[int, int]]) -> int:
    """Return the size of the smallest layer of neurons that bounds the candidates of k."""
    hidden = [n for n, _ in shapes[:-1]] or list(shapes[0])
    return min([count for count in hidden if count >= SIDE_MIN] or hidden)


def network_null(shapes: Sequence[tuple[int, int]], ks: Sequence[int], n: int, rng: np.random.Generator) -> NetworkNull:
    """Return the null of dense nets: Gaussian layers of the same shapes, [out, in], through the whole pipeline."""

    def gaussian(shape: tuple[int, int]) -> Draw:
        return lambda draws: draws.standard_normal(shape)

    return null_of([gaussian(shape) for shape in shapes], ks, n, rng)


def surrogates(
    layers: Sequence[Float[np.ndarray, "out in"]], zero_share_dense: float = ZERO_SHARE_DENSE
) -> tuple[Draw, ...]:
    """Return what a net's null draws for each of its layers; dead nodes stay dead.

    A dense layer is Gaussian noise, as normal scores make the law of its weights irrelevant. A sparse one keeps the
    count of weights in every row and column, and its magnitudes, which are permuted over the weights.
    """
    return tuple(_surrogate(in_range(weights), zero_share_dense) for weights in layers)


def _surrogate(weights: Float[np.ndarray, "out in"], zero_share_dense: float) -> Draw:
    rows, columns = live(weights)
    at = np.ix_(rows, columns)
    kept = weights[at]
    dense = not kept.size or float(np.mean(kept == 0)) <= zero_share_dense

    def draw(rng: np.random.Generator) -> Float[np.ndarray, "out in"]:
        found = np.zeros_like(kept)
        if dense:
            found = rng.standard_normal(kept.shape)
        else:
            mask = traded(kept != 0, TRADES * min(kept.shape), rng)
            found[mask] = rng.permutation(kept[kept != 0])
        whole = np.zeros(weights.shape)
        whole[at] = found
        return whole

    return draw


def null_of(
    layers: Sequence[Draw],
    ks: Sequence[int],
    n: int,
    rng: np.random.Generator,
    *,
    zero_share_dense: float = ZERO_SHARE_DENSE,
) -> NetworkNull:
    """Return the null of nets whose layers are drawn as told; each replicate has a seed of its own."""
    rows = []
    for seed in rng.integers(2**63, size=n):
        own = np.random.default_rng(seed)
        views = views_of([draw(own) for draw in layers], zero_share_dense)
        rows.append([network_q(views, part) for part in _sweep(views, ks, int(seed % 2**31))])
    return NetworkNull(tuple(ks), np.array(rows))


def _sweep(views: Sequence[View], ks: Sequence[int], seed: int) -> list[NetworkPartition]:
    points, alive = embed_nodes(views, max(ks)), alive_nodes(views)
    return [assign_nodes(points, alive, k, seed) for k in ks]


def network_test(
    layers: Sequence[Float[np.ndarray, "out in"]],
    null: NetworkNull,
    seed: int,
    *,
    zero_share_dense: float = ZERO_SHARE_DENSE,
) -> NetworkStructure:
    """Search over the null's candidates of k and place the best against the null."""
    views = views_of(layers, zero_share_dense)
    partitions = tuple(_sweep(views, null.ks, seed))
    q = np.array([network_q(views, part) for part in partitions])
    excess = q - null.mean
    best = best_of(excess, null.ks, [part.joined for part in partitions])
    statistic = float(((q - null.mean) / null.sd).max())
    exceedances = int((null.statistics >= statistic).sum())
    return NetworkStructure(
        k=null.ks[best],
        excess_q=float(excess[best]),
        p=(1 + exceedances) / (1 + null.n),
        exceedances=exceedances,
        statistic=statistic,
        q=tuple(float(value) for value in q),
        partitions=partitions,
        null=null,
    )


def network_stability(
    layers: Sequence[Float[np.ndarray, "out in"]],
    whole: NetworkPartition,
    k: int,
    rng: np.random.Generator,
    *,
    zero_share_dense: float = ZERO_SHARE_DENSE,
) -> Float[np.ndarray, " draws"]:
    """Return, for each draw without a tenth of every layer's nodes, the ARI with the whole partition on the rest.

    Compared are the hidden neurons, of which the claim is: inputs and outputs take part, but where a net reads every
    input into every cluster they belong to none, and their labels are chance (organism E1: .54 with them, 1 without).
    A draw that leaves some layer without any weight counts as 0: clusters that run through the net do not outlast it.
    """
    sizes = [layers[0].shape[1], *(len(weights) for weights in layers)]
    agreement = []
    for _ in range(DELETIONS):
        kept = [np.sort(rng.permutation(size)[: size - round(DELETED * size)]) for size in sizes]
        left = [weights[np.ix_(rows, columns)] for weights, (columns, rows) in zip(layers, pairwise(kept), strict=True)]
        seed = int(rng.integers(2**31))
        if not all(weights.any() for weights in left):
            agreement.append(0.0)
            continue
        found = network_partition(left, k, seed, zero_share_dense=zero_share_dense)
        inner = slice(1, -1) if len(layers) > 1 else slice(None)
        again = np.concatenate(found.layers[inner])
        first = np.concatenate([labels[at] for labels, at in zip(whole.layers[inner], kept[inner], strict=True)])
        # A node may be dead once others are left out, and the other way round it may not.
        held = (again >= 0) & (first >= 0)
        agreement.append(adjusted_rand(first[held], again[held]))
    return np.array(agreement)
