"""Scores of given labels, against networkx and against exact values."""

from __future__ import annotations

import networkx as nx  # type: ignore[import-untyped]
import numpy as np
import pytest

from checks.clusterability.cocluster import embed
from checks.clusterability.scores import eigengap, scores, scores_of
from checks.clusterability.views import balanced_squares


def labelled(seed: int, shape: tuple[int, int] = (18, 26), k: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mass = rng.random(shape) * (rng.random(shape) < 0.7)
    return mass / mass.sum(), rng.integers(0, k, shape[0]), rng.integers(0, k, shape[1])


def graph(mass: np.ndarray, kind: type[nx.Graph]) -> nx.Graph:
    made = kind()
    made.add_nodes_from(("row", i) for i in range(mass.shape[0]))
    made.add_nodes_from(("column", j) for j in range(mass.shape[1]))
    made.add_weighted_edges_from((("row", i), ("column", j), mass[i, j]) for i, j in np.argwhere(mass > 0))
    return made


def communities(rows: np.ndarray, columns: np.ndarray) -> list[set[tuple[str, int]]]:
    return [
        {("row", int(i)) for i in np.flatnonzero(rows == label)}
        | {("column", int(j)) for j in np.flatnonzero(columns == label)}
        for label in range(1 + max(rows.max(), columns.max()))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_modularity_is_networkx_modularity_of_rows_pointing_at_columns(seed: int) -> None:
    # With every edge from a row to a column, directed modularity is Barber's.
    mass, rows, columns = labelled(seed)
    told = nx.community.modularity(graph(mass, nx.DiGraph), communities(rows, columns), weight="weight")
    assert scores_of(mass, rows, columns).q_b == pytest.approx(told, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_ncut_is_networkx_cut_over_volume(seed: int) -> None:
    mass, rows, columns = labelled(seed)
    whole = graph(mass, nx.Graph)
    told = sum(
        nx.cut_size(whole, nodes, weight="weight") / nx.volume(whole, nodes, weight="weight")
        for nodes in communities(rows, columns)
    )
    assert scores_of(mass, rows, columns).ncut == pytest.approx(told, abs=1e-9)


def test_two_clusters_have_networkx_normalised_cut() -> None:
    mass, rows, columns = labelled(5, k=2)
    told = nx.normalized_cut_size(graph(mass, nx.Graph), communities(rows, columns)[0], weight="weight")
    assert scores_of(mass, rows, columns).ncut == pytest.approx(told, abs=1e-9)


def test_one_cluster_is_exact_in_every_view() -> None:
    weights = np.random.default_rng(6).standard_normal((16, 31))
    for view in ("raw", "balanced", "normal_scores", "unit_in_norm"):
        got = scores(weights, np.zeros(16, dtype=int), np.zeros(31, dtype=int), view)
        assert (got.c, got.c_exp, got.q_b, got.c_max, got.ncut) == (1.0, 1.0, 0.0, 1.0, 0.0)
        assert got.c_adj is None
        assert got.size_entropy is None
        assert got.shares == (1.0,)


def test_shares_and_their_entropy() -> None:
    mass = np.full((4, 4), 1 / 16)
    even = scores_of(mass, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert even.shares == (0.5, 0.5)
    assert even.size_entropy == pytest.approx(1.0)
    uneven = scores_of(mass, np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]))
    assert uneven.size_entropy == pytest.approx(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))
    assert uneven.min_cluster_share == 0.25


def test_an_empty_last_cluster_counts_among_k() -> None:
    # Labels alone cannot say that a third cluster was asked for and none came.
    mass = np.full((4, 4), 1 / 16)
    labels = np.array([0, 0, 1, 1])
    assert scores_of(mass, labels, labels).k == 2
    got = scores_of(mass, labels, labels, k=3)
    assert got.k == 3
    assert got.min_cluster_share == 0.0
    assert got.size_entropy == pytest.approx(np.log(2) / np.log(3))
    assert got.ncut == scores_of(mass, labels, labels).ncut


def test_adjusted_c_is_null_where_nothing_can_vary() -> None:
    # All rows in one cluster: whatever the labels of the columns, c is c_exp.
    mass, _, columns = labelled(7, k=2)
    got = scores_of(mass, np.zeros(18, dtype=int), columns)
    assert got.c_max == pytest.approx(got.c_exp)
    assert got.c_adj is None


def test_adjusted_c_is_that_of_equal_shares() -> None:
    # Where row and column shares agree, (C - C_exp) / (1 - C_exp): specification 4.4.
    labels = np.repeat([0, 1, 2], (6, 8, 10))
    mass = balanced_squares(np.random.default_rng(8).standard_normal((24, 24))).mass
    got = scores_of(mass, labels, labels)
    assert got.c_max == pytest.approx(1.0, abs=1e-7)
    assert got.c_adj == pytest.approx((got.c - got.c_exp) / (1 - got.c_exp), abs=1e-6)


def test_dead_nodes_are_left_out_of_scores() -> None:
    rng = np.random.default_rng(9)
    weights = rng.standard_normal((10, 14))
    rows, columns = rng.integers(0, 2, 10), rng.integers(0, 2, 14)
    wide = np.insert(weights, 4, 0.0, axis=0)
    assert scores(wide, np.insert(rows, 4, -1), columns, "balanced") == scores(weights, rows, columns, "balanced")


def test_eigengap_is_the_step_after_the_planted_directions() -> None:
    blocks = np.kron(np.eye(3), np.ones((8, 10))) + 0.05
    singular = embed(balanced_squares(np.sqrt(blocks)).mass, 5).singular
    exact = np.linalg.svd(blocks / np.sqrt(np.outer(blocks.sum(axis=1), blocks.sum(axis=0))), compute_uv=False)
    assert singular == pytest.approx(exact[:6], abs=1e-6)
    assert eigengap(singular, 3) == pytest.approx(exact[2] - exact[3], abs=1e-6)
    gaps = [eigengap(singular, k) for k in range(1, 6)]
    assert max(gap for gap in gaps[1:] if gap is not None) == gaps[2]
    assert eigengap(singular, 6) is None
    assert eigengap(singular, 0) is None
