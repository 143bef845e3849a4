"""Plots of the clusterability check, as numbers; the report draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Mark, Plot, Series

from checks.quantise import decimal

if TYPE_CHECKING:
    from checks.clusterability.nulls import NullTable
    from checks.clusterability.structure import Structure

BINS = 24
"""Bars of a null histogram."""

LINES_MAX = 12
"""Lines of one plot: the limit of the result document."""

DIGITS = 3
"""Significant digits of a point: what an eye can read."""


def plots(tested: Sequence[tuple[str, Structure]]) -> tuple[Plot, ...]:
    """Return excess Q against k for the matrices, and for each shape where they lie in the null of T."""
    drawn = [_excess(tested[start : start + LINES_MAX]) for start in range(0, len(tested), LINES_MAX)]
    by_shape: dict[tuple[tuple[int, int], tuple[int, ...]], list[Structure]] = {}
    for _, found in tested:
        by_shape.setdefault((found.null.shape, found.null.ks), []).append(found)
    return (*drawn, *(_null(found[0].null, found) for found in by_shape.values()))


def _excess(tested: Sequence[tuple[str, Structure]]) -> Plot:
    lines = []
    for name, found in tested:
        band = 2.0 * found.null.sd
        excess = np.array(found.q) - found.null.mean
        lines.append(
            Series(
                name=name,
                x=_points([float(k) for k in found.null.ks]),
                y=_points(excess),
                low=_points(excess - band),
                high=_points(excess + band),
            )
        )
    return Plot(
        title="Excess modularity over the null against k; band: two standard deviations of the null",
        kind="line",
        x=Axis(label="k", unit="count"),
        y=Axis(label="excess Q", unit="1"),
        series=tuple(lines),
        marks=(Mark(axis="y", at="0", label="mean of the null"),),
    )


def _null(null: NullTable, found: Sequence[Structure]) -> Plot:
    counts, edges = np.histogram(null.statistics, bins=BINS)
    n, m = null.shape
    return Plot(
        title=f"Null of T at {n}x{m}, {null.n} Gaussian matrices; dashed: the matrices of this model",
        kind="histogram",
        x=Axis(label="T, largest (Q - mean) / sd over k", unit="1"),
        y=Axis(label="null matrices", unit="count"),
        series=(Series(name="null", x=_points((edges[1:] + edges[:-1]) / 2), y=_points(counts.astype(float))),),
        marks=tuple(Mark(axis="x", at=decimal(one.statistic, DIGITS), label="observed") for one in found[:LINES_MAX]),
    )


def _points(values: Sequence[float] | np.ndarray) -> tuple[str, ...]:
    return tuple(decimal(float(value), DIGITS) for value in values)
