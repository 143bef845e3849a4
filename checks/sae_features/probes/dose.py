"""How a behaviour answers to more and less of latents, and to pushes along directions.

Specification of `sae_features`, section 8.3, last sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64

    from checks.sae_features.dictionary.grouped import Estimate

FACTORS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""What f_S is multiplied by."""

PUSHES = (0.25, 0.5, 1.0, 2.0)
"""Lengths of a push, in units of R = sqrt E|x - mu|^2."""

RANDOM_PUSHES = 16
"""Random directions that make the band."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dose:
    """Mean margin in nats at each dose."""

    scaled: Mapping[float, Estimate]
    """By factor; 1 is unedited."""
    pushed: Mapping[str, Mapping[float, Estimate]]
    """"with" and "against" the direction that S writes, "diffmean" where one is given; by length."""
    random: Mapping[float, Float64[np.ndarray, " direction"]]
    """Mean margin under each random push, by length."""
    left_out: tuple[str, ...]
    """Ids of rows whose unedited margin has the wrong sign."""

    @property
    def band(self) -> Mapping[float, tuple[float, float]]:
        """Least and greatest margin under the random pushes, by length."""
        return {length: (float(margins.min()), float(margins.max())) for length, margins in self.random.items()}
