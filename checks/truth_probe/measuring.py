"""From evidence to numbers: every set at every layer, once for the model and, leaner, under each control."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from assay.result import Measured, Metric, Skipped

from checks.ask import as_name
from checks.check import Evidence, Refusal
from checks.truth_probe import displacement as md
from checks.truth_probe import nulls
from checks.truth_probe.areas import Sure
from checks.truth_probe.beyond import Beyond, Outputs, Place, beyond, outputs
from checks.truth_probe.gathering import Gathered, Held, gathered
from checks.truth_probe.items import KEPT, handed_out
from checks.truth_probe.modes import Mode, SpoiledFacts, spoiled
from checks.truth_probe.plants import EDGES, EFFECTS, Bar, power
from checks.truth_probe.plots import plots
from checks.truth_probe.probing import LayerNumbers, Seen, fault, probe, score, see, shuffled_areas
from checks.truth_probe.telling import BOOTSTRAP, estimated, layer_metrics, number, set_metrics
from checks.truth_probe.telling_beyond import beyond_metrics, transfer_metrics
from checks.truth_probe.transfer import Target, Transfer, transfer_matrix

if TYPE_CHECKING:
    import numpy as np

    from checks.truth_probe.check import TruthProbe
    from checks.truth_probe.fitting import Method

STANDARD_ERRORS, WIDE = 4.0, "0.9999"
"""Half-width of the re-paired share's interval, and the normal level that it amounts to (section 8)."""

LEAN_LEVEL, LEAN_DRAWS = 0.95, 200
"""Interval and draws under a control: its bands need a standard error, not a corrected bound."""


@dataclass
class _Told:
    """What has been measured so far."""

    layers: dict[str, list[LayerNumbers]] = field(default_factory=dict)
    beyond: dict[str, list[Beyond]] = field(default_factory=dict)
    transfer: dict[int, tuple[Transfer, ...]] = field(default_factory=dict)
    outputs: dict[str, Outputs] = field(default_factory=dict)
    faults: list[Skipped] = field(default_factory=list)


def measured(check: TruthProbe, evidence: Evidence) -> Measured:
    """Return the numbers of all sets.

    Raises:
        Refusal: no set or no layer can be measured.
    """
    held = gathered(check, evidence)
    mode = spoiled(evidence.facts)
    told = _Told()
    if mode is not None:
        cells = _cells(held, evidence, check, told.faults)
        return Measured(metrics=tuple(m for cell in cells for m in _spoiled(check, evidence, mode, *cell)))
    sure = _sure(check, held)
    told.outputs = {name: outputs(held, name, evidence, sure, check) for name in held.sets}
    for layer, of_layer in groupby(_cells(held, evidence, check, told.faults), key=lambda cell: cell[1]):
        fitted: dict[str, tuple[Seen, LayerNumbers]] = {}
        for name, _, seen in of_layer:
            place = Place(check=check, evidence=evidence, held=held, name=name, layer=layer, sure=sure)
            numbers = probe(layer, seen, check.how(), sure, evidence.rng, place.at)
            told.layers.setdefault(name, []).append(numbers)
            told.beyond.setdefault(name, []).append(beyond(place, seen, numbers, told.outputs[name]))
            fitted[name] = (seen, numbers)
        if layer in held.asked.causal_layers:
            told.transfer[layer] = _transfer(fitted, sure, evidence.rng(f"transfer/{layer}"))
    if not told.layers:
        raise Refusal("nothing_measurable", tuple(f"{one.item}:{one.reason}"[:128] for one in told.faults))
    files, left = handed_out(held, told.layers, check.items_bytes)
    evidence.kept[KEPT] = files
    told.faults.extend(left)
    return _answer(evidence, held, told)


def _transfer(
    fitted: Mapping[str, tuple[Seen, LayerNumbers]], sure: Sure, rng: np.random.Generator
) -> tuple[Transfer, ...]:
    """Return the directions of every set on the test rows of every other (5.11)."""
    return transfer_matrix(
        {
            as_name(name): seen.normaliser.fold(numbers.fitted.directions["md"]).vector
            for name, (seen, numbers) in fitted.items()
        },
        {
            as_name(name): Target(seen.test.u * seen.normaliser.scale, seen.test.labels, seen.test.pairs.cluster)
            for name, (seen, _) in fitted.items()
        },
        sure.level,
        sure.bootstrap,
        rng,
    )


def _sure(check: TruthProbe, held: Gathered) -> Sure:
    layers = len(held.asked.layers)
    return Sure(
        level=1.0 - float(check.alpha) / layers, bootstrap=check.bootstrap, permutations=_permutations(check, layers)
    )


def _permutations(check: TruthProbe, layers: int) -> int:
    return max(1000, 40 * layers) if check.permutations == "auto" else check.permutations


def _cells(
    held: Gathered, evidence: Evidence, check: TruthProbe, faults: list[Skipped]
) -> Iterator[tuple[str, int, Seen]]:
    """Yield each set at each layer that can be measured; the others are named in `faults`."""
    for layer in held.asked.layers:
        swept = evidence.activations(f"resid.{layer}")
        if len(swept) != len(held.asked.texts):
            # Rows are told apart by their place alone: one text too many would pair states with wrong labels.
            raise ValueError(f"layer {layer} has {len(swept)} states for {len(held.asked.texts)} texts")
        for name, one in held.sets.items():
            states = held.states(name, swept)
            wrong = fault(states)
            if wrong is None:
                yield name, layer, see(states, one.masks, check.normaliser)
                continue
            reason, row, count = wrong
            # Which pair was first helps where a state is broken, and says nothing of a layer without spread.
            named = f":{one.plan.pairs[row].id}:{count}" if reason == "non_finite" else ""
            faults.append(Skipped(item=as_name(f"layer:{layer}:set:{name}{named}"), reason=reason))


def _spoiled(check: TruthProbe, evidence: Evidence, mode: Mode, name: str, layer: int, seen: Seen) -> list[Metric]:
    """Return what a control reads of one set at one layer, and nothing else."""
    at, draw = {"set": as_name(name), "layer": str(layer)}, evidence.rng
    label = f"{name}/{layer}"
    lean = Sure(level=LEAN_LEVEL, bootstrap=LEAN_DRAWS, permutations=LEAN_DRAWS)
    items = len(seen.test)
    if mode == "deflated":
        assert isinstance(evidence.facts, SpoiledFacts)
        judged = evidence.facts.judged
        lam = evidence.facts.chosen[name, layer]
        bar = Bar(
            alpha=float(check.alpha),
            floor=float(check.detect_floor),
            level=1.0 - float(check.alpha) / judged,
            permutations=_permutations(check, judged),
            layers=judged,
        )
        effects = EFFECTS if name in evidence.facts.primary else EDGES
        shares = power(seen, lam, bar, effects, check.power_draws, draw(f"plants/{label}"))
        return [
            number("power", share, check.power_draws, {**at, "method": method, "effect": effect})
            for (method, effect), share in shares.items()
        ]
    if mode == "repaired":
        direction = seen.fit(check.how(("md",)), draw, label).directions["md"]
        share = md.share(seen.test.pairs, direction.vector)
        error = nulls.share_error(seen.test.pairs, direction.vector, LEAN_DRAWS, draw(f"re-paired/{label}"))
        bounds = (max(0.0, share - STANDARD_ERRORS * error), min(1.0, share + STANDARD_ERRORS * error))
        return [
            number(
                "displacement_share", share, items, {**at, "method": "md"}, bounds=bounds, level=WIDE, method=BOOTSTRAP
            )
        ]
    lean_methods: dict[Mode, tuple[Method, ...]] = {"shuffled": ("lr",), "surrogate": ("md", "tpc", "lr")}
    methods = lean_methods.get(mode, check.methods)
    fitted = seen.fit(check.how(methods), draw, label)
    if mode == "shuffled":
        known = seen.train.take(seen.train.labels >= 0)
        areas = shuffled_areas(known, seen.test, fitted.penalty, draw(f"shuffles/{label}"))
        null = ("shuffled-labels", list(areas))
        return [number("shuffled_auroc", float(areas.mean()), len(areas), {**at, "method": "lr"}, null=null)]
    return [
        estimated("auroc", scored.auroc, items, {**at, "method": method})
        for method, scored in score(fitted, seen.test, lean, draw, label).items()
    ]


def _answer(evidence: Evidence, held: Gathered, told: _Told) -> Measured:
    metrics: list[Metric] = []
    skipped = [*told.faults, *(Skipped(item=as_name(item), reason=reason) for item, reason in held.skipped)]
    for name, layers in told.layers.items():
        one = held.sets[name]
        items, pairs = len(set(one.masks.item[one.masks.test])), int(one.masks.train.sum())
        metrics += layer_metrics(as_name(name), layers, items, pairs)
        metrics += set_metrics(
            as_name(name),
            train_pairs=pairs,
            test_items=items,
            test_clusters=len(set(one.masks.cluster[one.masks.test])),
            known={
                feature: len(set(one.masks.item[one.masks.test & (values >= 0)]))
                for feature, values in one.masks.features.items()
            },
        )
        metrics += beyond_metrics(as_name(name), told.beyond[name], told.outputs[name], items)
        skipped += _without(name, layers)
        skipped += _unreadable(name, one, told.beyond[name])
    for layer, matrix in told.transfer.items():
        metrics += transfer_metrics(layer, matrix)
    return Measured(
        coverage={
            "set": tuple(as_name(name) for name in (*held.sets, *held.refused)),
            "layer": tuple(str(layer) for layer in sorted((*held.asked.layers, *held.asked.thinned))),
        },
        metrics=tuple(metrics),
        plots=plots({name: told.layers[name] for name in _pictured(held, told)}, told.beyond, told.transfer),
        skipped=tuple(skipped),
    )


def _unreadable(name: str, one: Held, beyond: list[Beyond]) -> list[Skipped]:
    read = {feature for here in beyond for _, feature in here.features}
    return [
        Skipped(item=as_name(f"set:{name}:h:{feature}"), reason="not_testable")
        for feature in one.masks.features
        if feature not in read
    ]


def _without(name: str, layers: list[LayerNumbers]) -> list[Skipped]:
    """Return the methods that have no direction: once for the set, or layer by layer where they have one elsewhere."""
    gone = [(method, reason, one.layer) for one in layers for method, reason in one.fitted.without.items()]
    told: dict[tuple[Method, str], list[int]] = {}
    for method, reason, layer in gone:
        told.setdefault((method, reason), []).append(layer)
    named: list[Skipped] = []
    for (method, reason), at in told.items():
        places = [""] if len(at) == len(layers) else [f":layer:{layer}" for layer in at]
        named += [Skipped(item=as_name(f"set:{name}{place}:method:{method}"), reason=reason) for place in places]
    named += [
        Skipped(item=as_name(f"set:{name}:layer:{one.layer}:method:md"), reason=flag)
        for one in layers
        for flag in one.fitted.directions["md"].flags
    ]
    return named


def _pictured(held: Gathered, told: _Told) -> tuple[str, ...]:
    """Return the sets that are drawn, the primary ones or the first: plots of all would not fit the output budget."""
    primary = tuple(name for name in held.asked.primary if name in told.layers)
    return primary or tuple(told.layers)[:1]
