"""Embedding, k-means and assignment, against independent implementations and by their corner cases."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans

from checks.clusterability import cocluster as module
from checks.clusterability.cocluster import Embedding, assign, cocluster, embed, kmeans
from checks.clusterability.controls import planted
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.views import normal_scores


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_embedding_is_the_truncated_svd(shape: tuple[int, int]) -> None:
    mass = normal_scores(np.random.default_rng(1).standard_normal(shape)).mass
    got = embed(mass, 5)
    left, singular, right = np.linalg.svd(mass / np.sqrt(np.outer(mass.sum(axis=1), mass.sum(axis=0))))
    assert got.singular == pytest.approx(singular[:6])
    for direction in range(5):
        pair = got.rows[:, direction] / np.sqrt(shape[0]), got.columns[:, direction] / np.sqrt(shape[1])
        assert abs(pair[0] @ left[:, direction]) == pytest.approx(1.0)
        assert abs(pair[1] @ right[direction]) == pytest.approx(1.0)
        assert (got.rows[:, direction] ** 3).sum() + (got.columns[:, direction] ** 3).sum() > 0


def test_lanczos_gives_what_the_gram_matrix_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, truth = planted((60, 90), 3, 0.4, np.random.default_rng(2))
    exact = embed(normal_scores(weights).mass, 4)
    monkeypatch.setattr(module, "GRAM_MAX", 10)
    stepped, again = (embed(normal_scores(weights).mass, 4) for _ in range(2))
    assert stepped.singular == pytest.approx(exact.singular)
    assert stepped.rows == pytest.approx(exact.rows, abs=1e-6)
    assert stepped.columns == pytest.approx(exact.columns, abs=1e-6)
    assert np.array_equal(stepped.rows, again.rows)
    assert adjusted_rand(cocluster(weights, 3, 0).rows, truth.rows) >= 0.95


def test_directions_that_a_matrix_has_not_are_left_out() -> None:
    # Rank 2: the third direction is rounding dust, and its columns would be that dust over a zero.
    blocks = np.kron(np.eye(2), np.ones((6, 9)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = embed(blocks / blocks.sum(), 4)
    assert not got.rows[:, 2:].any()
    assert not got.columns[:, 2:].any()
    part = assign(got, 4, 0)
    assert len({tuple(part.rows[:6]), tuple(part.rows[6:])}) == 2


def test_more_directions_than_the_smaller_side() -> None:
    got = embed(normal_scores(np.random.default_rng(3).standard_normal((4, 30))).mass, 8)
    assert got.rows.shape == (4, 4)
    assert len(got.singular) == 4
    assert set(assign(got, 8, 0).columns) <= set(range(8))


@pytest.mark.parametrize("shape", [(1, 5), (20, 30), (30, 20)])
def test_one_cluster_holds_every_node(shape: tuple[int, int]) -> None:
    part = cocluster(np.random.default_rng(4).standard_normal(shape), 1, 0)
    assert not part.rows.any()
    assert not part.columns.any()


def test_kmeans_is_as_good_as_another_implementation() -> None:
    rng = np.random.default_rng(5)
    ours, theirs = [], []
    for seed in range(5):
        points = rng.standard_normal((300, 4))
        labels = kmeans(points, 5, np.random.default_rng(seed))
        centres = np.stack([points[labels == c].mean(axis=0) for c in range(5)])
        ours.append(np.square(points - centres[labels]).sum())
        theirs.append(KMeans(5, n_init=5, random_state=seed).fit(points).inertia_)
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.02)


def test_kmeans_ends_where_no_point_has_a_nearer_centre() -> None:
    rng = np.random.default_rng(6)
    points = np.concatenate([rng.normal(centre, 0.5, size=(40, 2)) for centre in ((0, 0), (4, 0), (0, 4), (4, 4))])
    labels = kmeans(points, 4, np.random.default_rng(0))
    centres = np.stack([points[labels == c].mean(axis=0) for c in range(4)])
    away = np.square(points[:, None] - centres).sum(axis=2)
    assert np.array_equal(away.argmin(axis=1), labels)


def test_an_empty_cluster_takes_the_farthest_point() -> None:
    points = np.array([[0.0], [0.1], [0.2], [9.0]])
    near = np.array([[0.0, 0.01, 0.04, 81.0]])
    means = module._means(points, np.array([[[9.3], [0.0]]]), np.array([[4.0, 0.0]]), near)
    assert means[0, 1] == points[3]


def test_sums_that_are_carried_on_are_the_sums() -> None:
    rng = np.random.default_rng(8)
    points = rng.standard_normal((50, 3))
    first = rng.integers(0, 4, (2, 50)).astype(np.int8)
    second = first.copy()
    second[0, :7], second[1, 40:] = 3, 0
    unset = np.full((2, 50), -1, dtype=np.int8)
    sums, counts = module._sums(points, first, unset, np.zeros((2, 4, 3)), np.zeros((2, 4)))
    sums, counts = module._sums(points, second, first, sums, counts)
    for start in range(2):
        for c in range(4):
            assert sums[start, c] == pytest.approx(points[second[start] == c].sum(axis=0))
            assert counts[start, c] == (second[start] == c).sum()


def test_points_that_coincide_are_no_error() -> None:
    assert set(kmeans(np.ones((10, 2)), 3, np.random.default_rng(0))) <= {0, 1, 2}
    flat = Embedding(np.zeros((4, 2)), np.zeros((5, 2)))
    assert set(assign(flat, 2, 0).rows) <= {0, 1}


def test_starts_that_reach_one_partition_give_the_first_one() -> None:
    # Rounding alone must not choose whose numbering is told: exactly separated blobs, every start ends alike.
    rng = np.random.default_rng(7)
    points = np.concatenate([rng.normal(centre, 0.01, size=(20, 2)) for centre in ((0, 0), (5, 0), (0, 5))])
    for seed in range(20):
        labels = kmeans(points, 3, np.random.default_rng(seed))
        seeds = module._plus_plus(points, 3, np.random.default_rng(seed))
        first = np.square(points[:, None] - seeds).sum(axis=2).argmin(axis=1)
        assert len(set(first[::20])) < 3 or np.array_equal(labels, first)
