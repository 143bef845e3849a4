"""Views: each against its definition, written a second time."""

from __future__ import annotations

import numpy as np
import pytest

from checks.clusterability.views import (
    RIDGE,
    TOLERANCE,
    balance,
    balanced_squares,
    normal_scores,
    rank_scores,
    unit_in_norm,
    view,
)


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((24, 40))


@pytest.mark.parametrize("name", ["raw", "balanced", "normal_scores", "unit_in_norm"])
def test_every_view_is_masses_that_add_up_to_one(name: str, weights: np.ndarray) -> None:
    mass = view(weights, name)  # type: ignore[arg-type]
    assert mass.shape == weights.shape
    assert mass.min() >= 0
    assert mass.sum() == pytest.approx(1.0, abs=1e-7)


def test_an_unknown_view_is_named(weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match="'filan'"):
        view(weights, "filan")  # type: ignore[arg-type]


def test_views_are_the_functions_of_their_names(weights: np.ndarray) -> None:
    assert np.array_equal(view(weights, "balanced"), balanced_squares(weights).mass)
    assert np.array_equal(view(weights, "normal_scores"), normal_scores(weights).mass)
    assert view(weights, "raw") == pytest.approx(weights**2 / np.sum(weights**2))


def test_views_do_not_write_into_the_weights(weights: np.ndarray) -> None:
    before = weights.copy()
    for name in ("raw", "balanced", "normal_scores", "unit_in_norm"):
        view(weights, name)
    assert np.array_equal(weights, before)


def test_rank_scores_do_not_depend_on_memory_order(weights: np.ndarray) -> None:
    turned = np.asfortranarray(weights)
    assert np.array_equal(rank_scores(turned), rank_scores(weights))
    assert rank_scores(weights[::2, ::3]) == pytest.approx(rank_scores(weights[::2, ::3].copy()))


@pytest.mark.parametrize("shape", [(32, 64), (30, 77), (61, 53)])
def test_a_matrix_of_rank_one_is_all_ties(shape: tuple[int, int]) -> None:
    # Balanced, it is one value but for rounding: ranks of that dust would be noise of full strength.
    rng = np.random.default_rng(5)
    scores = rank_scores(np.outer(rng.lognormal(size=shape[0]), rng.lognormal(size=shape[1])))
    assert np.ptp(scores) == 0.0


def test_one_matrix_has_rows_of_unit_norm_in_filans_view(weights: np.ndarray) -> None:
    mass = view(weights, "unit_in_norm")
    by_hand = np.abs(weights) / np.linalg.norm(weights, axis=1)[:, None]
    assert mass == pytest.approx(by_hand / by_hand.sum())


def test_a_dead_neuron_stays_dead_in_filans_view(weights: np.ndarray) -> None:
    weights[3] = 0.0
    mass = view(weights, "unit_in_norm")
    assert not mass[3].any()
    assert np.isfinite(mass).all()


def test_filans_view_leaves_the_function_of_a_relu_network() -> None:
    rng = np.random.default_rng(2)
    layers = [rng.standard_normal(shape) for shape in ((20, 12), (16, 20), (5, 16))]
    scaled = [np.sign(w) * view for w, view in zip(layers, unit_in_norm(layers), strict=True)]
    for hidden in scaled[:-1]:
        assert np.linalg.norm(hidden, axis=1) == pytest.approx(np.ones(len(hidden)))
    x = rng.standard_normal((12, 7))

    def outputs(chain: list[np.ndarray]) -> np.ndarray:
        state = x
        for w in chain[:-1]:
            state = np.maximum(w @ state, 0.0)
        return np.asarray(chain[-1] @ state)

    assert outputs(scaled) == pytest.approx(outputs(layers), rel=1e-10)


def test_filans_view_refuses_layers_that_do_not_meet() -> None:
    with pytest.raises(ValueError, match="layer 1 reads 5 neurons of 4"):
        unit_in_norm([np.ones((4, 3)), np.ones((2, 5))])


def test_balance_finds_the_scaling_of_a_known_matrix() -> None:
    # The balanced form is unique: any scaling of a matrix of uniform marginals must come back to it.
    rng = np.random.default_rng(3)
    uniform = balance(rng.random((15, 25))).mass
    scaled = uniform * rng.lognormal(size=15)[:, None] * rng.lognormal(size=25)
    assert balance(scaled).mass == pytest.approx(uniform, rel=1e-6)


def test_a_scale_does_not_weigh_in_the_ridge() -> None:
    # A ridge of the unbalanced mean would be a thousandth of the weights in rows this small.
    rng = np.random.default_rng(4)
    weights = rng.random((20, 30)) + 0.5
    scales = np.where(np.arange(20) < 10, 1.0, 1e3 * RIDGE)
    assert balance(weights * scales[:, None]).mass == pytest.approx(balance(weights).mass, rel=1e-6)


def test_the_residual_is_the_error_of_the_marginals(weights: np.ndarray) -> None:
    got = balanced_squares(weights)
    rows = np.abs(got.mass.sum(axis=1) * 24 - 1).max()
    assert rows == pytest.approx(got.residual, abs=1e-12)
    assert got.residual <= TOLERANCE
    assert np.abs(got.mass.sum(axis=0) * 40 - 1).max() <= 1e-6


def test_thin_support_ends_with_a_residual_and_not_with_an_error() -> None:
    # A triangle has no balanced form but the identity; the ridge gives it one, and sweeps are counted.
    got = balance(np.tril(np.ones((30, 30))))
    assert np.isfinite(got.mass).all()
    assert got.residual < 0.1


@pytest.mark.parametrize("axis", [0, 1])
def test_a_row_or_column_whose_squares_vanish_is_balanced_all_the_same(axis: int) -> None:
    # 1e-170 squared is 0 in float64: the row had no mass left and balancing divided by zero.
    weights = np.random.default_rng(40).standard_normal((20, 30))
    faint = weights.copy()
    faint[(3, slice(None)) if axis == 0 else (slice(None), 3)] *= 1e-170
    assert np.allclose(balanced_squares(faint).mass, balanced_squares(weights).mass, rtol=0, atol=1e-9)
    assert np.allclose(normal_scores(faint).mass, normal_scores(weights).mass, rtol=0, atol=1e-9)


def test_a_matrix_of_extreme_scales_is_still_its_own_view() -> None:
    # Squares of these run from 1e-460, where float64 has none left, to 1e140.
    weights = np.random.default_rng(41).standard_normal((20, 30))
    scaled = weights * np.logspace(-70, 70, 20)[:, None] * np.logspace(0, -160, 30)
    assert np.allclose(view(scaled, "balanced"), view(weights, "balanced"), rtol=0, atol=1e-7)
