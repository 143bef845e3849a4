"""Plots of the check, as numbers; the report draws them. Specification: section 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Mark, Plot, Series

from checks.ask import as_name
from checks.quantise import decimal

if TYPE_CHECKING:
    from checks.truth_probe.beyond import Beyond
    from checks.truth_probe.probing import LayerNumbers
    from checks.truth_probe.transfer import Transfer

DIGITS = 3
"""Significant digits of a point: what an eye can read."""

LINES_MAX = 12
"""Lines of one plot: the limit of the result document."""

LAYER = Axis(label="layer, from 0", unit="count")


def plots(
    layers: Mapping[str, Sequence[LayerNumbers]],
    beyond: Mapping[str, Sequence[Beyond]],
    transfer: Mapping[int, Sequence[Transfer]],
) -> tuple[Plot, ...]:
    """Return, for each set, what its layers look like; then the transfer matrices."""
    told: list[Plot] = []
    for name, of_set in layers.items():
        told.append(_by_layer(name, of_set))
        told += [_path(name, of_set)] if any(one.path_on_test for one in of_set) else []
        told += [_restarts(name, of_set)] if any(one.spread for one in of_set) else []
        told += [_effects(name, beyond[name])] if any(_has_effect(one) for one in beyond[name]) else []
        told += [_reliability(name, beyond[name])] if any(one.calibration for one in beyond[name]) else []
    told += [_transfer(layer, matrix) for layer, matrix in transfer.items() if len({one.to for one in matrix}) > 1]
    return tuple(told)


def _by_layer(name: str, layers: Sequence[LayerNumbers]) -> Plot:
    methods = sorted({method for one in layers for method in one.scored})
    lines = []
    for method in methods:
        having = [one for one in layers if method in one.scored]
        lines.append(
            Series(
                name=method,
                x=_points([float(one.layer) for one in having]),
                y=_points([one.scored[method].auroc.value for one in having]),
                low=_points([one.scored[method].auroc.low for one in having]),
                high=_points([one.scored[method].auroc.high for one in having]),
            )
        )
    p95 = [float(np.quantile(one.random["whitened"], 0.95)) for one in layers]
    lines.append(Series(name="random-p95", x=_points([float(one.layer) for one in layers]), y=_points(p95)))
    return Plot(
        title=f"{as_name(name)}: AUROC on held-out pairs by layer; bounds simultaneous over layers"[:512],
        kind="line",
        x=LAYER,
        y=Axis(label="AUROC", unit="1"),
        series=tuple(lines),
        marks=(Mark(axis="y", at="0.5", label="chance"),),
    )


def _path(name: str, layers: Sequence[LayerNumbers]) -> Plot:
    """Agreement of two halves along the path, and what it would have given on test: shown, never used."""
    searched = [one for one in layers if one.path_on_test][: LINES_MAX // 2]
    lines = []
    for one in searched:
        x = _points([row.lam for row in one.fitted.path])
        lines.append(Series(name=f"stability-{one.layer}", x=x, y=_points([row.stability for row in one.fitted.path])))
        lines.append(Series(name=f"test-auroc-{one.layer}", x=x, y=_points([area for _, area in one.path_on_test])))
    return Plot(
        title=f"{as_name(name)}: |cos| of two halves, and best-of-sign test AUROC, by weight of the midpoint"[:512],
        kind="line",
        x=Axis(label="lambda, sum convention", unit="1"),
        y=Axis(label="|cos| or AUROC", unit="1"),
        series=tuple(lines),
    )


def _restarts(name: str, layers: Sequence[LayerNumbers]) -> Plot:
    having = [(one.layer, one.spread) for one in layers if one.spread is not None]
    x = [float(layer) for layer, spread in having for _ in spread.auroc_best_of_sign]
    y = [float(area) for _, spread in having for area in spread.auroc_best_of_sign]
    return Plot(
        title=f"{as_name(name)}: every CCS restart, best-of-sign AUROC on test"[:512],
        kind="scatter",
        x=LAYER,
        y=Axis(label="AUROC, better sign", unit="1"),
        series=(Series(name="restart", x=_points(x), y=_points(y)),),
        marks=(Mark(axis="y", at="0.5", label="chance"),),
    )


def _has_effect(one: Beyond) -> bool:
    return one.effect is not None and one.effect.f2t is not None


def _effects(name: str, layers: Sequence[Beyond]) -> Plot:
    having = [(one.layer, one.effect) for one in layers if one.effect and one.effect.f2t and one.effect.t2f]
    x = _points([float(layer) for layer, _ in having])
    lines = []
    for line, estimates in (
        ("false-to-true", [effect.f2t for _, effect in having]),
        ("true-to-false", [effect.t2f for _, effect in having]),
    ):
        told = [one for one in estimates if one is not None]
        lines.append(
            Series(
                name=line,
                x=x,
                y=_points([one.value for one in told]),
                low=_points([one.low for one in told]),
                high=_points([one.high for one in told]),
            )
        )
    band = [effect.random_max or 0.0 for _, effect in having]
    lines.append(Series(name="random-max", x=x, y=_points(band)))
    return Plot(
        title=f"{as_name(name)}: effect of a shift along the direction on the answer"[:512],
        kind="line",
        x=LAYER,
        y=Axis(label="normalised indirect effect", unit="1"),
        series=tuple(lines),
        marks=(Mark(axis="y", at="0", label="none"), Mark(axis="y", at="1", label="whole gap")),
    )


def _reliability(name: str, layers: Sequence[Beyond]) -> Plot:
    having = [(one.layer, one.calibration) for one in layers if one.calibration is not None][:LINES_MAX]
    return Plot(
        title=f"{as_name(name)}: how often what is given a probability is true (scaled on anchors)"[:512],
        kind="line",
        x=Axis(label="mean probability", unit="1"),
        y=Axis(label="share true", unit="fraction"),
        series=tuple(
            Series(
                name=f"layer-{layer}",
                x=_points([point.predicted for point in told.bins]),
                y=_points([point.observed for point in told.bins]),
            )
            for layer, told in having
        ),
    )


def _transfer(layer: int, matrix: Sequence[Transfer]) -> Plot:
    """Rows are train sets, columns test sets, in this order of names."""
    columns = sorted({one.to for one in matrix})
    rows = sorted({one.train for one in matrix})[:LINES_MAX]
    at = {(one.train, one.to): one.auroc.estimate for one in matrix}
    lines = []
    for row in rows:
        cells = [(number, at.get((row, column))) for number, column in enumerate(columns)]
        held = [(number, estimate.value) for number, estimate in cells if estimate is not None]
        lines.append(
            Series(name=row, x=_points([float(number) for number, _ in held]), y=_points([value for _, value in held]))
        )
    order = ", ".join(f"{number} {column}" for number, column in enumerate(columns))
    return Plot(
        title=f"Layer {layer}: fitted on the row's set, signed AUROC on the column's: {order}"[:512],
        kind="heatmap",
        x=Axis(label="test set", unit="count"),
        y=Axis(label="AUROC", unit="1"),
        series=tuple(lines),
    )


def _points(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(decimal(value, DIGITS) for value in values)
