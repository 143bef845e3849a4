"""Nulls: random directions of each kind, broken pairs, Gaussian surrogates and what theory predicts of a plant."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ks_2samp

from checks.truth_probe.baselines import split_half, tpc
from checks.truth_probe.displacement import displacement, share, solve_md
from checks.truth_probe.nulls import (
    KINDS,
    best_of_sign,
    directions,
    effect_for,
    kappa,
    kappa_p,
    predicted_accuracy,
    predicted_auroc,
    predicted_cos,
    predicted_stability,
    repaired,
    saturated,
    surrogate_kappas,
    whitened_directions,
)
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import auroc
from tests.checks.truth_probe.planting import pairs_of
from tests.checks.truth_probe.section_ten import plant

rng = np.random.default_rng


def test_whitened_directions_whiten() -> None:
    draw = rng(21)
    stretch = np.array([10.0, 1.0, 1.0, 0.1])
    u = draw.standard_normal((2000, 4)) * stretch
    found = whitened_directions(u, draw)
    # Along whitened directions no axis of u dominates: scores of two are as good as uncorrelated on average.
    spread = np.square(found * stretch[:, None]).mean(axis=1)
    assert spread[0] < 1.5 * spread[1]
    assert (best_of_sign(u, draw.integers(0, 2, 2000), found) >= 0.5).all()


@pytest.mark.parametrize(("n", "d"), [(60, 12), (10, 25)])
def test_whitening_against_a_matrix_root(n: int, d: int) -> None:
    u = rng(22).standard_normal((n, d)) * np.linspace(0.2, 3, d)
    covariance = np.cov(u, rowvar=False)
    root = np.linalg.inv(np.real(sqrtm(covariance + 0.01 * np.trace(covariance) / d * np.eye(d))))
    expected = root @ rng(1).standard_normal((d, 20))
    assert directions("whitened", u, rng(1), 20) == pytest.approx(expected, abs=1e-8)


def test_span_directions_stay_in_the_span_and_isotropic_ones_do_not() -> None:
    u = rng(23).standard_normal((5, 12))
    outside = np.linalg.svd(u)[2][5:]
    assert np.abs(outside @ directions("span", u, rng(0), 50)).max() < 1e-9
    assert np.abs(outside @ directions("isotropic", u, rng(0), 50)).max() > 0.5
    assert {directions(kind, u, rng(0)).shape for kind in KINDS} == {(12, 1000)}


def test_a_layer_that_any_direction_reads_is_saturated() -> None:
    # Displacement along one axis only: isotropic directions all read it, so they are no gate (5.9).
    draw = rng(24)
    labels = draw.integers(0, 2, 300)
    axis = draw.standard_normal(64)
    u = (2 * labels - 1)[:, None] * axis + 0.02 * draw.standard_normal((300, 64))
    assert saturated(best_of_sign(u, labels, directions("isotropic", u, draw)))
    found = plant(4.0, seed=0)
    test = displacement(found.test)
    isotropic = best_of_sign(test, found.truth_test, directions("isotropic", displacement(found.train), draw))
    assert not saturated(isotropic)


@pytest.mark.parametrize("a", [4.0, 2.0, 0.0])
def test_whitened_directions_reach_what_the_table_says(a: float) -> None:
    # Section 10: p95 about .6 / .58 / .56.
    found = plant(a, seed=1)
    drawn = directions("whitened", displacement(found.train), rng(0))
    p95 = np.percentile(best_of_sign(displacement(found.test), found.truth_test, drawn), 95)
    assert p95 == pytest.approx({4.0: 0.6, 2.0: 0.58, 0.0: 0.56}[a], abs=0.02)


def test_broken_pairs_have_no_displacement_of_their_own() -> None:
    shares = []
    for seed in range(4):
        found = plant(4.0, seed=seed)
        assert share(found.test, solve_md(found.train, 0.1).vector) > 0.8
        train, test = repaired(found.train, rng(seed)), repaired(found.test, rng(seed + 9))
        shares.append(share(test, solve_md(train, 0.1).vector))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)


def test_broken_pairs_stay_in_their_template() -> None:
    template = np.arange(40) % 3
    neg = np.stack([template, np.arange(40)], axis=1).astype(float)
    pairs = PairActivations(np.zeros((40, 2)), neg, template, np.arange(40))
    broken = repaired(pairs, rng(0))
    assert (broken.neg[:, 0] == template).all()
    assert sorted(broken.neg[:, 1]) == list(range(40))
    assert (broken.neg[:, 1] != np.arange(40)).mean() > 0.7


def test_kappa_is_one_for_two_points_and_two_over_pi_for_a_bell() -> None:
    assert kappa(np.array([3.0, -3.0, 3.0])) == pytest.approx(1.0)
    assert kappa(rng(25).standard_normal(200_000)) == pytest.approx(2 / np.pi, abs=0.003)
    assert kappa(np.zeros(5)) == 1.0


def test_surrogate_kappas_are_those_of_the_long_way_round() -> None:
    # Displacements of an uneven covariance, the leading axis fitted again each time, kappa on held-out rows.
    draw = rng(26)
    root = np.diag(np.linspace(0.1, 5, 12)) @ np.linalg.qr(draw.standard_normal((12, 12)))[0]
    long = []
    for _ in range(400):
        u = draw.standard_normal((80, 12)) @ root
        axis = np.linalg.svd(u[:40] - u[:40].mean(axis=0))[2][0]
        long.append(kappa(u[40:] @ axis))
    assert ks_2samp(long, surrogate_kappas(40, draw, 400)).pvalue > 0.01
    # Not the law of another number of pairs: the comparison can tell.
    assert ks_2samp(long, surrogate_kappas(160, draw, 400)).pvalue < 1e-6


def test_surrogate_kappas_have_the_measured_mean_and_tail() -> None:
    null = surrogate_kappas(400, rng(27), 4000)
    assert null.mean() == pytest.approx(0.636, abs=0.003)
    assert np.percentile(null, 95) == pytest.approx(0.66, abs=0.007)
    assert len(surrogate_kappas(400, rng(27))) == 200
    assert kappa_p(1.0, null) == pytest.approx(1 / 4001)
    assert kappa_p(0.0, null) == 1.0


def test_real_kappas_rise_with_the_plant() -> None:
    # Section 5.9: .64 / .70 / .80 / .88 at a = 0 / 2 / 3 / 4.
    for a, expected in ((0.0, 0.64), (2.0, 0.70), (3.0, 0.80), (4.0, 0.88)):
        drawn = [plant(a, seed=seed) for seed in range(4)]
        told = [kappa(displacement(one.test) @ tpc(one.train).vector) for one in drawn]
        assert np.mean(told) == pytest.approx(expected, abs=0.03)


def test_spiked_prediction_matches_the_table() -> None:
    # Section 8: d 256, n 400: e 2.12 -> .997 / cos of halves .73; e 1.41 -> .945 / .41; d 1024, n 600: .966 / .31.
    assert predicted_auroc(2.12, 400, 256) == pytest.approx(0.997, abs=0.002)
    assert predicted_auroc(1.41, 400, 256) == pytest.approx(0.945, abs=0.003)
    assert predicted_auroc(1.77, 600, 1024) == pytest.approx(0.966, abs=0.002)
    assert predicted_stability(2.12, 400, 256) == pytest.approx(0.73, abs=0.01)
    assert predicted_stability(1.41, 400, 256) == pytest.approx(0.41, abs=0.01)
    assert predicted_stability(1.77, 600, 1024) == pytest.approx(0.31, abs=0.01)
    assert predicted_cos(0.5, 100, 400) == 0.0
    assert predicted_auroc(effect_for(0.97, 400, 64), 400, 64) == pytest.approx(0.97)


@pytest.mark.parametrize(("n", "d", "effect"), [(400, 256, 2.12), (400, 256, 1.41), (600, 1024, 1.77)])
def test_plants_reach_what_is_predicted(n: int, d: int, effect: float) -> None:
    told = []
    for seed in range(3):
        draw = rng([28, seed])
        axis = draw.standard_normal(d)
        axis /= np.linalg.norm(axis)
        labels = draw.integers(0, 2, 2 * n)
        u = effect * (2 * labels - 1)[:, None] * axis + draw.standard_normal((2 * n, d))
        train = pairs_of(u[:n] / 2, -u[:n] / 2)
        theta = tpc(train).vector
        area = float(auroc(u[n:] @ theta, labels[n:]))
        right = float(np.mean((u[n:] @ theta > 0) == labels[n:]))
        halved = split_half(lambda rows, of=train: tpc(of.take(rows)), train.cluster, draw)  # type: ignore[misc]
        told.append([max(area, 1 - area), max(right, 1 - right), abs(theta @ axis), halved.mean()])
    area, right, cos, halved = np.mean(told, axis=0)
    assert area == pytest.approx(predicted_auroc(effect, n, d), abs=0.04)
    assert right == pytest.approx(predicted_accuracy(effect, n, d), abs=0.04)
    assert cos == pytest.approx(predicted_cos(effect, n, d), abs=0.04)
    assert halved == pytest.approx(predicted_stability(effect, n, d), abs=0.06)
