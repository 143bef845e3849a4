"""Coordinates in which the closed forms are solved: leading axes, the range of few rows, and halves by cluster.

Specification: sections 5.2 and 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

HALVINGS = 4
"""Random halvings by cluster behind a stability (5.3)."""

JITTER = 1e-13
"""Share of the trace added to a Gram matrix before it is factored: centred rows are linearly dependent."""

HELD = 1e-12
"""Axes whose squared length is below this share of the first one's are rounding."""


def leading(
    x: Float[np.ndarray, "row width"], count: int
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "width r"]]:
    """Return squared singular values of rows and their axes as columns, largest first; r <= count. Nothing is centred.

    The smaller of the two Gram matrices is decomposed.
    """
    rows, width = x.shape
    count = min(count, rows, width)
    if width <= rows:
        squares, axes = eigh(x.T @ x, subset_by_index=[width - count, width - 1], check_finite=False)
        return np.asarray(squares[::-1]), np.asarray(axes[:, ::-1])
    squares, left = eigh(x @ x.T, subset_by_index=[rows - count, rows - 1], check_finite=False)
    held = squares > squares[-1] * HELD
    return np.asarray(squares[held][::-1]), np.asarray(np.linalg.qr((x.T @ left[:, held])[:, ::-1])[0])


def components(u: Float[np.ndarray, "pair width"], count: int) -> Float[np.ndarray, "width r"]:
    """Return the leading principal axes of u as columns, not centred (it is centred by the normaliser)."""
    return leading(u, count)[1]


def span(
    rows: Float[np.ndarray, "row width"],
) -> tuple[Float[np.ndarray, "row r"], Callable[[Float[np.ndarray, " r"]], Float[np.ndarray, " width"]]]:
    """Return rows in orthonormal coordinates of their own range, and the map from coordinates back to residual space.

    Where rows are fewer than their width the Gram matrix is factored, Z Z' = L L': row i has the coordinates L[i], and
    y lies at Z' L^-T y. Products of rows are kept, and with them every rotation-invariant fit. Otherwise the rows
    stay as they are.
    """
    if len(rows) >= rows.shape[1]:
        return rows, lambda y: y
    rows = np.asarray(rows, dtype=np.float64)
    gram = rows @ rows.T
    gram[np.diag_indices_from(gram)] += max(JITTER * float(np.trace(gram)), np.finfo(np.float64).tiny)
    factor = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
    return factor, lambda y: np.asarray(rows.T @ solve_triangular(factor, y, lower=True, trans="T", check_finite=False))


def halves(
    cluster: Int[np.ndarray, " pair"], rng: np.random.Generator
) -> list[tuple[Bool[np.ndarray, " pair"], Bool[np.ndarray, " pair"]]]:
    """Return `HALVINGS` random divisions of pairs into two, whole clusters at a time, as masks."""
    names, index = np.unique(cluster, return_inverse=True)
    drawn = []
    for _ in range(HALVINGS):
        side = rng.permutation(len(names)) < len(names) / 2
        drawn.append((side[index], ~side[index]))
    return drawn
