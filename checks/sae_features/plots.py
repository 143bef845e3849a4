"""Plots of an audit from plain numbers; the report draws them. Specification: section 11.

Each is small: a digit that an eye cannot read is not told, and histograms and curves have few points, because every
number is charged to the 64 KiB that an audit may carry out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import TypeVar

from assay.result import Axis, Mark, Plot, Series

from checks.ask import as_name
from checks.quantise import decimal

T = TypeVar("T")

DIGITS = 3
"""Significant digits of a point: what an eye can read."""

LINES_MAX, TEXT_MAX = 12, 512
"""Lines of one plot, and letters of a title or axis: the limits of the result document."""

CURVE_POINTS = 32
"""Points of a loss curve."""

BARS = 16
"""Bars of a histogram of L0 or of control effects."""

RATE_FROM, RATE_STEP = -5.0, 0.5
"""log10 of the rate at which the first bar of the firing-rate histogram begins, and the width of its bars; rarer
latents stand in the first."""


@dataclass(frozen=True)
class Point:
    """A number with its interval; without one where the bounds are None."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Doses:
    """A behaviour under scaled latents, or under pushes, with the band of random pushes."""

    lines: Mapping[str, Mapping[float, Point]]
    """By edit, e.g. "scaled", "with", "diffmean"; then by dose."""
    band: Mapping[float, tuple[float, float]]
    """Least and greatest margin under random pushes, by dose; empty where there are none."""


def ev_by_position(bands: Mapping[str, Mapping[str, Point]]) -> Plot:
    """Return explained variance by position in the passage.

    Args:
        bands: by dictionary, then by band of positions, in order.
    """
    order = [*dict.fromkeys(band for one in bands.values() for band in one)]
    return Plot(
        title="Explained variance by position in the passage",
        kind="line",
        x=Axis(label=_in_order("band of positions", order), unit="count"),
        y=Axis(label="EV", unit="fraction"),
        series=tuple(_points(name, {order.index(band): at for band, at in one.items()}) for name, one in _few(bands)),
    )


def firing_rates(rates: Mapping[str, Iterable[float]]) -> Plot:
    """Return how many latents fire how often, in bins of log10; those that never fired are not drawn.

    Args:
        rates: p_i of every latent, by dictionary.
    """
    bins = round(-RATE_FROM / RATE_STEP)
    centres = [RATE_FROM + RATE_STEP * (place + 0.5) for place in range(bins)]
    lines = []
    for name, one in _few(rates):
        counts = [0] * bins
        for rate in one:
            if rate > 0:
                place = floor((log10(rate) - RATE_FROM) / RATE_STEP)
                counts[min(max(place, 0), bins - 1)] += 1
        lines.append(_line(name, centres, counts))
    return Plot(
        title="How often latents fire",
        kind="histogram",
        x=Axis(label="log10 of the share of tokens", unit="1"),
        y=Axis(label="latents", unit="count"),
        series=tuple(lines),
    )


def l0_distribution(active: Mapping[str, Iterable[float]]) -> Plot:
    """Return how many latents are on at a token.

    Args:
        active: latents that are on at each token, by dictionary.
    """
    return _histogram("Latents that are on at a token", "latents on", "tokens", "count", active)


def auroc_by_probe(concept: str, probes: Mapping[str, Point], surface: float | None, floor_at: float) -> Plot:
    """Return the AUROC of each probe, with the best surface baseline and the floor of detection as dashed lines.

    Args:
        concept: its name.
        probes: by name, in the order of the bars.
        surface: AUROC of the best surface probe; None where there is none.
        floor_at: the check's `detect_floor`.
    """
    marks = [Mark(axis="y", at=decimal(floor_at, DIGITS), label="floor")]
    marks += [] if surface is None else [Mark(axis="y", at=decimal(surface, DIGITS), label="surface")]
    return Plot(
        title=_text(f"AUROC by probe: {concept}"),
        kind="bar",
        x=Axis(label=_in_order("probe", list(probes)), unit="count"),
        y=Axis(label="AUROC", unit="1"),
        series=(_points("auroc", dict(enumerate(probes.values()))),),
        marks=tuple(marks),
    )


def dose_response(concept: str, doses: Doses, of: str) -> Plot:
    """Return the margin against the dose; the band holds what random pushes of the same length do.

    Args:
        concept: its name.
        doses: margins in nats.
        of: what a dose is, e.g. "factor of the latents" or "length of the push, R".
    """
    lines = [_points(name, one) for name, one in doses.lines.items()]
    if doses.band:
        places = sorted(doses.band)
        middle = [sum(doses.band[at]) / 2 for at in places]
        bounds = [doses.band[at][0] for at in places], [doses.band[at][1] for at in places]
        lines.append(_line("random", places, middle, bounds))
    return Plot(
        title=_text(f"Margin against dose: {concept}"),
        kind="line",
        x=Axis(label=_text(of), unit="1"),
        y=Axis(label="log p(target) - log p(foil)", unit="nats"),
        series=tuple(lines[:LINES_MAX]),
    )


def control_effects(concept: str, controls: Mapping[str, Iterable[float]], effect: float) -> Plot:
    """Return the effects of control edits, with the effect itself as a dashed line.

    Args:
        concept: its name.
        controls: effects in nats, by kind ("matched", "random").
        effect: E.
    """
    plot = _histogram(f"Effects of control edits: {concept}", "change of the margin", "edits", "nats", controls)
    return plot.model_copy(update={"marks": (Mark(axis="x", at=decimal(effect, DIGITS), label="effect"),)})


def battery_bars(concept: str, margins: Mapping[str, Point]) -> Plot:
    """Return the margin under each edit of the residual battery.

    Args:
        concept: its name.
        margins: by edit, in order.
    """
    return Plot(
        title=_text(f"Margin with parts of the states left in place: {concept}"),
        kind="bar",
        x=Axis(label=_in_order("edit", list(margins)), unit="count"),
        y=Axis(label="log p(target) - log p(foil)", unit="nats"),
        series=(_points("margin", dict(enumerate(margins.values()))),),
    )


def loss_curve(losses: Mapping[str, Sequence[tuple[float, float]]]) -> Plot:
    """Return the training loss against the step, thinned evenly to `CURVE_POINTS` points with the last one kept.

    Args:
        losses: (step, loss) in order, by dictionary.
    """
    lines = []
    for name, curve in _few(losses):
        count = min(len(curve), CURVE_POINTS)
        kept = [curve[round(place * (len(curve) - 1) / max(count - 1, 1))] for place in range(count)]
        lines.append(_line(name, [step for step, _ in kept], [loss for _, loss in kept]))
    return Plot(
        title="Training loss",
        kind="line",
        x=Axis(label="step", unit="count"),
        y=Axis(label="squared error over the variance", unit="1"),
        series=tuple(lines),
    )


def ev_against_gain(places: Mapping[str, tuple[float, Point]]) -> Plot:
    """Return explained variance against code gain, one point a dictionary.

    Args:
        places: EV, and code gain in bits a token, by dictionary.
    """
    lines = []
    for name, (ev, gain) in _few(places):
        bounds = None if gain.low is None or gain.high is None else ([gain.low], [gain.high])
        lines.append(_line(name, [ev], [gain.value], bounds))
    return Plot(
        title="Explained variance against code gain",
        kind="scatter",
        x=Axis(label="EV", unit="fraction"),
        y=Axis(label="code gain", unit="bits"),
        series=tuple(lines),
        marks=(Mark(axis="y", at="0", label="a Gaussian code"),),
    )


def _histogram(title: str, x: str, y: str, unit: str, drawn: Mapping[str, Iterable[float]]) -> Plot:
    """Return counts in `BARS` bars over the range that all lines share."""
    finite = {name: [value for value in one if isfinite(value)] for name, one in _few(drawn)}
    every = [value for one in finite.values() for value in one]
    bottom, top = (min(every), max(every)) if every else (0.0, 1.0)
    width = (top - bottom) / BARS or 1.0
    centres = [bottom + width * (place + 0.5) for place in range(BARS)]
    lines = []
    for name, one in finite.items():
        counts = [0] * BARS
        for value in one:
            counts[min(int((value - bottom) / width), BARS - 1)] += 1
        lines.append(_line(name, centres, counts))
    return Plot(
        title=_text(title),
        kind="histogram",
        x=Axis(label=x, unit=unit),
        y=Axis(label=y, unit="count"),
        series=tuple(lines),
    )


def _few(lines: Mapping[str, T]) -> list[tuple[str, T]]:
    return list(lines.items())[:LINES_MAX]


def _points(name: str, points: Mapping[float, Point] | Mapping[int, Point]) -> Series:
    """Return points in order of their place; bounds are told where every point has them."""
    told = sorted(points.items())
    x, y = [at for at, _ in told], [one.value for _, one in told]
    low = [one.low for _, one in told if one.low is not None]
    high = [one.high for _, one in told if one.high is not None]
    return _line(name, x, y, (low, high) if len(low) == len(high) == len(told) else None)


def _line(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    bounds: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Series:
    """Return a series of the points that are finite; the others are left out, with their bounds."""
    held = [point for point in zip(x, y, *(bounds or ()), strict=True) if all(map(isfinite, point))]
    columns = [_decimals(point[part] for point in held) for part in range(4 if bounds else 2)]
    return Series(
        name=as_name(name),
        x=columns[0],
        y=columns[1],
        low=columns[2] if bounds else None,
        high=columns[3] if bounds else None,
    )


def _decimals(numbers: Iterable[float]) -> tuple[str, ...]:
    return tuple(decimal(number, DIGITS) for number in numbers)


def _in_order(said: str, names: Sequence[str]) -> str:
    return _text(f"{said}: " + ", ".join(f"{place} {as_name(name)}" for place, name in enumerate(names)))


def _text(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 3]}..."
