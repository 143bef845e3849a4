"""The metrics of the check: what each means, and how a layer's numbers become them. Specification: section 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from assay.result import Metric, Multiplicity

from checks.check import MetricSpec
from checks.holm import holm
from checks.quantise import decimal, metric, null_distribution

if TYPE_CHECKING:
    from checks.truth_probe.probing import LayerNumbers
    from checks.truth_probe.scores import Estimate

BOOTSTRAP = "cluster-bootstrap-normal"

HALVING_LEVEL = "0.875"
"""Least and greatest of four draws hold their law's median with this probability, 1 - 2 / 2^4."""


def _spec(
    name: str,
    unit: str,
    labels: tuple[str, ...],
    summary: str,
    better: Literal["higher", "none"] = "none",
    determinism: Literal["exact", "tolerance", "statistical"] = "statistical",
) -> MetricSpec:
    return MetricSpec(name=name, unit=unit, labels=labels, better=better, determinism=determinism, summary=summary)


AT, BY = ("set", "layer"), ("set", "layer", "method")

METRICS: tuple[MetricSpec, ...] = (
    _spec(
        "auroc",
        "1",
        BY,
        "Signed AUROC on test pairs; bounds simultaneous over layers; p by cluster flips, Holm.",
        "higher",
    ),
    _spec("accuracy", "fraction", BY, "Share of test pairs on the right side of zero; same bounds.", "higher"),
    _spec("stability", "1", BY, "Mean |cos| of the directions of two halves of train; range of four.", "higher"),
    _spec(
        "orientation_margin",
        "fraction",
        BY,
        "Share of anchors that +direction orients right, less one half. No interval: its binomial p fixes the sign.",
    ),
    _spec(
        "lambda",
        "1",
        BY,
        "Weight of the midpoint, sum convention; no label chose it. A choice, without interval.",
        determinism="tolerance",
    ),
    _spec(
        "random_auroc_best_of_sign",
        "1",
        AT,
        "Mean AUROC of 1000 whitened random directions with the better sign. No interval: the null tells sd and p95.",
    ),
    _spec(
        "shuffled_auroc",
        "1",
        AT,
        "Control only: mean AUROC of logistic directions of shuffled train labels. No interval: the null tells sd.",
    ),
    _spec(
        "predicted_auroc",
        "1",
        ("set",),
        "AUROC that theory predicts for a planted effect of 2.12 at this n and width. A formula, without interval.",
        determinism="exact",
    ),
    _spec("train_pairs", "count", ("set",), "Pairs that directions were fitted on.", determinism="exact"),
    _spec("test_clusters", "count", ("set",), "Clusters behind the scores.", determinism="exact"),
)


def layer_metrics(set_name: str, layers: Sequence[LayerNumbers], items: int) -> tuple[Metric, ...]:
    """Return the metrics of all measured layers, quantised; p-values are corrected over the layers of a method."""
    corrected: dict[tuple[int, str], float] = {}
    for method in layers[0].methods:
        adjusted = holm([one.methods[method].p for one in layers])
        corrected |= {(one.layer, method): p for one, p in zip(layers, adjusted, strict=True)}
    family = Multiplicity(family="layers", m=len(layers), corrected="holm")
    told: list[Metric] = []
    for one in layers:
        at = {"set": set_name, "layer": str(one.layer)}
        for method, scored in one.methods.items():
            by = {**at, "method": method}
            p = corrected[one.layer, method]
            told.append(_estimate("auroc", scored.auroc, "1", items, by, p=p, family=family))
            told.append(_estimate("accuracy", scored.accuracy, "fraction", items, by))
        told += _closed_form(one, {**at, "method": "md"})
        told += _nulls(one, at)
    return tuple(told)


def _estimate(
    name: str,
    estimate: Estimate,
    unit: str,
    items: int,
    labels: Mapping[str, str],
    p: float | None = None,
    family: Multiplicity | None = None,
) -> Metric:
    return metric(
        name,
        estimate.value,
        n=items,
        unit=unit,
        determinism="statistical",
        labels=labels,
        interval=(estimate.low, estimate.high),
        level=decimal(estimate.level),
        method=BOOTSTRAP,
        p=p,
        multiplicity=family,
        better="higher",
    )


def _closed_form(one: LayerNumbers, by: Mapping[str, str]) -> tuple[Metric, ...]:
    stable, sign = one.stability, one.orientation
    return (
        metric(
            "stability",
            float(stable.mean()),
            n=len(stable),
            unit="1",
            determinism="statistical",
            labels=by,
            interval=(float(stable.min()), float(stable.max())),
            level=HALVING_LEVEL,
            method="halving-range",
            better="higher",
        ),
        metric(
            "orientation_margin",
            sign.margin,
            n=sign.anchors,
            unit="fraction",
            determinism="statistical",
            labels=by,
            p=sign.p,
        ),
        metric(
            "lambda", one.lam, n=one.train_pairs, unit="1", determinism="tolerance", labels=by, tolerance=(0.0, 0.0)
        ),
    )


def _nulls(one: LayerNumbers, at: Mapping[str, str]) -> tuple[Metric, ...]:
    drawn = [("random_auroc_best_of_sign", "whitened-directions", one.random)]
    if one.shuffled is not None:
        drawn.append(("shuffled_auroc", "shuffled-labels", one.shuffled))
    return tuple(
        metric(
            name,
            float(values.mean()),
            n=len(values),
            unit="1",
            determinism="statistical",
            labels=at,
            null=null_distribution(kind, [float(value) for value in values]),
        )
        for name, kind, values in drawn
    )


def set_metrics(set_name: str, *, train_pairs: int, test_clusters: int, predicted: float) -> tuple[Metric, ...]:
    """Return the numbers that hold for all layers."""
    at = {"set": set_name}
    return (
        metric("predicted_auroc", predicted, n=train_pairs, unit="1", determinism="exact", labels=at),
        metric("train_pairs", float(train_pairs), n=train_pairs, unit="count", determinism="exact", labels=at),
        metric("test_clusters", float(test_clusters), n=test_clusters, unit="count", determinism="exact", labels=at),
    )
