"""How often a direction of known strength would have been detected: the power that "not detected" must quote.

Specification of `sae_features`, section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.sae_features.dictionary.value import Dictionary
from checks.sae_features.probes.concept_values import ProbeSettings

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class PowerPoint:
    """What came of plants of one strength in one place."""

    place: Literal["in", "out"]
    """Along the row of a live latent of middle density, or along a random direction."""
    amplitude: float
    """a, in units of R = sqrt E‖x - mean‖²; 0 plants nothing and counts false detections ("out")."""
    probe: Literal["dense", "sparse_5", "either"]
    auroc: float
    """Mean over the draws; of "either" that of the probe that val prefers."""
    detected: float
    """Share of the draws that the rule of section 12 calls detected."""
    draws: int
    low: float
    """Wilson's interval of the share."""
    high: float
    n: int
    """Rows of each draw, all splits."""
    groups: int


def power_table(
    x: Float[np.ndarray, "row d"],
    groups: Sequence[str],
    dictionary: Dictionary,
    settings: ProbeSettings,
    rng: Callable[[str], np.random.Generator],
    draws: int = 40,
    *,
    tests: int = 1,
    density: Float[np.ndarray, " m"] | None = None,
) -> tuple[PowerPoint, ...]:
    """Return the power at each place and amplitude; the point a = 0 is the false alarms of 20 draws."""
    raise NotImplementedError
