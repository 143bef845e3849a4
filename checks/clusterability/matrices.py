"""Which matrices of a model are owed an answer, and what a control's own small model adds to its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from checks.check import ModelFacts
from checks.clusterability.nulls import ENTRIES_MAX, has_committed
from checks.clusterability.views import in_range, live
from checks.parameters import Layers, chosen_layers

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from checks.clusterability.cocluster import Partition

SIDE_MIN = 16
"""A matrix with fewer rows or columns is too small to be tested (section 3)."""


SIDES = ("mlp_in", "mlp_out")
"""A block's two MLP matrices, in order of computation."""


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
    together: int = 0
    """What the audit owes a word: each matrix of a control is corrected by so many tests, as if it were the audit's
    own. A family of the control's ten to thirty would put every p of few draws out of reach, and nothing could miss."""


@dataclass(frozen=True, kw_only=True)
class PlantedModel(ModelFacts):
    """Facts of a control's small model, read by the code that reads the audited one, in all its layers."""

    plants: Mapping[str, Plant] = field(default_factory=dict)
    """Planted partitions by label: of products rows and columns, of graphs and nets all nodes as rows."""


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
    rows: Bool[np.ndarray, " all_n"] | None = None
    """Which rows of the whole matrix these are; None where all are."""
    columns: Bool[np.ndarray, " all_m"] | None = None
    """Which columns."""

    def all_rows(self, labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " all_n"]:
        """Return a label for every row of the whole matrix, -1 for a dead one."""
        if self.rows is None:
            return labels
        whole = np.full(len(self.rows), -1)
        whole[self.rows] = labels
        return whole

    def of_whole(self, whole: Float[np.ndarray, "all_n all_m"]) -> Float[np.ndarray, "n m"]:
        """Return the part of something of the whole matrix's shape that this matrix holds."""
        if self.rows is None or self.columns is None:
            return whole
        return np.asarray(whole[np.ix_(self.rows, self.columns)])


@dataclass(frozen=True)
class Unusable:
    """A matrix that cannot be tested, and why."""

    item: str
    reason: str


def owed(layers: Layers, facts: ModelFacts, sides: Sequence[str] = SIDES) -> tuple[str, ...]:
    """Return the names of a transformer's matrices to test: each chosen block's first MLP matrix, then its last.

    Args:
        layers: blocks.
        facts: the model.
        sides: which of the two, "auto" for both; a control's own model has the first.

    Raises:
        Refusal: `layer_out_of_range`.
    """
    chosen = range(len(facts.mlp_in)) if isinstance(facts, PlantedFacts) else chosen_layers(layers, facts.layers)
    asked = ("mlp_in",) if isinstance(facts, PlantedFacts) else SIDES if sides == "auto" else sides
    held = [{"mlp_in": facts.mlp_in, "mlp_out": facts.mlp_out}[side] for side in SIDES if side in asked]
    return tuple(side[layer] for layer in chosen for side in held if layer < len(side))


def examine(name: str, weights: Float[np.ndarray, "n m"], zero_share_dense: float) -> Usable | Unusable:
    """Return what of a matrix can be tested, or why nothing can."""
    finite = np.isfinite(weights)
    if not finite.all():
        i, j = np.argwhere(~finite)[0]
        # The item keeps the alphabet of names: row and column of the first bad entry.
        return Unusable(f"{name[:100]}:{i}:{j}", "non_finite")
    whole = in_range(weights)
    rows, columns = live(whole)
    values, dead = whole[np.ix_(rows, columns)], int((~rows).sum() + (~columns).sum())
    if not values.size:
        return Unusable(name, "empty")
    zero_share = float(np.mean(values == 0))
    shape = (values.shape[0], values.shape[1])
    if min(shape) < SIDE_MIN:
        return Unusable(name, "too_small")
    if not np.ptp(np.abs(values)):
        return Unusable(name, "constant")  # all of one size: ranks tie, and there is nothing to cluster
    masked = zero_share > zero_share_dense
    if values.size > ENTRIES_MAX and (masked or not has_committed(shape)):
        return Unusable(name, "too_large")
    return Usable(values, dead, zero_share, masked, rows, columns)
