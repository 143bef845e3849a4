"""Is a matrix clustered: the best k, its excess modularity over the null, p, and whether the partition holds.

Specification: sections 4.5 and 4.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigvalsh

from checks.clusterability.cocluster import Partition, assign, cocluster, embed
from checks.clusterability.nulls import NullTable
from checks.clusterability.scores import adjusted_rand, scores, scores_of
from checks.clusterability.views import balance, in_range, live, normal_scores, rank_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DELETIONS = 10
"""Draws of the stability measure (4.6)."""

DELETED = 0.1
"""Share of rows, and of columns, that each draw leaves out (4.6)."""

CONFIRM_DRAWS = 99
"""Spiked replicates (4.5). Their mean is used, which is then known to .0002 at a standard deviation of .002."""

EDGE_FACTOR, SPIKES_MAX, BULK_MIN = 1.02, 64, 0.05
"""The spiked null keeps singular values this far above the bulk edge, so many, over so much noise at least (4.5)."""


@dataclass(frozen=True)
class Structure:
    """What the search over k found in one matrix without dead nodes."""

    k: int
    """The candidate of largest excess."""
    excess_q: float
    """Q at `k`, less the null's mean Q at `k`."""
    p: float
    """(1 + replicates whose T reaches the observed) / (1 + replicates): pays for the search over k."""
    exceedances: int
    statistic: float
    """T, the largest (Q - mean) / sd over the candidates."""
    q: tuple[float, ...]
    """Q at every candidate, in the test view."""
    partitions: tuple[Partition, ...]
    null: NullTable
    residual: float
    """Largest relative error of a marginal that balancing left."""

    @property
    def partition(self) -> Partition:
        """The partition at `k`."""
        return self.at(self.k)

    def at(self, k: int) -> Partition:
        """Return the partition found at a candidate."""
        return self.partitions[self.null.ks.index(k)]


def structure_test(weights: Float[np.ndarray, "n m"], null: NullTable, seed: int) -> Structure:
    """Search over the null's candidates of k and place the best against the null.

    Args:
        weights: no dead row or column, of the null's shape in either orientation.
        null: replicates over the candidates of k.
        seed: seeds k-means.
    """
    view = normal_scores(weights)
    points = embed(view.mass, max(null.ks))
    partitions = tuple(assign(points, k, seed) for k in null.ks)
    q = np.array([scores_of(view.mass, part.rows, part.columns).q_b for part in partitions])
    excess = q - null.mean
    best = best_of(excess, null.ks, [np.concatenate([part.rows, part.columns]) for part in partitions])
    k = null.ks[best]
    statistic = null.statistic(q)
    exceedances = null.exceedances(statistic)
    return Structure(
        k=k,
        excess_q=float(excess[best]),
        p=(1 + exceedances) / (1 + null.n),
        exceedances=exceedances,
        statistic=statistic,
        q=tuple(float(value) for value in q),
        partitions=partitions,
        null=null,
        residual=view.residual,
    )


def best_of(excess: Float[np.ndarray, " ks"], ks: Sequence[int], labels: Sequence[Int[np.ndarray, " node"]]) -> int:
    """Return the place of the candidate of largest excess, whose every cluster has a node; the first of equals.

    Two exact blocks have the same modularity at k = 2 and, six clusters empty, at k = 8, where the null's mean may be
    lower. A k that was not filled is not the number of clusters. p knows nothing of this: it searched all of them.
    """
    full = np.array([len(np.unique(one[one >= 0])) == k for k, one in zip(ks, labels, strict=True)])
    return int(np.argmax(np.where(full, excess, -np.inf) if full.any() else excess))


@dataclass(frozen=True)
class Deletions:
    """What draws without a tenth of rows and of columns gave (4.6)."""

    ari: Float[np.ndarray, " draws"]
    """With the whole partition, on what was kept."""
    c: Float[np.ndarray, " draws"]
    """C of the draw's own partition, balanced view."""
    q_b: Float[np.ndarray, " draws"]
    """Q_B, likewise."""


def stability(
    weights: Float[np.ndarray, "n m"], whole: Partition, k: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Return, for each draw without a tenth of rows and columns, the ARI with the whole partition on what was kept."""
    return deletions(weights, whole, k, rng).ari


def deletions(weights: Float[np.ndarray, "n m"], whole: Partition, k: int, rng: np.random.Generator) -> Deletions:
    """Return the partition's agreement and the scores of every draw without a tenth of rows and columns."""
    n, m = weights.shape
    agreement, c, q_b = [], [], []
    for _ in range(DELETIONS):
        rows = np.sort(rng.permutation(n)[: n - round(DELETED * n)])
        columns = np.sort(rng.permutation(m)[: m - round(DELETED * m)])
        kept = weights[np.ix_(rows, columns)]
        part = cocluster(kept, k, int(rng.integers(2**31)))
        again = np.concatenate([part.rows, part.columns])
        first = np.concatenate([whole.rows[rows], whole.columns[columns]])
        # A node may be dead once others are left out.
        agreement.append(adjusted_rand(first[again >= 0], again[again >= 0]))
        seen = scores(kept, part.rows, part.columns, "balanced", k)
        c.append(seen.c)
        q_b.append(seen.q_b)
    return Deletions(np.array(agreement), np.array(c), np.array(q_b))


def confirmation_null(
    weights: Float[np.ndarray, "n m"], k: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"] | None:
    """Return Q at k of dense matrices with this one's large singular values and random directions.

    A dense low-rank matrix has more modularity than noise without being clustered; this null has it too. None where
    no singular value stands above the bulk: then the primary null is the confirmation.
    """
    n, m = weights.shape
    signed = np.sign(weights) * np.sqrt(rank_scores(weights))
    gram = signed @ signed.T if n <= m else signed.T @ signed
    singular = np.sqrt(np.maximum(eigvalsh(gram)[::-1], 0.0))
    spikes = singular[singular > EDGE_FACTOR * (np.sqrt(n) + np.sqrt(m))][:SPIKES_MAX]
    if not len(spikes):
        return None
    noise = np.sqrt(max(BULK_MIN, 1.0 - float(np.square(spikes).sum()) / (n * m)))
    draws = []
    for _ in range(CONFIRM_DRAWS):
        left = np.linalg.qr(rng.standard_normal((n, len(spikes))))[0]
        right = np.linalg.qr(rng.standard_normal((m, len(spikes))))[0]
        surrogate = (left * spikes) @ right.T + noise * rng.standard_normal((n, m))
        mass = balance(rank_scores(surrogate)).mass
        part = assign(embed(mass, k), k, int(rng.integers(2**31)))
        draws.append(scores_of(mass, part.rows, part.columns).q_b)
    return np.array(draws)


def alive(weights: Float[np.ndarray, "n m"]) -> tuple[Float[np.ndarray, "live_n live_m"], int]:
    """Return the matrix in range and without dead nodes, and how many nodes were dead."""
    values = in_range(weights)
    rows, columns = live(values)
    return values[np.ix_(rows, columns)], int((~rows).sum() + (~columns).sum())
