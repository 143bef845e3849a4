"""Joint co-clustering: rows and columns are points of one cloud and get their labels from one k-means.

So label c of a row and label c of a column mean the same cluster by construction. Specification: section 4.3
(after Dhillon 2001).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh

from checks.clusterability.views import in_range, live, normal_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

STARTS = 5
"""k-means++ starts (4.3)."""

STEPS_MAX = 100
"""Lloyd steps at most (4.3)."""


GRAM_MAX = 4096
"""Up to this smaller side all directions come from the Gram matrix, beyond it from Lanczos steps (4.3)."""

NULL_DIRECTION = 1e-6
"""Share of the largest singular value below which another is zero: the Gram matrix knows squares to n times the
machine's precision, so values to its root, 1e-6 at n = 4096."""

TIE = 1e-9
"""Share by which two starts' inertias may differ and still be the same partition, told apart by rounding alone."""


@dataclass(frozen=True)
class Partition:
    """One label for every row and column; equal labels are one cluster, -1 is a dead node."""

    rows: Int[np.ndarray, " n"]
    columns: Int[np.ndarray, " m"]


@dataclass(frozen=True)
class Embedding:
    """The top singular vectors of a view, scaled so that rows and columns are comparable points."""

    rows: Float[np.ndarray, "n k"]
    columns: Float[np.ndarray, "m k"]
    singular: Float[np.ndarray, " k+1"] = field(default_factory=lambda: np.empty(0))
    """The singular values of these directions and of the next one, where there is one, descending."""


def cocluster(weights: Float[np.ndarray, "n m"], k: int, seed: int) -> Partition:
    """Return k clusters of a matrix's rows and columns, sought in the normal-scores view.

    The result does not depend on the order of rows or columns, nor on any positive rescaling of them.
    """
    values = in_range(weights)
    rows, columns = live(values)
    # Without dead nodes there is nothing to copy.
    kept = values if rows.all() and columns.all() else values[np.ix_(rows, columns)]
    found = assign(embed(normal_scores(kept).mass, k), k, seed)
    return Partition(_spread(found.rows, rows), _spread(found.columns, columns))


def _spread(labels: Int[np.ndarray, " live"], alive: np.ndarray) -> Int[np.ndarray, " all"]:
    whole = np.full(len(alive), -1)
    whole[alive] = labels
    return whole


def embed(mass: Float[np.ndarray, "n m"], k_max: int, *, damping: float = 0.0) -> Embedding:
    """Return the k_max leading singular vectors of mass_ij / sqrt(r_i s_j).

    Exact (eigenvectors of the smaller Gram matrix), since a randomised solver underestimates a flat spectrum and
    would do so differently for data and for nulls.

    Args:
        mass: non-negative, no empty row or column.
        k_max: vectors wanted.
        damping: share of the mean marginal that is added to each r_i and s_j; for masks (4.5), whose marginals differ.
    """
    n, m = mass.shape
    if n > m:
        turned = embed(mass.T, k_max, damping=damping)
        return Embedding(turned.columns, turned.rows, turned.singular)
    r, s = mass.sum(axis=1), mass.sum(axis=0)
    b = mass / np.sqrt(r + damping * r.mean())[:, None]
    b /= np.sqrt(s + damping * s.mean())
    singular, u = _leading(b, min(k_max + 1, n))
    # What lies below the solver's own error is no direction of the matrix: such coordinates say nothing.
    known = singular[:k_max] > NULL_DIRECTION * singular[0]
    u = np.where(known, u[:, :k_max], 0.0)
    v = (b.T @ u) / np.where(known, singular[:k_max], 1.0)
    u, v = u * np.sqrt(n), v * np.sqrt(m)
    signs = np.where((u**3).sum(axis=0) + (v**3).sum(axis=0) < 0, -1.0, 1.0)
    return Embedding(u * signs, v * signs, singular)


def _leading(b: Float[np.ndarray, "n m"], count: int) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "n k"]]:
    """Return the leading singular values, descending, and left vectors of a matrix that is no taller than wide."""
    n = len(b)
    if n <= GRAM_MAX or count >= n:
        squares, vectors = eigh(b @ b.T, subset_by_index=[n - count, n - 1])
    else:
        gram = LinearOperator((n, n), matvec=lambda x: b @ (b.T @ x), dtype=np.float64)
        # A fixed start makes the answer repeatable; a constant one would be the first vector of a balanced matrix.
        squares, vectors = eigsh(gram, k=count, v0=np.sin(np.arange(1.0, n + 1.0)), which="LA")
    return np.sqrt(np.maximum(np.asarray(squares)[::-1], 0.0)), np.asarray(vectors)[:, ::-1]


def assign(embedding: Embedding, k: int, seed: int) -> Partition:
    """Return k clusters of an embedding's points.

    Points are sorted by their second coordinate before k-means and unsorted after, which makes the seeded starts
    independent of neuron order.
    """
    n = len(embedding.rows)
    if k == 1:
        return Partition(np.zeros(n, dtype=np.int64), np.zeros(len(embedding.columns), dtype=np.int64))
    points = np.concatenate([embedding.rows[:, :k], embedding.columns[:, :k]])
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    points = points / np.where(norms > 0, norms, 1.0)
    order = np.argsort(points[:, min(1, points.shape[1] - 1)], kind="stable")
    labels = np.empty(len(points), dtype=np.int64)
    labels[order] = kmeans(points[order], k, np.random.default_rng([seed, k]))
    return Partition(labels[:n], labels[n:])


def kmeans(points: Float[np.ndarray, "p d"], k: int, rng: np.random.Generator) -> Int[np.ndarray, " p"]:
    """Return the labels of the best of `STARTS` k-means++ starts; ties go to the lowest index.

    Starts are stepped together: one product gives all their distances. Labels are bytes on the way: k is at most 127.
    """
    centres = np.stack([_plus_plus(points, k, rng) for _ in range(STARTS)])
    lengths = np.square(points).sum(axis=1)
    best_labels = np.full((STARTS, len(points)), -1, dtype=np.int8)
    inertia = np.zeros(STARTS)
    sums, counts = np.zeros_like(centres), np.zeros((STARTS, k))
    active = np.arange(STARTS)
    for _ in range(STEPS_MAX):
        labels, near = _nearest(points, centres[active])
        near += lengths
        before = best_labels[active]
        moved = np.any(labels != before, axis=1)
        best_labels[active], inertia[active] = labels, near.sum(axis=1)
        if not moved.any():
            break
        if not moved.all():
            active, labels, before, near = active[moved], labels[moved], before[moved], near[moved]
        sums[active], counts[active] = _sums(points, labels, before, sums[active], counts[active])
        centres[active] = _means(points, sums[active], counts[active], near)
    first = int(np.argmax(inertia <= inertia.min() * (1.0 + TIE)))
    return np.asarray(best_labels[first], dtype=np.int64)


def _plus_plus(points: Float[np.ndarray, "p d"], k: int, rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    chosen = [int(rng.integers(len(points)))]
    near = np.square(points - points[chosen[0]]).sum(axis=1)
    for _ in range(1, k):
        total = near.sum()
        draw = rng.random() * total
        # All points coincide with a centre: any point is as good.
        pick = int(np.searchsorted(np.cumsum(near), draw)) if total > 0 else int(rng.integers(len(points)))
        chosen.append(min(pick, len(points) - 1))
        near = np.minimum(near, np.square(points - points[chosen[-1]]).sum(axis=1))
    return points[chosen]


def _nearest(
    points: Float[np.ndarray, "p d"], centres: Float[np.ndarray, "s k d"]
) -> tuple[Int[np.ndarray, "s p"], Float[np.ndarray, "s p"]]:
    """Return each point's nearest centre per start and its squared distance, less the point's squared length."""
    starts, k, d = centres.shape
    # Slices of one centre over all starts lie together: comparing them is several times faster than argmin.
    flat = centres.swapaxes(0, 1).reshape(k * starts, d)
    away = (-2.0 * flat) @ points.T
    away += np.square(flat).sum(axis=1)[:, None]
    away = away.reshape(k, starts, -1)
    labels = np.zeros((starts, len(points)), dtype=np.int8)
    near = away[0]
    for c in range(1, k):
        closer = away[c] < near
        np.maximum(labels, closer.view(np.int8) * np.int8(c), out=labels)
        np.minimum(near, away[c], out=near)
    return labels, near


def _sums(
    points: Float[np.ndarray, "p d"],
    labels: Int[np.ndarray, "s p"],
    before: Int[np.ndarray, "s p"],
    sums: Float[np.ndarray, "s k d"],
    counts: Float[np.ndarray, "s k"],
) -> tuple[Float[np.ndarray, "s k d"], Float[np.ndarray, "s k"]]:
    """Return each cluster's sum of points and their number, from those before: few points move in most steps."""
    starts, k, _ = sums.shape
    start, point = np.nonzero(labels != before)
    if len(point) >= len(points):
        member = (labels[:, None, :] == np.arange(k, dtype=np.int8)[:, None]).reshape(starts * k, -1).astype(np.float64)
        return (member @ points).reshape(sums.shape), member.sum(axis=1).reshape(counts.shape)
    step = np.zeros((starts * k, len(point)))
    step[start * k + before[start, point], np.arange(len(point))] = -1.0
    step[start * k + labels[start, point], np.arange(len(point))] = 1.0
    return sums + (step @ points[point]).reshape(sums.shape), counts + step.sum(axis=1).reshape(counts.shape)


def _means(
    points: Float[np.ndarray, "p d"],
    sums: Float[np.ndarray, "s k d"],
    counts: Float[np.ndarray, "s k"],
    near: Float[np.ndarray, "s p"],
) -> Float[np.ndarray, "s k d"]:
    means = sums / np.maximum(counts, 1.0)[:, :, None]
    for start, c in zip(*np.nonzero(counts == 0), strict=True):
        # An empty cluster takes the point that is farthest from its own centre.
        means[start, c] = points[int(np.argmax(near[start]))]
    return np.asarray(means)
