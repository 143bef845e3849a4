"""How much of a view's mass lies inside clusters, and how much more than its marginals alone would put there.

Specification: section 4.4 (Golechha et al. for C, Barber 2007 for Q_B, Filan et al. for the n-cut).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.views import View, in_range
from checks.clusterability.views import view as view_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int

__all__ = ["Scores", "View", "adjusted_rand", "eigengap", "scores", "scores_of"]

VARIES = 1e-12
"""Where c_max and c_exp are closer than this, c can only be c_exp: what float64 sums of masses leave open."""


@dataclass(frozen=True)
class Scores:
    """Scores of one partition in one view; all are pure numbers."""

    c: float
    """Share of the mass between rows and columns of equal label."""
    c_exp: float
    """The same share if mass followed the marginals."""
    q_b: float
    """Bipartite modularity, c - c_exp."""
    c_max: float
    """Largest share that the marginals allow."""
    c_adj: float | None
    """(c - c_exp) / (c_max - c_exp); None where nothing can vary, as for one cluster."""
    ncut: float
    """Sum over clusters of the share of their mass that leaves them."""
    shares: tuple[float, ...]
    """Share of rows and columns that each cluster holds, by label; 0 for a label that none has."""
    size_entropy: float | None
    """Entropy of the shares over ln k: 1 for clusters of one size. None for one cluster."""

    @property
    def k(self) -> int:
        """Number of clusters, empty ones included."""
        return len(self.shares)

    @property
    def min_cluster_share(self) -> float:
        """The smallest cluster's share of rows and columns."""
        return min(self.shares)


def scores(
    weights: Float[np.ndarray, "n m"],
    rows: Int[np.ndarray, " n"],
    columns: Int[np.ndarray, " m"],
    view: View,
    k: int | None = None,
) -> Scores:
    """Return the scores of given labels on a weight matrix; nodes labelled -1 (dead) are left out.

    Args:
        weights: rows are outputs.
        rows: label of each row, 0..k-1, or -1.
        columns: label of each column in the same numbering.
        view: the masses that are scored.
        k: number of clusters, where labels at the end may be empty; else one more than the largest label.
    """
    values = in_range(weights)[np.ix_(rows >= 0, columns >= 0)]
    return scores_of(view_of(values, view), rows[rows >= 0], columns[columns >= 0], k)


def scores_of(
    mass: Float[np.ndarray, "n m"],
    rows: Int[np.ndarray, " n"],
    columns: Int[np.ndarray, " m"],
    k: int | None = None,
) -> Scores:
    """Return the scores of given labels, 0..k-1, in a view whose total mass is 1.

    One cluster has the exact values c = 1, q_b = 0 and ncut = 0 (4.4).
    """
    k = k or 1 + int(max(rows.max(initial=0), columns.max(initial=0)))
    if k == 1:
        return Scores(1.0, 1.0, 0.0, 1.0, None, 0.0, (1.0,), None)
    # blocks[a, b]: mass between rows of cluster a and columns of cluster b.
    blocks = np.eye(k)[rows].T @ mass @ np.eye(k)[columns]
    inside, r, s = np.diag(blocks), blocks.sum(axis=1), blocks.sum(axis=0)
    c, c_exp, c_max = float(inside.sum()), float(r @ s), float(np.minimum(r, s).sum())
    held = r + s > 0
    ncut = float(np.sum(1.0 - 2.0 * inside[held] / (r + s)[held]))
    c_adj = (c - c_exp) / (c_max - c_exp) if c_max - c_exp > VARIES else None
    shares = np.bincount(np.concatenate([rows, columns]), minlength=k) / (len(rows) + len(columns))
    entropy = -float(sum(share * log(share) for share in shares if share > 0)) / log(k)
    return Scores(c, c_exp, c - c_exp, c_max, c_adj, ncut, tuple(float(share) for share in shares), entropy)


def eigengap(singular: Float[np.ndarray, " some"], k: int) -> float | None:
    """Return sigma_k - sigma_(k+1) of descending singular values: how clearly a view has k directions.

    None where fewer than k + 1 values are known.
    """
    return float(singular[k - 1] - singular[k]) if 1 <= k < len(singular) else None


def adjusted_rand(first: Int[np.ndarray, " p"], second: Int[np.ndarray, " p"]) -> float:
    """Return the adjusted Rand index of two labellings (Hubert & Arabie 1985): 1 equal, about 0 unrelated."""
    a, b = np.unique(first, return_inverse=True)[1], np.unique(second, return_inverse=True)[1]
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1.0)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, left, right = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = left * right / max(pairs(np.array([float(len(a))])), 1.0)
    top = (left + right) / 2
    return 1.0 if top == expected else (together - expected) / (top - expected)
