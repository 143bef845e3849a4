"""The loss of contrast-consistent search and its gradient, for many probes at once.

Burns et al. 2022 (arXiv 2212.03827), equations 1 and 2. Specification: section 5.4. A probe is one row of weights whose
last weight is its bias; the states carry a last column of ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

CONSTANT_LOSS = 0.25
"""Loss of the probe that always answers one half: what an unfitted probe can have without looking (5.4)."""

ROWS = 4
"""Rows of probes that the product of a layer is padded to: the width of OpenBLAS's inner kernel on x86-64."""


def with_ones(
    pos: Float[np.ndarray, "pair width"], neg: Float[np.ndarray, "pair width"], kind: type[np.floating] = np.float64
) -> Float[np.ndarray, "text weights"]:
    """Return the + states over the - states with a column of ones for the bias."""
    n, width = pos.shape
    stack = np.empty((2 * n, width + 1), dtype=kind)
    stack[:n, :-1], stack[n:, :-1], stack[:, -1] = pos, neg, 1
    return stack


def product(
    few: Float[np.ndarray, "few inner"], many: Float[np.ndarray, "inner many"]
) -> Float[np.ndarray, "few many"]:
    """Return few @ many, with rows of zeros added up to a multiple of `ROWS`.

    OpenBLAS handles an odd rest of rows by a slow path: ten rows take a quarter longer than twelve.
    """
    rest = -len(few) % ROWS
    if not rest:
        return np.asarray(few @ many)
    return np.asarray((np.concatenate([few, np.zeros((rest, few.shape[1]), few.dtype)]) @ many)[: len(few)])


def sigmoid(z: Float[np.ndarray, "probe text"]) -> Float[np.ndarray, "probe text"]:
    """Return 1 / (1 + exp(-z)), written over z; far below zero it is exactly 0."""
    np.negative(z, out=z)
    # exp overflows to inf below about -709 (-88 in float32), which is the right 0 after the division.
    with np.errstate(over="ignore"):
        np.exp(z, out=z)
    z += 1
    return np.asarray(np.reciprocal(z, out=z))


def loss_of(
    p: Float[np.ndarray, "probe pair"], q: Float[np.ndarray, "probe pair"]
) -> tuple[Float[np.ndarray, " probe"], Float[np.ndarray, "probe pair"], Float[np.ndarray, "probe pair"]]:
    """Return the mean over pairs of (p+q-1)^2 + min(p,q)^2, and the two terms that are squared.

    Args:
        p: answers to the + texts.
        q: answers to the - texts.
    """
    total = p + q
    total -= 1
    low = np.minimum(p, q)
    loss = (np.einsum("ri,ri->r", total, total) + np.einsum("ri,ri->r", low, low)) / p.shape[1]
    return loss, total, low


def loss_and_gradient(
    weights: Float[np.ndarray, "probe weights"], stack: Float[np.ndarray, "text weights"]
) -> tuple[Float[np.ndarray, " probe"], Float[np.ndarray, "probe weights"]]:
    """Return every probe's loss over all pairs and its gradient; where p = q the slope of p is taken.

    Args:
        weights: one probe a row, bias last.
        stack: as of `with_ones`; its first half are the + states.
    """
    n = len(stack) // 2
    s = sigmoid(product(weights, stack.T))
    p, q = s[:, :n], s[:, n:]
    loss, total, low = loss_of(p, q)
    at_p = low * (p <= q)
    low -= at_p
    at_p += total
    low += total
    # From here on s holds the slope of the sigmoid, then the slope of the loss in z.
    np.subtract(s, s * s, out=s)
    p *= at_p
    q *= low
    gradient = product(s, stack)
    gradient *= 2 / n
    return loss, gradient
