"""A direction in raw residual space: what every method returns and every score is taken along.

Specification: sections 2, 5.15 and 15.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Direction:
    """A unit direction in raw residual space; a pair's score is its product with the displacement."""

    vector: Float[np.ndarray, " width"]
    """Unit length."""
    method: str
    flags: tuple[str, ...] = ()
    offset: float = 0.0
    """Bias on the score of a single text, in the units of `vector`; it cancels in a pair and flips with the vector."""
    normaliser: str = ""
    """Digest of the normaliser whose centring the direction presupposes; empty where nobody folded it in."""

    def flipped(self) -> Direction:
        """Return the same axis read the other way round, its offset with it."""
        return replace(self, vector=-self.vector, offset=-self.offset)

    def score(self, u: Float[np.ndarray, "pair width"]) -> Float[np.ndarray, " pair"]:
        """Return the score of each pair: its displacement x+ - x- along the direction."""
        return np.asarray(u @ self.vector)


def unit(vector: Float[np.ndarray, " width"]) -> Float[np.ndarray, " width"]:
    """Return a vector at unit length, float64; zero stays zero."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny), dtype=np.float64)


def canonical(vector: Float[np.ndarray, " width"]) -> Float[np.ndarray, " width"]:
    """Return a vector at unit length with its largest component positive, ties by index.

    An axis has no sign of its own: this one makes two runs agree and says nothing about truth (section 5.15).
    """
    vector = unit(vector)
    return -vector if vector[np.argmax(np.abs(vector))] < 0 else vector
