"""Closed forms, scores and sign: against independent implementations, and named after peers' flaws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test
from sklearn.metrics import roc_auc_score

from checks.truth_probe.displacement import (
    PathRow,
    choose_lambda,
    components,
    displacement,
    lambda0,
    lambda_path,
    loss,
    moments,
    solve_md,
    stability,
)
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.orientation import orient
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import accuracy_interval, auroc, auroc_interval, flip_p
from tests.checks.truth_probe.planting import pairs_of, planted_states


def normalised(n: int, d: int, a: float, seed: int) -> tuple[PairActivations, np.ndarray]:
    pos, neg, labels = planted_states(n, d, a, np.random.default_rng(seed))
    pairs = pairs_of(pos, neg)
    return Normaliser.fit(pairs).apply(pairs), labels


def test_lambda_zero_is_the_top_axis_of_displacement() -> None:
    pairs, _ = normalised(200, 24, 2.0, 0)
    u = displacement(pairs)
    top = np.linalg.svd(u)[2][0]
    assert abs(top @ solve_md(pairs, 0.0).vector) == pytest.approx(1.0, abs=1e-9)


def test_lambda_one_half_is_the_cross_moment() -> None:
    # VINC without its template term: the top eigenvector of -(X+'X- + X-'X+).
    pairs, _ = normalised(200, 24, 2.0, 1)
    cross = pairs.pos.T @ pairs.neg
    top = np.linalg.eigh(-(cross + cross.T))[1][:, -1]
    assert abs(top @ solve_md(pairs, 0.5).vector) == pytest.approx(1.0, abs=1e-9)


def test_conventions_of_the_midpoint_agree() -> None:
    pairs, _ = normalised(200, 24, 1.0, 2)
    # lambda of the authors' code .9 is .692 here.
    a, b = solve_md(pairs, 0.9, convention="mean").vector, solve_md(pairs, 9 / 13, convention="sum").vector
    assert abs(a @ b) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 0.9])
def test_no_descent_finds_a_lower_loss(lam: float) -> None:
    pairs, _ = normalised(150, 12, 1.5, 3)
    best = loss(pairs, solve_md(pairs, lam).vector, lam)
    u, v = displacement(pairs), pairs.pos + pairs.neg
    a = lam * v.T @ v / len(v) - (1 - lam) * u.T @ u / len(u)
    for seed in range(5):
        theta = np.random.default_rng(seed).standard_normal(12)
        for _ in range(2000):
            theta = theta - 0.02 * a @ theta
            theta /= np.linalg.norm(theta)
        found = loss(pairs, theta, lam)
        assert best <= found + 1e-9
        # Descent gets there too: the closed form is not merely some low number.
        assert found == pytest.approx(best, abs=0.05 * abs(best))


def test_width_above_pairs_is_solved_in_the_range() -> None:
    # d > 2n: the Gram route must give the direction of the dense route.
    pairs, _ = normalised(20, 60, 3.0, 4)
    assert len(moments(pairs).d) == 40
    u, v = displacement(pairs), pairs.pos + pairs.neg
    for lam in (0.0, 0.3):
        whole = np.linalg.eigh(lam * v.T @ v / len(v) - (1 - lam) * u.T @ u / len(u))[1][:, 0]
        assert abs(whole @ solve_md(pairs, lam).vector) == pytest.approx(1.0, abs=1e-8)


def test_very_wide_states_are_flagged_restricted() -> None:
    rng = np.random.default_rng(5)
    pos, neg, _ = planted_states(900, 1600, 4.0, rng)
    direction = solve_md(pairs_of(pos - pos.mean(axis=0), neg - neg.mean(axis=0)), 0.1)
    assert direction.flags == ("restricted",)
    assert np.linalg.norm(direction.vector) == pytest.approx(1.0)


def test_lambda_out_of_range_is_refused() -> None:
    pairs, _ = normalised(50, 8, 1.0, 6)
    with pytest.raises(ValueError, match="lambda 1"):
        solve_md(pairs, 1.0)


def test_pca_maximises_variance() -> None:
    # A peer took the axis of least variance.
    pairs, _ = normalised(200, 24, 2.0, 7)
    u = displacement(pairs)
    axes = components(u, 3)
    spread = np.square(u @ axes).sum(axis=0)
    assert spread[0] >= spread[1] >= spread[2] >= np.square(u).sum() / 24
    wide = components(u[:10], 3)
    assert abs(np.linalg.svd(u[:10])[2][0] @ wide[:, 0]) == pytest.approx(1.0, abs=1e-9)


def test_lambda_needs_no_labels() -> None:
    # No function that fits, weighs or judges stability takes labels, and the path repeats for the same draw.
    pairs, _ = normalised(200, 24, 2.0, 8)
    first, second = (lambda_path(pairs, np.random.default_rng(0)) for _ in range(2))
    assert first == second
    assert choose_lambda(first) in [row.lam for row in first if not row.past_crossing]


def test_past_the_crossing_is_never_chosen() -> None:
    path = (PathRow(0.0, 0.5, False), PathRow(0.5, 0.505, False), PathRow(0.9, 0.99, True))
    assert choose_lambda(path) == 0.0
    assert choose_lambda((PathRow(0.0, 0.1, True),)) == 0.0


def test_lambda0_is_where_the_smallest_eigenvalue_crosses_zero() -> None:
    pairs, _ = normalised(4000, 24, 4.0, 9)
    lam = lambda0(pairs)
    of = moments(pairs)
    ridge = 0.1 * np.trace(of.m) / 24 * np.eye(24)
    least = np.linalg.eigvalsh(lam * (of.m + ridge) - (1 - lam) * of.d)[0]
    assert least == pytest.approx(0.0, abs=1e-8)


def test_stability_is_high_for_a_plant_and_low_for_noise() -> None:
    draws = [float(stability(normalised(400, 64, a, 10)[0], 0.1, np.random.default_rng(0)).mean()) for a in (4.0, 0.0)]
    assert draws[0] > 0.9
    assert draws[1] < 0.3


def test_halves_never_share_a_cluster() -> None:
    from checks.truth_probe.displacement import halves

    cluster = np.repeat(np.arange(11), 3)
    for left, right in halves(cluster, np.random.default_rng(0)):
        assert not set(cluster[left]) & set(cluster[right])
        assert (left ^ right).all()


def test_normaliser_never_sees_test() -> None:
    rng = np.random.default_rng(11)
    train = pairs_of(rng.standard_normal((40, 5)) + 3, rng.standard_normal((40, 5)))
    far = pairs_of(rng.standard_normal((10, 5)) + 100, rng.standard_normal((10, 5)))
    applied = Normaliser.fit(train).apply(far)
    assert applied.pos.mean() > 90
    assert np.abs(Normaliser.fit(train).apply(train).pos.mean(axis=0)).max() < 1e-12


def test_per_template_statistics() -> None:
    rng = np.random.default_rng(12)
    template = np.repeat([0, 1, 2], [20, 20, 4])
    pos, neg = rng.standard_normal((44, 3)) + 10 * template[:, None], rng.standard_normal((44, 3))
    pairs = PairActivations(pos, neg, template, np.arange(44))
    centred = Normaliser.fit(pairs).apply(pairs)
    for name in (0, 1):
        assert np.abs(centred.pos[template == name].mean(axis=0)).max() < 1e-9
    # Four pairs are too few for statistics of their own: they take the branch's mean.
    assert centred.pos[template == 2].mean() == pytest.approx((pos[template == 2] - pos.mean(axis=0)).mean())


def test_single_test_item_keeps_its_score() -> None:
    # Centring a set of one by its own mean would give zero.
    pairs, _ = normalised(100, 8, 3.0, 13)
    one = pairs_of(np.full((1, 8), 2.0), np.full((1, 8), -2.0))
    assert np.abs(displacement(Normaliser.fit(pairs).apply(one))).min() > 1


def test_constant_scores_are_half() -> None:
    labels = np.array([1] * 30 + [0] * 70)
    assert float(auroc(np.zeros(100), labels)) == 0.5


def test_auroc_against_another_implementation() -> None:
    rng = np.random.default_rng(14)
    labels = rng.integers(0, 2, 200)
    scores = np.round(rng.standard_normal((200, 3)), 1)  # with ties
    assert auroc(scores, labels) == pytest.approx([roc_auc_score(labels, column) for column in scores.T])


def test_labels_and_scores_not_swapped() -> None:
    labels = np.array([0, 0, 1, 1])
    assert float(auroc(np.array([0.1, 0.2, 0.8, 0.9]), labels)) == 1.0
    assert float(auroc(np.array([0.9, 0.8, 0.2, 0.1]), labels)) == 0.0


def test_the_interval_covers_and_clusters_widen_it() -> None:
    rng = np.random.default_rng(15)
    covered = 0
    for _ in range(60):
        labels = rng.integers(0, 2, 150)
        got = auroc_interval(labels + rng.standard_normal(150), labels, np.arange(150), 0.95, 300, rng)
        covered += got.low <= 0.7602 <= got.high  # Phi(1 / sqrt 2)
    assert covered >= 51  # fewer happen once in a thousand at 95 %
    labels = np.repeat(rng.integers(0, 2, 30), 10)
    scores = np.repeat(rng.standard_normal(30), 10) + labels + 0.1 * rng.standard_normal(300)
    apart, together = (
        auroc_interval(scores, labels, cluster, 0.95, 500, rng) for cluster in (np.arange(300), np.arange(300) // 10)
    )
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_perfect_separation_claims_no_certainty() -> None:
    labels = np.repeat([0, 1], 50)
    got = auroc_interval(labels.astype(float), labels, np.arange(100), 0.95, 200, np.random.default_rng(0))
    assert got.value == 1.0
    assert got.low < 0.99


def test_accuracy_is_at_zero_and_ties_count_half() -> None:
    scores, labels = np.array([1.0, -1.0, 0.0, 2.0]), np.array([1, 0, 1, 0])
    got = accuracy_interval(scores, labels, np.arange(4), 0.95, 200, np.random.default_rng(0))
    assert got.value == pytest.approx(2.5 / 4)


def test_flip_p_against_another_implementation() -> None:
    rng = np.random.default_rng(16)
    labels = rng.integers(0, 2, 12)
    scores = 0.6 * labels + rng.standard_normal(12)
    signs = np.where(labels == 1, 1, -1)

    def gap(flipped: np.ndarray) -> float:
        y = (flipped > 0).astype(int)
        return np.inf if len(set(y)) < 2 else abs(float(auroc(scores, y)) - 0.5)

    exact = permutation_test(
        (signs,), gap, permutation_type="samples", alternative="greater", n_resamples=np.inf
    ).pvalue
    assert flip_p(scores, labels, np.arange(12), 20000, rng) == pytest.approx(exact, abs=0.02)


def test_flip_p_is_level_on_noise_and_never_zero() -> None:
    rng = np.random.default_rng(17)
    p = []
    for _ in range(120):
        labels = np.repeat(rng.integers(0, 2, 30), 4)
        scores = np.repeat(rng.standard_normal(30), 4)  # noise shared by a cluster, as labels are
        p.append(flip_p(scores, labels, np.arange(120) // 4, 300, rng))
    assert np.mean(np.array(p) <= 0.05) < 0.13
    labels = rng.integers(0, 2, 100)
    assert flip_p(labels.astype(float), labels, np.arange(100), 300, rng) == pytest.approx(1 / 301)


def test_sign_is_fixed_only_where_anchors_agree() -> None:
    direction = np.array([1.0, 0.0])
    labels = np.array([1] * 16 + [0] * 16)
    for right, sign, resolved in ((32, 1, True), (23, 1, True), (22, 1, False), (10, 1, False), (9, -1, True)):
        side = np.where(labels == 1, 1.0, -1.0)
        side[right:] *= -1
        got = orient(direction, np.stack([side, np.zeros(32)], axis=1), labels)
        assert (got.right, got.sign, got.resolved) == (right, sign, resolved)
        assert got.p == pytest.approx(binomtest(right, 32).pvalue)
