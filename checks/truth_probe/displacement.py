"""Midpoint-displacement: the direction along which the two texts of a pair differ much and pairs vary little.

Closed form, no labels, no seeds (Fry et al. 2023, arXiv 2311.00488). Specification: sections 5.2 and 5.3. All lambdas
are in the sum convention: the midpoint is x+ + x-.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import eigh

from checks.truth_probe.direction import Direction as Direction
from checks.truth_probe.pairs import PairActivations

if TYPE_CHECKING:
    from jaxtyping import Float

PATH = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Candidates of lambda (5.3)."""

HALVINGS = 4
"""Random halvings by cluster behind a stability (5.3)."""

TIE = 0.01
"""Stabilities this close are a tie; the smaller lambda wins (5.3)."""

SEARCH_MAX = 256
"""Displacement components in which lambda is searched, and to which a solve above `DENSE_MAX` is restricted."""

DENSE_MAX = 1536
"""Largest rank that is solved densely in full space (5.2)."""

SUBSPACE_K, RIDGE = 32, 0.1
"""Components and ridge, as a share of the mean diagonal of M, in which lambda0 is computed (5.3)."""


@dataclass(frozen=True)
class Moments:
    """Second moments of displacement and midpoint over n pairs, in some orthonormal coordinates."""

    d: Float[np.ndarray, "r r"]
    m: Float[np.ndarray, "r r"]
    basis: Float[np.ndarray, "width r"] | None
    """Columns are the coordinates in residual space; None where these are residual space."""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class PathRow:
    """One lambda of the path: how well two halves of train agree on the direction."""

    lam: float
    stability: float
    """Mean |cos| between the directions of two halves."""
    past_crossing: bool
    """The smallest eigenvalue is not negative: directions without midpoint variance win; never chosen."""


def displacement(pairs: PairActivations) -> Float[np.ndarray, "pair width"]:
    """Return u = x+ - x-."""
    return np.asarray(pairs.pos - pairs.neg)


def moments(pairs: PairActivations) -> Moments:
    """Return D = U'U/n and M = V'V/n, in the range of the states where that is smaller than their width."""
    u, v = displacement(pairs), pairs.pos + pairs.neg
    width = u.shape[1]
    rank = min(2 * len(u), width)
    if rank > DENSE_MAX:
        return project(pairs, components(u, SEARCH_MAX), flags=("restricted",))
    if rank == width:
        return Moments(u.T @ u / len(u), v.T @ v / len(v), None)
    basis = np.linalg.qr(np.concatenate([pairs.pos, pairs.neg]).T)[0]
    return project(pairs, basis)


def project(pairs: PairActivations, basis: Float[np.ndarray, "width r"], flags: tuple[str, ...] = ()) -> Moments:
    """Return the moments in the span of an orthonormal basis."""
    u, v = displacement(pairs) @ basis, (pairs.pos + pairs.neg) @ basis
    return Moments(u.T @ u / len(u), v.T @ v / len(v), basis, flags)


def components(u: Float[np.ndarray, "pair width"], count: int) -> Float[np.ndarray, "width r"]:
    """Return the leading principal axes of u, not centred (it is centred by the normaliser)."""
    count = min(count, *u.shape)
    if u.shape[1] <= u.shape[0]:
        return np.asarray(eigh(u.T @ u, subset_by_index=[u.shape[1] - count, u.shape[1] - 1])[1][:, ::-1])
    squares, left = eigh(u @ u.T, subset_by_index=[u.shape[0] - count, u.shape[0] - 1])
    held = squares > squares[-1] * 1e-12
    return np.asarray(np.linalg.qr((u.T @ left[:, held])[:, ::-1])[0])


def loss(pairs: PairActivations, theta: Float[np.ndarray, " width"], lam: float) -> float:
    """Return (lam - 1) var of displacement + lam var of midpoint along a unit direction."""
    u, v = displacement(pairs) @ theta, (pairs.pos + pairs.neg) @ theta
    return float((lam - 1) * np.mean(u**2) + lam * np.mean(v**2))


def solve_md(pairs: PairActivations, lam: float, convention: Literal["sum", "mean"] = "sum") -> Direction:
    """Return the global minimum of the loss over unit directions.

    Args:
        pairs: normalised states.
        lam: weight of the midpoint, 0 <= lam < 1.
        convention: "mean" takes a lambda of the authors' code, whose midpoint is half of ours.

    Raises:
        ValueError: lambda is out of range.
    """
    if not 0 <= lam < 1:
        raise ValueError(f"lambda {lam} is outside [0, 1)")
    if convention == "mean":
        ratio = lam / (1 - lam) / 4
        lam = ratio / (1 + ratio)
    return _solve(moments(pairs), lam)[0]


def _solve(of: Moments, lam: float) -> tuple[Direction, float]:
    values, vectors = eigh(lam * of.m - (1 - lam) * of.d, subset_by_index=[0, 0])
    vector = vectors[:, 0] if of.basis is None else of.basis @ vectors[:, 0]
    vector = vector / np.linalg.norm(vector)
    if vector[np.argmax(np.abs(vector))] < 0:
        vector = -vector
    return Direction(vector, "md", of.flags), float(values[0])


def halves(cluster: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return `HALVINGS` random divisions of pairs into two, whole clusters at a time, as masks."""
    names, index = np.unique(cluster, return_inverse=True)
    drawn = []
    for _ in range(HALVINGS):
        side = rng.permutation(len(names)) < len(names) / 2
        drawn.append((side[index], ~side[index]))
    return drawn


def lambda_path(pairs: PairActivations, rng: np.random.Generator) -> tuple[PathRow, ...]:
    """Return the split-half stability of every candidate lambda, in the leading displacement components."""
    basis = components(displacement(pairs), max(1, min(SEARCH_MAX, len(pairs) // 2)))
    whole = project(pairs, basis)
    parts = [tuple(project(pairs.take(half), basis) for half in both) for both in halves(pairs.cluster, rng)]
    rows = []
    for lam in PATH:
        agree = [abs(float(_solve(a, lam)[0].vector @ _solve(b, lam)[0].vector)) for a, b in parts]
        rows.append(PathRow(lam, float(np.mean(agree)), past_crossing=_solve(whole, lam)[1] >= 0))
    return tuple(rows)


def choose_lambda(path: tuple[PathRow, ...]) -> float:
    """Return the most stable lambda before the crossing; within .01 the smaller one. No label is looked at."""
    open_rows = [row for row in path if not row.past_crossing]
    if not open_rows:
        return 0.0
    best = max(row.stability for row in open_rows)
    return next(row.lam for row in open_rows if row.stability >= best - TIE)


def lambda0(pairs: PairActivations) -> float:
    """Return rho / (1 + rho), rho the largest generalised eigenvalue of (D, M): where the minimum crosses zero."""
    of = project(pairs, components(displacement(pairs), SUBSPACE_K))
    ridge = RIDGE * np.trace(of.m) / len(of.m)
    rho = float(eigh(of.d, of.m + ridge * np.eye(len(of.m)), eigvals_only=True)[-1])
    return min(rho / (1 + rho), PATH[-1])


def stability(pairs: PairActivations, lam: float, rng: np.random.Generator) -> Float[np.ndarray, " halvings"]:
    """Return, for fresh halvings, the |cos| of the two halves' directions in full space."""
    return np.array(
        [
            abs(float(solve_md(pairs.take(a), lam).vector @ solve_md(pairs.take(b), lam).vector))
            for a, b in halves(pairs.cluster, rng)
        ]
    )
