"""One test for each flaw of a peer's that centring, closed forms and scores could share. Specification: section 9."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from checks.truth_probe import baselines, displacement, normaliser
from checks.truth_probe.baselines import tpc
from checks.truth_probe.displacement import PATH, choose_lambda, components, lambda_path, solve_md
from checks.truth_probe.normaliser import Normaliser
from checks.truth_probe.orientation import orient
from checks.truth_probe.pairs import PairActivations
from checks.truth_probe.scores import accuracy_interval, auroc
from tests.checks.truth_probe.planting import pairs_of
from tests.checks.truth_probe.section_ten import plant

rng = np.random.default_rng
u_of = displacement.displacement


def test_normaliser_never_sees_test() -> None:
    """collin-burns/discovering_latent_knowledge centres test states by their own mean."""
    draw = rng(11)
    train = pairs_of(draw.standard_normal((40, 5)) + 3, draw.standard_normal((40, 5)))
    far = pairs_of(draw.standard_normal((10, 5)) + 100, draw.standard_normal((10, 5)))
    fitted = Normaliser.fit(train)
    before = fitted.digest()
    assert fitted.apply(far).pos.mean() > 90
    assert np.abs(fitted.apply(train).pos.mean(axis=0)).max() < 1e-12
    # Other test states change no number of train's and no score of a row that stayed.
    assert fitted.apply(far.take(np.arange(3))).pos == pytest.approx(fitted.apply(far).pos[:3])
    assert fitted.digest() == before


def test_per_template_statistics() -> None:
    """EleutherAI/elk (PR 242) took one mean over all templates, so that wording was the largest axis."""
    draw = rng(12)
    template = np.repeat([0, 1, 2], [20, 20, 4])
    pos, neg = draw.standard_normal((2, 44, 3)) + np.array([10, -4])[:, None, None] * template[:, None]
    pairs = PairActivations(pos, neg, template, np.arange(44))
    centred = Normaliser.fit(pairs).apply(pairs)
    for name in (0, 1):
        for branch in (centred.pos, centred.neg):
            assert np.abs(branch[template == name].mean(axis=0)).max() < 1e-9
    # Four pairs are too few for statistics of their own: they take the branch's mean, and are named.
    assert Normaliser.fit(pairs).thin == (2,)
    assert centred.pos[template == 2] == pytest.approx(pos[template == 2] - pos.mean(axis=0))


def test_eval_is_normalised() -> None:
    """EleutherAI/elk (PR 232) evaluated on raw states what was fitted on normalised ones."""
    found = plant(3.0, seed=0, n=200, d=24)
    pos, neg = found.test.pos + 50.0, found.test.neg - 50.0
    moved = Normaliser.fit(replace(found.train, pos=found.train.pos + 50.0, neg=found.train.neg - 50.0))
    seen = moved.apply(replace(found.test, pos=pos, neg=neg))
    theta = tpc(found.train).vector
    # The branches' constant, which is no truth, is gone from test scores too, and with it the lopsided accuracy.
    assert u_of(seen) @ theta == pytest.approx(u_of(found.test) @ theta, abs=1e-6)
    assert 0.3 < np.mean(u_of(seen) @ theta > 0) < 0.7


def test_train_and_eval_share_statistics() -> None:
    """Cadenza-Labs/cluster-normalization fits its statistics once on train and once more on evaluation states."""
    train = plant(3.0, seed=1, n=200, d=24).train
    fitted = {mode: Normaliser.fit(train, mode=mode) for mode in ("mean", "scale", "zscore")}
    row = train.take(np.arange(200) == 7)
    for one in fitted.values():
        among = one.apply(train).pos[7]
        assert one.apply(row).pos[0] == pytest.approx(among)
        assert one.apply(replace(train, pos=np.where(np.arange(200)[:, None] == 7, train.pos, 1e3))).pos[
            7
        ] == pytest.approx(among)


def test_single_test_item_keeps_its_score() -> None:
    """collin-burns/discovering_latent_knowledge centres a set of one by itself: every score is zero."""
    pairs = plant(3.0, seed=2, n=100, d=24).train
    one = pairs_of(np.full((1, 24), 2.0), np.full((1, 24), -2.0))
    assert np.abs(u_of(Normaliser.fit(pairs).apply(one))).min() > 1


def test_lambda_needs_no_labels() -> None:
    """The authors of midpoint-displacement choose lambda by train accuracy against labels."""
    for module in (displacement, baselines, normaliser):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            assert not {"labels", "label", "y", "truth"} & set(inspect.signature(function).parameters), name
    pairs = plant(2.0, seed=3, n=200, d=24).train
    first, second = (lambda_path(pairs, rng(0)) for _ in range(2))
    assert first == second
    assert choose_lambda(first) in [row.lam for row in first if not row.past_crossing]


def test_pca_maximises_variance() -> None:
    """ash-ai-safety-hub/g3-nandi takes the axis of least variance: accuracy .51."""
    found = plant(4.0, seed=4, n=200, d=24)
    u = u_of(found.train)
    top = np.mean((u @ tpc(found.train).vector) ** 2)
    for other in (*np.eye(24), *rng(0).standard_normal((20, 24))):
        assert top >= np.mean((u @ other) ** 2) / (other @ other)
    spread = np.square(u @ components(u, 3)).sum(axis=0)
    assert spread[0] >= spread[1] >= spread[2]
    least = np.linalg.svd(u)[2][-1]
    assert found.area(tpc(found.train).vector) > 0.97
    assert found.area(least) < 0.65
    assert np.mean((u @ solve_md(found.train, PATH[0]).vector) ** 2) == pytest.approx(top)


def test_labels_and_scores_not_swapped() -> None:
    """EleutherAI/elk (PR 194) handed predictions where labels belong, and the reverse."""
    labels = np.array([0, 0, 0, 1])
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    assert float(auroc(scores, labels)) == 1.0
    assert float(auroc(-scores, labels)) == 0.0
    # The roles are not alike: labels ranked as scores against thresholded scores give another number.
    assert float(auroc(labels.astype(float), (scores > 0.5).astype(int))) == 0.75


def test_constant_scores_are_half() -> None:
    """EleutherAI/elk gives 1.0 or 0.0 where every score is the same."""
    labels = np.array([1] * 30 + [0] * 70)
    for order in (np.arange(100), rng(0).permutation(100)):
        assert float(auroc(np.zeros(100), labels[order])) == 0.5
    assert accuracy_interval(np.zeros(100), labels, np.arange(100), 0.95, 50, rng(0)).value == 0.5


def test_threshold_at_base_rate_20_percent() -> None:
    """EleutherAI/elk cuts at quantile(base rate): at 20 % true its accuracy is .40, right is .97."""
    draw = rng(13)
    truth = (draw.random(1000) < 0.2).astype(int)
    t = 2.0 * truth - 1
    noise = draw.standard_normal((2, 1000, 16))
    half = 3.5 * t[:, None] * np.eye(16)[0]
    whole = pairs_of(half + noise[0], noise[1] - half)
    first = np.arange(1000) < 500
    fitted = Normaliser.fit(whole.take(first))
    train, test = (fitted.apply(whole.take(rows)) for rows in (first, ~first))
    theta = solve_md(train, 0.1).vector
    theta = theta * orient(theta, u_of(train), truth[first]).sign
    scores, right = u_of(test) @ theta, truth[~first]
    assert accuracy_interval(scores, right, test.cluster, 0.95, 200, draw).value == pytest.approx(0.97, abs=0.03)
    peers = np.mean((scores > np.quantile(scores, 0.2)) == right)
    assert peers == pytest.approx(0.40, abs=0.05)
