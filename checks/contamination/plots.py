"""Plots of a conclusion as numbers: best cosines, p-values, recall by depth (contamination, 9.1).

Each is small, since every number of an answer is charged; the report draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Metric, Plot, Series

from checks.contamination.conclude_flags import Flagged
from checks.contamination.sketch import COSINE_ONE, Entry
from checks.quantise import decimal

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PLOTTED = 4
"""Benchmarks that are drawn, the first of the report: three plots of each come to about 4 kB."""

BIN = 500
"""Width of a bar in parts of 10 000 of a cosine: .05, less than what rewrites and strangers lie apart (6.6)."""

BIN_MIN = 5
"""Best windows of items, and of siblings, that a bar holds at least (9.1): of fewer a bar would tell single items."""

STEPS = 20
"""Points at which the share of p-values is told; the first lies at the level at which a single test would claim."""

DIGITS = 3
"""Significant digits of a point: what an eye can read."""

SCORED = 10_000
"""Parts of a pair score below its base (6.6)."""

WORDED = 30_000
"""Pair score from which words and not cosines decided (6.6: near, exact)."""


def plots(told: Sequence[Flagged], metrics: Iterable[Metric]) -> Iterator[Plot]:
    """Yield the plots of the first `PLOTTED` benchmarks.

    Args:
        told: what is flagged of each.
        metrics: of all of them; recall is read.
    """
    recalls = [one for one in metrics if one.name == "recall" and one.labels["placement"] == "all"]
    for one in told[:PLOTTED]:
        yield from _cosines(one)
        if one.calibrated:
            yield _p_values(one)
        own = [metric for metric in recalls if metric.labels["benchmark"] == one.benchmark]
        if own:
            yield _recall(one.benchmark, own)


def best_cosine(entry: Entry | None) -> int:
    """Return the cosine of a probe's best match in parts of 10 000; one where words decided, 0 without a match."""
    if entry is None:
        return 0
    return COSINE_ONE if entry.score >= WORDED else entry.score % SCORED


def merged_bins(
    items: Int[np.ndarray, " item"], siblings: Int[np.ndarray, " sibling"]
) -> tuple[tuple[int, int, int, int], ...]:
    """Return bars as (begin, end, items, siblings), neighbours merged until both kinds have `BIN_MIN` or none is left.

    Args:
        items: best cosines in parts of 10 000.
        siblings: as items.
    """
    edges = np.arange(0, COSINE_ONE + BIN, BIN)
    # The last bar holds a cosine of one too.
    counts = [
        np.bincount(np.minimum(one // BIN, len(edges) - 2), minlength=len(edges) - 1) for one in (items, siblings)
    ]
    bars: list[list[int]] = []
    begin = 0
    held = [0, 0]
    for place in range(len(edges) - 1):
        held = [have + int(one[place]) for have, one in zip(held, counts, strict=True)]
        if min(held) >= BIN_MIN:
            bars.append([begin, int(edges[place + 1]), *held])
            begin, held = int(edges[place + 1]), [0, 0]
    if not bars:
        return ((0, COSINE_ONE, *held),) if sum(held) else ()  # type: ignore[return-value]
    # What is left over joins the last bar: alone it would be too small.
    bars[-1] = [bars[-1][0], COSINE_ONE, bars[-1][2] + held[0], bars[-1][3] + held[1]]
    return tuple((bar[0], bar[1], bar[2], bar[3]) for bar in bars)


def _cosines(told: Flagged) -> Iterator[Plot]:
    items = np.array([best_cosine(one) for one in told.best], dtype=np.int64)
    others = [best_cosine(one) for group in told.groups for one in group.sibling_best]
    siblings = np.array(others, dtype=np.int64)
    bars = merged_bins(items, siblings)
    if min(len(items), len(siblings)) < BIN_MIN:
        return
    centres = [(begin + end) / 2 / COSINE_ONE for begin, end, _, _ in bars]
    yield Plot(
        title=f"Best match of items and of their siblings: {told.benchmark}",
        kind="histogram",
        x=Axis(label="best cosine, middle of the bar; a match of words counts as 1, none as 0", unit="1"),
        y=Axis(label="share of probes in the bar", unit="fraction"),
        series=(
            _line("items", centres, [bar[2] / len(items) for bar in bars]),
            _line("siblings", centres, [bar[3] / len(siblings) for bar in bars]),
        ),
    )


def _p_values(told: Flagged) -> Plot:
    p: Float[np.ndarray, " item"] = np.sort(told.p[~np.isnan(told.p)])
    at = [step / STEPS for step in range(1, STEPS + 1)]
    return Plot(
        title=f"p-values of items against uniform: {told.benchmark}",
        kind="line",
        x=Axis(label="p", unit="1"),
        y=Axis(label="share of calibrated items with a p at most so large", unit="fraction"),
        series=(
            _line("items", at, [float(np.searchsorted(p, x, side="right")) / len(p) for x in at]),
            _line("uniform", [at[0], at[-1]], [at[0], at[-1]]),
        ),
    )


def _recall(benchmark: str, own: Sequence[Metric]) -> Plot:
    sources = sorted({one.labels["source"] for one in own})
    lines = []
    for source in sources:
        points = sorted((one for one in own if one.labels["source"] == source), key=lambda one: one.labels["depth"])
        intervals = [one.interval for one in points if one.interval is not None]
        lines.append(
            Series(
                name=source,
                x=tuple(one.labels["depth"] for one in points),
                y=tuple(one.value for one in points),
                low=tuple(one.low for one in intervals) if len(intervals) == len(points) else None,
                high=tuple(one.high for one in intervals) if len(intervals) == len(points) else None,
            )
        )
    return Plot(
        title=f"Planted rewordings that are found: {benchmark}",
        kind="line",
        x=Axis(label="depth of the rewording", unit="1"),
        y=Axis(label="recall, all placements", unit="fraction"),
        series=tuple(lines),
    )


def _line(name: str, x: Sequence[float], y: Sequence[float]) -> Series:
    return Series(name=name, x=tuple(decimal(one, DIGITS) for one in x), y=tuple(decimal(one, DIGITS) for one in y))
