"""The six gates of a (set, layer, method), read off quantised metrics alone. Specification: truth_probe, section 7.

A gate holds only on evidence that is there: whatever is missing leaves it open, so that taking numbers away can open
gates and never close one in the feature's favour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from assay.result import Measured, Metric

Gate = Literal["holds", "fails", "open"]

GATES = ("detected", "stable", "distractors", "negation", "causal", "output")
"""Names of the gates, in the order of the table."""

CLOSED_FORMS = ("md", "tpc", "vinc")
LABEL_FREE = (*CLOSED_FORMS, "ccs")
"""Methods that see no label: anchors fix their sign."""

SUPERVISED = ("lr", "mass_mean", "ttpd")
"""Methods that see train labels, which give their sign."""

BATTERY = ("battery/word", "battery/opinion", "battery/style")
"""Distractors that every set is tested with (5.10)."""

SIGN_P = 0.05
"""Binomial level at which anchors fix a sign (5.8)."""

CCS_FAILS_BELOW = 0.50
"""Mean |cos| of restarts below which gate 2 fails for CCS (section 7)."""

OUTPUT_READS, OUTPUT_TURNS, PROBE_READS = 0.75, 0.50, 0.75
"""AUROC of the output score from which it tells truth, and up to which it does not (5.12); lower bound of the probe's
on the test persona above which gate 6 holds (section 7)."""

EVERYONE = "all"
"""Label `persona` of an output score over all rows, where none are told apart."""

DISAGREEING_MIN = 50
"""Items whose output contradicts the label that gate 6 wants, in either direction (5.12)."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of the gates: the check's parameters as plain numbers."""

    alpha: float
    detect_floor: float
    negation_floor: float
    distractor_margin: float
    stable_floor: float
    unstable_below: float
    restart_floor: float
    nie_floor: float
    fit_persona: str = "A"
    """Label `persona` of the rows that the persona probe is fitted on."""
    test_persona: str = "B"
    """Label `persona` of the rows that it is tested on."""


@dataclass(frozen=True)
class Readings:
    """The metrics of an answer, by name and labels."""

    by: Mapping[tuple[str, frozenset[tuple[str, str]]], Metric]
    features: Mapping[str, frozenset[str]]
    """Features (label `h`) that any metric of a set speaks of."""
    disagreed: frozenset[str]
    """Sets in which some method was asked about items whose output contradicts the label."""
    scored: frozenset[str]
    """Sets whose output was scored."""
    separated: frozenset[str]
    """Sets whose output was scored for one persona apart from others."""

    @classmethod
    def of(cls, measured: Measured) -> Readings:
        """Index the metrics of an answer."""
        features: dict[str, set[str]] = {}
        for metric in measured.metrics:
            if "h" in metric.labels:
                features.setdefault(metric.labels.get("set", ""), set()).add(metric.labels["h"])
        outputs = measured.named("output_auroc")
        return cls(
            by={(metric.name, frozenset(metric.labels.items())): metric for metric in measured.metrics},
            features={name: frozenset(found) for name, found in features.items()},
            disagreed=frozenset(one.labels.get("set", "") for one in measured.named("disagreement_auroc")),
            scored=frozenset(one.labels.get("set", "") for one in outputs),
            separated=frozenset(one.labels.get("set", "") for one in outputs if one.labels.get("persona") != EVERYONE),
        )

    def find(self, name: str, **labels: str) -> Metric | None:
        """Return the metric of this name and exactly these labels, or None."""
        return self.by.get((name, frozenset(labels.items())))


@dataclass(frozen=True)
class Cell:
    """One (set, layer, method), with everything that was measured."""

    readings: Readings
    set: str
    layer: str
    method: str

    def find(self, name: str, **more: str) -> Metric | None:
        """Return a metric of this set, layer and method."""
        return self.readings.find(name, set=self.set, layer=self.layer, method=self.method, **more)

    def of_layer(self, name: str, **more: str) -> Metric | None:
        """Return a metric of this set and layer, whatever the method."""
        return self.readings.find(name, set=self.set, layer=self.layer, **more)

    def of_set(self, name: str, **more: str) -> Metric | None:
        """Return a metric of this set."""
        return self.readings.find(name, set=self.set, **more)

    @property
    def ceiling(self) -> Metric | None:
        """AUROC of the logistic regression here."""
        return self.of_layer("auroc", method="lr")


@dataclass(frozen=True)
class Ruling:
    """How a gate stands, on which metrics, and what made it so."""

    gate: Gate
    rests: tuple[Metric, ...] = ()
    why: tuple[str, ...] = ()
    """Reasons or names in the name alphabet: the features of gate 3, `polarity_inverted` of gate 4."""


def gates(measured: Measured, set: str, layer: str, method: str, limits: Limits) -> dict[str, Gate]:  # noqa: A002
    """Return every gate of a (set, layer, method).

    Args:
        measured: the numbers, as the report has them.
        set: label of the data set.
        layer: label of the layer, counted from "0".
        method: label of the method.
        limits: thresholds.
    """
    cell = Cell(Readings.of(measured), set, layer, method)
    return {name: ruling.gate for name, ruling in rulings(cell, limits).items()}


def rulings(cell: Cell, limits: Limits) -> dict[str, Ruling]:
    """Return every gate with what it rests on, in the order of the table."""
    detected = _detected(cell, limits)
    found = detected.gate == "holds"
    ruled = {"detected": detected, "stable": _stable(cell, limits), "distractors": _distractors(cell, limits, found)}
    # On noise these three would "fail" at one half, and say something of a feature that nobody has seen.
    later = {"negation": _negation, "causal": _causal, "output": _output}
    return ruled | {name: rule(cell, limits) if found else Ruling("open") for name, rule in later.items()}


def bounds(metric: Metric | None) -> tuple[float, float] | None:
    """Return the simultaneous bounds of a metric, or None where it was not measured with any."""
    if metric is None or metric.interval is None:
        return None
    return float(metric.interval.low), float(metric.interval.high)


def present(metrics: Iterable[Metric | None]) -> tuple[Metric, ...]:
    """Return the metrics that were measured."""
    return tuple(metric for metric in metrics if metric is not None)


def _detected(cell: Cell, limits: Limits) -> Ruling:
    auroc, supervised = cell.find("auroc"), cell.method in SUPERVISED
    sign = None if supervised else cell.find("orientation_margin")
    nulls = [cell.of_layer("random_auroc_best_of_sign", null="whitened")]
    if supervised:
        nulls.append(cell.of_layer("shuffled_auroc", method="lr"))
    rests = present((auroc, sign, *nulls))
    bars = [float(null.null.p95) for null in nulls if null is not None and null.null and null.null.p95 is not None]
    reach = bounds(auroc)
    unsigned = not supervised and (sign is None or sign.p is None)
    if auroc is None or auroc.p is None or reach is None or unsigned or len(bars) < len(nulls):
        return Ruling("open", rests, ("not_measured",))
    if sign is not None and sign.p is not None and float(sign.p) > SIGN_P:
        return Ruling("open", rests, ("sign_abstained",))
    if reach[0] > max(limits.detect_floor, *bars) and float(auroc.p) <= limits.alpha:
        return Ruling("holds", rests)
    return Ruling("fails", rests, ("no_separation",))


def _stable(cell: Cell, limits: Limits) -> Ruling:
    if cell.method in SUPERVISED:
        # Labels choose the direction: two halves may find different directions that both read truth.
        return Ruling("holds", why=("supervised",))
    ccs = cell.method == "ccs"
    found = cell.find("restart_cos" if ccs else "stability")
    if found is None:
        return Ruling("open")
    floor = limits.restart_floor if ccs else limits.stable_floor
    below = CCS_FAILS_BELOW if ccs else limits.unstable_below
    cos = float(found.value)
    return Ruling("holds" if cos >= floor else "fails" if cos < below else "open", (found,))


def _distractors(cell: Cell, limits: Limits, found: bool) -> Ruling:
    """Rule on gate 3; a direction along which nothing was found fails it by a feature of the data alone.

    Any direction of an untrained network reads one of the battery's prefixes: of noise that says nothing. A declared
    feature is in the very rows that were fitted, and is what a label-free method may have found in place of truth.
    """
    owed = {*BATTERY, *cell.readings.features.get(cell.set, ())}
    read = {h: cell.find("frozen_auroc", h=h) for h in sorted(owed)}
    rests = present(read.values())
    told = {h: either_sign(reach) for h, reach in ((h, bounds(metric)) for h, metric in read.items()) if reach}
    bar = round(0.5 + limits.distractor_margin, 9)  # .5 + .07 is a hair above .57 in binary
    followed = sorted(
        (h for h in told if told[h][0] > bar and (found or h not in BATTERY)), key=lambda h: (-told[h][0], h)
    )
    if followed:
        return Ruling("fails", rests, tuple(followed))
    declared = any(h not in BATTERY for h in told)
    if declared and len(told) == len(owed) and all(high < bar for _, high in told.values()):
        return Ruling("holds", rests)
    return Ruling("open", rests)


def either_sign(reach: tuple[float, float]) -> tuple[float, float]:
    """Return the bounds of max(AUROC, 1 - AUROC): a feature read upside down is read too."""
    low, high = reach
    return max(low, 1 - high), max(high, 1 - low)


def _negation(cell: Cell, limits: Limits) -> Ruling:
    found = cell.find("negation_auroc")
    reach = bounds(found)
    if reach is None:
        return Ruling("open", present((found,)))
    if reach[0] > limits.negation_floor:
        return Ruling("holds", present((found,)))
    if reach[1] < limits.negation_floor:
        return Ruling("fails", present((found,)), ("polarity_inverted" if reach[1] < 0.5 else "negation_low",))
    return Ruling("open", present((found,)))


def _causal(cell: Cell, limits: Limits) -> Ruling:
    effects = [cell.find("nie_f2t"), cell.find("nie_t2f")]
    random = cell.of_layer("nie_random_max")
    rests = present((*effects, random))
    band = None if random is None else float(random.value)
    reaches = [reach for reach in map(bounds, effects) if reach]
    if any(high < limits.nie_floor or (band is not None and high <= band) for _, high in reaches):
        return Ruling("fails", rests, ("no_effect",))
    if band is not None and len(reaches) == 2 and all(low > band and low >= limits.nie_floor for low, _ in reaches):
        return Ruling("holds", rests)
    return Ruling("open", rests)


Side = Literal["for", "against", "idle", "owed"]
"""What one way of asking says: `idle` says nothing, `owed` was asked elsewhere and is missing here."""


def _output(cell: Cell, limits: Limits) -> Ruling:
    (persona, by_persona), (items, by_items) = _persona(cell, limits), _disagreement(cell)
    rests = (*by_persona, *by_items)
    if "against" in (persona, items):
        why = [name for name, side in (("persona", persona), ("disagreement", items)) if side == "against"]
        return Ruling("fails", rests, tuple(why))
    if "owed" not in (persona, items) and "for" in (persona, items):
        return Ruling("holds", rests)
    return Ruling("open", rests)


def _persona(cell: Cell, limits: Limits) -> tuple[Side, tuple[Metric, ...]]:
    fitted, tested = (cell.of_set("output_auroc", persona=who) for who in (limits.fit_persona, limits.test_persona))
    probe = cell.find("persona_auroc")
    rests, reach = present((fitted, tested, probe)), bounds(probe)
    if reach is None:
        return ("owed" if cell.set in cell.readings.separated else "idle"), rests
    if reach[1] < 0.5:
        if tested is None:
            return "owed", rests
        return ("against" if float(tested.value) <= OUTPUT_TURNS else "idle"), rests
    return ("for" if testable(fitted, tested) and reach[0] > PROBE_READS else "idle"), rests


def testable(fitted: Metric | None, tested: Metric | None) -> bool:
    """Tell whether output and truth part on the test persona, and only there (5.12)."""
    if fitted is None or tested is None:
        return False
    return float(fitted.value) >= OUTPUT_READS and float(tested.value) <= OUTPUT_TURNS


def _disagreement(cell: Cell) -> tuple[Side, tuple[Metric, ...]]:
    found = cell.find("disagreement_auroc")
    reach = bounds(found)
    if found is None or reach is None:
        return ("owed" if cell.set in cell.readings.disagreed else "idle"), present((found,))
    if found.n < DISAGREEING_MIN or cell.set not in cell.readings.scored:
        return "idle", (found,)
    return ("for" if reach[0] > 0.5 else "against" if reach[1] < 0.5 else "idle"), (found,)
