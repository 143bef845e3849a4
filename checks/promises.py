"""What a check promises of its numbers and controls: as the catalogue tells it, and held before an answer leaves.

The cell holds each number itself, so that a check which breaks its promise fails with a step and not as a rejected
result; worker, signer and reader hold the answer again, against the entry (`assay.promise`, docs/adr/0020).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from assay.result import ControlResult, Metric, Tolerance

from checks.check import Control, MetricSpec, PromisedBand
from checks.errors import ChecksError
from checks.quantise import REPEATED, decimal


class PromiseMissing(ChecksError):
    """A control promises no band, or a metric or band promises what cannot be: nobody could hold an answer to it."""


class PromiseBroken(ChecksError):
    """A number or a control of an answer is not what the check promises."""


def told_metric(spec: MetricSpec) -> dict[str, Any]:
    """Return a metric's promise as plain JSON.

    Raises:
        PromiseMissing: an exact metric with a tolerance.
    """
    if spec.determinism == "exact" and spec.tolerance is not None:
        raise PromiseMissing(f"metric {spec.name} is exact and has a tolerance: a re-run gives the same number or not")
    tolerance = _tolerance(spec)
    return {
        "name": spec.name,
        "unit": spec.unit,
        "labels": list(spec.labels),
        "better": spec.better,
        "determinism": spec.determinism,
        **({} if spec.interval is None else {"interval": spec.interval}),
        "tolerance": None if tolerance is None else tolerance.to_json(),
        "margin": _margin(spec),
        "summary": spec.summary,
    }


def told_control(control: Control) -> dict[str, Any]:
    """Return a control's promise as plain JSON.

    Raises:
        PromiseMissing: it promises no band, or one that is no band; names the control.
    """
    bands: Sequence[PromisedBand] = getattr(control, "promises", ())
    if not bands:
        raise PromiseMissing(f"control {control.name} promises no band: say in `promises` what it may ever state")
    for band in bands:
        if not band.low <= band.high:
            raise PromiseMissing(f"control {control.name}: the band of {band.metric} is [{band.low}, {band.high}]")
    return {"name": control.name, "kind": control.kind, "bands": [_told_band(band) for band in bands]}


def hold_metric(metric: Metric, spec: MetricSpec) -> None:
    """Hold a number against its promise.

    Raises:
        PromiseBroken: another unit, direction, determinism, tolerance or margin, or an interval against the promise.
    """
    if (metric.unit, metric.better, metric.determinism) != (spec.unit, spec.better, spec.determinism):
        raise PromiseBroken(f"{metric.name} has another unit, direction or determinism than is declared")
    if (metric.tolerance, metric.margin) != (_tolerance(spec), _margin(spec)):
        raise PromiseBroken(f"{metric.name} has another tolerance or margin than is declared")
    if spec.interval is not None and spec.interval == (metric.interval is None):
        raise PromiseBroken(
            f"{metric.name} {'has no' if spec.interval else 'has an'} interval, against its declaration"
        )


def hold_control(control: Control, results: Sequence[ControlResult]) -> None:
    """Hold what a control stated in one run against its promises.

    Raises:
        PromiseMissing: it promises no band.
        PromiseBroken: a band that is not promised, or one that each run states and this run does not.
    """
    told = told_control(control)
    for result in results:
        band = next((one for one in control.promises if _means(one, result)), None)
        if band is None or not _inside(result, band):
            stated = f"[{result.band.low}, {result.band.high}] of {result.metric}"
            raise PromiseBroken(f"control {control.name} states {stated}, which it does not promise")
    for band in control.promises if results else ():
        if band.always and not any(_means(band, result) for result in results):
            raise PromiseBroken(f"control {told['name']} states no {band.metric}, and promises that each run does")


def _told_band(band: PromisedBand) -> dict[str, Any]:
    labels = {"labels": dict(band.labels)} if band.labels else {}
    ends = {"low": decimal(band.low), "high": decimal(band.high)}
    return {"metric": band.metric, **labels, **ends, "fixed": band.fixed, "always": band.always}


def _means(band: PromisedBand, result: ControlResult) -> bool:
    return band.metric == result.metric and all(result.labels.get(key) == one for key, one in band.labels.items())


def _inside(result: ControlResult, band: PromisedBand) -> bool:
    # Both were rounded by the same rule, which keeps their order.
    low, high = decimal(band.low), decimal(band.high)
    if band.fixed:
        return (result.band.low, result.band.high) == (low, high)
    return Decimal(low) <= Decimal(result.band.low) and Decimal(result.band.high) <= Decimal(high)


def _tolerance(spec: MetricSpec) -> Tolerance | None:
    if spec.determinism == "exact":
        return None
    size, share = REPEATED if spec.tolerance is None else spec.tolerance
    return Tolerance(abs=decimal(size), rel=decimal(share))


def _margin(spec: MetricSpec) -> str | None:
    return None if spec.margin is None else decimal(spec.margin)
