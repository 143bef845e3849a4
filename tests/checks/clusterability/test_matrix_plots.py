"""Maps show planted blocks and carry no weights out; singular values and trees are those of the tested view."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import pdist

from checks.clusterability.cocluster import Partition
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
from checks.clusterability.nulls import null_table
from checks.clusterability.structure import structure_test
from tests.checks.clusterability.drawn import (
    SHAPE,
    blocks,
    cells,
    dense,
    matrix,
    of_kind,
    sparse,
)

# The map.


def test_the_map_shows_planted_blocks() -> None:
    values, truth = blocks()
    told, down, across = cells_of(values, truth)
    assert told.shape == (min(CELLS, SHAPE[0] // ENTRIES_MIN), CELLS)
    row = np.searchsorted(down, np.arange(told.shape[0]))
    column = np.searchsorted(across, np.arange(told.shape[1]))
    inside = row[:, None] == column
    # In a block mean squares are 1, outside .09: 1.05 decades apart. No cell is half of one and half of the other.
    assert told[inside].mean() - told[~inside].mean() == pytest.approx(-2 * np.log10(0.3), abs=0.03)
    assert told[inside].min() > told[~inside].max()


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
    # One entry holds nearly all the mass: its cell tells how many entries it is the mean of.
    n, m = shape
    rng = np.random.default_rng(asked)
    for k in (1, 2, 16):
        part = Partition(rng.integers(0, k, n), rng.integers(0, k, m))
        for at in ((0, 0), (n - 1, m - 1), (n // 2, m // 3)):
            values = np.ones(shape)
            values[at] = 30.0
            told, _, _ = cells_of(values, part, asked)
            assert max(told.shape) <= asked
            # Of s entries the mean square is (899 + s) / s.
            assert 899.0 / (10.0 ** told.max() * np.mean(values**2) - 1.0) >= 16.0 - 1e-9


def test_a_cluster_too_small_for_a_cell_shares_one() -> None:
    labels = np.repeat([0, 1, 2], [2, 13, 1])
    told, down, _ = cells_of(np.ones((16, 16)), Partition(labels, labels))
    assert told.shape == (4, 4)
    assert down == pytest.approx((0.0, 3.25))  # 2 of the first cell's 4 rows, 3 of the last one's 4


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
