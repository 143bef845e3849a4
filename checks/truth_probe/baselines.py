"""Label-free baselines beside midpoint-displacement: the leading displacement axis, and VINC. Section 5.5."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh

from checks.truth_probe.direction import Direction, canonical
from checks.truth_probe.displacement import DENSE_MAX, SEARCH_MAX, displacement
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.subspaces import components, halves, leading, span

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

W_VAR, W_NEG = 0.0, 0.5
"""Weights of the variance between items and of the cross moment of the branches (5.5)."""

Fit = Callable[["Bool[np.ndarray, ' pair']"], Direction]
"""A label-free method: from a mask over its pairs to the direction that it finds in them."""


def tpc(pairs: PairActivations) -> Direction:
    """Return the top principal component of centred displacements (CRC-TPC, Burns et al. 2022, section 3)."""
    u = displacement(pairs)
    return Direction(canonical(leading(u - u.mean(axis=0), 1)[1][:, 0]), "tpc")


def vinc(
    pairs: PairActivations, item: Int[np.ndarray, " pair"], w_var: float = W_VAR, w_neg: float = W_NEG
) -> Direction:
    """Return the direction that agrees over an item's templates and disagrees between its branches.

    It is the top eigenvector of w_var C_between - (1 - w_neg) C_within - w_neg/2 E[x+x-' + x-x+']. C_between is the
    covariance over items of their template means, C_within the mean over items of the covariance over templates, both
    averaged over the branches and by 1/count; the cross moment is of the template means. One row an item leaves
    C_within at zero, and with w_var 0 the answer is that of midpoint-displacement at lambda 1/2.

    Args:
        pairs: normalised states.
        item: the item of each pair, as a number.
        w_var: weight of the variance between items.
        w_neg: weight of the cross moment, 0 to 1.

    Returns:
        The direction, flagged `restricted` where it was sought in the leading displacement components only.
    """
    index, counts = np.unique(item, return_inverse=True, return_counts=True)[1:]
    pos, neg = (_item_means(states, index, counts) for states in (pairs.pos, pairs.neg))
    several = counts[index] > 1
    # 1/2 (x+x-' + x-x+') = 1/4 (vv' - uu'): every term is a weighted sum of outer products of rows.
    terms = [(pos - neg, w_neg / 4), (pos + neg, -w_neg / 4)]
    if w_var:
        terms += [(branch - branch.mean(axis=0), w_var / 2) for branch in (pos, neg)]
    rows = [row for row, _ in terms]
    weights = [np.full(len(row), weight / len(counts)) for row, weight in terms]
    for states, mean in ((pairs.pos, pos), (pairs.neg, neg)):
        rows.append(states[several] - mean[index][several])
        weights.append(-(1 - w_neg) / 2 / len(counts) / counts[index][several])
    vector, flags = _top(np.concatenate(rows), np.concatenate(weights), displacement(pairs))
    return Direction(canonical(vector), "vinc", flags)


def _item_means(
    states: Float[np.ndarray, "pair width"], index: Int[np.ndarray, " pair"], counts: Int[np.ndarray, " item"]
) -> Float[np.ndarray, "item width"]:
    sums = np.zeros((len(counts), states.shape[1]))
    np.add.at(sums, index, states)
    return np.asarray(sums / counts[:, None])


def _top(
    rows: Float[np.ndarray, "row width"], weights: Float[np.ndarray, " row"], u: Float[np.ndarray, "pair width"]
) -> tuple[Float[np.ndarray, " width"], tuple[str, ...]]:
    """Return the eigenvector of the largest eigenvalue of the weighted sum of outer products."""
    flags: tuple[str, ...] = ()
    if min(rows.shape) > DENSE_MAX:
        basis = components(u, SEARCH_MAX)
        rows, flags = rows @ basis, ("restricted",)
    held, lift = span(rows)
    last = held.shape[1] - 1
    vectors = eigh(held.T @ (weights[:, None] * held), subset_by_index=[last, last])[1]
    found = lift(vectors[:, 0])
    return (np.asarray(basis @ found) if flags else found), flags


def split_half(fit: Fit, cluster: Int[np.ndarray, " pair"], rng: np.random.Generator) -> Float[np.ndarray, " halvings"]:
    """Return |cos| between the directions that a method finds in two halves of the clusters, for fresh halvings."""
    drawn = halves(cluster, rng)
    return np.array([abs(float(fit(left).vector @ fit(right).vector)) for left, right in drawn])
