"""In-run controls: labels shuffled, pairs re-paired, a model that never learned, truth planted.

Specification: section 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from assay.result import Measured, Metric

from checks.check import Evidence, Expected, PromisedBand
from checks.memory import InMemoryEvidence
from checks.truth_probe.asking import asked
from checks.truth_probe.fitting import weight
from checks.truth_probe.gathering import Gathered, gathered
from checks.truth_probe.modes import Mode, spoiled_facts
from checks.truth_probe.nulls import effect_for
from checks.truth_probe.pairs import Pair
from checks.truth_probe.plants import EMPTY, surrogate
from checks.truth_probe.probing import SHUFFLES, fault, see
from checks.truth_probe.splits import TEST_CLUSTERS_MIN

if TYPE_CHECKING:
    from checks.truth_probe.check import TruthProbe

STANDARD_ERRORS = 4.0
"""Half-width of the shuffled and of the twin's band, in standard errors (section 8)."""

SD_MOST = 0.5
"""Largest standard deviation of numbers from 0 to 1: half of them at each end."""

REACH_MOST = STANDARD_ERRORS * SD_MOST / sqrt(TEST_CLUSTERS_MIN)
"""Half-width beyond which no band goes that hangs on test clusters: so many standard errors of a mean of numbers from 0
to 1 over the fewest clusters that are tested. A wider one would hold whatever was measured, and be no control."""

SHARE_REACH = 0.06
"""Distance from one half within which the displacement's share must fall once pairs are re-paired (section 8), or four
of its standard errors where those are more: with a few dozen clusters test means alone move it so far."""

PLANT_SEEDS, PLANT_AUROC = 5, 0.97
"""Draws of the surrogate, and the AUROC its effect is solved for (section 8)."""

PLANT_TOLERANCE, CEILING_MIN = 0.04, 0.90
"""Bands of the plant: of the label-free methods about the prediction, and of the logistic regression (section 8)."""

PLANT_BANDS: Mapping[str, tuple[float, float]] = {
    "md": (PLANT_AUROC - PLANT_TOLERANCE, min(1.0, PLANT_AUROC + PLANT_TOLERANCE)),
    "tpc": (PLANT_AUROC - PLANT_TOLERANCE, min(1.0, PLANT_AUROC + PLANT_TOLERANCE)),
    "lr": (CEILING_MIN, 1.0),
}
"""By method."""

EMPTY_MAX = 0.10
"""Share of plants of no effect in which gate 1 may hold: 2 of 20 (section 8)."""


@dataclass(frozen=True)
class ShuffledLabels:
    """Train labels permuted once, then 200 times more: what the ceiling finds must average to one half."""

    name: ClassVar[str] = "shuffled-labels"
    kind: ClassVar[Literal["null"]] = "null"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return how far the band may go: it hangs on the spread of the shuffles, which their number bounds."""
        # The sample's standard deviation, n - 1 below.
        return (_around("shuffled_auroc", STANDARD_ERRORS * SD_MOST / sqrt(SHUFFLES - 1)),)

    def spoil(self, check: TruthProbe, seen: Evidence) -> Evidence:
        """Return the evidence with the labels of train pairs permuted among them."""
        held, rng = gathered(check, seen), seen.rng("shuffle")

        def labels(name: str) -> list[int | None]:
            plan, masks = held.sets[name].plan, held.sets[name].masks
            told = [pair.label for pair in plan.pairs]
            train = [int(row) for row in np.flatnonzero(masks.train) if told[int(row)] is not None]
            for row, other in zip(train, rng.permutation(train), strict=True):
                told[row] = plan.pairs[int(other)].label
            return told

        return _evidence(check, seen, held, "shuffled", labels=labels)

    def bands(self, check: TruthProbe, measured: Measured) -> Sequence[Expected]:
        """Return the band of the mean AUROC at every layer."""
        expected = []
        for metric in measured.named("shuffled_auroc"):
            if metric.null is not None:
                reach = STANDARD_ERRORS * float(metric.null.sd) / sqrt(metric.null.n)
                expected.append(_expected(metric, 0.5 - reach, 0.5 + reach))
        return expected


@dataclass(frozen=True)
class RePaired:
    """The - states of other items: what is left of displacement must not outweigh the midpoint."""

    name: ClassVar[str] = "re-paired"
    kind: ClassVar[Literal["negative"]] = "negative"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return how far the band may go: it hangs on the test clusters."""
        return (_around("displacement_share", REACH_MOST),)

    def spoil(self, check: TruthProbe, seen: Evidence) -> Evidence:
        """Return the evidence with the - states permuted within split and template."""
        held, rng = gathered(check, seen), seen.rng("re-pair")
        order = {}
        for name, one in held.sets.items():
            rows = np.arange(len(one.plan.pairs))
            for template in np.unique(one.masks.template):
                for mask in (one.masks.train, one.masks.anchor, one.masks.test):
                    there = np.flatnonzero(mask & (one.masks.template == template))
                    rows[there] = rng.permutation(there)
            order[name] = rows
        return _evidence(check, seen, held, "repaired", other=order)

    def bands(self, check: TruthProbe, measured: Measured) -> Sequence[Expected]:
        """Return the band of the displacement's share at every layer."""
        expected = []
        for metric in measured.named("displacement_share"):
            assert metric.interval is not None
            half = (float(metric.interval.high) - float(metric.interval.low)) / 2
            reach = max(SHARE_REACH, min(half, REACH_MOST))
            expected.append(_expected(metric, 0.5 - reach, 0.5 + reach))
        return expected


@dataclass(frozen=True)
class RandomWeights:
    """The same texts through a model that never learned: what is found there, the words of the texts leak."""

    name: ClassVar[str] = "random-weights"
    kind: ClassVar[Literal["negative"]] = "negative"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return how far the band may go: it hangs on test items and clusters."""
        return (_around("auroc", REACH_MOST),)

    def spoil(self, check: TruthProbe, seen: Evidence) -> Evidence:
        """Return the twin's states."""
        held, twin = gathered(check, seen), seen.twin()
        return _evidence(check, seen, held, "twin", states=twin)

    def bands(self, check: TruthProbe, measured: Measured) -> Sequence[Expected]:
        """Return, at every layer, the method that strays farthest from one half, in units of its own band."""
        worst: dict[tuple[str, str], tuple[float, Expected]] = {}
        for metric in measured.named("auroc"):
            reach = _twin_reach(metric, measured)
            expected = _expected(metric, 0.5 - reach, 0.5 + reach)
            strays = abs(expected.value - 0.5) / reach
            at = (metric.labels["set"], metric.labels["layer"])
            if at not in worst or strays > worst[at][0]:
                worst[at] = (strays, expected)
        return [expected for _, expected in worst.values()]


def _twin_reach(metric: Metric, measured: Measured) -> float:
    """Return 4 x the larger of the error without separation and the bootstrap's (section 8), at most `REACH_MOST`."""
    assert metric.interval is not None
    # The control asks for plain intervals of this level, so that the standard error can be read off them.
    half = (float(metric.interval.high) - float(metric.interval.low)) / 2
    bootstrap = half / NormalDist().inv_cdf(0.5 + float(metric.interval.level) / 2)
    return min(REACH_MOST, STANDARD_ERRORS * max(sqrt((metric.n + 1) / (3 * metric.n**2)), bootstrap))


@dataclass(frozen=True)
class PlantedTruth:
    """Gaussian states of the smallest set's size and width, truth planted at a predicted AUROC of .97; five draws."""

    name: ClassVar[str] = "planted-truth"
    kind: ClassVar[Literal["positive"]] = "positive"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the band of each method; these three are fitted to every plant."""
        return tuple(
            PromisedBand(metric="mean_auroc", low=low, high=high, labels={"method": method}, always=True)
            for method, (low, high) in PLANT_BANDS.items()
        )

    def spoil(self, check: TruthProbe, seen: Evidence) -> Evidence:
        """Return planted states at five sites, one a draw."""
        held, width = gathered(check, seen), seen.facts.width
        name = min(held.sets, key=lambda one: (int(held.sets[one].masks.train.sum()), one))
        masks = held.sets[name].masks
        effect = effect_for(PLANT_AUROC, int(masks.train.sum()), width)
        rng = seen.rng("plant")
        drawn = {f"resid.{draw}": surrogate(masks.labels, width, effect, rng) for draw in range(PLANT_SEEDS)}
        return _evidence(check, seen, held, "surrogate", only=(name,), planted=drawn)

    def bands(self, check: TruthProbe, measured: Measured) -> Sequence[Expected]:
        """Return the bands of the methods' mean AUROC over the draws."""
        by: dict[str, list[float]] = {}
        for one in measured.named("auroc"):
            # An anchor's vote may leave a sign open; the prediction is of the axis, so the better sign is compared.
            by.setdefault(one.labels["method"], []).append(max(float(one.value), 1 - float(one.value)))
        return [
            Expected(metric="mean_auroc", value=float(np.mean(by[method])), low=a, high=b, labels={"method": method})
            for method, (a, b) in PLANT_BANDS.items()
            if method in by
        ]


@dataclass(frozen=True)
class DeflatedPlant:
    """The model's own displacements without what they had, a plant of known effect in its place: power at this n."""

    name: ClassVar[str] = "deflated-plant"
    kind: ClassVar[Literal["positive"]] = "positive"

    @property
    def promises(self) -> Sequence[PromisedBand]:
        """Return the bands of power: that of the plant of no effect is bounded, and every run states it."""
        empty = PromisedBand(metric="power", low=0.0, high=EMPTY_MAX, labels={"effect": EMPTY}, always=True)
        return (empty, PromisedBand(metric="power", low=0.0, high=1.0))

    def spoil(self, check: TruthProbe, seen: Evidence) -> Evidence:
        """Return the states of all sets at the causal layers; they are emptied and planted where measured."""
        held = gathered(check, seen)
        chosen: dict[tuple[str, int], float] = {}
        for layer in held.asked.causal_layers:
            swept = seen.activations(f"resid.{layer}")
            for name in held.sets:
                states = held.states(name, swept)
                if fault(states) is None:
                    train = see(states, held.sets[name].masks, check.normaliser).train.pairs
                    # The very draw of the real measurement: power is that of the direction which was reported.
                    chosen[name, layer] = weight(train, check.lambda_rule, seen.rng(f"halves/{name}/{layer}"))[0]
        return _evidence(check, seen, held, "deflated", layers=held.asked.causal_layers, chosen=chosen)

    def bands(self, check: TruthProbe, measured: Measured) -> Sequence[Expected]:
        """Return the power at every effect; only the plant of no effect has a bound."""
        return [
            _expected(metric, 0.0, EMPTY_MAX if metric.labels["effect"] == EMPTY else 1.0)
            for metric in measured.named("power")
        ]


def _around(metric: str, reach: float) -> PromisedBand:
    return PromisedBand(metric=metric, low=0.5 - reach, high=0.5 + reach, fixed=False)


def _expected(metric: Metric, low: float, high: float) -> Expected:
    return Expected(metric=metric.name, value=float(metric.value), low=low, high=high, labels=metric.labels)


def _row(name: str, pair: Pair, cluster: str, split: str, label: int | None) -> Mapping[str, Any]:
    """Return a kept pair as a row of its own, its split declared, so that the plan stays as it is."""
    return {
        "id": pair.key,
        "item": pair.item,
        "cluster": cluster,
        "set": name,
        "template": pair.template,
        "form": "statement",
        "pos": pair.pos,
        "neg": pair.neg,
        "label": label,
        "polarity": pair.polarity,
        "split": split,
    }


def _evidence(
    check: TruthProbe,
    seen: Evidence,
    held: Gathered,
    mode: Mode,
    *,
    labels: Any = None,
    other: Mapping[str, np.ndarray] | None = None,
    states: Evidence | None = None,
    only: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    planted: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    chosen: Mapping[tuple[str, int], float] | None = None,
) -> Evidence:
    """Return the main rows of some sets as evidence of their own.

    Args:
        check: the check.
        seen: the real evidence.
        held: what measurement sees of it.
        mode: what the control did.
        labels: returns the labels of a set's rows; as they are where None.
        other: rows of each set from which the - states come; its own where None.
        states: where states come from; the real evidence where None.
        only: sets; all where None.
        layers: layers; all that are measured where None.
        planted: states + and - of a single set's rows by site, in place of swept ones.
        chosen: weight of the midpoint by set and layer, where the control takes it from the real measurement.
    """
    rows: list[Mapping[str, Any]] = []
    kept: dict[str, tuple[str, int]] = {}
    for name in only or held.sets:
        plan = held.sets[name].plan
        told = labels(name) if labels else [pair.label for pair in plan.pairs]
        for number, (pair, kind) in enumerate(zip(plan.pairs, plan.kinds, strict=True)):
            if kind == "main":
                rows.append(_row(name, pair, plan.clusters[number], plan.splits[number], told[number]))
                kept[pair.key] = (name, number)
    at = tuple(range(len(planted))) if planted else tuple(held.asked.layers if layers is None else layers)
    facts = spoiled_facts(
        seen.facts, mode, at, judged=len(held.asked.layers), primary=held.asked.primary, chosen=chosen or {}
    )
    order = [pair.id for plan in asked(check, facts, {"pairs": rows}).plans.values() for pair in plan.pairs]
    places = [kept[key] for key in order]
    if planted:
        drawn = [number for _, number in places]
        sites = {site: _interleaved(pos[drawn], neg[drawn]) for site, (pos, neg) in planted.items()}
    else:
        sites = {}
        for layer in at:
            site = f"resid.{layer}"
            swept = (states or seen).activations(site)
            of = {name: held.states(name, swept) for name in held.sets}
            pos = np.stack([of[name].pos[number] for name, number in places])
            neg = np.stack([of[name].neg[other[name][number] if other else number] for name, number in places])
            sites[site] = _interleaved(pos, neg)
    return InMemoryEvidence(
        facts=facts,
        check=check.name,
        seed=int(seen.rng(f"control/{mode}").integers(2**63)),
        activations=sites,
        rows={"pairs": rows},
    )


def _interleaved(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    states = np.empty((2 * len(pos), pos.shape[1]))
    states[0::2], states[1::2] = pos, neg
    return states
