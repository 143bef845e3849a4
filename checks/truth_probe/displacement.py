"""Midpoint-displacement: the direction along which the two texts of a pair differ much and pairs vary little.

Closed form, no labels, no seeds (Fry et al. 2023, arXiv 2311.00488). Specification: sections 5.2 and 5.3. All lambdas
are in the sum convention: the midpoint is x+ + x-. Every function takes normalised pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh

from checks.truth_probe.direction import Direction, canonical
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.subspaces import components, halves, leading, span

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = [
    "Crossing",
    "Direction",
    "Moments",
    "PathRow",
    "choose_lambda",
    "components",
    "crossing",
    "displacement",
    "gap",
    "halves",
    "lambda0",
    "lambda_path",
    "loss",
    "moments",
    "project",
    "residual",
    "second_stability",
    "share",
    "solve_md",
    "stability",
]

PATH = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Candidates of lambda (5.3)."""

TIE = 0.01
"""Stabilities this close are a tie; the smaller lambda wins (5.3)."""

SEARCH_MAX = 256
"""Displacement components in which lambda is searched, and to which a solve above `DENSE_MAX` is restricted."""

DENSE_MAX = 1536
"""Largest rank that is solved densely in full space (5.2)."""

SUBSPACE_K, RIDGE = 32, 0.1
"""Components and ridge, as a share of the mean diagonal of M, in which lambda0 is computed (5.3)."""

PAIRS_PER_DIMENSION = 10
"""Fewer pairs for each dimension leave lambda0 not identified: it tends to 1 when d reaches n (5.3)."""

ZERO = 1e-12
"""An eigenvalue this small beside the mean diagonal is rounding: such a solve has passed its crossing."""


@dataclass(frozen=True)
class Moments:
    """Second moments of displacement and midpoint over n pairs, in some orthonormal coordinates."""

    d: Float[np.ndarray, "r r"]
    m: Float[np.ndarray, "r r"]
    lift: Callable[[Float[np.ndarray, " r"]], Float[np.ndarray, " width"]]
    """Takes coordinates to residual space."""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class PathRow:
    """One lambda of the path: how well two halves of train agree on the direction, and where it points."""

    lam: float
    stability: float
    """Mean |cos| between the directions of two halves."""
    past_crossing: bool
    """The smallest eigenvalue is not negative: directions without midpoint variance win; never chosen."""
    cos_first: float = 1.0
    """|cos| of all of train's direction with the one at the path's first lambda, 0."""
    cos_previous: float = 1.0
    """|cos| with the path's lambda before this one; 1 for the first."""
    relative_gap: float = float("nan")
    """(mu2 - mu1) / max(|mu1|, |mu2|) of the two lowest eigenvalues of A: at lambda 0 it is 1 - s2^2/s1^2; a tie is
    0; above 1 the second eigenvalue is positive."""
    vector: Float[np.ndarray, " width"] | None = field(default=None, compare=False, repr=False)
    """Direction of all of train in the searched components: for numbers shown beside the path, never for the choice."""


@dataclass(frozen=True)
class Crossing:
    """Lambda at which the smallest eigenvalue crosses zero: there md equals the second-order form of CCS (5.3)."""

    lam: float
    dimensions: int
    flags: tuple[str, ...] = ()
    """`not_identified` where there are fewer than ten pairs a dimension."""


def displacement(pairs: PairActivations) -> Float[np.ndarray, "pair width"]:
    """Return u = x+ - x-."""
    return np.asarray(pairs.pos - pairs.neg)


def moments(pairs: PairActivations) -> Moments:
    """Return D = U'U/n and M = V'V/n, in the range of the states where that is smaller than their width.

    Above a rank of `DENSE_MAX` they are restricted to the leading displacement components and flagged `restricted`.
    """
    n, width = pairs.pos.shape
    if min(2 * n, width) > DENSE_MAX:
        return project(pairs, components(displacement(pairs), SEARCH_MAX), flags=("restricted",))
    stack = np.empty((2 * n, width))
    np.subtract(pairs.pos, pairs.neg, out=stack[:n])
    np.add(pairs.pos, pairs.neg, out=stack[n:])
    rows, lift = span(stack)
    return Moments(_second(rows[:n]), _second(rows[n:]), lift)


def project(pairs: PairActivations, basis: Float[np.ndarray, "width r"], flags: tuple[str, ...] = ()) -> Moments:
    """Return the moments in the span of an orthonormal basis."""
    u, v = displacement(pairs) @ basis, (pairs.pos + pairs.neg) @ basis
    return Moments(_second(u), _second(v), lambda y: np.asarray(basis @ y), flags)


def _second(x: Float[np.ndarray, "pair r"]) -> Float[np.ndarray, "r r"]:
    return np.asarray(x.T @ x / len(x))


def loss(pairs: PairActivations, theta: Float[np.ndarray, " width"], lam: float) -> float:
    """Return (lam - 1) var of displacement + lam var of midpoint along a unit direction."""
    u, v = displacement(pairs) @ theta, (pairs.pos + pairs.neg) @ theta
    return float((lam - 1) * np.mean(u**2) + lam * np.mean(v**2))


def share(pairs: PairActivations, theta: Float[np.ndarray, " width"]) -> float:
    """Return the displacement's share of a direction's variance, var_d / (var_d + var_m); one half if there is none."""
    u, v = displacement(pairs) @ theta, (pairs.pos + pairs.neg) @ theta
    total = float(u @ u + v @ v)
    return float(u @ u) / total if total > 0 else 0.5


def solve_md(pairs: PairActivations, lam: float, convention: Literal["sum", "mean"] = "sum") -> Direction:
    """Return the global minimum of the loss over unit directions: A's eigenvector of the smallest eigenvalue.

    Args:
        pairs: normalised states.
        lam: weight of the midpoint, 0 <= lam < 1.
        convention: "mean" takes a lambda of the authors' code, whose midpoint is half of ours.

    Returns:
        The direction; flagged `restricted` where it was sought in the leading displacement components only, and
        `past_crossing` where the smallest eigenvalue is not negative.

    Raises:
        ValueError: lambda is out of range.
    """
    if not 0 <= lam < 1:
        raise ValueError(f"lambda {lam} is outside [0, 1)")
    of, lam = moments(pairs), as_sum(lam) if convention == "mean" else lam
    values, vectors = _lowest(of, lam, 1)
    flags = (*of.flags, "past_crossing") if _crossed(of, lam, float(values[0])) else of.flags
    return Direction(canonical(of.lift(vectors[:, 0])), "md", flags)


def as_sum(lam: float) -> float:
    """Return a lambda of the mean midpoint in the sum convention: the ratio lam / (1 - lam) is a quarter (5.2)."""
    ratio = lam / (1 - lam) / 4
    return ratio / (1 + ratio)


def _lowest(of: Moments, lam: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    count = min(count, len(of.d))
    values, vectors = eigh(
        lam * of.m - (1 - lam) * of.d, subset_by_index=[0, count - 1], overwrite_a=True, check_finite=False
    )
    return values, vectors


def _crossed(of: Moments, lam: float, least: float) -> bool:
    scale = (lam * float(np.trace(of.m)) + (1 - lam) * float(np.trace(of.d))) / len(of.d)
    return least >= -ZERO * scale


def residual(pairs: PairActivations, theta: Float[np.ndarray, " width"], lam: float) -> float:
    """Return |A theta - mu theta| / |A| in full space: how far a restricted direction is from an eigenvector there.

    mu = theta'A theta; |A| is the largest |eigenvalue|. Costs products only, so it serves where nothing dense fits.
    """
    u, v, n = displacement(pairs), pairs.pos + pairs.neg, len(pairs)

    def product(x: np.ndarray) -> np.ndarray:
        x = x.reshape(-1)
        return np.asarray((lam * (v.T @ (v @ x)) - (1 - lam) * (u.T @ (u @ x))) / n)

    size = u.shape[1]
    # A fixed start: the same pairs give the same number.
    of = LinearOperator((size, size), matvec=product, dtype=np.float64)
    largest = eigsh(of, k=1, which="LM", v0=np.ones(size), tol=1e-6, return_eigenvectors=False)
    image = product(theta)
    return float(np.linalg.norm(image - (theta @ image) * theta) / abs(float(largest[0])))


def lambda_path(pairs: PairActivations, rng: np.random.Generator) -> tuple[PathRow, ...]:
    """Return the split-half stability of every candidate lambda, in the leading displacement components."""
    u = displacement(pairs)
    basis = components(u, max(1, min(SEARCH_MAX, len(pairs) // 2)))
    u, v = u @ basis, (pairs.pos + pairs.neg) @ basis

    def of(rows: np.ndarray | slice) -> Moments:
        return Moments(_second(u[rows]), _second(v[rows]), lambda y: np.asarray(basis @ y))

    whole = of(slice(None))
    parts = [(of(left), of(right)) for left, right in halves(pairs.cluster, rng)]
    rows: list[PathRow] = []
    seen: list[np.ndarray] = []
    for lam in PATH:
        values, vectors = _lowest(whole, lam, 2)
        seen.append(vectors[:, 0])
        agree = [abs(float(_lowest(a, lam, 1)[1][:, 0] @ _lowest(b, lam, 1)[1][:, 0])) for a, b in parts]
        rows.append(
            PathRow(
                lam,
                float(np.mean(agree)),
                past_crossing=_crossed(whole, lam, float(values[0])),
                cos_first=abs(float(seen[0] @ seen[-1])),
                cos_previous=abs(float(seen[-2] @ seen[-1])) if rows else 1.0,
                relative_gap=float((values[-1] - values[0]) / max(np.abs(values).max(), np.finfo(float).tiny)),
                vector=canonical(whole.lift(vectors[:, 0])),
            )
        )
    return tuple(rows)


def choose_lambda(path: tuple[PathRow, ...]) -> float:
    """Return the most stable lambda before the crossing; within .01 the smaller one. No label is looked at."""
    open_rows = [row for row in path if not row.past_crossing]
    if not open_rows:
        return 0.0
    best = max(row.stability for row in open_rows)
    return next(row.lam for row in open_rows if row.stability >= best - TIE)


def crossing(pairs: PairActivations, k: int = SUBSPACE_K, ridge: float = RIDGE) -> Crossing:
    """Return rho / (1 + rho), rho the largest generalised eigenvalue of (D, M): where the minimum crosses zero.

    Args:
        pairs: normalised states.
        k: leading displacement components in which it is computed; the width or more is full space.
        ridge: added to M, as a share of its mean diagonal.
    """
    of = project(pairs, components(displacement(pairs), k))
    size = len(of.m)
    added = ridge * float(np.trace(of.m)) / size
    rho = float(eigh(of.d, of.m + added * np.eye(size), eigvals_only=True, subset_by_index=[size - 1, size - 1])[0])
    flags = ("not_identified",) if len(pairs) < PAIRS_PER_DIMENSION * size else ()
    return Crossing(min(rho / (1 + rho), PATH[-1]), size, flags)


def lambda0(pairs: PairActivations) -> float:
    """Return the crossing's lambda at its defaults, at most the path's last."""
    return crossing(pairs).lam


def stability(pairs: PairActivations, lam: float, rng: np.random.Generator) -> Float[np.ndarray, " halvings"]:
    """Return, for fresh halvings, the |cos| of the two halves' directions in full space."""
    drawn = halves(pairs.cluster, rng)
    return np.array([abs(float(np.dot(*(solve_md(pairs.take(half), lam).vector for half in both)))) for both in drawn])


def gap(u: Float[np.ndarray, "pair width"]) -> float:
    """Return 1 - s2^2 / s1^2 of centred displacements: near 0 two axes tie, and luck decides (section 6)."""
    squares, _ = leading(u - u.mean(axis=0), 2)
    return float(1 - squares[1] / squares[0]) if len(squares) > 1 else 1.0


def second_stability(pairs: PairActivations, rng: np.random.Generator) -> float:
    """Return the smaller cosine between two halves' leading planes of centred displacement, mean over halvings.

    The cosine is that of the larger principal angle: near 1 a second axis is as real as the first (section 6).
    """
    u = displacement(pairs)
    found = []
    for both in halves(pairs.cluster, rng):
        left, right = (leading(u[half] - u[half].mean(axis=0), 2)[1] for half in both)
        found.append(float(np.linalg.svd(left.T @ right, compute_uv=False).min()))
    return float(np.mean(found))
