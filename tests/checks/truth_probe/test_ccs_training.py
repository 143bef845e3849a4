"""Training of CCS: its loss, AdamW and L-BFGS against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, rosen, rosen_der

from checks.truth_probe.ccs import Mode, ccs_restarts, mean_scale, stack_range
from checks.truth_probe.ccs_adamw import PRESETS, adamw, starts
from checks.truth_probe.ccs_lbfgs import minimise
from checks.truth_probe.ccs_loss import CONSTANT_LOSS, loss_and_gradient, with_ones
from checks.truth_probe.pairs import PairActivations
from tests.checks.truth_probe.ccs_cases import MODES, fitted, pair_loss, planted
from tests.checks.truth_probe.planting import pairs_of


def test_gradient_is_that_of_finite_differences() -> None:
    train, _, _ = planted(30, 7, 2.0, 0)
    rng = np.random.default_rng(1)
    weights, stack, step = rng.standard_normal((4, 8)), with_ones(train.pos, train.neg), 1e-5
    gradient = loss_and_gradient(weights, stack)[1]
    for column in range(8):
        moved = np.zeros_like(weights)
        moved[:, column] = step
        rise = loss_and_gradient(weights + moved, stack)[0] - loss_and_gradient(weights - moved, stack)[0]
        np.testing.assert_allclose(gradient[:, column], rise / (2 * step), atol=1e-6)


def test_loss_is_that_of_the_paper_pair_by_pair() -> None:
    train, _, _ = planted(25, 6, 2.0, 1)
    weights = np.random.default_rng(2).standard_normal((5, 7))
    loss = loss_and_gradient(weights, with_ones(train.pos, train.neg))[0]
    np.testing.assert_allclose(loss, [pair_loss(w[:-1], w[-1], train) for w in weights], rtol=1e-12)


def test_probe_that_answers_one_half_has_the_constant_loss() -> None:
    train, _, _ = planted(20, 6, 2.0, 2)
    loss = loss_and_gradient(np.zeros((2, 7)), with_ones(train.pos, train.neg))[0]
    assert list(loss) == [CONSTANT_LOSS, CONSTANT_LOSS] == [0.25, 0.25]


@pytest.mark.parametrize("preset", ["paper", "public_code"])
def test_parity_is_one_probe_autograd_adamw(preset: str) -> None:
    train, _, _ = planted(120, 48, 2.0, 3)
    start = starts(PRESETS[preset].start, 3, 48, np.random.default_rng(4))
    rate = PRESETS[preset].rate
    ours = adamw(start, with_ones(train.pos, train.neg, np.float32), rate, epochs=200)
    pos, neg = (torch.tensor(states, dtype=torch.float32) for states in (train.pos, train.neg))
    for row, begun in enumerate(start):
        probe = torch.nn.Linear(48, 1)
        with torch.no_grad():
            probe.weight.copy_(torch.tensor(begun[None, :-1]))
            probe.bias.copy_(torch.tensor(begun[-1:]))
        optimizer = torch.optim.AdamW(probe.parameters(), lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        for _ in range(200):
            optimizer.zero_grad()
            p, q = torch.sigmoid(probe(pos)), torch.sigmoid(probe(neg))
            loss = ((p - (1 - q)) ** 2).mean() + (torch.minimum(p, q) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        theirs = torch.cat([probe.weight[0], probe.bias]).detach().numpy()
        assert np.abs(ours[row] - theirs).max() <= 1e-5
        assert np.abs(ours[row] - begun).max() > 0.01


def test_parity_runs_a_thousand_epochs_at_the_preset_rate() -> None:
    train, _, _ = planted(20, 6, 2.0, 4)
    start = starts("sphere", 3, 6, np.random.default_rng(5))
    init = (start[:, :-1], start[:, -1])
    stack = with_ones(train.pos, train.neg, np.float32)
    for preset, rate in (("paper", 0.01), ("public_code", 0.001)):
        fit = ccs_restarts(train, "parity", rng=np.random.default_rng(0), preset=preset, init=init)  # type: ignore[arg-type]
        expected = adamw(start, stack, rate, epochs=1000)
        np.testing.assert_allclose(fit.vectors * fit.gains[:, None], expected[:, :-1], rtol=1e-6)


def test_starts_are_those_of_the_presets() -> None:
    rng = np.random.default_rng(6)
    sphere, uniform = starts("sphere", 400, 24, rng), starts("uniform", 400, 24, rng)
    assert sphere.shape == uniform.shape == (400, 25)
    np.testing.assert_allclose(np.linalg.norm(sphere, axis=1), 1.0)
    assert np.abs(uniform).max() <= 24**-0.5
    assert np.std(uniform) == pytest.approx(24**-0.5 / 3**0.5, rel=0.05)


def test_minimiser_agrees_with_scipy_on_smooth_functions() -> None:
    rng = np.random.default_rng(7)
    begun = rng.uniform(-1.5, 1.5, (6, 5))
    ended = minimise(lambda x: (np.array([rosen(row) for row in x]), np.array([rosen_der(row) for row in x])), begun)
    for row, found in zip(begun, ended, strict=True):
        theirs = minimize(rosen, row, jac=rosen_der, method="L-BFGS-B", options={"gtol": 1e-9, "maxiter": 500})
        # Rosenbrock in five dimensions has two minima, of value 0 and 3.93.
        assert rosen(found) == pytest.approx(theirs.fun, abs=1e-6) or rosen(found) < theirs.fun


def test_each_start_ends_where_it_would_alone() -> None:
    train, _, _ = planted(80, 12, 2.0, 8)
    init = (np.random.default_rng(8).standard_normal((5, 12)) / 4, np.zeros(5))
    together = ccs_restarts(train, "lbfgs", rng=np.random.default_rng(0), init=init)
    parts = [
        ccs_restarts(train, "lbfgs", rng=np.random.default_rng(0), init=(init[0][i], init[1][i]))
        for i in ([0, 1, 2], [2, 3, 4])
    ]
    np.testing.assert_allclose(together.train_loss, [*parts[0].train_loss, *parts[1].train_loss[1:]], atol=1e-4)


def test_minimum_is_as_low_as_scipys() -> None:
    train, _, _ = planted(100, 16, 2.0, 9)
    stack = with_ones(train.pos / mean_scale(train), train.neg / mean_scale(train))

    def objective(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss, gradient = loss_and_gradient(weights, stack)
        return loss + 0.005 * (weights**2).sum(axis=1), gradient + 0.01 * weights

    def single(weights: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = objective(weights[None])
        return float(loss[0]), gradient[0]

    begun = starts("sphere", 10, 16, np.random.default_rng(9))
    ours = objective(minimise(objective, begun))[0]
    theirs = np.array([minimize(single, w, jac=True, method="L-BFGS-B").fun for w in begun])
    # The loss has kinks and many minima: the two need not end in the same one, but fare alike.
    assert ours.min() <= theirs.min() + 0.002
    assert np.median(ours) == pytest.approx(np.median(theirs), abs=0.01)


def test_lbfgs_turns_with_the_states_and_adam_does_not() -> None:
    train, _, _ = planted(80, 12, 3.0, 10)
    rng = np.random.default_rng(10)
    turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    turned = PairActivations(train.pos @ turn, train.neg @ turn, train.template, train.cluster)
    theta, bias = rng.standard_normal((4, 12)) / 4, np.zeros(4)
    a = ccs_restarts(train, "lbfgs", rng=rng, init=(theta, bias))
    b = ccs_restarts(turned, "lbfgs", rng=rng, init=(theta @ turn, bias))
    np.testing.assert_allclose(np.einsum("ri,ri->r", a.vectors @ turn, b.vectors), 1.0, atol=1e-4)
    begun = np.column_stack([theta, bias])
    plain = adamw(begun, with_ones(train.pos, train.neg, np.float32), 0.01, epochs=50)[:, :-1]
    begun[:, :-1] = theta @ turn
    other = adamw(begun, with_ones(turned.pos, turned.neg, np.float32), 0.01, epochs=50)[:, :-1]
    assert np.abs(plain @ turn - other).max() > 0.01


def test_width_above_texts_keeps_every_product() -> None:
    # 12 wide states laid into 90 dimensions, 40 texts: the Gram route must find the same space as the dense one.
    train, _, _ = planted(20, 12, 3.0, 11)
    axes = np.linalg.qr(np.random.default_rng(11).standard_normal((90, 12)))[0].T
    wide = PairActivations(train.pos @ axes, train.neg @ axes, train.template, train.cluster)
    basis = stack_range(wide)
    np.testing.assert_allclose(basis @ basis.T, axes.T @ axes, atol=1e-9)
    stack = np.concatenate([wide.pos, wide.neg]) @ basis
    np.testing.assert_allclose(stack.T @ stack, np.diag(np.diag(stack.T @ stack)), atol=1e-8)
    # A probe has no part where the states have none.
    vectors = fitted(wide, "lbfgs").vectors
    np.testing.assert_allclose(vectors @ axes.T @ axes, vectors, atol=1e-9)


def test_directions_without_variance_are_left_out_of_the_range() -> None:
    train, _, _ = planted(50, 10, 2.0, 12)
    flat = (
        np.concatenate([train.pos, 1e-6 * train.pos[:, :2]], axis=1),
        np.concatenate([train.neg, 1e-6 * train.neg[:, 2:4]], axis=1),
    )
    assert stack_range(pairs_of(*flat)).shape == (12, 10)


@pytest.mark.parametrize("mode", ["lbfgs", "subspace"])
def test_scaling_is_folded_back(mode: Mode) -> None:
    # A power of two changes no digit: states in other units must give the same probe, its bias in those units.
    train, _, _ = planted(100, 12, 3.0, 13)
    larger = PairActivations(train.pos * 64, train.neg * 64, train.template, train.cluster)
    fit, other = fitted(train, mode), fitted(larger, mode)
    np.testing.assert_allclose(other.vectors, fit.vectors, atol=1e-9)
    np.testing.assert_allclose(other.offsets, 64 * fit.offsets, atol=1e-9)
    np.testing.assert_allclose(64 * other.gains, fit.gains, rtol=1e-9)


def test_same_draws_give_the_same_bytes() -> None:
    train, _, _ = planted(60, 10, 2.0, 14)
    for mode in MODES:
        assert fitted(train, mode).vectors.tobytes() == fitted(train, mode).vectors.tobytes()
