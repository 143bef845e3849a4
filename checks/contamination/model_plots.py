"""Rank histograms of the order and options tests, as numbers (contamination, 9.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Mark, Plot, Series

from checks.quantise import decimal

if TYPE_CHECKING:
    from jaxtyping import Float

PLOTTED = 4
"""Benchmarks that are drawn, as of the corpus side."""

BARS = 8
"""Bars of a histogram: 16 stretches, section 11's number, then expect two in each."""


def rank_plot(test: str, benchmark: str, shares: Float[np.ndarray, " part"]) -> Plot:
    """Return how the published order ranks among others, the mark standing where nothing to find would put each bar.

    Args:
        test: order or options.
        benchmark: its name.
        shares: rank / largest rank of each stretch or item; 0 is the likeliest order of all.
    """
    counts, edges = np.histogram(shares, bins=BARS, range=(0.0, 1.0))
    return Plot(
        title=f"{test}: rank of the published order in {benchmark}",
        kind="histogram",
        x=Axis(label="rank as a share of the largest, 0 the likeliest", unit="fraction"),
        y=Axis(label="stretches" if test == "order" else "items", unit="count"),
        series=(
            Series(
                name="published",
                x=tuple(decimal(float(edge), 3) for edge in edges[:-1]),
                y=tuple(decimal(int(count)) for count in counts),
            ),
        ),
        marks=(Mark(axis="y", at=decimal(len(shares) / BARS, 3), label="expected where nothing was seen"),),
    )
