"""The metrics of lesions: what each means, and how the lesions of a partition become them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np
from assay.result import Metric, Multiplicity

from checks.check import MetricSpec
from checks.clusterability.intervals import clopper_pearson
from checks.clusterability.lesion import LEVEL, Lesions, Table
from checks.clusterability.lesion_tables import PartitionLesions, tellable, untold
from checks.clusterability.lesion_tests import ClusterTest
from checks.quantise import metric, null_distribution
from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from jaxtyping import Float

NULL_KIND = "random-sets-of-like-units"
"""What the null of a cluster draws: as many units of each layer and of each quartile of sd times outgoing norm."""

BOOTSTRAP = "paired-bootstrap"
"""How intervals of drops are made: rows are drawn with replacement within their task, the same for every table."""

FAMILY = "clusters"
"""Tests that are corrected together: every tested cluster of every partition, for each claim."""

PLACES = 12
"""Decimal places of a number: what lies beyond is dust of float64 sums, and a drop of 1e-17 is none."""

ESTIMATED = frozenset({"baseline_accuracy", "drop", "loss_rise", "on_accuracy", "max_drop", "gap", "p_importance"})
"""Metrics each of which has an interval; `p_specialisation` has one outside controls, and all others have none."""

OF_TASK, OF_CELL, OF_CLUSTER = ("partition", "task"), ("partition", "cluster", "task"), ("partition", "cluster")


def _spec(
    name: str,
    unit: str,
    labels: tuple[str, ...],
    summary: str,
    determinism: Literal["exact", "tolerance", "statistical"] = "statistical",
) -> MetricSpec:
    return MetricSpec(
        name=name,
        unit=unit,
        labels=labels,
        better="none",
        determinism=determinism,
        summary=summary,
        interval=None if name == "p_specialisation" else name in ESTIMATED,
    )


LESION_METRICS: tuple[MetricSpec, ...] = (
    _spec("baseline_accuracy", "fraction", OF_TASK, "Accuracy of the whole model on a task; Wilson interval."),
    _spec(
        "baseline_loss", "nats", OF_TASK, "Mean loss of the whole model on a task. No interval: its accuracy has one."
    ),
    _spec(
        "drop",
        "fraction",
        OF_CELL,
        "Accuracy of the whole model less accuracy with the cluster's units held at their mean; paired bootstrap.",
    ),
    _spec("loss_rise", "nats", OF_CELL, "Loss with the cluster's units held at their mean less loss of the model."),
    _spec("on_accuracy", "fraction", OF_CELL, "Accuracy with all units but the cluster's held at their mean."),
    _spec(
        "lesion_clusters",
        "count",
        ("partition", "matrix"),
        "Clusters of the partition, tested or not, and the matrix, graph or net whose structure it is.",
        "exact",
    ),
    _spec("lesion_units", "count", OF_CLUSTER, "Units of the cluster that lesions hold.", "exact"),
    _spec(
        "max_drop",
        "fraction",
        OF_CLUSTER,
        "Largest drop over the tasks that can be tested; the interval is that task's, and knows nothing of the choice.",
    ),
    _spec(
        "gap",
        "fraction",
        OF_CLUSTER,
        "Largest drop less the mean of the other tasks' drops; the interval keeps the task that loses most.",
    ),
    _spec(
        "specialisation_s",
        "1",
        OF_CLUSTER,
        "1 - mean of max(0, other drops) / largest drop; .7 to .97 on unspecialised nets, never tested. No interval.",
    ),
    _spec("p_importance", "1", OF_CLUSTER, "p of the largest drop among random sets of like units; Clopper-Pearson."),
    _spec("p_importance_holm", "1", OF_CLUSTER, "The same after Holm over all clusters. No interval: p has one."),
    _spec(
        "p_specialisation",
        "1",
        OF_CLUSTER,
        "p of the gap among random sets of like units; Clopper-Pearson, none in controls.",
    ),
    _spec("p_specialisation_holm", "1", OF_CLUSTER, "The same after Holm over all clusters. No interval: p has one."),
)
"""Every metric of lesions (section 7)."""


def lesion_metrics(measured: Sequence[PartitionLesions]) -> tuple[Metric, ...]:
    """Return the metrics of all partitions, quantised; a number that is not `tellable` is left out."""
    together = sum(not test.reason for one in measured for test in one.tests)
    told: list[Metric | None] = []
    crowded = untold(measured)
    for one in measured:
        told += _baseline(one)
        tables = {"drop": one.lesions.drop, "loss_rise": one.lesions.loss_rise, "on_accuracy": one.lesions.on}
        for name, table in tables.items():
            if name not in crowded[one.name]:
                told += _table(name, "nats" if name == "loss_rise" else "fraction", one, table)
        for test in one.tests:
            told += _cluster(one, test, together)
    return tuple(found for found in told if found is not None)


def _finite(
    name: str,
    value: float,
    *,
    n: int,
    unit: str,
    labels: dict[str, str],
    interval: tuple[float, float] | None = None,
    method: str = BOOTSTRAP,
    **more: object,
) -> Metric | None:
    if not all(tellable(number) for number in (value, *(interval or ()))):
        return None
    return metric(
        name,
        round(value, PLACES),
        n=n,
        unit=unit,
        determinism="statistical",
        labels=labels,
        interval=interval and (round(interval[0], PLACES), round(interval[1], PLACES)),
        method=method,
        **more,  # type: ignore[arg-type]  # null, p, p_floor and multiplicity, as `metric` has them
    )


def _baseline(one: PartitionLesions) -> list[Metric | None]:
    clusters = float(len(one.tests))
    told: list[Metric | None] = [
        metric(
            "lesion_clusters",
            clusters,
            n=sum(test.units for test in one.tests),
            unit="count",
            determinism="exact",
            labels={"partition": one.name, "matrix": one.matrix},
        )
    ]
    for task, n, accuracy, loss in zip(
        one.tasks, one.counts, one.lesions.baseline, one.lesions.baseline_loss, strict=True
    ):
        at, bounds = {"partition": one.name, "task": task}, proportion_interval(round(float(accuracy * n)), int(n))
        told += [
            _finite(
                "baseline_accuracy",
                float(accuracy),
                n=int(n),
                unit="fraction",
                labels=at,
                interval=bounds,
                method="wilson",
            ),
            _finite("baseline_loss", _shortened(float(loss)), n=int(n), unit="nats", labels=at),
        ]
    return told


def _table(name: str, unit: str, one: PartitionLesions, table: Table) -> list[Metric | None]:
    return [
        _finite(
            name,
            float(table.value[test.cluster, index]),
            n=int(one.counts[index]),
            unit=unit,
            labels={"partition": one.name, "cluster": str(test.cluster), "task": task},
            interval=(float(table.low[test.cluster, index]), float(table.high[test.cluster, index])),
        )
        for test in one.tests
        for index, task in enumerate(one.tasks)
    ]


def _cluster(one: PartitionLesions, test: ClusterTest, together: int) -> list[Metric | None]:
    at = {"partition": one.name, "cluster": str(test.cluster)}
    units = metric(
        "lesion_units", float(test.units), n=max(test.units, 1), unit="count", determinism="exact", labels=at
    )
    if test.reason:
        return [units]
    drawn = one.lesions.drawn
    assert drawn is not None
    table, tasks = one.lesions.drop, _usable(one.lesions)
    top = (float(table.low[test.cluster, test.task]), float(table.high[test.cluster, test.task]))
    return [
        units,
        *_tested("max_drop", "importance", test.max_drop, top, test.null_drop, one, test, together),
        *_tested(
            "gap", "specialisation", test.gap, _gap_interval(drawn, test, tasks), test.null_gap, one, test, together
        ),
        _finite("specialisation_s", _shortened(test.s), n=one.rows, unit="1", labels=at),
    ]


def _tested(
    effect: str,
    claim: str,
    value: float,
    interval: tuple[float, float],
    null: Float[np.ndarray, " draw"] | None,
    one: PartitionLesions,
    test: ClusterTest,
    together: int,
) -> list[Metric | None]:
    if null is None or not isfinite(value):
        return []  # one task alone has no other to be more special than
    at = {"partition": one.name, "cluster": str(test.cluster)}
    p, held = getattr(test, f"p_{claim}"), getattr(test, f"p_{claim}_holm")
    drawn, floor = null_distribution(NULL_KIND, [_shortened(float(x)) for x in null]), 1.0 / (test.n + 1)
    reached = clopper_pearson(getattr(test, claim), test.n)
    family = Multiplicity(family=FAMILY, m=together, corrected="holm")
    return [
        _finite(
            effect, value, n=one.rows, unit="fraction", labels=at, interval=interval, null=drawn, p=p, p_floor=floor
        ),
        _finite(f"p_{claim}", p, n=test.n, unit="1", labels=at, interval=reached, method="clopper-pearson"),
        _finite(f"p_{claim}_holm", held, n=test.n, unit="1", labels=at, multiplicity=family),
    ]


def _usable(lesions: Lesions) -> list[int]:
    return [task for task, chance in enumerate(lesions.at_chance) if not chance]


def _gap_interval(
    drawn: Float[np.ndarray, "cluster draw task"], test: ClusterTest, tasks: list[int]
) -> tuple[float, float]:
    """Return the percentile interval of the gap, the task that loses most kept as it was found."""
    others = [task for task in tasks if task != test.task]
    if not others:
        return float("nan"), float("nan")
    gaps = drawn[test.cluster][:, test.task] - drawn[test.cluster][:, others].mean(axis=1)
    low, high = np.quantile(gaps, ((1.0 - LEVEL) / 2, (1.0 + LEVEL) / 2))
    return float(low), float(high)


def _shortened(value: float, digits: int = 3) -> float:
    """Return a number of three significant digits: what has no interval travels with no more."""
    return float(f"{value:.{digits - 1}e}") if isfinite(value) else value
