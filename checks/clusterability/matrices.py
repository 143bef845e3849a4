"""Which matrices of a model are owed an answer, and what a control's own small model adds to its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from checks.check import ModelFacts
from checks.clusterability.nulls import ENTRIES_MAX, has_committed
from checks.clusterability.structure import alive
from checks.parameters import Layers, chosen_layers

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.clusterability.cocluster import Partition

SIDE_MIN = 16
"""A matrix with fewer rows or columns is too small to be tested (section 3)."""


@dataclass(frozen=True)
class Plant:
    """What a control planted in one of its matrices."""

    k: int
    truth: Partition


@dataclass(frozen=True, kw_only=True)
class PlantedFacts(ModelFacts):
    """Facts of a control's own model: every matrix it names is measured, whatever `layers` says of the real one."""

    plants: Mapping[str, Plant] = field(default_factory=dict)
    """Planted partitions by matrix; empty for noise."""


@dataclass(frozen=True)
class Usable:
    """A matrix that can be tested."""

    values: Float[np.ndarray, "n m"]
    """Without dead nodes, in the range of float64."""
    dead: int
    """Rows and columns without any weight, left out."""
    zero_share: float
    """Share of exact zeros among what is left."""
    masked: bool = False
    """So many zeros that their pattern alone is tested: magnitudes are left out (4.5)."""


@dataclass(frozen=True)
class Unusable:
    """A matrix that cannot be tested, and why."""

    item: str
    reason: str


def owed(layers: Layers, facts: ModelFacts, sides: Sequence[str] = ("mlp_in", "mlp_out")) -> tuple[str, ...]:
    """Return the names of the matrices to test: each chosen block's first MLP matrix, then its last.

    Args:
        layers: blocks.
        facts: the model.
        sides: which of the two; a control's own model has the first.

    Raises:
        Refusal: `layer_out_of_range`.
    """
    chosen = range(len(facts.mlp_in)) if isinstance(facts, PlantedFacts) else chosen_layers(layers, facts.layers)
    asked = ("mlp_in",) if isinstance(facts, PlantedFacts) else sides
    held = [{"mlp_in": facts.mlp_in, "mlp_out": facts.mlp_out}[side] for side in ("mlp_in", "mlp_out") if side in asked]
    return tuple(side[layer] for layer in chosen for side in held if layer < len(side))


def examine(name: str, weights: Float[np.ndarray, "n m"], zero_share_dense: float) -> Usable | Unusable:
    """Return what of a matrix can be tested, or why nothing can."""
    finite = np.isfinite(weights)
    if not finite.all():
        i, j = np.argwhere(~finite)[0]
        # The item keeps the alphabet of names: row and column of the first bad entry.
        return Unusable(f"{name[:100]}:{i}:{j}", "non_finite")
    values, dead = alive(weights)
    if not values.size:
        return Unusable(name, "empty")
    zero_share = float(np.mean(values == 0))
    shape = (values.shape[0], values.shape[1])
    if min(shape) < SIDE_MIN:
        return Unusable(name, "too_small")
    masked = zero_share > zero_share_dense
    if values.size > ENTRIES_MAX and (masked or not has_committed(shape)):
        return Unusable(name, "too_large")
    return Usable(values, dead, zero_share, masked)
