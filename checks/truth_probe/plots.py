"""Plots of the check, as numbers; the report draws them. Specification: section 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Mark, Plot, Series

from checks.quantise import decimal

if TYPE_CHECKING:
    from checks.truth_probe.probing import LayerNumbers

DIGITS = 3
"""Significant digits of a point: what an eye can read."""

LINES_MAX = 12
"""Lines of one plot: the limit of the result document."""


def plots(layers: Sequence[LayerNumbers]) -> tuple[Plot, ...]:
    """Return AUROC by layer, and the path of lambda where it was searched."""
    searched = [one for one in layers if one.path]
    paths = [_path(searched[at : at + LINES_MAX]) for at in range(0, len(searched), LINES_MAX)]
    return (_by_layer(layers), *paths)


def _by_layer(layers: Sequence[LayerNumbers]) -> Plot:
    x = _points([float(one.layer) for one in layers])
    lines = [
        Series(
            name=method,
            x=x,
            y=_points([one.methods[method].auroc.value for one in layers]),
            low=_points([one.methods[method].auroc.low for one in layers]),
            high=_points([one.methods[method].auroc.high for one in layers]),
        )
        for method in layers[0].methods
    ]
    p95 = [float(np.quantile(one.random, 0.95)) for one in layers]
    lines.append(Series(name="random-p95", x=x, y=_points(p95)))
    return Plot(
        title="AUROC on held-out pairs by layer; bounds simultaneous over layers",
        kind="line",
        x=Axis(label="layer, from 0", unit="count"),
        y=Axis(label="AUROC", unit="1"),
        series=tuple(lines),
        marks=(Mark(axis="y", at="0.5", label="chance"),),
    )


def _path(layers: Sequence[LayerNumbers]) -> Plot:
    return Plot(
        title="How well two halves of train agree on the direction, by weight of the midpoint",
        kind="line",
        x=Axis(label="lambda, sum convention", unit="1"),
        y=Axis(label="mean |cos| of halves", unit="1"),
        series=tuple(
            Series(
                name=f"layer-{one.layer}",
                x=_points([row.lam for row in one.path]),
                y=_points([row.stability for row in one.path]),
            )
            for one in layers
        ),
    )


def _points(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(decimal(value, DIGITS) for value in values)
