"""Plots say what was measured: the right null, no number that is none, within the budget."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from assay.result import Plot

from checks.clusterability.cocluster import Partition
from checks.clusterability.findings import Limits
from checks.clusterability.lines import LINES_MAX, TEXT_MAX, in_order, line
from checks.clusterability.nulls import NullTable
from checks.clusterability.plots import EXCESS_MAX, LARGEST, NULLS_MAX, plots
from checks.clusterability.structure import Structure
from tests.checks.clusterability.drawn import (
    charged,
    dense,
    heads,
    matrix,
    net,
    of_kind,
    product,
    sparse,
)

STRUCTURE_BYTES = 14 * 1024
"""What all structure plots of one answer may be charged, of the audit's 64 KiB."""


# What a title says of a null.


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (dense, "Gaussian matrices"),
        (lambda: product(37), "products of Gaussian factors of inner size 37"),
        (lambda: product(None), "Gaussian matrices"),
        (sparse, "masks of the same row and column counts (curveball trades)"),
    ],
)
def test_the_title_names_the_null_that_was_drawn(one: object, words: str) -> None:
    (drawn,) = of_kind(plots([one()]), "histogram")  # type: ignore[operator]
    assert words in drawn.title
    assert ("of Gaussian factors" in drawn.title) == ("of Gaussian factors" in words)
    assert "Gaussian" not in drawn.title or "Gaussian" in words


def test_graphs_and_nets_are_drawn_beside_their_own_nulls() -> None:
    graph, whole = of_kind(plots([], [heads()], net()), "histogram")
    if "heads" not in graph.title:
        graph, whole = whole, graph
    assert "49 head graphs with edges permuted" in graph.title
    assert "32 heads" in graph.title
    assert "9 chains of Gaussian layers" in whole.title
    assert "16-24-16" in whole.title


def test_matrices_of_one_shape_and_route_share_a_null_and_others_do_not() -> None:
    three = [dense(), replace(dense(), name="layers.1.mlp"), product(37), sparse(), replace(sparse(), name="sparse.2")]
    drawn = of_kind(plots(three[:4]), "histogram")
    assert sorted(len(plot.marks) for plot in drawn) == [1, 1, 2]
    assert len(of_kind(plots(three[3:]), "histogram")) == 2  # degrees are each mask's own


# All together.


def test_only_the_largest_excesses_are_drawn_one_by_one() -> None:
    one = dense()
    many = [replace(one, name=f"m{at}", found=replace(one.found, excess_q=at / 100)) for at in range(8)]
    maps = of_kind(plots(many), "heatmap")
    assert [plot.title.split(":")[0] for plot in maps] == ["m7", "m6", "m5"]
    assert len(maps) == LARGEST


def test_excess_is_q_less_the_mean_of_the_null() -> None:
    one = dense()
    (drawn,) = next(plot for plot in plots([one]) if plot.title.startswith("Excess")).series
    assert [float(y) for y in drawn.y] == pytest.approx(one.found.q - one.found.null.mean, rel=1e-2)
    beside = next(plot for plot in plots([one]) if plot.title.startswith("Q against k"))
    null, observed = beside.series
    assert [float(y) for y in observed.y] == pytest.approx(one.found.q, rel=1e-2)
    assert null.low is not None
    assert [float(y) for y in null.low] == pytest.approx(one.found.null.mean - 2 * one.found.null.sd, rel=1e-2)


def test_thresholds_of_the_rule_are_dashed() -> None:
    limits = Limits(alpha=0.05, min_excess_q=0.03, min_stability=0.65, min_cluster_share=0.01)
    found = plots([dense()], limits=limits)
    marks = {mark.label: mark.at for plot in found for mark in plot.marks if mark.axis == "y"}
    assert marks["floor"] == "0.03"
    assert marks["floor of the median"] == "0.65"


def test_no_number_that_is_not_one_is_ever_drawn() -> None:
    one = dense()
    flat = NullTable((96, 256), one.found.null.ks, np.full((99, 4), 0.125), committed=False)
    with np.errstate(all="ignore"):  # a null that does not vary has no T
        found = replace(one.found, null=flat, statistic=float("nan"))
        drawn = plots([replace(one, found=found, stability=np.array([np.nan, 1.0]))])
    assert drawn
    assert not of_kind(drawn, "histogram")
    every = line("a", [1, 2, 3], [np.inf, 2, np.nan], ([0, 0, 0], [1, np.inf, 1]))
    assert every.x == every.y == every.low == every.high == ()


def test_every_plot_survives_the_report() -> None:
    told = plots([dense(), product(37), sparse()], [heads()], net(), network_stability=np.linspace(0, 1, 10))
    assert {plot.kind for plot in told} == {"line", "histogram", "heatmap", "scatter"}
    for plot in told:
        assert Plot.model_validate_json(json.dumps(plot.to_json())) == plot
    assert plots([]) == ()


def test_structure_plots_stay_within_their_budget() -> None:
    rng = np.random.default_rng(8)
    ks = tuple(range(2, 17))
    values = rng.standard_normal((256, 1024))
    labels = Partition(rng.integers(0, 16, 256), rng.integers(0, 16, 1024))
    many = []
    for at in range(37):
        null = NullTable((256, 1024 + at), ks, rng.normal(0.1, 0.01, (199, 15)), committed=False)
        q = rng.uniform(0.1, 0.2, 15)
        found = Structure(16, 0.1 + at / 1e4, 0.01, 0, 12.345, tuple(q), (labels,) * 15, null, 0.0)
        name = f"transformer.layers.{at}.feed_forward.dense_h_to_4h.weight"
        many.append(matrix(name, values, found, stability=rng.uniform(0, 1, 10)))
    drawn = plots(many, [heads()], net(), network_stability=rng.uniform(0, 1, 10))
    assert charged(drawn) <= STRUCTURE_BYTES
    assert len(of_kind(drawn, "histogram")) == NULLS_MAX
    assert sum(len(plot.series) for plot in drawn if plot.title.startswith("Excess")) == EXCESS_MAX
    assert "24 largest of 39" in drawn[0].title
    assert all(len(plot.series) <= LINES_MAX for plot in drawn if plot.kind != "heatmap")


def test_names_are_cut_evenly_where_a_label_would_be_too_long() -> None:
    assert in_order("task", ["sort by size", "b"]) == "task: 0 sort_by_size, 1 b"
    cut = in_order("task", ["x" * 60] * 20)
    assert len(cut) <= TEXT_MAX
    assert "19 " + "x" * 16 in cut
    assert "order of the report" in in_order("task", ["x"] * 500)
