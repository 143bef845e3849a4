"""Which plots an answer has: few, since every number of a report is charged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from assay.result import Plot

from checks.sae_features import plots
from checks.sae_features.cause_metrics import Caused, causes, edited
from checks.sae_features.dictionary.fidelity import BANDS
from checks.sae_features.dictionary.grouped import Estimate
from checks.sae_features.fidelities import BESIDE, Fidelities
from checks.sae_features.plots import Point
from checks.sae_features.probes.concept_values import ConceptTable, Readings
from checks.sae_features.session import Session

K = TypeVar("K")

CONCEPTS_DRAWN = 4
"""Concepts that are drawn: their numbers are all in the metrics."""


def drawn(session: Session, fidelities: Fidelities) -> Iterator[Plot]:
    """Yield the plots of a whole answer."""
    judged = {name: one for name, one in fidelities.faith.items() if name not in BESIDE}
    yield plots.ev_by_position(
        {
            name: {band: point for band in BANDS if (point := _point(one.fidelity.estimates[f"ev_{band}"])) is not None}
            for name, one in judged.items()
        }
    )
    yield plots.firing_rates({name: one.fidelity.rates.tolist() for name, one in judged.items()})
    yield plots.l0_distribution({name: one.active.tolist() for name, one in judged.items()})
    yield plots.loss_curve(dict(zip(session.own, session.learned.trained.curves, strict=True)))
    places = {}
    for name, one in fidelities.faith.items():
        ev, gain = one.ev.value, _point(one.gain.gain)
        if ev is not None and gain is not None:
            places[name] = (ev, gain)
    yield plots.ev_against_gain(places)
    tables = [table for table in session.tables.values() if isinstance(table, ConceptTable)]
    for table in tables[:CONCEPTS_DRAWN]:
        yield _areas(session, table)
        for name in edited(session)[:1]:
            found = causes(session).get((name, table.concept))
            if isinstance(found, Caused):
                yield from _edits(table.concept, found)


def _areas(session: Session, table: ConceptTable) -> Plot:
    read: Readings = next(iter(table.read.values()))
    shown = {name: point for name, one in read.auroc.items() if (point := _point(one)) is not None}
    best = read.auroc[read.surface].value
    return plots.auroc_by_probe(table.concept, shown, best, float(session.check.detect_floor))


def _edits(concept: str, found: Caused) -> Iterator[Plot]:
    effect = found.effect.value.value
    if effect is not None:
        controls = {"matched": found.effect.controls.tolist(), "random": found.effect.random.tolist()}
        yield plots.control_effects(concept, controls, effect)
    yield plots.battery_bars(concept, _points(found.battery.margins))
    scaled = plots.Doses(lines={"scaled": _points(found.dose.scaled)}, band={})
    yield plots.dose_response(concept, scaled, "factor of the latents")
    pushed = {name: _points(line) for name, line in found.dose.pushed.items()}
    yield plots.dose_response(concept, plots.Doses(lines=pushed, band=found.dose.band), "length of the push, R")


def _point(estimate: Estimate) -> Point | None:
    return None if estimate.value is None else Point(estimate.value, estimate.low, estimate.high)


def _points(estimates: Mapping[K, Estimate]) -> Mapping[K, Point]:
    return {name: point for name, one in estimates.items() if (point := _point(one)) is not None}
