"""How a control tells `measure` what its evidence is: by the facts that it hands over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from checks.check import ModelFacts

Mode = Literal["shuffled", "repaired", "twin", "surrogate", "deflated"]

OF_MODEL = tuple(ModelFacts.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class SpoiledFacts(ModelFacts):
    """Facts of a control's evidence: its role `pairs` holds every row, and only main rows are measured."""

    mode: Mode
    at: tuple[int, ...]
    """Layers that the evidence holds, whatever `layers` says of the model."""
    judged: int
    """Layers over which the real measurement corrects."""
    chosen: Mapping[tuple[str, int], float]
    """Weight of the midpoint by set and layer, as chosen on the model; of the plants alone."""
    primary: tuple[str, ...]
    """Sets for which power is measured at every effect."""


def spoiled(facts: ModelFacts) -> Mode | None:
    """Return the mode of a control's evidence; None for the model itself."""
    return facts.mode if isinstance(facts, SpoiledFacts) else None


def spoiled_facts(
    facts: ModelFacts,
    mode: Mode,
    at: tuple[int, ...],
    judged: int,
    primary: tuple[str, ...],
    chosen: Mapping[tuple[str, int], float],
) -> SpoiledFacts:
    """Return the facts of a control's evidence."""
    known = {name: getattr(facts, name) for name in OF_MODEL}
    return SpoiledFacts(**known, mode=mode, at=at, judged=judged, primary=primary, chosen=chosen)
