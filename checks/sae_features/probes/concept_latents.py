"""A p for a statement about one latent: without it what a latent seems to say of a concept is a description.

Every live latent is tested, whether anyone pointed at it or not, so that the best of thousands does not pass for one
that was asked about. Specification of `sae_features`, section 7; Benjamini & Hochberg 1995 (JRSS B 57:289).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from checks.sae_features.probes.concept_auroc import permuted_areas
from checks.sae_features.probes.concept_permute import Dealer
from checks.sae_features.probes.concept_values import ConceptRows

if TYPE_CHECKING:
    from jaxtyping import Float

PERMUTATIONS = 10_000
"""Draws: the least p is 1e-4, which is below .05 after the correction over 500 latents even where one alone differs."""

CHUNK_NUMBERS = 4_000_000
"""Areas that stand in memory at once: 32 MB."""

ROUNDING = 1e-9
"""Areas nearer than this are equal: their sums were rounded."""


@dataclass(frozen=True)
class LatentP:
    """What one latent alone reads of a concept on test rows."""

    latent: int
    auroc: float
    """Below one half where the latent is on for the negative rows."""
    p: float
    """Two-sided permutation p of the area, labels permuted by group in test."""
    p_bh: float
    """The same after Benjamini and Hochberg over all live latents."""


def latent_p_values(
    rows: ConceptRows,
    latents: Float[np.ndarray, "row m"],
    rng: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> tuple[LatentP, ...]:
    """Return the p of every latent that is on at some row and off or different at another, in their order.

    Args:
        rows: the concept; only unshifted test rows are read, so that latents chosen on train are tested fairly.
        latents: pooled contributions of one dictionary at all rows.
        rng: draws the permutations.
        permutations: their number; none of m live latents can be below alpha alone unless it exceeds m / alpha.

    Raises:
        ValueError: latents have another number of rows, or test holds one class.
    """
    if len(latents) != len(rows.labels):
        raise ValueError(f"latents have {len(latents)} rows, the concept {len(rows.labels)}")
    held = np.array([split == "test" and shift is None for split, shift in zip(rows.split, rows.shift, strict=True)])
    labels = rows.labels[held]
    if len(np.unique(labels)) < 2:
        raise ValueError("the test rows hold one class")
    live = np.flatnonzero(np.ptp(latents, axis=0) > 0)
    ranks = rankdata(latents[held][:, live].T, axis=1)
    truth = permuted_areas(ranks, labels[None])[0]
    dealer = Dealer(labels, [group for group, one in zip(rows.groups, held, strict=True) if one])
    reach, beyond = np.abs(truth - 0.5) - ROUNDING, np.zeros(len(live))
    left = permutations
    while left:
        draws = min(left, max(1, CHUNK_NUMBERS // max(1, len(live), len(labels))))
        beyond += (np.abs(permuted_areas(ranks, dealer.deal(draws, rng)) - 0.5) >= reach).sum(0)
        left -= draws
    p = (1 + beyond) / (1 + permutations)
    adjusted = benjamini_hochberg(p.tolist())
    told = zip(live.tolist(), truth.tolist(), p.tolist(), adjusted, strict=True)
    return tuple(LatentP(*one) for one in told)


def benjamini_hochberg(p: Sequence[float]) -> tuple[float, ...]:
    """Return adjusted p-values in the order given: rejecting those at most q keeps the false share at q on average."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")[::-1]
    scaled = values[order] * len(values) / np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return tuple(adjusted.tolist())
