"""Sparse matrices: is the pattern of zeros clustered, beyond what the counts of each row and column explain?

Magnitudes are left out. The null keeps every row's and every column's number of non-zeros. Specification: section
4.5, mask route (curveball trades: Strona et al. 2014, Nature Communications 5:4114).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.cocluster import Partition, assign, embed
from checks.clusterability.nulls import NullTable
from checks.clusterability.scores import adjusted_rand, scores_of
from checks.clusterability.structure import DELETED, DELETIONS, Structure, best_of
from checks.clusterability.views import live

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

TRADES = 5
"""Trades for each row of the smaller side that separate two states of the chain (4.5: "5n trades to start").

The specification goes on with 2n between replicates, in one chain. Here every replicate stands 5n trades from one
hub, as the observed mask does: then observed and replicates are exchangeable whether or not the chain has mixed
(Besag & Clifford 1989, Biometrika 76:633, parallel method), which one chain's replicates are not."""

STOP_AT = 10
"""Replicates that reach the observed statistic, after which no more are drawn (4.5; Besag & Clifford 1991)."""

DAMPING = 1.0
"""Share of the mean degree that is added to each degree in B = M / sqrt((r_i + mean r)(s_j + mean s)) (4.5), so
that nodes of few entries do not own singular vectors."""

Q_DIGITS, T_DIGITS = 12, 6
"""Decimals of Q and of T that are kept: equal partitions tie, in whatever order their sums were taken."""

SD_MIN = 1e-9
"""Below this a null does not vary (its degrees allow one mask, up to partitions that tie): T is then 0."""


@dataclass(frozen=True)
class MaskNull(NullTable):
    """Replicates of Q over the candidates of k, for one mask's degrees."""

    @cached_property
    def sd(self) -> Float[np.ndarray, " ks"]:
        """Standard deviation of Q for each k, at least `SD_MIN`: some degrees allow one mask only."""
        return np.asarray(np.maximum(self.q.std(axis=0, ddof=1), SD_MIN))


@dataclass(frozen=True)
class MaskStructure(Structure):
    """What the search over k found in one mask; the fields of `Structure` with these differences.

    `p` is h / l where the h = 10th exceedance came with replicate l, else (1 + exceedances) / (1 + n): both are
    valid at every level (Besag & Clifford 1991, Biometrika 78:301) and neither is ever 0. `exceedances` are counted
    by moments in which the observed mask takes part; `statistic` is T by the replicates' own. Nothing is balanced:
    `residual` is 0.
    """

    planned: int
    """Replicates that would have been drawn without the stop: the smallest possible p is 1 / (planned + 1)."""

    @property
    def n(self) -> int:
        """Replicates drawn."""
        return self.null.n


def mask_structure(
    mask: Bool[np.ndarray, "n m"], ks: Sequence[int], seed: int, rng: np.random.Generator, least_n: int
) -> MaskStructure:
    """Search a mask over the candidates of k and place the best among masks of the same degrees.

    Args:
        mask: true where there is a weight; no empty row or column.
        ks: candidates of k, each at most half of the smaller side.
        seed: seeds k-means, the same for observed and replicates: the statistic is one function of the mask.
        rng: draws the trades.
        least_n: replicates, fewer only after the tenth exceedance.

    Raises:
        ValueError: an empty row or column, or fewer than `STOP_AT` replicates.
    """
    if least_n < STOP_AT:
        raise ValueError(f"{least_n} replicates are too few: at least {STOP_AT}")
    seen = _live(mask)
    partitions, q = _search(seen, ks, seed)
    hub = traded(seen, TRADES * min(seen.shape), rng)
    rows: list[np.ndarray] = []
    exceedances = 0
    while len(rows) < least_n and exceedances < STOP_AT:
        rows.append(_search(traded(hub, TRADES * min(seen.shape), rng), ks, seed)[1])
        exceedances = _exceedances(q, np.stack(rows))
    null = MaskNull((min(seen.shape), max(seen.shape)), tuple(ks), np.stack(rows), committed=False)
    excess = q - null.mean
    best = best_of(excess, ks, [np.concatenate([part.rows, part.columns]) for part in partitions])
    return MaskStructure(
        k=ks[best],
        excess_q=float(excess[best]),
        p=sequential_p(exceedances, len(rows)),
        exceedances=exceedances,
        statistic=null.statistic(q),
        q=tuple(float(value) for value in q),
        partitions=partitions,
        null=null,
        residual=0.0,
        planned=least_n,
    )


def sequential_p(exceedances: int, n: int) -> float:
    """Return p after n replicates of which so many reached the observed statistic; drawing stops at `STOP_AT`.

    P(p <= h / l) is the chance that fewer than h of the first l - 1 replicates exceed, so at most h / l where
    observed and replicates are exchangeable and T treats them alike (Besag & Clifford 1991).
    """
    return STOP_AT / n if exceedances >= STOP_AT else (1 + exceedances) / (1 + n)


def _exceedances(observed: Float[np.ndarray, " ks"], q: Float[np.ndarray, "replicates ks"]) -> int:
    """Return how many replicates reach the observed T = max over k of (Q - mean) / sd.

    Mean and sd are those of observed and replicates together. With the observed left out, it alone would be
    measured by moments that it has no part in, and would rank too high: among 10 replicates T is then inflated by
    about a tenth. With it in, all are alike, which the p-value's proof asks for; an outlier stays the largest.
    """
    pool = np.vstack([observed, q])
    sd = np.maximum(pool.std(axis=0, ddof=1), SD_MIN)
    statistics = np.round(((pool - pool.mean(axis=0)) / sd).max(axis=1), T_DIGITS)
    return int((statistics[1:] >= statistics[0]).sum())


def traded(mask: Bool[np.ndarray, "n m"], trades: int, rng: np.random.Generator) -> Bool[np.ndarray, "n m"]:
    """Return a mask after random trades, every row and column count kept.

    A trade picks two rows (of the smaller side) and deals the places that one of them holds alone out anew. Any two
    masks are equally far both ways, so that the chain is reversible and its law uniform over all masks of these
    degrees; it reaches each (Strona et al. 2014; Carstens 2015, Physical Review E 91:042812).
    """
    n, m = mask.shape
    if n > m:
        return traded(mask.T, trades, rng).T
    dealt = mask.copy()
    first, second = rng.integers(n, size=trades), rng.integers(n - 1, size=trades)
    second += second >= first
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        places = np.flatnonzero(dealt[i] != dealt[j])
        held = dealt[i, places]
        rng.shuffle(held)
        dealt[i, places] = held
        dealt[j, places] = ~held
    return dealt


def mask_cocluster(mask: Bool[np.ndarray, "n m"], k: int, seed: int) -> Partition:
    """Return k clusters of a mask's rows and columns; an empty row or column is labelled -1."""
    rows, columns = live(mask)
    found = assign(embed(mask[np.ix_(rows, columns)].astype(np.float64), k, damping=DAMPING), k, seed)
    labels = Partition(np.full(len(rows), -1), np.full(len(columns), -1))
    labels.rows[rows], labels.columns[columns] = found.rows, found.columns
    return labels


def mask_stability(
    mask: Bool[np.ndarray, "n m"], whole: Partition, k: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Return, for each draw without a tenth of rows and columns, the ARI with the whole partition on what was kept.

    Section 4.6 on the mask: as `structure.stability`, with the mask's co-clustering. A draw that leaves no weight is 0.
    """
    agreement = []
    for _ in range(DELETIONS):
        rows, columns = (np.sort(rng.permutation(side)[: side - round(DELETED * side)]) for side in mask.shape)
        left, seed = mask[np.ix_(rows, columns)], int(rng.integers(2**31))
        if not left.any():
            agreement.append(0.0)
            continue
        part = mask_cocluster(left, k, seed)
        again = np.concatenate([part.rows, part.columns])
        first = np.concatenate([whole.rows[rows], whole.columns[columns]])
        agreement.append(adjusted_rand(first[again >= 0], again[again >= 0]))
    return np.array(agreement)


def planted_mask(
    shape: tuple[int, int], k: int, inside: float, outside: float, rng: np.random.Generator
) -> tuple[Bool[np.ndarray, "n m"], Partition]:
    """Return a mask of two densities and the k hidden, equally large clusters that it is dense in (organism G)."""
    rows, columns = (rng.permutation(np.arange(side) % k) for side in shape)
    density = np.where(rows[:, None] == columns, inside, outside)
    return rng.random(shape) < density, Partition(rows, columns)


def _search(
    mask: Bool[np.ndarray, "n m"], ks: Sequence[int], seed: int
) -> tuple[tuple[Partition, ...], Float[np.ndarray, " ks"]]:
    """Return the partition and its Barber modularity at every k; the mask's own degrees are its marginals."""
    mass = mask / mask.sum()
    points = embed(mass, max(ks), damping=DAMPING)
    partitions = tuple(assign(points, k, seed) for k in ks)
    q = [scores_of(mass, part.rows, part.columns).q_b for part in partitions]
    return partitions, np.round(q, Q_DIGITS)


def _live(mask: Bool[np.ndarray, "n m"]) -> Bool[np.ndarray, "n m"]:
    whole = np.asarray(mask, dtype=bool)
    rows, columns = live(whole)
    if not (rows.all() and columns.all()):
        raise ValueError("a row or column is empty: leave dead nodes out first")
    return whole
