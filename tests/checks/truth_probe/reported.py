"""Answers made by hand: a cell at which all six gates hold, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from assay.result import Band, ControlResult, Measured, Metric, NullDistribution, Skipped

from checks.quantise import metric
from checks.truth_probe.gates import BATTERY, LABEL_FREE, SUPERVISED, Limits

LIMITS = Limits(
    alpha=0.05,
    detect_floor=0.6,
    negation_floor=0.75,
    distractor_margin=0.15,
    stable_floor=0.5,
    unstable_below=0.2,
    restart_floor=0.8,
    nie_floor=0.2,
)

DECLARED = ("shuffled-labels", "random-weights", "planted-truth", "deflated-plant")

EFFECTS = ("0", "0.71", "1.06", "1.41", "2.12")


def read(
    name: str,
    value: float,
    reach: float | tuple[float, float] | None = None,
    *,
    n: int = 400,
    p: float | None = None,
    p95: str | None = None,
    **labels: str,
) -> Metric:
    """Return a metric; `reach` is a half-width or both bounds, `p95` belongs to its null."""
    bounds = (round(value - reach, 9), round(value + reach, 9)) if isinstance(reach, float) else reach
    null = None if p95 is None else NullDistribution(kind="drawn", mean="0.5", sd="0.05", n=1000, p95=p95)
    return metric(
        name,
        value,
        n=n,
        unit="1",
        determinism="statistical",
        labels=labels,
        interval=bounds,
        level="0.99",
        method="made-by-hand",
        p=p,
        null=null,
    )


def whole(set_name: str = "world", layer: str = "0", method: str = "md") -> list[Metric]:
    """Return what is measured at one cell, such that all six gates hold."""
    at: dict[str, Any] = {"set": set_name, "layer": layer}
    by = {**at, "method": method}
    found = [
        read("auroc", 0.95, 0.03, p=0.001, **by),
        read("random_auroc_best_of_sign", 0.53, p95="0.58", **at, null="whitened"),
        read("relative_gap", 0.6, **at),
        read("second_stability", 0.05, **at),
        *(read("frozen_auroc", 0.51, 0.05, **by, h=h) for h in (*BATTERY, "topic", "longer")),
        read("negation_auroc", 0.93, 0.04, **by),
        read("nie_f2t", 0.98, 0.04, **by),
        read("nie_t2f", 0.97, 0.04, **by),
        read("nie_random_max", 0.1, **at),
        read("persona_auroc", 0.96, 0.03, **by),
        read("pgr", 0.96, **by),
        read("disagreement_auroc", 0.9, 0.05, n=80, **by),
    ]
    if method in SUPERVISED:
        found.append(read("shuffled_auroc", 0.5, p95="0.57", **at, method="lr"))
    if method in LABEL_FREE:
        found.append(read("orientation_margin", 0.45, n=32, p=0.0001, **by))
        found.append(read("restart_cos" if method == "ccs" else "stability", 0.9, 0.05, **by))
    return found


def of_set(set_name: str = "world") -> list[Metric]:
    """Return what is measured once a set: the output tells truth for A and its opposite for B."""
    return [
        read("output_auroc", 0.97, 0.02, set=set_name, persona="A"),
        read("output_auroc", 0.03, 0.02, set=set_name, persona="B"),
    ]


def spoilt(metrics: Iterable[Metric], *changed: Metric) -> list[Metric]:
    """Return the metrics with some replaced (same name and labels) or added."""
    new = {(one.name, frozenset(one.labels.items())): one for one in changed}
    kept = [new.pop((one.name, frozenset(one.labels.items())), one) for one in metrics]
    return [*kept, *new.values()]


def without(metrics: Iterable[Metric], *names: str) -> list[Metric]:
    """Return the metrics that bear none of these names."""
    return [one for one in metrics if one.name not in names]


def answer(
    metrics: Sequence[Metric],
    sets: Sequence[str] = ("world",),
    layers: Sequence[str] = ("0",),
    skipped: Sequence[tuple[str, str]] = (),
) -> Measured:
    """Return the numbers of an answer."""
    return Measured(
        coverage={"set": tuple(sets), "layer": tuple(layers)},
        metrics=tuple(metrics),
        skipped=tuple(Skipped(item=item, reason=reason) for item, reason in skipped),
    )


def ran(name: str, value: str = "0.5", high: str = "1", metric: str = "mean", **labels: str) -> ControlResult:
    """Return a control's result; it missed where the value is above `high`."""
    return ControlResult(
        name=name,
        kind="null",
        metric=metric,
        labels=labels,
        value=value,
        band=Band(low="0", high=high),
        held=float(value) <= float(high),
    )


def controls(
    power: Sequence[str] = ("0", "0", "0.5", "0.95", "1"),
    sets: Sequence[str] = ("world",),
    layers: Sequence[str] = ("0",),
    methods: Sequence[str] = ("md",),
    **more: Any,
) -> list[ControlResult]:
    """Return results of every declared control, all held."""
    return [
        *(ran(name) for name in DECLARED[:3]),
        *(
            ran("deflated-plant", value, metric="power", set=one, layer=layer, method=method, effect=effect, **more)
            for one in sets
            for layer in layers
            for method in methods
            for effect, value in zip(EFFECTS, power, strict=True)
        ),
    ]
