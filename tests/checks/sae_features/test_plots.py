from __future__ import annotations

import numpy as np
import pytest
from assay.result import Plot

from checks.sae_features.plots import (
    BARS,
    CURVE_POINTS,
    Doses,
    Point,
    auroc_by_probe,
    battery_bars,
    control_effects,
    dose_response,
    ev_against_gain,
    ev_by_position,
    firing_rates,
    l0_distribution,
    loss_curve,
)

RNG = np.random.default_rng(3)


def drawn() -> tuple[Plot, ...]:
    """Return every plot of an audit of four dictionaries and one concept."""
    names = ("trained-0", "trained-1", "frozen", "twin")
    bands = {name: {band: Point(0.9, 0.88, 0.92) for band in ("1-7", "8-31")} for name in names}
    probes = {f"probe-{place}": Point(0.9, 0.8, 0.95) for place in range(12)}
    doses = Doses({"scaled": {0.0: Point(1.0), 1.0: Point(5.0)}}, {0.25: (4.0, 5.0)})
    return (
        ev_by_position(bands),
        firing_rates({name: 10.0 ** RNG.uniform(-7, 0, 512) for name in names}),
        l0_distribution({name: RNG.poisson(8, 5000).astype(float) for name in names}),
        auroc_by_probe("trigger", probes, 0.93, 0.6),
        dose_response("trigger", doses, "factor"),
        control_effects("trigger", {"matched": RNG.normal(0, 0.1, 99), "random": RNG.normal(0, 0.1, 32)}, -3.4),
        battery_bars("trigger", {"unedited": Point(5.0, 4.9, 5.1), "mean": Point(-2.0, -2.1, -1.9)}),
        loss_curve({name: [(step, 1.0 / (1 + step)) for step in range(2000)] for name in names}),
        ev_against_gain({name: (0.9, Point(17.0, 16.0, 18.0)) for name in names}),
    )


def test_plots_are_small_and_say_their_units() -> None:
    plots = drawn()
    assert len(plots) == 9
    for plot in plots:
        assert 1 <= len(plot.series) <= 12
        assert all(len(one.x) <= 32 for one in plot.series), plot.title
    assert sum(len(one.model_dump_json()) for one in plots) < 12_000


def test_no_latent_is_lost_from_the_histogram_of_rates_but_those_that_never_fired() -> None:
    rates = [0.0, 0.0, 1e-9, 1e-4, 0.02, 0.3, 1.0]
    (line,) = firing_rates({"trained-0": rates}).series
    counts = dict(zip(line.x, map(int, line.y), strict=True))
    assert sum(counts.values()) == 5
    assert counts["-4.75"] == 1
    assert counts["-0.25"] == 1
    assert counts["-0.75"] == 1


def test_a_histogram_counts_every_draw_and_a_constant_one_does_not_divide_by_zero() -> None:
    (line,) = l0_distribution({"trained-0": [8.0] * 10}).series
    assert sum(map(int, line.y)) == 10
    spread = control_effects("c", {"matched": [0.0, 1.0, 2.0, 16.0]}, 16.0)
    assert [int(one) for one in spread.series[0].y][:3] == [1, 1, 1]
    assert int(spread.series[0].y[-1]) == 1
    assert len(spread.series[0].x) == BARS
    assert spread.marks[0].at == "16"


def test_a_curve_keeps_its_first_and_last_point() -> None:
    (line,) = loss_curve({"trained-0": [(step, 2.0 - step / 1e4) for step in range(9999)]}).series
    assert len(line.x) == CURVE_POINTS
    assert (line.x[0], line.x[-1]) == ("0", "10000")
    (short,) = loss_curve({"trained-0": [(0, 1.0)]}).series
    assert short.x == ("0",)
    assert loss_curve({"trained-0": []}).series[0].x == ()


def test_points_that_are_not_finite_are_left_out_with_their_bounds() -> None:
    (line,) = battery_bars("c", {"a": Point(float("nan"), 0.0, 1.0), "b": Point(1.0, 0.5, 1.5)}).series
    assert (line.x, line.y, line.low, line.high) == (("1",), ("1",), ("0.5",), ("1.5",))
    (bare,) = battery_bars("c", {"a": Point(1.0), "b": Point(1.0, 0.5, 1.5)}).series
    assert bare.low is None


@pytest.mark.parametrize("count", [13, 40])
def test_more_dictionaries_than_can_be_told_apart_are_not_drawn(count: int) -> None:
    assert len(loss_curve({f"d{place}": [(0, 1.0)] for place in range(count)}).series) == 12


def test_a_long_name_does_not_break_a_plot() -> None:
    plot = auroc_by_probe("c" * 600, {"p" * 128 + str(place): Point(0.5) for place in range(10)}, None, 0.6)
    assert len(plot.title) == len(plot.x.label) == 512
