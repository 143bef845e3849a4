"""Views of a weight matrix: masses that add up to one, free of the scales that a model's symmetries leave open.

Specification: clusterability, section 4.2. Everything is float64; `n` rows are outputs, `m` columns are inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

View = Literal["balanced", "raw", "normal_scores", "unit_in_norm"]
"""Names of the views (4.2)."""

RIDGE = 1e-9
"""Share of the mean that is added inside each component, so that a thin support still has a balanced form (4.2)."""

TOLERANCE = 1e-8
"""Relative marginal error at which Sinkhorn stops (4.2)."""

SWEEPS_MAX = 500
"""Sinkhorn sweeps at most (4.2); noise takes 4-10."""

ROUGH_SWEEPS = 5
"""Sweeps before the ridge is added: enough that a planted matrix and a lognormal rescaling of it agree to 1e-6."""

DUST = 1e-14
"""Relative difference up to which neighbouring values are ties. Balancing a matrix of rank one leaves one value but for
rounding, and ranks would make full-grown noise of it; two entries of a continuous matrix of a million come as close in
fewer than one of a hundred."""

LARGE, SMALL = 1e150, 1e-150
"""Beyond these, squares leave the range of float64: the matrix is divided by its maximum first (section 3)."""


@dataclass(frozen=True)
class Balanced:
    """A matrix scaled so that all rows weigh the same, and all columns."""

    mass: Float[np.ndarray, "n m"]
    """Total 1; with one component, rows sum to 1/n and columns to 1/m."""
    residual: float
    """Largest relative error of a row sum that was left when scaling stopped."""


def view(weights: Float[np.ndarray, "n m"], name: View) -> Float[np.ndarray, "n m"]:
    """Return a view of a matrix as masses that add up to 1 (specification 4.2).

    Args:
        weights: rows are outputs; at least one entry is not zero. `balanced` and `normal_scores` need a weight in every
            row and column (`live` tells which have one).
        name: the view. `balanced` and `normal_scores` are unchanged by any positive rescaling of rows and columns;
            `unit_in_norm` by one of the rows; `raw` by one common factor.

    Raises:
        ValueError: there is no view of that name.
    """
    values = in_range(weights)
    match name:
        case "balanced":
            return balanced_squares(values).mass
        case "normal_scores":
            return normal_scores(values).mass
        case "raw":
            return raw(values)
        case "unit_in_norm":
            (magnitudes,) = unit_in_norm([values])
            return np.asarray(magnitudes / magnitudes.sum())
    raise ValueError(f"there is no view {name!r}")


def unit_in_norm(layers: Sequence[Float[np.ndarray, "n m"]]) -> tuple[Float[np.ndarray, "n m"], ...]:
    """Return the magnitudes of consecutive layers with every hidden neuron's incoming L2 norm at 1 (Filan et al.).

    A neuron's scale is pushed to its outgoing weights, which leaves a ReLU network's function as it was: layer l's
    columns are multiplied by the norms taken from layer l-1's rows, then its own rows are normalised. Outputs of the
    last layer are hidden neurons only of a single matrix, the hidden layer's own; of a chain they are left alone.

    Args:
        layers: matrices as [out, in] in order of computation; the columns of each are the rows of the one before.
            A neuron without incoming weights keeps its row of zeros and passes its outgoing weights on as they are.

    Raises:
        ValueError: a layer does not read as many neurons as the one before writes.
    """
    told = []
    pushed: Float[np.ndarray, " m"] | None = None
    for place, weights in enumerate(layers):
        magnitudes = np.abs(weights)
        if pushed is not None:
            if magnitudes.shape[1] != len(pushed):
                raise ValueError(f"layer {place} reads {magnitudes.shape[1]} neurons of {len(pushed)}")
            magnitudes *= pushed
        if place < len(layers) - 1 or len(layers) == 1:
            norms = np.sqrt(np.square(magnitudes).sum(axis=1))
            pushed = np.where(norms > 0, norms, 1.0)
            magnitudes /= pushed[:, None]
        told.append(magnitudes)
    return tuple(told)


def live(weights: Float[np.ndarray, "n m"]) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " m"]]:
    """Return which rows and columns hold any weight; the others are dead and are left out of every view."""
    return np.any(weights != 0, axis=1), np.any(weights != 0, axis=0)


def in_range(weights: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Return the weights as float64, divided by their largest magnitude where squares would over- or underflow."""
    values = np.asarray(weights, dtype=np.float64)
    top = float(np.abs(values).max(initial=0.0))
    return values / top if top > LARGE or 0 < top < SMALL else values


def balance(matrix: Float[np.ndarray, "n m"]) -> Balanced:
    """Scale a non-negative matrix without empty rows or columns to uniform marginals (Sinkhorn).

    Connected components of the support are balanced alone, since no scaling can move mass between them; each gets
    the mean of its share of rows and its share of columns.
    """
    n, m = matrix.shape
    if matrix.all():
        return _sinkhorn(matrix)
    rows, columns, count = _components(matrix)
    if count == 1:
        return _sinkhorn(matrix)
    mass = np.zeros((n, m))
    residual = 0.0
    for label in range(count):
        i, j = np.flatnonzero(rows == label), np.flatnonzero(columns == label)
        part = _sinkhorn(matrix[np.ix_(i, j)])
        mass[np.ix_(i, j)] = part.mass * (len(i) / n + len(j) / m) / 2
        residual = max(residual, part.residual)
    return Balanced(mass, residual)


def _components(matrix: Float[np.ndarray, "n m"]) -> tuple[np.ndarray, np.ndarray, int]:
    n, m = matrix.shape
    i, j = np.nonzero(matrix)
    graph = csr_matrix((np.ones(len(i)), (i, j + n)), shape=(n + m, n + m))
    count, labels = connected_components(graph, directed=False)
    return labels[:n], labels[n:], int(count)


def _sinkhorn(matrix: Float[np.ndarray, "n m"]) -> Balanced:
    a, b, _ = _scales(matrix, ROUGH_SWEEPS)
    # The ridge is a share of the mean of a roughly balanced matrix: of the matrix itself, it would weigh more in rows
    # and columns of small scale, and the view would change with the scales that it is there to remove.
    ridged = matrix * a[:, None]
    ridged *= b
    ridged += RIDGE * ridged.mean()
    a, b, residual = _scales(ridged, SWEEPS_MAX)
    ridged *= a[:, None]
    ridged *= b
    return Balanced(ridged, residual)


def _scales(
    matrix: Float[np.ndarray, "n m"], sweeps: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"], float]:
    """Return row and column factors after so many sweeps at most, and the relative error of the row sums left."""
    n, m = matrix.shape
    b = np.full(m, 1.0 / m)
    row_sums = matrix @ b
    residual = np.inf
    for _ in range(sweeps):
        a = 1.0 / (n * row_sums)
        b = 1.0 / (m * (a @ matrix))
        row_sums = matrix @ b
        residual = float(np.max(np.abs(n * a * row_sums - 1.0)))
        if residual <= TOLERANCE:
            break
    return a, b, residual


def balanced_squares(weights: Float[np.ndarray, "n m"]) -> Balanced:
    """Return the `balanced` view: squared weights at uniform marginals, unchanged by any positive rescaling."""
    return balance(np.square(_even(weights)))


def _even(weights: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Return magnitudes; where any is tiny, each row's and each column's largest is 1, which moves no balanced view.

    Else squares of a faint row are all 0 beside a loud one, and balancing would divide by its sum.
    """
    magnitudes = np.abs(weights)
    if np.min(magnitudes, where=magnitudes > 0, initial=1.0) < SMALL:
        magnitudes /= magnitudes.max(axis=1, keepdims=True)
        magnitudes /= magnitudes.max(axis=0)
    return np.asarray(magnitudes)


def raw(weights: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Return the `raw` view: squared weights as shares of their sum (Golechha et al.)."""
    squares = np.square(weights)
    return np.asarray(squares / squares.sum())


def normal_scores(weights: Float[np.ndarray, "n m"]) -> Balanced:
    """Return the `normal_scores` view, in which clusters are sought and tested.

    Balanced magnitudes are ranked over the whole matrix and replaced by squared half-normal quantiles, so that
    every continuous law of the weights gives the same scores and the null depends on the shape alone.
    """
    return balance(rank_scores(weights))


def rank_scores(weights: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Return the scores before their own balancing: on continuous weights their mean is 1."""
    # In rows, so that the flat form is the same memory and not a copy.
    values = np.ascontiguousarray(balance(_even(weights)).mass)
    flat = values.reshape(-1)
    order = np.argsort(flat)
    changes = _first_of_ties(flat[order])
    # The balanced values have served: the scores take their place, so that large matrices need less memory.
    if changes.all():
        flat[order] = _half_normal(flat.size)
    else:
        # A run of ties from position s to e (0-based, e exclusive) has mid-rank (s + e + 1) / 2.
        starts = np.flatnonzero(changes)
        ends = np.append(starts[1:], flat.size)
        flat[order] = np.repeat(_squared_quantile(starts + ends, flat.size), ends - starts)
    return values


def _first_of_ties(ordered: Float[np.ndarray, " p"]) -> Bool[np.ndarray, " p"]:
    changes = np.empty(len(ordered), dtype=bool)
    changes[:1] = True
    np.greater(ordered[1:], ordered[:-1] * (1.0 + DUST), out=changes[1:])
    return changes


def _squared_quantile(twice: np.ndarray, size: int) -> Float[np.ndarray, " p"]:
    """Return Phi^-1(1/2 + q/2)^2 at q = twice / (2 size), where `twice` is 2 (mid-)rank - 1."""
    scores = np.asarray(twice, dtype=np.float64) / (4.0 * size)
    scores += 0.5
    ndtri(scores, out=scores)
    return np.square(scores, out=scores)


@lru_cache(maxsize=3)
def _half_normal(size: int) -> Float[np.ndarray, " size"]:
    """Return the scores of ranks 1 to `size`, all different."""
    table = _squared_quantile(np.arange(1.0, 2.0 * size, 2.0), size)
    table.flags.writeable = False
    return table
