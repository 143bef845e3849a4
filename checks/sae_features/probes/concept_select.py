"""Which latents a sparse probe reads: those whose means differ most between the classes, in their own spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

VARIANCE_FLOOR = 1e-6
"""Added to the mean of the two variances of a standardised latent (specification, section 7)."""


def separation(
    latents: Float[np.ndarray, "row m"],
    labels: Float[np.ndarray, "draw row"],
    weights: Float[np.ndarray, "draw row"],
) -> Float[np.ndarray, "draw m"]:
    """Return d = (mean1 - mean0) / sqrt((var1 + var0) / 2 + 1e-6) of each latent, under each draw of labels.

    Args:
        latents: standardised on train, so that the floor means the same whatever a latent's scale.
        labels: 0 or 1.
        weights: 0 leaves a row out.
    """
    one, zero = weights * labels, weights * (1 - labels)
    squares = latents**2
    means, variances = [], []
    for side in (one, zero):
        mass = side.sum(1, keepdims=True)
        mean = side @ latents / mass
        means.append(mean)
        variances.append(np.maximum(side @ squares / mass - mean**2, 0.0))
    return np.asarray((means[0] - means[1]) / np.sqrt((variances[0] + variances[1]) / 2 + VARIANCE_FLOOR))


def strongest(d: Float[np.ndarray, "draw m"], k: int) -> Int[np.ndarray, "draw k"]:
    """Return the k latents of largest |d| of each draw, strongest first, ties to the lower number."""
    k = min(k, d.shape[1])
    size = np.abs(d)
    # Only those not below the k-th largest can be chosen: sorting all of a wide dictionary would cost more than fits.
    least = np.partition(size, d.shape[1] - k, axis=1)[:, d.shape[1] - k]
    chosen = np.empty((len(d), k), dtype=np.int64)
    for row, (values, floor) in enumerate(zip(size, least, strict=True)):
        candidates = np.flatnonzero(values >= floor)
        chosen[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return chosen
