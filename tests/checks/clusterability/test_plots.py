"""Plots say what was measured: the right null, the planted blocks, no weights, nothing that is not a number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from assay.result import Plot
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import pdist

from checks.clusterability import metrics
from checks.clusterability.check import Clusterability
from checks.clusterability.cocluster import Partition
from checks.clusterability.controls import planted
from checks.clusterability.families import GraphFound
from checks.clusterability.graphs import GraphStructure
from checks.clusterability.lines import LINES_MAX, TEXT_MAX, in_order, line
from checks.clusterability.masks import mask_structure, planted_mask
from checks.clusterability.matrices import Usable
from checks.clusterability.matrix_plots import (
    CELLS,
    CELLS_MAX,
    CLIP,
    ENTRIES_MIN,
    cells_of,
    centres_of,
    matrix_plots,
    tree_walk,
)
from checks.clusterability.network_tests import NetworkStructure, network_null, network_test
from checks.clusterability.nulls import NullTable, null_table
from checks.clusterability.plots import EXCESS_MAX, LARGEST, NULLS_MAX, plots
from checks.clusterability.structure import Structure, structure_test
from sandbox.budget import charge_bytes

SHAPE, K = (96, 256), 4

STRUCTURE_BYTES = 12 * 1024
"""What all structure plots of one answer may be charged, of the audit's 64 KiB."""


def matrix(name: str, values: np.ndarray, found: Structure, **more: object) -> metrics.Tested:
    masked = bool(more.pop("masked", False))
    usable = Usable(values, 0, float(np.mean(values == 0)), masked)
    one = metrics.Tested(name, usable, found, 0.01, 1, True, None, None, None)
    return replace(one, **more)  # type: ignore[arg-type]


@lru_cache
def blocks() -> tuple[np.ndarray, Partition]:
    return planted(SHAPE, K, 0.3, np.random.default_rng(0))


@lru_cache
def dense() -> metrics.Tested:
    values, _ = blocks()
    found = structure_test(values, null_table(SHAPE, (2, 3, 4, 6), 99), 0)
    return matrix("layers.0.mlp", values, found, stability=np.linspace(0.8, 1.0, 10))


@lru_cache
def sparse() -> metrics.Tested:
    mask, _ = planted_mask((48, 64), 2, 0.4, 0.05, np.random.default_rng(1))
    mask = mask[np.ix_(mask.any(axis=1), mask.any(axis=0))]
    found = mask_structure(mask, (2, 3), 0, np.random.default_rng(2), 19)
    return matrix("sparse", mask * np.random.default_rng(3).standard_normal(mask.shape), found, masked=True)


def product(inner: int | None) -> metrics.Tested:
    return replace(dense(), name="virtual_mlp.0", inner=inner)


@lru_cache
def heads() -> GraphFound:
    rng = np.random.default_rng(4)
    null = NullTable((32, 32), (2, 3, 4), rng.normal(0.1, 0.01, (49, 3)), committed=False)
    found = GraphStructure(3, 0.3, 0.2, 0.02, 0, 20.0, np.arange(32) % 3, (0.2, 0.3, 0.28), null)
    return GraphFound(found, rng.uniform(0.5, 1.0, 10), 32)


@lru_cache
def net() -> NetworkStructure:
    shapes = ((24, 16), (16, 24))
    rng = np.random.default_rng(5)
    return network_test([rng.standard_normal(s) for s in shapes], network_null(shapes, (2,), 9, rng), 0)


def of_kind(found: Sequence[Plot], kind: str) -> list[Plot]:
    return [plot for plot in found if plot.kind == kind]


def charged(found: Sequence[Plot]) -> int:
    return charge_bytes([plot.to_json() for plot in found], set(json.dumps(Plot.model_json_schema()).split('"')))


def cells(plot: Plot) -> np.ndarray:
    return np.array([[float(y) for y in row.y] for row in plot.series])


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


def test_a_bare_structure_never_claims_a_null_that_it_cannot_tell() -> None:
    for name, found, gaussian in (
        ("mlp", dense().found, True),
        ("virtual_mlp.3", dense().found, False),
        ("mask", sparse().found, False),
    ):
        drawn = plots([(name, found)])
        assert of_kind(drawn, "histogram")
        assert not of_kind(drawn, "heatmap")
        assert all(("Gaussian" in plot.title) == gaussian for plot in of_kind(drawn, "histogram"))


def test_matrices_of_one_shape_and_route_share_a_null_and_others_do_not() -> None:
    three = [dense(), replace(dense(), name="layers.1.mlp"), product(37), sparse(), replace(sparse(), name="sparse.2")]
    drawn = of_kind(plots(three[:4]), "histogram")
    assert sorted(len(plot.marks) for plot in drawn) == [1, 1, 2]
    assert len(of_kind(plots(three[3:]), "histogram")) == 2  # degrees are each mask's own


# The map.


def test_the_map_shows_planted_blocks() -> None:
    values, truth = blocks()
    told, down, across = cells_of(values, truth)
    assert told.shape == (min(CELLS, SHAPE[0] // ENTRIES_MIN), CELLS)
    row = np.searchsorted(down, np.arange(told.shape[0]))
    column = np.searchsorted(across, np.arange(told.shape[1]))
    inside = row[:, None] == column
    # In a block mean squares are 1, outside .09: 1.05 decades apart, less what cells that straddle clusters blur.
    assert told[inside].mean() - told[~inside].mean() == pytest.approx(-2 * np.log10(0.3), abs=0.15)


def test_clusters_meet_at_their_cumulative_sizes() -> None:
    part = Partition(np.repeat([0, 1, 2], [16, 8, 40]), np.repeat([2, 0], [32, 32]))
    told, down, across = cells_of(np.ones((64, 64)), part, 16)
    assert told.shape == (16, 16)
    assert down == (3.5, 5.5)  # 16 and 24 rows at four a cell; cell i reaches from i - 1/2
    assert across == (7.5,)  # cluster 1 has no columns: nothing begins there


def test_cells_are_log_means_of_squares_over_that_of_the_matrix() -> None:
    rng = np.random.default_rng(6)
    values, order = rng.standard_normal((8, 12)), rng.permutation(12)
    told, _, _ = cells_of(values[:, order], Partition(np.zeros(8, dtype=int), np.argsort(np.argsort(order))))
    squares = values**2
    assert told == pytest.approx(np.log10(squares.reshape(2, 4, 3, 4).mean(axis=(1, 3)) / squares.mean()))


@pytest.mark.parametrize("shape", [(4, 4), (7, 5), (16, 300), (96, 256), (129, 131), (64, 1000)])
@pytest.mark.parametrize("asked", [1, 3, CELLS, CELLS_MAX])
def test_no_cell_averages_fewer_than_sixteen_entries(shape: tuple[int, int], asked: int) -> None:
    # One entry is all the mass: the cell that holds it tells how many entries it averages.
    n, m = shape
    seen = []
    for at in ((0, 0), (n - 1, m - 1), (n // 2, m // 3)):
        values = np.full(shape, 1.0)
        told, _, _ = cells_of(values, Partition(np.zeros(n, dtype=int), np.zeros(m, dtype=int)), asked)
        values[at] = 1e3
        one, _, _ = cells_of(values, Partition(np.zeros(n, dtype=int), np.zeros(m, dtype=int)), asked)
        assert max(told.shape) <= asked
        top = (10.0 ** one.max()) * np.mean(values**2)
        seen.append((1e6 - 1) / (top - 1) if one.max() < CLIP else 16.0)
    assert min(seen) >= 16.0 - 1e-6


@pytest.mark.parametrize("asked", [0, CELLS_MAX + 1])
def test_a_map_of_more_cells_than_may_be_told_is_refused(asked: int) -> None:
    with pytest.raises(ValueError, match=rf"{asked} cells a side lie outside 1\.\.64"):
        cells_of(np.ones((512, 512)), Partition(np.zeros(512, dtype=int), np.zeros(512, dtype=int)), asked)


def test_a_matrix_too_small_for_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows and 8 columns"):
        cells_of(np.ones((4, 8)), Partition(np.array([0, 0, 1, -1]), np.zeros(8, dtype=int)))


def test_dead_nodes_are_left_out_of_the_map() -> None:
    values, truth = blocks()
    rows, columns = np.full(100, -1), np.full(260, -1)
    rows[2:98], columns[:256] = truth.rows, truth.columns
    whole = np.zeros((100, 260))
    whole[2:98, :256] = values
    assert np.array_equal(cells_of(whole, Partition(rows, columns))[0], cells_of(values, truth)[0])


def test_cells_without_weights_lie_at_the_end_of_the_scale() -> None:
    values = np.kron(np.eye(2), np.ones((16, 16)))
    labels = np.repeat([0, 1], 16)
    told, _, _ = cells_of(values, Partition(labels, labels))
    assert set(np.unique(told)) == {-CLIP, np.log10(2.0)}
    assert not cells_of(np.zeros((32, 32)), Partition(labels, labels))[0].any()


def test_a_mask_is_drawn_by_its_zeros_alone() -> None:
    one = sparse()
    again = replace(
        one,
        matrix=replace(
            one.matrix,
            values=one.matrix.values * 1e6 ** np.arange(len(one.matrix.values))[:, None] % 7 + (one.matrix.values != 0),
        ),
    )
    (drawn,), (other,) = (of_kind(matrix_plots([each]), "heatmap") for each in (one, again))
    assert "share of weights that are not zero" in drawn.y.label
    assert np.array_equal(cells(drawn), cells(other))


def test_cells_have_two_digits() -> None:
    (drawn,) = of_kind(matrix_plots([dense()]), "heatmap")
    for row in drawn.series:
        assert all(len(text.lstrip("-").replace(".", "").lstrip("0")) <= 2 for text in row.y)


# Singular values and the tree.


def test_singular_values_are_those_of_the_tested_view() -> None:
    spectrum = next(plot for plot in matrix_plots([dense()]) if plot.title.startswith("Singular"))
    (drawn,) = spectrum.series
    assert [float(x) for x in drawn.x] == [*range(2, 18)]
    y = np.array([float(text) for text in drawn.y])
    # Four clusters: three directions beside the constant one.
    assert y[2] > 1.3 * y[3]
    assert np.all(np.diff(y) <= 0)


@pytest.mark.parametrize("count", [3, 4, 9, 16])
def test_the_walk_is_scipys_dendrogram(count: int) -> None:
    centres = np.random.default_rng(count).standard_normal((count, 6))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    order, walk = tree_walk(centres)
    known = dendrogram(linkage(pdist(centres, "cosine"), "average"), no_plot=True)
    assert sorted(order) == list(range(count))
    bars = {round(y, 9) for (a, y), (b, z) in pairwise(walk) if y == z and a != b}
    assert bars == {round(heights[1], 9) for heights in known["dcoord"]}
    assert all(a == b or y == z for (a, y), (b, z) in pairwise(walk))  # a pen goes along the tree
    assert {x for x, y in walk if y == 0.0} == set(range(count))


def test_clusters_of_two_kinds_join_last() -> None:
    centres = np.array([[1.0, 0.0, 0.1], [0.0, 1.0, 0.0], [1.0, 0.1, 0.0], [0.0, 1.0, 0.2]])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    order, walk = tree_walk(centres)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert max(y for _, y in walk) > 0.8


def test_a_tree_needs_three_clusters_with_a_direction() -> None:
    points = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-3.0, 0.0], [0.0, 0.0]])
    present, centres = centres_of(points, np.array([0, 2, 3, 3, 0]))
    assert present == (0, 2)  # 1 has no members, those of 3 cancel
    assert centres == pytest.approx(np.eye(2))
    two = structure_test(blocks()[0], null_table(SHAPE, (2,), 99), 0)
    titles = [plot.title for plot in matrix_plots([matrix("two", blocks()[0], two)])]
    assert not any("tree" in title for title in titles)
    assert any("tree" in plot.title for plot in matrix_plots([dense()]))


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
    check = Clusterability.model_validate({"min_stability": "0.65", "min_excess_q": "0.03"})
    found = plots([dense()], limits=check.limits())
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
