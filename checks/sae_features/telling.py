"""Numbers become metrics here: units and direction from the catalogue's promise, digits by the house's rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay.result import Metric

from checks.quantise import metric
from checks.sae_features.dictionary.grouped import Estimate
from checks.sae_features.metric_specs import METRICS

if TYPE_CHECKING:
    from assay.result import NullDistribution

SPECS = {one.name: one for one in METRICS}

BOOTSTRAP = "group-bootstrap"
"""How intervals of pooled numbers are made: groups drawn again, percentiles of the draws (specification, section 6)."""


def told(name: str, value: float, n: int, null: NullDistribution | None = None, /, **labels: str) -> Metric:
    """Return a metric without an interval.

    Args:
        name: one of `METRICS`.
        value: finite.
        n: what it rests on.
        null: where it lies when there is nothing to find.
        labels: which instance.
    """
    return _metric(name, value, n, labels, null=null)


def estimated(name: str, estimate: Estimate, method: str = BOOTSTRAP, /, **labels: str) -> tuple[Metric, ...]:
    """Return a metric with its interval, or none where the number is not defined.

    Args:
        name: one of `METRICS`.
        estimate: value and interval; `n` counts rows.
        method: how the interval was made.
        labels: which instance.
    """
    if estimate.value is None:
        return ()
    if estimate.low is None or estimate.high is None:
        return (_metric(name, estimate.value, estimate.n, labels),)
    return (_metric(name, estimate.value, estimate.n, labels, interval=(estimate.low, estimate.high), method=method),)


def p_told(name: str, p: float, n: int, floor: float, null: NullDistribution | None = None, /, **labels: str) -> Metric:
    """Return a p-value as a metric: never below what its draws can show.

    Args:
        name: one of `METRICS`.
        p: the p-value.
        n: what it rests on.
        floor: 1 / (draws + 1).
        null: its draws.
        labels: which instance.
    """
    return _metric(name, max(p, floor), n, labels, p=max(p, floor), p_floor=floor, null=null)


def _metric(name: str, value: float, n: int, labels: dict[str, str], **more: Any) -> Metric:
    spec = SPECS[name]
    return metric(
        name,
        value,
        n=n,
        unit=spec.unit,
        determinism=spec.determinism,
        labels=labels,
        better=spec.better,
        tolerance=spec.tolerance,
        **more,
    )
