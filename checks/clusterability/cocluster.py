"""Joint co-clustering: rows and columns are points of one cloud and get their labels from one k-means.

So label c of a row and label c of a column mean the same cluster by construction. Specification: section 4.3
(after Dhillon 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh

from checks.clusterability.views import in_range, live, normal_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

STARTS = 5
"""k-means++ starts (4.3)."""

STEPS_MAX = 100
"""Lloyd steps at most (4.3)."""


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


def cocluster(weights: Float[np.ndarray, "n m"], k: int, seed: int) -> Partition:
    """Return k clusters of a matrix's rows and columns, sought in the normal-scores view.

    The result does not depend on the order of rows or columns, nor on any positive rescaling of them.
    """
    values = in_range(weights)
    rows, columns = live(values)
    kept = values[np.ix_(rows, columns)]
    found = assign(embed(normal_scores(kept).mass, k), k, seed)
    return Partition(_spread(found.rows, rows), _spread(found.columns, columns))


def _spread(labels: Int[np.ndarray, " live"], alive: np.ndarray) -> Int[np.ndarray, " all"]:
    whole = np.full(len(alive), -1)
    whole[alive] = labels
    return whole


def embed(mass: Float[np.ndarray, "n m"], k_max: int) -> Embedding:
    """Return the k_max leading singular vectors of mass_ij / sqrt(r_i s_j).

    Exact (eigenvectors of the smaller Gram matrix), since a randomised solver underestimates a flat spectrum and
    would do so differently for data and for nulls.
    """
    n, m = mass.shape
    if n > m:
        turned = embed(mass.T, k_max)
        return Embedding(turned.columns, turned.rows)
    b = mass / np.sqrt(mass.sum(axis=1))[:, None]
    b /= np.sqrt(mass.sum(axis=0))
    squares, vectors = eigh(b @ b.T, subset_by_index=[n - min(k_max, n), n - 1])
    singular = np.sqrt(np.maximum(squares[::-1], 0.0))
    u = vectors[:, ::-1]
    v = (b.T @ u) / np.maximum(singular, np.finfo(float).tiny ** 0.5)
    u, v = u * np.sqrt(n), v * np.sqrt(m)
    signs = np.where((u**3).sum(axis=0) + (v**3).sum(axis=0) < 0, -1.0, 1.0)
    return Embedding(u * signs, v * signs)


def assign(embedding: Embedding, k: int, seed: int) -> Partition:
    """Return k clusters of an embedding's points.

    Points are sorted by their second coordinate before k-means and unsorted after, which makes the seeded starts
    independent of neuron order.
    """
    n = len(embedding.rows)
    points = np.concatenate([embedding.rows[:, :k], embedding.columns[:, :k]])
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    points = points / np.where(norms > 0, norms, 1.0)
    order = np.argsort(points[:, 1], kind="stable")
    labels = np.empty(len(points), dtype=np.int64)
    labels[order] = kmeans(points[order], k, np.random.default_rng([seed, k]))
    return Partition(labels[:n], labels[n:])


def kmeans(points: Float[np.ndarray, "p d"], k: int, rng: np.random.Generator) -> Int[np.ndarray, " p"]:
    """Return the labels of the best of `STARTS` k-means++ starts; ties go to the lowest index.

    Starts are stepped together: one product gives all their distances.
    """
    centres = np.stack([_plus_plus(points, k, rng) for _ in range(STARTS)])
    best_labels = np.zeros((STARTS, len(points)), dtype=np.int64)
    inertia = np.zeros(STARTS)
    active = np.arange(STARTS)
    for step in range(STEPS_MAX):
        labels, near = _nearest(points, centres[active])
        moved = np.any(labels != best_labels[active], axis=1) if step else np.ones(len(active), dtype=bool)
        best_labels[active], inertia[active] = labels, near.sum(axis=1)
        active = active[moved]
        if not len(active):
            break
        centres[active] = _means(points, labels[moved], near[moved], k)
    return np.asarray(best_labels[int(np.argmin(inertia))])


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
    """Return each point's nearest centre per start and its squared distance."""
    starts, k, d = centres.shape
    products = (centres.reshape(starts * k, d) @ points.T).reshape(starts, k, -1)
    away = np.square(centres).sum(axis=2)[:, :, None] - 2.0 * products
    # Comparing k slices is several times faster than argmin over a short axis.
    labels = np.zeros((starts, len(points)), dtype=np.int64)
    near = away[:, 0].copy()
    for c in range(1, k):
        closer = away[:, c] < near
        labels[closer] = c
        np.minimum(near, away[:, c], out=near)
    return labels, near + np.square(points).sum(axis=1)


def _means(
    points: Float[np.ndarray, "p d"], labels: Int[np.ndarray, "s p"], near: Float[np.ndarray, "s p"], k: int
) -> Float[np.ndarray, "s k d"]:
    starts, p = labels.shape
    member = np.zeros((starts * k, p))
    member[labels + k * np.arange(starts)[:, None], np.arange(p)] = 1.0
    counts = member.sum(axis=1).reshape(starts, k, 1)
    means = (member @ points).reshape(starts, k, -1) / np.maximum(counts, 1.0)
    for start, c in zip(*np.nonzero(counts[:, :, 0] == 0), strict=True):
        # An empty cluster takes the point that is farthest from its own centre.
        means[start, c] = points[int(np.argmax(near[start]))]
    return np.asarray(means)
