"""Which end of a direction is true: told by a few labelled anchors, or not told. Specification: section 5.8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RESOLVED_P = 0.05
"""Two-sided binomial level at which a sign is fixed (5.8)."""


@dataclass(frozen=True)
class Orientation:
    """What the anchors say about a direction."""

    sign: int
    """+1 or -1; +1 where the sign is abstained."""
    right: int
    """Anchors that +direction orients right."""
    anchors: int
    p: float
    """Exact two-sided binomial p of a coin."""

    @property
    def resolved(self) -> bool:
        """Whether the sign is fixed rather than abstained."""
        return self.p <= RESOLVED_P

    @property
    def margin(self) -> float:
        """Share oriented right, less one half."""
        return self.right / self.anchors - 0.5


def orient(
    direction: Float[np.ndarray, " width"], u: Float[np.ndarray, "anchor width"], labels: Int[np.ndarray, " anchor"]
) -> Orientation:
    """Return the sign that labelled anchors give a direction; only anchors are looked at.

    Anchors that the direction does not see (a score of exactly zero) are right and wrong in turn, so that a direction
    that sees nothing stays a coin even where the anchors' labels are one-sided.

    Args:
        direction: unit vector.
        u: displacements of the anchors, centred with train statistics; one a labelled item.
        labels: 1 where the + text is true.
    """
    scores = u @ direction
    unseen = scores == 0
    right = int(np.sum(((scores > 0) == (labels == 1)) & ~unseen)) + int(np.sum(unseen)) // 2
    p = float(binomtest(right, len(labels), 0.5).pvalue)
    sign = -1 if p <= RESOLVED_P and right < len(labels) / 2 else 1
    return Orientation(sign, right, len(labels), p)
