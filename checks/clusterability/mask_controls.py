"""What controls plant and draw where an audited matrix is tested by its pattern of zeros. Specification: 4.5 and 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from checks.check import Evidence
from checks.clusterability.asking import owed_of
from checks.clusterability.candidates import usable_matrices
from checks.clusterability.masks import planted_mask
from checks.clusterability.matrices import Plant

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.clusterability.check import Clusterability

MASKED, MASK = "masked.32x40", "mask"
"""Names of the planted mask, and what those of random ones begin with."""

MASK_SHAPE, MASK_DRAWS = (32, 40), 5
"""Masks of the controls, of this shape whatever is audited: their null is drawn in the run, some 5 ms a replicate. No
table is committed of it, whose length would be asked of masks too."""

MASKS_LOW, MASK_LEVEL = 2, 0.05
"""Of five random masks so many may have p at most that. By p alone: the test is exact, and a null that is broken would
hide behind the floors. Three of five are so low in one audit of a thousand."""

MASK_DENSITY = (0.15, 0.65)
"""Least and largest density of random masks: not empty, and sparse enough to be read as masks."""

MASK_OUTSIDE = (0.1, 0.03)
"""Density outside the planted groups, which are full: of up to four groups, and of more."""


def masked_density(check: Clusterability, seen: Evidence) -> float | None:
    """Return the share of non-zeros of the matrices whose pattern of zeros is tested; None where there is none."""
    shares = [one.zero_share for one in usable_matrices(check, owed_of(check, seen.facts), seen) if one.masked]
    return 1.0 - float(np.mean(shares)) if shares else None


def masked(k: int, rng: np.random.Generator) -> tuple[Float[np.ndarray, "n m"], Plant]:
    """Return a matrix whose zeros leave k groups full, and the groups (organism G, stronger)."""
    mask, truth = planted_mask(MASK_SHAPE, k, 1.0, MASK_OUTSIDE[k > 4], rng)
    return np.where(mask, rng.standard_normal(MASK_SHAPE), 0.0), Plant(k, truth)


def random_masks(density: float, rng: np.random.Generator) -> dict[str, Float[np.ndarray, "n m"]]:
    """Return matrices by name with zeros at random, about as many as a density leaves."""
    share = float(np.clip(density, *MASK_DENSITY))
    draws = {f"{MASK}.{draw}": rng.standard_normal(MASK_SHAPE) for draw in range(MASK_DRAWS)}
    return {name: np.where(rng.random(MASK_SHAPE) < share, values, 0.0) for name, values in draws.items()}
