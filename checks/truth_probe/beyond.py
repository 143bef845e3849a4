"""What other rows, answers and edits say of a fitted direction: the numbers of gates 3 to 6.

Specification: sections 5.10 to 5.14. Every direction here was fitted and signed without any of these rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from checks.check import Evidence
from checks.truth_probe.alarms import Alarms, SingleTexts, recall_at_fpr, single_text_scores
from checks.truth_probe.areas import Sure, areas
from checks.truth_probe.asking import EVERYONE
from checks.truth_probe.calibration import Calibration, calibration, fit_platt
from checks.truth_probe.direction import Direction
from checks.truth_probe.distracted import Distracted, distracted
from checks.truth_probe.fitting import GATED, PRIMARY, Method, Rows
from checks.truth_probe.gathering import Gathered
from checks.truth_probe.output import cells, contradicted, disagreement, output_auroc, output_scores, pgr
from checks.truth_probe.probing import LayerNumbers, Seen
from checks.truth_probe.replaying import CausalEffect, choose, nie, plan_shifts
from checks.truth_probe.roles import Benign, Statement
from checks.truth_probe.scores import Estimate, Reading, ScoredItems

if TYPE_CHECKING:
    from checks.truth_probe.check import TruthProbe


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the model itself says of a set's test rows; the same at every layer."""

    main: np.ndarray
    """Output score of each main test row, nats; NaN where there is none."""
    other: np.ndarray
    """The same of the second persona's rows."""
    auroc: Mapping[str, Reading]
    """By persona."""


@dataclass(frozen=True, kw_only=True)
class Beyond:
    """Numbers of one set at one layer."""

    layer: int
    features: Mapping[tuple[Method, str], Estimate]
    """AUROC of each declared feature, by gated method."""
    distracted: Distracted
    negation: Mapping[Method, Estimate]
    negated: int
    """Negated test rows."""
    persona: Mapping[Method, Estimate]
    others: int
    pgr: Mapping[Method, Reading]
    disagreement: Mapping[Method, Reading]
    cells: Mapping[Method, Mapping[tuple[str, str], int]]
    effect: CausalEffect | None
    """None where nothing was replayed."""
    alarms: Alarms | None
    calibration: Calibration | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where numbers are taken: a set at a layer of some evidence."""

    check: TruthProbe
    evidence: Evidence
    held: Gathered
    name: str
    layer: int
    sure: Sure

    @property
    def at(self) -> str:
        """Name of the place, for the labels of draws."""
        return f"{self.name}/{self.layer}"

    def rng(self, what: str) -> np.random.Generator:
        """Return the generator of something drawn here."""
        return self.evidence.rng(f"{what}/{self.at}")

    @property
    def swept(self) -> np.ndarray:
        """All states at this layer, [text, width]."""
        return np.asarray(self.evidence.activations(f"resid.{self.layer}"))


def outputs(held: Gathered, name: str, evidence: Evidence, sure: Sure, check: TruthProbe) -> Outputs:
    """Return the model's own answers to a set's test rows."""
    one = held.sets[name]
    nats = evidence.log_probabilities()
    every = output_scores([(pair.key, pair.form) for pair in one.plan.pairs], nats)
    separated = name in held.asked.own and check.fit_persona is not None
    personas = {(check.fit_persona or EVERYONE) if separated else EVERYONE: one.masks.test}
    if check.test_persona is not None and one.masks.other_test.any():
        personas[check.test_persona] = one.masks.other_test
    told = {}
    for persona, mask in personas.items():
        items = ScoredItems(every[mask], one.masks.labels[mask], one.masks.cluster[mask])
        rng = evidence.rng(f"output/{name}/{persona}")
        told[persona] = output_auroc(items, sure.level, sure.bootstrap, rng)
    return Outputs(main=every[one.masks.test], other=every[one.masks.other_test], auroc=told)


def beyond(place: Place, seen: Seen, numbers: LayerNumbers, said: Outputs) -> Beyond:
    """Return everything that main rows alone do not say of this layer's directions."""
    directions = numbers.fitted.directions
    gated = {method: direction for method, direction in directions.items() if method in GATED}
    probe_main = {method: _scored(direction.score(seen.test.u), seen.test) for method, direction in gated.items()}
    probe_other = {method: _scored(direction.score(seen.other.u), seen.other) for method, direction in gated.items()}
    how_sure = (place.sure.level, place.sure.bootstrap)
    main, other = _scored(said.main, seen.test), _scored(said.other, seen.other)
    return Beyond(
        layer=place.layer,
        features=_features(place, seen, gated),
        distracted=distracted(place, seen, numbers),
        negation=_on(place, "negation", seen.negated_test, gated),
        negated=_items(seen.negated_test),
        persona=_on(place, "persona", seen.other, gated),
        others=_items(seen.other),
        pgr={
            method: pgr(probe, main, other, *how_sure, place.rng(f"pgr/{method}"))
            for method, probe in probe_other.items()
            if len(probe) and method == PRIMARY
        },
        disagreement={
            method: _of_items(
                disagreement(probe, said.main, *how_sure, place.rng(f"disagreement/{method}")), contradicted(main), seen
            )
            for method, probe in probe_main.items()
        },
        cells={PRIMARY: cells(probe_main[PRIMARY].scores, said.main)},
        effect=_effect(place, seen, numbers),
        alarms=_alarms(place, seen, numbers),
        calibration=_calibration(place, seen, numbers),
    )


def _items(rows: Rows) -> int:
    return len(np.unique(rows.item))


def _of_items(reading: Reading, rows: np.ndarray, seen: Seen) -> Reading:
    """Return a reading whose n counts items: an item's other templates say the same thing again."""
    return replace(reading, n=len(np.unique(seen.test.item[rows])))


def _scored(scores: np.ndarray, rows: Rows) -> ScoredItems:
    return ScoredItems(scores, rows.labels, rows.pairs.cluster)


def _on(place: Place, what: str, rows: Rows, directions: Mapping[Method, Direction]) -> dict[Method, Estimate]:
    """Return the signed AUROC of frozen directions on other rows; nothing where those are of one class."""
    scores = {method: direction.score(rows.u) for method, direction in directions.items()}
    return areas(scores, rows.labels, rows.pairs.cluster, place.sure, place.rng(what)) if len(rows) else {}


def _features(place: Place, seen: Seen, directions: Mapping[Method, Direction]) -> dict[tuple[Method, str], Estimate]:
    masks = place.held.sets[place.name].masks
    told: dict[tuple[Method, str], Estimate] = {}
    for feature, values in masks.features.items():
        of_test = values[masks.test]
        known = of_test >= 0
        scores = {method: direction.score(seen.test.u[known]) for method, direction in directions.items()}
        cluster = seen.test.pairs.cluster[known]
        found = areas(scores, of_test[known], cluster, place.sure, place.rng(f"feature/{feature}"))
        told |= {(method, feature): estimate for method, estimate in found.items()}
    return told


def _effect(place: Place, seen: Seen, numbers: LayerNumbers) -> CausalEffect | None:
    """Return the effect of midpoint-displacement's direction; None where this layer or set is not replayed."""
    candidates = place.held.asked.causal.get(place.name, ())
    if place.layer not in place.held.asked.causal_layers or not candidates:
        return None
    nats, kept = place.evidence.log_probabilities(), {pair.key for pair in place.held.sets[place.name].plan.pairs}
    alive = [text for text in candidates if text.id.rpartition("/")[0] in kept]
    texts = choose(alive, place.check.causal_items, nats)
    if not texts:
        return None
    direction = seen.normaliser.fold(numbers.fitted.directions["md"])
    train = seen.train.raw
    shifts = plan_shifts(
        direction.vector,
        train.pos,
        train.neg,
        seen.train.labels,
        place.check.causal_random,
        place.rng("causal-directions"),
    )
    sure = (place.sure.level, place.sure.bootstrap)
    site = f"resid.{place.layer}"
    return nie(place.evidence.replay, site, shifts, texts, nats, *sure, place.rng("causal-bootstrap"))


def _alarms(place: Place, seen: Seen, numbers: LayerNumbers) -> Alarms | None:
    """Return the alarm of midpoint-displacement's direction on the audit's single texts."""
    asked = place.held.asked
    sign = numbers.fitted.orientation.get("md")
    resolved = sign is not None and sign.resolved
    if place.name not in asked.primary or not asked.benign or not asked.statements or not resolved:
        return None
    if place.held.broken_texts:
        return None
    direction = seen.normaliser.fold(numbers.fitted.directions["md"])
    train = seen.train.raw
    pooled = (train.pos.mean(axis=0, dtype=np.float64) + train.neg.mean(axis=0, dtype=np.float64)) / 2

    def scores(texts: Sequence[Benign | Statement]) -> SingleTexts:
        rows = [place.held.row[one.text().id] for one in texts]
        told = single_text_scores(place.swept[rows], direction.vector, pooled)
        return SingleTexts(told, np.array([one.cluster for one in texts]))

    return recall_at_fpr(
        scores(asked.benign),
        scores(asked.statements),
        np.array([one.true for one in asked.statements]),
        np.array([-1 if one.asserted is None else one.asserted for one in asked.statements]),
        place.sure.level,
        place.sure.bootstrap,
        place.rng("alarms"),
    )


def _calibration(place: Place, seen: Seen, numbers: LayerNumbers) -> Calibration | None:
    """Return how far midpoint-displacement's probabilities hold after scaling on anchors; None for an open sign."""
    sign = numbers.fitted.orientation.get("md")
    if sign is None or not sign.resolved:
        return None
    direction = numbers.fitted.directions["md"]
    scaling = fit_platt(direction.score(seen.anchor.u), seen.anchor.labels)
    probability = scaling.probability(direction.score(seen.test.u))
    test = seen.test
    sure = (place.sure.level, place.sure.bootstrap)
    return calibration(probability, test.labels, test.pairs.cluster, *sure, place.rng("calibration"))
