"""CCS: tests named after peers' flaws."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from checks.truth_probe.ccs import Mode, ccs_restarts, dispersion
from checks.truth_probe.ccs_loss import CONSTANT_LOSS, loss_and_gradient, with_ones
from checks.truth_probe.ccs_spread import mean_cos
from checks.truth_probe.displacement import displacement
from checks.truth_probe.pairs import PairActivations
from tests.checks.truth_probe.ccs_cases import MODES, fitted, pair_loss, planted


@pytest.mark.parametrize("mode", MODES)
def test_nan_restart_is_dropped_and_named(mode: Mode) -> None:
    train, test, labels = planted(60, 8, 3.0, 19)
    theta = np.random.default_rng(19).standard_normal((5, 8)) / 3
    theta[1, 2], theta[3, 0] = np.nan, np.inf
    fit = ccs_restarts(train, mode, subspace_k=8, rng=np.random.default_rng(0), init=(theta, np.zeros(5)))
    assert fit.dropped == (1, 3)
    assert "restart_dropped" in fit.flags
    assert "restart_dropped" in fit.direction.flags
    assert len(fit.vectors) == len(fit.offsets) == len(fit.train_loss) == 3
    assert np.isfinite(fit.vectors).all()
    assert np.isfinite(dispersion(fit, test, labels).auroc_best_of_sign).all()
    with pytest.raises(ValueError, match="none of 5 restarts"):
        ccs_restarts(train, mode, subspace_k=8, rng=np.random.default_rng(0), init=(theta * np.nan, np.zeros(5)))


@pytest.mark.parametrize("mode", MODES)
def test_linear_is_the_default(mode: Mode) -> None:
    train, test, _ = planted(60, 8, 3.0, 20)
    fit = fitted(train, mode, k=8)
    assert fit.vectors.shape == (10, 8)
    # The logit of every restart's answer is an affine function of the state.
    p, q = fit.answers(test)
    middle = PairActivations((test.pos + test.neg) / 2, test.neg, test.template, test.cluster)
    logit = [np.log(answer) - np.log1p(-answer) for answer in (p, q, fit.answers(middle)[0])]
    np.testing.assert_allclose(logit[2], (logit[0] + logit[1]) / 2, atol=1e-6)


def test_more_than_one_restart() -> None:
    train, _, _ = planted(100, 32, 1.0, 21)
    for mode in MODES:
        fit = fitted(train, mode, k=16)
        assert len(fit.vectors) == 10
        assert mean_cos(fit.vectors) < 0.999
    for too_few in (1, 2):
        with pytest.raises(ValueError, match="restarts"):
            fitted(train, restarts=too_few)
    with pytest.raises(ValueError, match="restarts"):
        ccs_restarts(train, "lbfgs", rng=np.random.default_rng(0), init=(np.ones((1, 32)), np.zeros(1)))


@pytest.mark.parametrize("mode", MODES)
def test_fit_takes_pairs_unflattened(mode: Mode) -> None:
    train, _, _ = planted(100, 16, 3.0, 22)
    fit = fitted(train, mode, k=16)
    # The loss that is minimised belongs to the pairs: with partners exchanged it is another.
    paired = pair_loss(
        fit.direction.vector * fit.gains[fit.chosen], fit.direction.offset * fit.gains[fit.chosen], train
    )
    assert fit.train_loss[fit.chosen] == pytest.approx(paired, rel=1e-5)
    strangers = PairActivations(train.pos, np.roll(train.neg, 1, axis=0), train.template, train.cluster)
    assert fit.losses(strangers)[fit.chosen] > paired + 0.02
    texts = np.stack([train.pos, train.neg], axis=1)
    with pytest.raises(ValueError, match="two branches"):
        fitted(PairActivations(texts, texts, train.template, train.cluster), mode)
    with pytest.raises(ValueError, match="two branches"):
        fitted(PairActivations(train.pos, train.neg[:-1], train.template, train.cluster), mode)


@pytest.mark.parametrize("n", [1, 7, 64, 67])
def test_last_partial_batch_counts(n: int) -> None:
    train, _, _ = planted(67, 6, 2.0, 23)
    weights = np.random.default_rng(23).standard_normal((3, 7))
    loss, gradient = loss_and_gradient(weights, with_ones(train.pos[:n], train.neg[:n]))
    each = [loss_and_gradient(weights, with_ones(train.pos[i : i + 1], train.neg[i : i + 1])) for i in range(n)]
    np.testing.assert_allclose(loss, np.mean([one[0] for one in each], axis=0), rtol=1e-10)
    np.testing.assert_allclose(gradient, np.mean([one[1] for one in each], axis=0), atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_train_and_eval_share_statistics(mode: Mode) -> None:
    # Statistics of train alone: its pairs, scored as if they were test, have the loss that training ended with, and
    # a test set's own shift is not taken away.
    train, test, labels = planted(80, 10, 3.0, 24)
    fit = fitted(train, mode, k=10)
    np.testing.assert_allclose(fit.losses(train), fit.train_loss, rtol=1e-9)
    alone = fit.losses(test.take(np.arange(5)))
    np.testing.assert_allclose(
        alone,
        [
            pair_loss(v * g, o * g, test.take(np.arange(5)))
            for v, g, o in zip(fit.vectors, fit.gains, fit.offsets, strict=True)
        ],
        rtol=1e-9,
    )
    moved = PairActivations(
        test.pos + 3 * fit.direction.vector, test.neg + 3 * fit.direction.vector, test.template, test.cluster
    )
    assert dispersion(fit, moved, labels).test_loss[fit.chosen] > dispersion(fit, test, labels).test_loss[fit.chosen]


def test_flip_negates_bias() -> None:
    train, test, _ = planted(80, 10, 3.0, 25)
    direction = fitted(train, "lbfgs").direction
    assert direction.offset != 0
    flipped = direction.flipped()
    assert flipped.offset == -direction.offset
    np.testing.assert_array_equal(
        test.pos @ flipped.vector + flipped.offset, -(test.pos @ direction.vector + direction.offset)
    )
    np.testing.assert_array_equal(flipped.score(displacement(test)), -direction.score(displacement(test)))


def test_runs_without_cuda() -> None:
    # No GPU is looked for: torch is not even imported.
    program = (
        "import sys, numpy as np\n"
        "from checks.truth_probe.ccs import ccs_restarts\n"
        "from checks.truth_probe.pairs import PairActivations\n"
        "rng = np.random.default_rng(0)\n"
        "pairs = PairActivations(*rng.standard_normal((2, 40, 6)), np.zeros(40, int), np.arange(40))\n"
        "for mode in ('parity', 'lbfgs', 'subspace'):\n"
        "    assert np.isfinite(ccs_restarts(pairs, mode, restarts=3, subspace_k=4, rng=rng).vectors).all()\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("mode", MODES)
def test_high_loss_is_reported_not_raised(mode: Mode) -> None:
    # Noise, and more width than pairs: train loss falls, test loss stays at the constant probe's or above.
    train, test, labels = planted(40, 120, 0.0, 26)
    spread = dispersion(fitted(train, mode, k=40), test, labels)
    assert spread.train_loss.max() < 0.1
    assert spread.test_loss_median > 0.2
    # Pairs whose texts are told apart by nothing: no probe does better than the constant one.
    same = PairActivations(train.pos, train.pos.copy(), train.template, train.cluster)
    useless = dispersion(fitted(same, "parity" if mode == "subspace" else mode), same, labels)
    assert useless.test_loss_median == pytest.approx(CONSTANT_LOSS, abs=0.06)
    assert useless.one_sided.min() == 1.0


def test_pair_score_uses_both_branches() -> None:
    train, test, labels = planted(150, 16, 4.0, 27)
    fit = fitted(train, k=16)
    u = displacement(test)
    z = fit.vectors @ test.pos.T - fit.vectors @ test.neg.T
    np.testing.assert_allclose(fit.direction.score(u), z[fit.chosen], atol=1e-9)
    # Content that both texts of a pair share moves one branch's score and leaves the pair's.
    shared = 30 * np.random.default_rng(27).standard_normal((len(test), 1)) * fit.direction.vector
    moved = PairActivations(test.pos + shared, test.neg + shared, test.template, test.cluster)
    np.testing.assert_allclose(fit.direction.score(displacement(moved)), fit.direction.score(u), atol=1e-9)
    areas = dispersion(fit, moved, labels).auroc_best_of_sign
    np.testing.assert_allclose(areas, dispersion(fit, test, labels).auroc_best_of_sign, atol=1e-9)
    one_branch = moved.pos @ fit.direction.vector
    assert max(roc_auc_score(labels, one_branch), 1 - roc_auc_score(labels, one_branch)) < areas[fit.chosen] - 0.2


def test_modes_and_presets_that_do_not_exist_are_refused() -> None:
    train, _, _ = planted(20, 6, 2.0, 28)
    with pytest.raises(ValueError, match="mode newton"):
        ccs_restarts(train, "newton", rng=np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="preset paper"):
        ccs_restarts(train, "lbfgs", rng=np.random.default_rng(0), preset="paper")
