"""Views, co-clustering and scores: against independent formulas, planted truth, and the flaws of peers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from sklearn.cluster import SpectralCoclustering
from sklearn.metrics import adjusted_rand_score

from checks.clusterability.cocluster import Partition, cocluster, kmeans
from checks.clusterability.controls import c_of_plant, planted
from checks.clusterability.scores import adjusted_rand, scores, scores_of
from checks.clusterability.views import balance, balanced_squares, normal_scores, rank_scores, raw


def joint_ari(found: Partition, truth: Partition) -> float:
    return adjusted_rand(np.concatenate([found.rows, found.columns]), np.concatenate([truth.rows, truth.columns]))


@pytest.mark.parametrize(("rho", "raw_c"), [(0.0, 1.0), (0.1, 0.971), (0.3, 0.787), (0.5, 0.570), (0.7, 0.404)])
def test_planted_blocks_give_the_tabled_scores(rho: float, raw_c: float) -> None:
    # Organism A of the specification, section 8.
    weights, truth = planted((128, 512), 4, rho, np.random.default_rng(1))
    found = cocluster(weights, 4, seed=0)
    assert adjusted_rand(found.rows, truth.rows) >= 0.95
    assert scores(weights, truth.rows, truth.columns, "raw").c == pytest.approx(raw_c, abs=0.02)
    assert scores(weights, found.rows, found.columns, "raw").c == pytest.approx(raw_c, abs=0.02)
    assert c_of_plant(4, rho) == pytest.approx(raw_c, abs=0.02)


def test_row_and_column_labels_correspond() -> None:
    """7vik/nn-modularity: separate k-means for rows and columns gave C of .10 on an exact block matrix."""
    weights, _ = planted((128, 512), 4, 0.0, np.random.default_rng(2))
    found = cocluster(weights, 4, seed=3)
    assert scores(weights, found.rows, found.columns, "raw").c == pytest.approx(1.0, abs=1e-12)
    assert scores(weights, found.rows, found.columns, "balanced").c == pytest.approx(1.0, abs=1e-6)


def test_noise_at_rho_one_has_no_truth_to_find() -> None:
    weights, truth = planted((128, 512), 4, 1.0, np.random.default_rng(3))
    assert abs(joint_ari(cocluster(weights, 4, seed=0), truth)) < 0.05


def test_agrees_with_another_implementation_on_clear_blocks() -> None:
    weights, truth = planted((96, 256), 3, 0.2, np.random.default_rng(4))
    other = SpectralCoclustering(n_clusters=3, random_state=0).fit(weights**2)
    assert adjusted_rand_score(other.row_labels_, truth.rows) >= 0.99
    assert adjusted_rand_score(cocluster(weights, 3, seed=0).rows, other.row_labels_) >= 0.99


def test_positive_rescaling_changes_nothing() -> None:
    # Organism B: lognormal row and column scales.
    rng = np.random.default_rng(5)
    weights, truth = planted((128, 512), 4, 0.3, rng)
    scaled = weights * np.exp(rng.standard_normal(128))[:, None] * np.exp(rng.standard_normal(512))
    first, second = cocluster(weights, 4, seed=0), cocluster(scaled, 4, seed=0)
    assert joint_ari(first, second) == 1.0
    for view in ("balanced", "normal_scores"):
        a, b = (scores(w, truth.rows, truth.columns, view) for w in (weights, scaled))
        assert (a.c, a.q_b) == pytest.approx((b.c, b.q_b), abs=1e-6)
        # A sum of ratios to cluster masses: k times the error of a share.
        assert a.ncut == pytest.approx(b.ncut, abs=1e-5)
    raw_q = [scores(w, truth.rows, truth.columns, "raw").q_b for w in (weights, scaled)]
    assert abs(raw_q[0] - raw_q[1]) > 1e-3  # the raw view does move, which is why it is not the primary one


def test_order_orientation_and_sign_change_nothing() -> None:
    rng = np.random.default_rng(6)
    noise = rng.standard_normal((64, 160))
    rows, columns = rng.permutation(64), rng.permutation(160)
    whole = cocluster(noise, 3, seed=9)
    moved = cocluster(noise[np.ix_(rows, columns)], 3, seed=9)
    assert joint_ari(moved, Partition(whole.rows[rows], whole.columns[columns])) == 1.0
    turned = cocluster(noise.T, 3, seed=9)
    assert joint_ari(Partition(turned.columns, turned.rows), whole) == 1.0
    flipped = cocluster(noise * rng.choice([-1.0, 1.0], size=noise.shape), 3, seed=9)
    assert np.array_equal(flipped.rows, whole.rows)


def test_heavy_tails_are_found_by_normal_scores_only() -> None:
    # Organism C: t4 noise, rho .6: mean row ARI .90 from normal scores over draws.
    agreement = []
    for seed in range(6):
        rng = np.random.default_rng([11, seed])
        _, truth = planted((96, 256), 4, 0.6, rng)
        inside = truth.rows[:, None] == truth.columns
        weights = rng.standard_t(4, size=(96, 256)) * np.where(inside, 1.0, 0.6)
        agreement.append(adjusted_rand(cocluster(weights, 4, seed=0).rows, truth.rows))
    assert np.mean(agreement) > 0.75


def test_low_precision_weights_give_the_same_scores() -> None:
    weights, truth = planted((96, 256), 4, 0.4, np.random.default_rng(7))
    coarse = weights.astype(np.float16).astype(np.float64)
    a, b = (scores(w, truth.rows, truth.columns, "balanced").c for w in (weights, coarse))
    assert a == pytest.approx(b, abs=0.01)
    assert joint_ari(cocluster(coarse, 4, seed=0), cocluster(weights, 4, seed=0)) >= 0.95


def test_zero_row_and_dead_unit() -> None:
    """Peers divide by the degree of every node, which of a dead one is zero."""
    weights, truth = planted((96, 256), 3, 0.2, np.random.default_rng(8))
    weights[5] = 0.0
    weights[:, [0, 17]] = 0.0
    found = cocluster(weights, 3, seed=0)
    assert found.rows[5] == -1
    assert sorted(np.flatnonzero(found.columns == -1)) == [0, 17]
    kept = found.rows >= 0
    assert adjusted_rand(found.rows[kept], truth.rows[kept]) == 1.0
    assert np.isfinite(scores(weights, found.rows, found.columns, "balanced").c)


def test_k_larger_than_rank() -> None:
    """Peers cluster the trivial vector and the dust beyond the rank as if they were directions of the matrix."""
    rng = np.random.default_rng(23)
    rank_one = np.outer(rng.lognormal(size=32), rng.lognormal(size=64))
    found = cocluster(rank_one, 4, seed=0)
    labels = np.concatenate([found.rows, found.columns])
    assert set(labels) <= set(range(4))
    # All nodes look alike: nothing may tell them apart.
    assert len(set(labels)) == 1


def test_huge_and_tiny_weights_stay_in_range() -> None:
    weights, truth = planted((48, 64), 2, 0.2, np.random.default_rng(9))
    plain = scores(weights, truth.rows, truth.columns, "balanced").c
    for factor in (1e200, 1e-200):
        assert scores(weights * factor, truth.rows, truth.columns, "balanced").c == pytest.approx(plain)


def test_scores_against_the_formulas() -> None:
    rng = np.random.default_rng(10)
    mass = rng.random((7, 9))
    mass /= mass.sum()
    rows, columns = rng.integers(0, 3, 7), rng.integers(0, 3, 9)
    rows[:3], columns[:3] = range(3), range(3)
    got = scores_of(mass, rows, columns)
    c = sum(mass[i, j] for i in range(7) for j in range(9) if rows[i] == columns[j])
    r = [mass[rows == label].sum() for label in range(3)]
    s = [mass[:, columns == label].sum() for label in range(3)]
    inside = [mass[np.ix_(rows == label, columns == label)].sum() for label in range(3)]
    assert got.c == pytest.approx(c)
    assert got.c_exp == pytest.approx(sum(a * b for a, b in zip(r, s, strict=True)))
    assert got.q_b == pytest.approx(got.c - got.c_exp)
    assert got.c_max == pytest.approx(sum(map(min, r, s)))
    assert got.c_adj == pytest.approx((got.c - got.c_exp) / (got.c_max - got.c_exp))
    assert got.ncut == pytest.approx(sum(1 - 2 * i / (a + b) for i, a, b in zip(inside, r, s, strict=True)))


def test_one_cluster_holds_everything() -> None:
    mass = np.full((4, 5), 1 / 20)
    got = scores_of(mass, np.zeros(4, dtype=int), np.zeros(5, dtype=int))
    assert (got.c, got.q_b, got.ncut) == pytest.approx((1.0, 0.0, 0.0))
    assert got.c_adj is None


def test_adjusted_rand_against_another_implementation() -> None:
    rng = np.random.default_rng(12)
    for _ in range(5):
        a, b = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
        assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))


def test_balanced_marginals_are_uniform_also_by_component() -> None:
    dense = np.random.default_rng(13).random((20, 33))
    got = balance(dense)
    assert got.mass.sum(axis=1) == pytest.approx(np.full(20, 1 / 20), rel=1e-7)
    assert got.mass.sum(axis=0) == pytest.approx(np.full(33, 1 / 33), rel=1e-7)
    split = np.zeros((6, 8))
    split[:2, :4], split[2:, 4:] = 1.0, 2.0
    # Components get the mean of their shares: (1/3 + 1/2) / 2.
    assert balance(split).mass[:2, :4].sum() == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_rank_scores_give_ties_their_mid_rank() -> None:
    values = np.array([[1.0, 1.0, 2.0], [3.0, 2.0, 2.0]])
    balanced = balance(values).mass.round(15)
    q = (rankdata(balanced) - 0.5) / 6
    assert rank_scores(values).ravel() == pytest.approx(norm.ppf(0.5 + q / 2) ** 2, abs=1e-9)
    constant = rank_scores(np.ones((3, 4)))
    assert constant == pytest.approx(np.full((3, 4), norm.ppf(0.75) ** 2))


def test_constant_matrix_is_no_error() -> None:
    found = cocluster(np.ones((16, 20)), 2, seed=0)
    assert scores(np.ones((16, 20)), found.rows, found.columns, "balanced").q_b == pytest.approx(0.0, abs=1e-9)


def test_tails_alone_do_not_cluster() -> None:
    # The null is of Gaussians; the scores of any continuous law are the same, so its Q must lie there too.
    rng = np.random.default_rng(14)
    gaussian, heavy = rng.standard_normal((96, 256)), rng.standard_t(3, size=(96, 256))
    a, b = (np.sort(rank_scores(w).ravel()) for w in (gaussian, heavy))
    assert a == pytest.approx(b)
    assert balanced_squares(heavy).mass.max() > 5 * balanced_squares(gaussian).mass.max()
    assert raw(heavy).max() > normal_scores(heavy).mass.max()


def test_kmeans_reaches_the_best_of_many_plain_runs() -> None:
    rng = np.random.default_rng(15)
    points = np.concatenate([rng.normal(centre, 0.3, size=(30, 2)) for centre in ((0, 0), (3, 0), (0, 3))])
    labels = kmeans(points, 3, np.random.default_rng(0))
    assert adjusted_rand(labels, np.repeat([0, 1, 2], 30)) == 1.0
