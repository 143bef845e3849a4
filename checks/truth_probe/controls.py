"""In-run controls: shuffled labels must carry nothing, a planted truth must be found. Specification: section 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from assay.result import Measured

from checks.check import Evidence, Expected, ModelFacts
from checks.memory import InMemoryEvidence
from checks.truth_probe.nulls import effect_for
from checks.truth_probe.splits import Plan

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.truth_probe.check import TruthProbe

STANDARD_ERRORS = 4.0
"""Half-width of the shuffled band, in standard errors of the mean (section 8)."""

PLANT_SEEDS, PLANT_AUROC = 5, 0.97
"""Draws of the surrogate, and the AUROC its effect is solved for (section 8)."""

PLANT_TOLERANCE, CEILING_MIN = 0.04, 0.90
"""Bands of the plant: of midpoint-displacement about the prediction, and of the logistic regression (section 8)."""

OF_MODEL = tuple(ModelFacts.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class SpoiledFacts(ModelFacts):
    """Facts of a control's own states."""

    shuffles: bool = False
    """Fit logistic directions to shuffled labels too."""
    all_layers: bool = False
    """Every layer is measured, whatever `layers` says of the real model: here a layer is a draw."""


@dataclass(frozen=True)
class ShuffledLabels:
    """Train labels permuted once, then 200 times more: what the ceiling finds must average to one half."""

    name: ClassVar[str] = "shuffled-labels"
    kind: ClassVar[Literal["null"]] = "null"

    def spoil(self, check: TruthProbe, seen: Evidence) -> Evidence:
        """Return the evidence with the labels of train pairs permuted among them."""
        plan = check.plan(seen.data("pairs"))
        train = [row for row, split in enumerate(plan.splits) if split == "train" and plan.pairs[row].label is not None]
        labels = [pair.label for pair in plan.pairs]
        for row, other in zip(train, seen.rng("shuffle").permutation(train), strict=True):
            labels[row] = plan.pairs[int(other)].label
        sites = {site: seen.activations(site) for site in check.sites(seen.facts)}
        facts = SpoiledFacts(**_known(seen.facts), shuffles=True)
        return _evidence(check, seen, facts, sites, _rows(seen, plan, labels))

    def bands(self, check: TruthProbe, measured: Measured) -> Sequence[Expected]:
        """Return the band of the mean AUROC at every layer."""
        expected = []
        for metric in measured.named("shuffled_auroc"):
            if metric.null is not None:
                reach = STANDARD_ERRORS * float(metric.null.sd) / sqrt(metric.null.n)
                expected.append(
                    Expected(
                        metric=metric.name,
                        value=float(metric.value),
                        low=0.5 - reach,
                        high=0.5 + reach,
                        labels=metric.labels,
                    )
                )
        return expected


@dataclass(frozen=True)
class PlantedTruth:
    """Gaussian states of the same number and width with truth planted at a predicted AUROC of .97; five draws."""

    name: ClassVar[str] = "planted-truth"
    kind: ClassVar[Literal["positive"]] = "positive"

    def spoil(self, check: TruthProbe, seen: Evidence) -> Evidence:
        """Return planted states at five sites, one a draw."""
        plan = check.plan(seen.data("pairs"))
        width = seen.facts.width
        trained = sum(split == "train" for split in plan.splits)
        effect = effect_for(PLANT_AUROC, trained, width)
        rng = seen.rng("plant")
        sites = {f"resid.{draw}": surrogate(plan, width, effect, rng) for draw in range(PLANT_SEEDS)}
        facts = SpoiledFacts(**{**_known(seen.facts), "layers": PLANT_SEEDS}, all_layers=True)
        return _evidence(check, seen, facts, sites, _rows(seen, plan, [pair.label for pair in plan.pairs]))

    def bands(self, check: TruthProbe, measured: Measured) -> Sequence[Expected]:
        """Return the bands of both methods' mean AUROC over the draws."""
        scored = measured.named("auroc")
        by = {m: [float(one.value) for one in scored if one.labels["method"] == m] for m in ("md", "lr")}
        if not by["md"] or not by["lr"]:
            return ()
        # An anchor's vote may leave a sign open; the prediction is of the axis, so the better sign is compared.
        found = float(np.mean([max(area, 1 - area) for area in by["md"]]))
        low, high = PLANT_AUROC - PLANT_TOLERANCE, min(1.0, PLANT_AUROC + PLANT_TOLERANCE)
        return (
            Expected(metric="mean_auroc", value=found, low=low, high=high, labels={"method": "md"}),
            Expected(
                metric="mean_auroc", value=float(np.mean(by["lr"])), low=CEILING_MIN, high=1.0, labels={"method": "lr"}
            ),
        )


def surrogate(plan: Plan, width: int, effect: float, rng: np.random.Generator) -> Float[np.ndarray, "text width"]:
    """Return states whose displacements are effect * t * axis + noise; rows as the check's texts."""
    axis = rng.standard_normal(width)
    axis /= np.linalg.norm(axis)
    guess = rng.integers(0, 2, len(plan.pairs))
    labels = np.array([pair.label if pair.label is not None else guess[row] for row, pair in enumerate(plan.pairs)])
    u = effect * (2.0 * labels - 1.0)[:, None] * axis + rng.standard_normal((len(labels), width))
    v = rng.standard_normal((len(labels), width))
    states = np.empty((2 * len(labels), width))
    states[0::2], states[1::2] = (v + u) / 2, (v - u) / 2
    return states


def _known(facts: ModelFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in OF_MODEL}


def _rows(seen: Evidence, plan: Plan, labels: Sequence[int | None]) -> list[Mapping[str, Any]]:
    """Return the planned rows with these labels and with their split declared, so that the plan stays as it is."""
    at = {pair.id: row for row, pair in enumerate(plan.pairs)}
    return [
        {**row, "label": labels[at[row["id"]]], "split": plan.splits[at[row["id"]]]}
        for row in seen.data("pairs")
        if row["id"] in at
    ]


def _evidence(
    check: TruthProbe,
    seen: Evidence,
    facts: ModelFacts,
    sites: Mapping[str, np.ndarray],
    rows: Sequence[Mapping[str, Any]],
) -> Evidence:
    seed = int(seen.rng(f"control/{sorted(sites)[0]}/{len(sites)}").integers(2**63))
    return InMemoryEvidence(
        facts=facts, check=check.name, seed=seed, activations=sites, rows={"pairs": rows}, lost=seen.lost()
    )
