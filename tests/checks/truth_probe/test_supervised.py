"""Supervised ceilings: against independent implementations and the planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from checks.truth_probe import supervised
from checks.truth_probe.displacement import components, displacement
from checks.truth_probe.scores import auroc
from checks.truth_probe.supervised import (
    FOLDS,
    PENALTIES,
    class_weights,
    control_task_labels,
    fit_logistic,
    lr,
    mass_mean,
    rms,
    shuffled,
)
from tests.checks.truth_probe.section_ten import plant

rng = np.random.default_rng


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_sklearn(u: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Return the weights of a balanced logistic regression; their penalty is of the summed loss."""
    theirs = LogisticRegression(
        C=1 / (penalty * len(u)), fit_intercept=False, class_weight="balanced", tol=1e-10, max_iter=5000
    )
    return np.asarray(theirs.fit(u, labels).coef_[0])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_logistic_against_another_implementation(penalty: float) -> None:
    draw = rng(18)
    u = draw.standard_normal((120, 6))
    labels = (u[:, 0] + draw.standard_normal(120) > 0.8).astype(int)
    assert labels.mean() < 0.4
    assert fit_logistic(u, labels, penalty) == pytest.approx(by_sklearn(u, labels, penalty), abs=5e-3)


def test_the_rarer_class_weighs_as_much_as_the_other() -> None:
    labels = np.array([1] * 20 + [0] * 80)
    weights = class_weights(labels)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[labels == 1].sum() == pytest.approx(0.5)
    u = rng(0).standard_normal((100, 4)) + labels[:, None]
    # Every rare row four times over is the same fit without weights.
    rows = np.concatenate([np.tile(np.flatnonzero(labels == 1), 4), np.flatnonzero(labels == 0)])
    assert fit_logistic(u, labels, 0.1) == pytest.approx(fit_logistic(u[rows], labels[rows], 0.1), abs=1e-3)


@pytest.mark.parametrize("d", [20, 300])
def test_penalty_is_chosen_by_folds_of_whole_clusters(d: int) -> None:
    # The whole choice by other hands: folds of clusters, sklearn's fits and areas. Wide states go through their range.
    draw = rng(19)
    labels = draw.integers(0, 2, 120)
    cluster = np.arange(120) // 3
    u = draw.standard_normal((120, d)) * 7
    u[:, 0] += 5 * (2 * labels - 1)
    direction, penalty = lr(u, labels, cluster, rng(5))
    fold = (rng(5).permutation(40) % FOLDS)[cluster]
    scaled = u / rms(u)
    means = []
    for one in PENALTIES:
        held = [fold == number for number in range(FOLDS)]
        found = [roc_auc_score(labels[k], scaled[k] @ by_sklearn(scaled[~k], labels[~k], one)) for k in held]
        means.append(np.mean(found))
    assert means[PENALTIES.index(penalty)] == pytest.approx(max(means), abs=0.004)
    assert cos(direction.vector, by_sklearn(scaled, labels, penalty)) > 1 - 1e-4


def test_no_cluster_is_in_two_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    dealt: list[np.ndarray] = []

    def held_out(u: np.ndarray, labels: np.ndarray, fold: np.ndarray, penalty: float) -> list[float]:
        dealt.append(fold)
        return [0.5]

    monkeypatch.setattr(supervised, "_held_out", held_out)
    cluster = rng(0).permutation(np.repeat(np.arange(23), 4))
    lr(rng(1).standard_normal((92, 5)), rng(2).integers(0, 2, 92), cluster, rng(3))
    assert len(dealt) == len(PENALTIES)
    for fold in dealt:
        assert all(len(set(fold[cluster == one])) == 1 for one in range(23))
        assert sorted(set(fold)) == list(range(FOLDS))


def test_lr_does_not_depend_on_the_units_of_states() -> None:
    found = plant(2.0, seed=1, n=120, d=24)
    u = displacement(found.train)
    first, second = (lr(scale * u, found.truth, found.train.cluster, rng(0)) for scale in (1.0, 1e3))
    assert first[1] == second[1]
    assert first[0].vector == pytest.approx(second[0].vector, abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(90, 12), (40, 100)])
def test_tilted_mass_mean_against_the_definition(n: int, d: int) -> None:
    draw = rng(20)
    labels = draw.integers(0, 2, n)
    u = draw.standard_normal((n, d)) * np.linspace(0.3, 3, d) + labels[:, None] * draw.standard_normal(d)
    step = u[labels == 1].mean(axis=0) - u[labels == 0].mean(axis=0)
    assert cos(mass_mean(u, labels).vector, step) == pytest.approx(1.0)
    within = sum(np.cov(u[labels == side], rowvar=False, bias=True) * np.mean(labels == side) for side in (0, 1))
    expected = np.linalg.solve(within + 0.1 * np.mean(np.diag(within)) * np.eye(d), step)
    assert cos(mass_mean(u, labels, tilted=True).vector, expected) == pytest.approx(1.0, abs=1e-9)


def test_the_tilt_is_towards_the_linear_discriminant() -> None:
    draw = rng(21)
    labels = draw.integers(0, 2, 4000)
    mix = np.array([[3.0, 0.0], [2.5, 0.5]])
    u = draw.standard_normal((4000, 2)) @ mix.T + labels[:, None] * np.array([1.0, 0.0])
    other = LinearDiscriminantAnalysis(solver="lsqr").fit(u, labels).coef_[0]
    assert cos(mass_mean(u, labels, tilted=True).vector, other) > cos(mass_mean(u, labels).vector, other)


def test_batched_shuffles_are_fits_to_shuffled_labels() -> None:
    draw = rng(19)
    u = draw.standard_normal((150, 8))
    labels = (draw.random(150) < 0.3).astype(int)
    batch = shuffled(u, labels, 0.1, 5, rng(3))
    again = rng(3)
    for column in batch.T:
        assert cos(column, fit_logistic(u / rms(u), again.permutation(labels), 0.1)) > 0.999


def test_wide_shuffles_stay_in_the_leading_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "NARROW_MAX", 20)
    monkeypatch.setattr(supervised, "NARROW", 5)
    u = rng(22).standard_normal((60, 30)) * np.linspace(3, 0.1, 30)
    found = shuffled(u, rng(0).integers(0, 2, 60), 0.1, 4, rng(1))
    axes = components(u, 5)
    assert found == pytest.approx(axes @ (axes.T @ found))
    assert found.shape == (30, 4)


def test_shuffled_labels_carry_nothing() -> None:
    found = plant(4.0, seed=2, n=200, d=32)
    drawn = shuffled(displacement(found.train), found.truth, 0.1, 200, rng(0))
    areas = auroc(displacement(found.test) @ drawn, found.truth_test)
    assert areas.mean() == pytest.approx(0.5, abs=4 * areas.std() / np.sqrt(200))


def test_a_control_task_has_one_label_a_cluster() -> None:
    cluster = np.repeat(np.arange(30), 4)
    labels = control_task_labels(cluster, rng(0))
    assert (labels.reshape(30, 4) == labels[::4][:, None]).all()
    assert 0.2 < labels.mean() < 0.8
    assert all(set(control_task_labels(np.array([3, 3, 9]), rng(seed))) == {0, 1} for seed in range(20))
    assert len(set(control_task_labels(np.array([3, 3]), rng(0)))) == 1


def test_selectivity_tells_truth_from_the_name_of_a_cluster() -> None:
    # Clusters with an axis each: a probe reads any label of a cluster that it was fitted on, though it has no truth.
    draw = rng(23)
    cluster = np.repeat(np.arange(12), 20)
    u = 4.0 * np.eye(20)[cluster] + draw.standard_normal((240, 20))
    truth = draw.integers(0, 2, 240)
    control = control_task_labels(cluster, draw)
    first = np.arange(240) % 2 == 0
    area = {}
    for name, labels in (("truth", truth), ("control", control)):
        direction = lr(u[first], labels[first], np.arange(120), rng(0))[0]
        area[name] = float(auroc(direction.score(u[~first]), labels[~first]))
    assert area["control"] > 0.9
    assert area["truth"] - area["control"] < -0.3


def test_supervised_ceilings_find_the_plant() -> None:
    # Section 10: lr .994 or more at a 3 with a second feature of 6 beside it, which the label-free methods follow.
    found = plant(3.0, 6.0, seed=3)
    u = displacement(found.train)
    direction, penalty = lr(u, found.truth, found.train.cluster, rng(0))
    assert penalty in PENALTIES
    for one in (direction, mass_mean(u, found.truth, tilted=True)):
        assert float(auroc(one.score(displacement(found.test)), found.truth_test)) > 0.96
    assert float(auroc(direction.score(displacement(found.test)), found.truth_test)) > 0.98
