"""How much of a view's mass lies inside clusters, and how much more than its marginals alone would put there.

Specification: section 4.4 (Golechha et al. for C, Barber 2007 for Q_B, Filan et al. for the n-cut).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.clusterability import views

if TYPE_CHECKING:
    from jaxtyping import Float, Int

View = Literal["balanced", "raw", "normal_scores"]


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


def scores(
    weights: Float[np.ndarray, "n m"], rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " m"], view: View
) -> Scores:
    """Return the scores of given labels on a weight matrix; nodes labelled -1 (dead) are left out."""
    values = views.in_range(weights)[np.ix_(rows >= 0, columns >= 0)]
    mass = {
        "balanced": lambda: views.balanced_squares(values).mass,
        "raw": lambda: views.raw(values),
        "normal_scores": lambda: views.normal_scores(values).mass,
    }[view]()
    return scores_of(mass, rows[rows >= 0], columns[columns >= 0])


def scores_of(mass: Float[np.ndarray, "n m"], rows: Int[np.ndarray, " n"], columns: Int[np.ndarray, " m"]) -> Scores:
    """Return the scores of given labels in a view whose total mass is 1."""
    k = 1 + int(max(rows.max(initial=0), columns.max(initial=0)))
    # blocks[a, b]: mass between rows of cluster a and columns of cluster b.
    blocks = np.eye(k)[rows].T @ mass @ np.eye(k)[columns]
    inside, r, s = np.diag(blocks), blocks.sum(axis=1), blocks.sum(axis=0)
    c, c_exp, c_max = float(inside.sum()), float(r @ s), float(np.minimum(r, s).sum())
    held = r + s > 0
    ncut = float(np.sum(1.0 - 2.0 * inside[held] / (r + s)[held]))
    c_adj = (c - c_exp) / (c_max - c_exp) if c_max - c_exp > 1e-12 else None
    return Scores(c, c_exp, c - c_exp, c_max, c_adj, ncut)


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
