"""Numbers of further rows, answers and edits as quantised metrics. Specification: section 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from assay.result import Metric

from checks.truth_probe.telling import BOOTSTRAP, WILSON, estimated, number

if TYPE_CHECKING:
    from checks.truth_probe.beyond import Beyond, Outputs
    from checks.truth_probe.fitting import Method
    from checks.truth_probe.scores import Estimate, Reading
    from checks.truth_probe.transfer import Transfer

BATTERY = "battery"
"""How the label h of a built-in distractor begins; declared features may not."""

LINEARISED = "cluster-bootstrap-linearised"


def beyond_metrics(set_name: str, layers: Sequence[Beyond], said: Outputs, items: int) -> tuple[Metric, ...]:
    """Return the metrics of all measured layers of a set."""
    told = [
        estimated("output_auroc", reading.estimate, reading.n, {"set": set_name, "persona": persona})
        for persona, reading in said.auroc.items()
        if reading.estimate is not None
    ]
    for one in layers:
        at = {"set": set_name, "layer": str(one.layer)}
        told += _distractors(one, at, items)
        told += _other_rows(one, at)
        told += _output(one, at)
        told += _effect(one, at)
        told += _single_texts(one, at)
    gaps = [one.effect for one in layers if one.effect is not None and one.effect.output_gap is not None]
    if gaps and gaps[0].output_gap is not None:
        told.append(estimated("output_gap", gaps[0].output_gap, gaps[0].n, {"set": set_name}))
    return tuple(told)


def _distractors(one: Beyond, at: Mapping[str, str], items: int) -> list[Metric]:
    told = [
        estimated("frozen_auroc", estimate, items, {**at, "method": method, "h": feature})
        for (method, feature), estimate in one.features.items()
    ]
    of_battery = one.distracted
    for name, readings in (("frozen_auroc", of_battery.frozen), ("refit_auroc", of_battery.refit)):
        told += [
            estimated(name, estimate, of_battery.items, {**at, "method": method, "h": f"{BATTERY}/{kind}"})
            for (method, kind), estimate in readings.items()
        ]
    told += [
        estimated("distracted_auroc", estimate, of_battery.items, {**at, "method": "md", "h": f"{BATTERY}/{kind}"})
        for kind, estimate in of_battery.truth.items()
    ]
    return told


def _other_rows(one: Beyond, at: Mapping[str, str]) -> list[Metric]:
    parts: Sequence[tuple[str, Mapping[str, Estimate], int]] = (
        ("negation_auroc", _by_name(one.negation), one.negated),
        ("persona_auroc", _by_name(one.persona), one.others),
    )
    return [
        estimated(name, estimate, n, {**at, "method": method})
        for name, readings, n in parts
        for method, estimate in readings.items()
    ]


def _by_name(readings: Mapping[Method, Estimate]) -> dict[str, Estimate]:
    return {str(method): estimate for method, estimate in readings.items()}


def _output(one: Beyond, at: Mapping[str, str]) -> list[Metric]:
    told = []
    for method, reading in one.pgr.items():
        told += _reading("pgr", reading, {**at, "method": method}, LINEARISED)
    for method, reading in one.disagreement.items():
        told += _reading("disagreement_auroc", reading, {**at, "method": method}, WILSON)
    for method, counts in one.cells.items():
        if sum(counts.values()):
            told += [
                number("cells", float(n), n, {**at, "method": method, "probe": probe, "output": output})
                for (probe, output), n in counts.items()
            ]
    return told


def _effect(one: Beyond, at: Mapping[str, str]) -> list[Metric]:
    effect = one.effect
    if effect is None or effect.f2t is None or effect.t2f is None:
        return []
    by = {**at, "method": "md"}
    told = [
        estimated(name, estimate, effect.n, by, LINEARISED)
        for name, estimate in (("nie_f2t", effect.f2t), ("nie_t2f", effect.t2f))
        if _bounded(estimate)
    ]
    if effect.random_max is not None:
        told.append(number("nie_random_max", effect.random_max, effect.n, at))
    return told


def _single_texts(one: Beyond, at: Mapping[str, str]) -> list[Metric]:
    by, told = {**at, "method": "md"}, []
    if one.alarms is not None:
        told += _reading("fpr_measured", one.alarms.fpr, by, WILSON)
        told += _reading("recall_at_fpr01", one.alarms.recall, by, WILSON)
        told += _reading("lie_rate", one.alarms.lie_rate, by, WILSON)
    if one.calibration is not None:
        n = sum(point.n for point in one.calibration.bins)
        told.append(estimated("brier", one.calibration.brier, n, by))
        told.append(estimated("ece", one.calibration.ece, n, by))
    return told


def _reading(name: str, reading: Reading, labels: Mapping[str, str], method: str = BOOTSTRAP) -> list[Metric]:
    if reading.estimate is None or not _bounded(reading.estimate):
        return []
    return [estimated(name, reading.estimate, reading.n, labels, method)]


def _bounded(estimate: Estimate) -> bool:
    """Return whether an interval has two ends: one of infinite width is no number to tell."""
    return isfinite(estimate.low) and isfinite(estimate.high)


def transfer_metrics(layer: int, told: Sequence[Transfer]) -> list[Metric]:
    """Return the matrix of one layer; a set's own test rows are `auroc` already."""
    return [
        metric
        for one in told
        if one.train != one.to
        for metric in _reading(
            "transfer_auroc", one.auroc, {"set": one.train, "to": one.to, "layer": str(layer), "method": "md"}
        )
    ]
