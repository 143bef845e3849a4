"""Gates, words and claims: a pure function of the metrics. Specification: section 7.

Built so far: gate 1 (detected) and gate 2 (stable). The other gates are open, and every claim that stands says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Literal

from assay.result import Finding, Measured, MetricRef

Gate = Literal["holds", "fails", "open"]

PROVISIONAL, NOT_DETECTED, UNSTABLE, INCONCLUSIVE = "PROVISIONAL", "NOT-DETECTED", "UNSTABLE", "INCONCLUSIVE"
WORDS = (PROVISIONAL, NOT_DETECTED, UNSTABLE, INCONCLUSIVE)

OPEN_GATES = ("distractors", "negation", "causal", "output")
"""Gates that are not measured yet; a feature that stands may still be something else than truth."""

SIGN_P = 0.05
"""Binomial level at which anchors fix a sign (5.8)."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of the gates: the check's parameters as numbers."""

    alpha: float
    detect_floor: float
    stable_floor: float
    unstable_below: float


@dataclass(frozen=True)
class Numbers:
    """What the rule reads of one layer."""

    set: str
    layer: int
    auroc: float
    low: float
    high: float
    level: float
    p: float
    items: int
    stability: float
    sign_p: float
    random_p95: float
    predicted: float
    """AUROC predicted for a plant of effect 2.12."""
    ceiling: float
    """AUROC of the logistic regression."""


def layers_of(measured: Measured) -> tuple[Numbers, ...]:
    """Return what the rule reads of every measured layer, in layer order."""
    return tuple(_numbers(measured, m.labels) for m in measured.named("auroc") if m.labels["method"] == "md")


def _numbers(measured: Measured, labels: dict[str, str]) -> Numbers:
    at = {"set": labels["set"], "layer": labels["layer"]}
    md, lr = measured.find("auroc", **labels), measured.find("auroc", **at, method="lr")
    stable, sign = measured.find("stability", **labels), measured.find("orientation_margin", **labels)
    random = measured.find("random_auroc_best_of_sign", **at)
    predicted = measured.find("predicted_auroc", set=labels["set"])
    if md is None or lr is None or stable is None or sign is None or random is None or predicted is None:
        raise ValueError(f"layer {labels['layer']} lacks a number that its word rests on")
    if md.interval is None or md.p is None or sign.p is None or random.null is None or random.null.p95 is None:
        raise ValueError(f"layer {labels['layer']} lacks an interval, a p or a null that its word rests on")
    return Numbers(
        set=labels["set"],
        layer=int(labels["layer"]),
        auroc=float(md.value),
        low=float(md.interval.low),
        high=float(md.interval.high),
        level=float(md.interval.level),
        p=float(md.p),
        items=md.n,
        stability=float(stable.value),
        sign_p=float(sign.p),
        random_p95=float(random.null.p95),
        predicted=float(predicted.value),
        ceiling=float(lr.value),
    )


def gates(numbers: Numbers, limits: Limits) -> dict[str, Gate]:
    """Return every gate: detected, stable, and the open ones."""
    bar = max(limits.detect_floor, numbers.random_p95)
    resolved = numbers.sign_p <= SIGN_P
    detected = resolved and numbers.low > bar and numbers.p <= limits.alpha
    # An abstained sign leaves gate 1 open; a fixed one that does not hold fails it.
    first: Gate = "holds" if detected else "fails" if resolved else "open"
    stable: Gate = "open"
    if numbers.stability >= limits.stable_floor:
        stable = "holds"
    elif numbers.stability < limits.unstable_below:
        stable = "fails"
    return {"detected": first, "stable": stable, **dict.fromkeys(OPEN_GATES, "open")}


def could_tell(numbers: Numbers, limits: Limits) -> bool:
    """Return whether the nearest planted effect would pass gate 1 here: else "not detected" would say too much.

    The error of an AUROC without any separation, sqrt((n + 1) / (12 n1 n0)) at even labels, is above that of a
    separated one, so this errs towards "could not tell".
    """
    error = sqrt((numbers.items + 1) / (3 * numbers.items**2))
    reach = NormalDist().inv_cdf(0.5 + numbers.level / 2) * error
    return numbers.predicted - reach > max(limits.detect_floor, numbers.random_p95)


def word_of(numbers: Numbers, limits: Limits, missed: Sequence[str]) -> tuple[str, str]:
    """Return the word of a layer, the first rule that applies, and its reason."""
    held = gates(numbers, limits)
    if missed:
        return INCONCLUSIVE, "control_missed"
    if held["detected"] != "holds":
        if not could_tell(numbers, limits):
            return INCONCLUSIVE, "could_not_tell"
        if numbers.stability < limits.unstable_below:
            return NOT_DETECTED, "unstable"
        return NOT_DETECTED, "sign_abstained" if held["detected"] == "open" else "no_separation"
    if held["stable"] == "fails":
        return UNSTABLE, "unstable"
    return PROVISIONAL, "gates_open"


def findings(real: Measured, limits: Limits, missed: Sequence[str]) -> tuple[Finding, ...]:
    """Return a finding for each measured layer and one for the whole set, built from runs of layers."""
    told = [(numbers, *word_of(numbers, limits, missed)) for numbers in layers_of(real)]
    each = tuple(_of_layer(numbers, word, reason, limits) for numbers, word, reason in told)
    return (*each, _of_set(real, [(numbers, word) for numbers, word, _ in told]))


def _of_layer(numbers: Numbers, word: str, reason: str, limits: Limits) -> Finding:
    labels = {"set": numbers.set, "layer": str(numbers.layer), "method": "md"}
    at = {"set": numbers.set, "layer": str(numbers.layer)}
    measured = f"AUROC {numbers.auroc:.3f} [{numbers.low:.3f}, {numbers.high:.3f}] on {numbers.items} held-out items"
    if word == PROVISIONAL:
        still = [name for name, gate in gates(numbers, limits).items() if gate == "open"]
        said = f"a linear feature separates true from false, {measured}. Open gates: {', '.join(still)}"
    elif word == UNSTABLE:
        said = f"a direction separates true from false, {measured}, but two halves of train disagree on it"
    elif word == NOT_DETECTED:
        said = f"not detected ({reason}), {measured}. Power was not measured in this run"
    else:
        said = f"could not tell ({reason}), {measured}"
    return Finding(
        code="truth_feature",
        word=word,
        severity="note",
        claim=f"{said}. Ceiling lr {numbers.ceiling:.3f}. Random directions p95 {numbers.random_p95:.3f}.",
        labels={**labels, "reason": reason},
        rests_on=(
            MetricRef(name="auroc", labels=labels),
            MetricRef(name="auroc", labels={**labels, "method": "lr"}),
            MetricRef(name="stability", labels=labels),
            MetricRef(name="orientation_margin", labels=labels),
            MetricRef(name="random_auroc_best_of_sign", labels=at),
            MetricRef(name="predicted_auroc", labels={"set": numbers.set}),
        ),
    )


def _of_set(real: Measured, told: Sequence[tuple[Numbers, str]]) -> Finding:
    owed = real.coverage.get("layer", ())
    words = {str(numbers.layer): word for numbers, word in told}
    runs = [
        f"{word} at {_layers([int(layer) for layer in owed if words.get(layer) == word])}"
        for word in WORDS
        if word in words.values()
    ]
    left_out = [int(layer) for layer in owed if layer not in words]
    if left_out:
        runs.append(f"not measured at {_layers(left_out)}")
    # A layer that stands is told; otherwise whatever could not be told outweighs what was not found.
    order = (PROVISIONAL, INCONCLUSIVE, UNSTABLE, NOT_DETECTED)
    present = {*words.values(), *([INCONCLUSIVE] if left_out else [])}
    return Finding(
        code="truth_feature_by_layer",
        word=next(word for word in order if word in present),
        severity="note",
        claim=f"{'; '.join(runs)}. Layers count from 0; gates not built: {', '.join(OPEN_GATES)}."[:512],
        rests_on=tuple(
            MetricRef(name="auroc", labels={"set": numbers.set, "layer": str(numbers.layer), "method": "md"})
            for numbers, _ in told
        ),
    )


def _layers(layers: Sequence[int]) -> str:
    """Return runs of layers, e.g. "layers 0-2, 5"."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    said = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"layer {said}" if len(layers) == 1 else f"layers {said}"
