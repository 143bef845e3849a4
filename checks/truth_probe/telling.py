"""Numbers of main rows as quantised metrics. Specification: section 6."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from assay.result import Metric, Multiplicity

from checks.holm import holm
from checks.quantise import decimal, metric, null_distribution
from checks.truth_probe.fitting import GATED, Method
from checks.truth_probe.metrics import METRICS
from checks.truth_probe.nulls import kappa_p

if TYPE_CHECKING:
    from checks.truth_probe.probing import LayerNumbers
    from checks.truth_probe.scores import Estimate

BOOTSTRAP, WILSON = "cluster-bootstrap-normal", "cluster-bootstrap-wilson"

HALVING_LEVEL = "0.875"
"""Least and greatest of four draws hold their law's median with this probability, 1 - 2 / 2^4."""

LITTLE = "cos_says_little"
"""Flag of CCS in so few components that restarts agree on anything."""

_SPECS = {spec.name: spec for spec in METRICS}


def number(
    name: str,
    value: float,
    n: int,
    labels: Mapping[str, str],
    *,
    estimate: Estimate | None = None,
    bounds: tuple[float, float] | None = None,
    level: str = "0.95",
    method: str = BOOTSTRAP,
    p: float | None = None,
    family: Multiplicity | None = None,
    null: tuple[str, Iterable[float]] | None = None,
) -> Metric:
    """Return a metric with the unit, direction and determinism that its spec promises."""
    spec = _SPECS[name]
    if estimate is not None:
        bounds, level = (estimate.low, estimate.high), decimal(estimate.level)
    return metric(
        name,
        value,
        n=n,
        unit=spec.unit,
        determinism=spec.determinism,
        labels=labels,
        interval=bounds,
        level=level,
        method=method if bounds is not None else "unstated",
        p=p,
        multiplicity=family,
        null=None if null is None else null_distribution(null[0], [float(draw) for draw in null[1]]),
        better=spec.better,
    )


def estimated(name: str, estimate: Estimate, n: int, labels: Mapping[str, str], method: str = BOOTSTRAP) -> Metric:
    """Return a metric of an estimate."""
    return number(name, estimate.value, n, labels, estimate=estimate, method=method)


def layer_metrics(set_name: str, layers: Sequence[LayerNumbers], items: int, pairs: int) -> tuple[Metric, ...]:
    """Return the metrics of all measured layers of a set; p-values are corrected over the layers of a method.

    Args:
        set_name: the set, in the name alphabet.
        layers: numbers of its layers.
        items: test items.
        pairs: train pairs.
    """
    corrected: dict[tuple[int, str], float] = {}
    for method in dict.fromkeys(method for one in layers for method in one.scored):
        having = [one for one in layers if method in one.scored]
        adjusted = holm([one.scored[method].p for one in having])
        corrected |= {(one.layer, method): p for one, p in zip(having, adjusted, strict=True)}
    told: list[Metric] = []
    for one in layers:
        at = {"set": set_name, "layer": str(one.layer)}
        told += _scored(one, at, items, corrected, {m: sum(m in other.scored for other in layers) for m in one.scored})
        told += _fitted(one, at, pairs)
        told += _restarts(one, at, items)
        told += _nulls(one, at, items, pairs)
    return tuple(told)


def _scored(
    one: LayerNumbers,
    at: Mapping[str, str],
    items: int,
    corrected: Mapping[tuple[int, str], float],
    m: Mapping[Method, int],
) -> list[Metric]:
    told = []
    for method, scored in one.scored.items():
        family = Multiplicity(family="layers", m=m[method], corrected="holm")
        by = {**at, "method": method}
        told.append(
            number(
                "auroc",
                scored.auroc.value,
                items,
                by,
                estimate=scored.auroc,
                p=corrected[one.layer, method],
                family=family,
            )
        )
        if method in GATED:
            told.append(estimated("accuracy", scored.accuracy, items, by, WILSON))
    return told


def _fitted(one: LayerNumbers, at: Mapping[str, str], pairs: int) -> list[Metric]:
    told = [
        number(
            "stability",
            float(values.mean()),
            len(values),
            {**at, "method": method},
            bounds=(float(values.min()), float(values.max())),
            level=HALVING_LEVEL,
            method="halving-range",
        )
        for method, values in one.stability.items()
    ]
    told += [
        number("orientation_margin", sign.margin, sign.anchors, {**at, "method": method}, p=sign.p)
        for method, sign in one.fitted.orientation.items()
    ]
    if "md" in one.fitted.directions:
        told.append(number("lambda", one.fitted.lam, pairs, {**at, "method": "md"}))
    return [
        *told,
        number("relative_gap", one.gap, pairs, at),
        number("second_stability", one.second_stability, pairs, at),
    ]


def _restarts(one: LayerNumbers, at: Mapping[str, str], items: int) -> list[Metric]:
    spread = one.spread
    if spread is None:
        return []
    by, n, kept = {**at, "method": "ccs"}, len(spread.train_loss), spread.chosen
    least, middle, most = spread.auroc_range_best_of_sign
    # In few components restarts agree on noise too, so their agreement would be no evidence (5.4).
    fit = one.fitted.ccs
    told = [] if fit is None or LITTLE in fit.flags else [number("restart_cos", spread.cos, n, by)]
    return [
        *told,
        number("restart_auroc_best_of_sign", middle, n, by, bounds=(least, most), level="1", method="range"),
        number("restart_loss_correlation", spread.loss_rank, n, by),
        number("test_loss", float(spread.test_loss[kept]), items, by),
        number("inconsistency", float(spread.inconsistency[kept]), items, by),
        number("one_sided", float(spread.one_sided[kept]), items, by),
    ]


def _nulls(one: LayerNumbers, at: Mapping[str, str], items: int, pairs: int) -> list[Metric]:
    told = [
        number(
            "random_auroc_best_of_sign",
            float(draws.mean()),
            len(draws),
            {**at, "null": kind},
            null=(f"{kind}-directions", draws),
        )
        for kind, draws in one.random.items()
    ]
    lr = {**at, "method": "lr"}
    told.append(
        number(
            "shuffled_auroc",
            float(one.shuffled.mean()),
            len(one.shuffled),
            lr,
            null=("shuffled-labels", one.shuffled),
        )
    )
    if one.selectivity is not None:
        told.append(number("selectivity", one.selectivity, items, lr))
    above = kappa_p(one.kappa, one.kappa_null)
    told.append(number("kappa", one.kappa, items, at, p=above, null=("gaussian-surrogate", one.kappa_null)))
    if "md" in one.fitted.directions:
        told.append(number("displacement_share", one.share, items, {**at, "method": "md"}))
    return told


def set_metrics(
    set_name: str, *, train_pairs: int, test_items: int, test_clusters: int, known: Mapping[str, int]
) -> tuple[Metric, ...]:
    """Return the numbers that hold for all layers of a set; `known` counts the test items of each declared feature."""
    at = {"set": set_name}
    return (
        number("train_pairs", float(train_pairs), train_pairs, at),
        number("test_items", float(test_items), test_items, at),
        number("test_clusters", float(test_clusters), test_clusters, at),
        *(number("feature_items", float(count), count, {**at, "h": feature}) for feature, count in known.items()),
    )
