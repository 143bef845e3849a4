"""The code against entropies known in closed form, an independent loop, and data that no dictionary can shorten."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from checks.organisms.sae_toy import superposition
from checks.sae_features.dictionary import codelength
from checks.sae_features.dictionary.codelength import CodeGain, code_gain, first_half
from checks.sae_features.dictionary.grouped import difference
from checks.sae_features.dictionary.norms import coded
from checks.sae_features.dictionary.plan import Named, Plan
from checks.sae_features.dictionary.training import train
from checks.sae_features.dictionary.value import Dictionary, LayerNorm, Norm, Relu, Threshold, TokenRms
from tests.checks.sae_features.dictionary.drawn import silent

ROWS = 4000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labels(rows: int = ROWS, of: int = 10) -> list[str]:
    return [f"doc{row // of}" for row in range(rows)]


def axes(m: int, theta: float = 0.0) -> Dictionary:
    """Return a dictionary whose latents are the coordinates."""
    return Dictionary(torch.eye(m), torch.zeros(m), torch.eye(m), torch.zeros(m), Threshold(torch.full((m,), theta)))


def gain(dictionary: Dictionary, x: torch.Tensor, epsilon: float = 0.05) -> CodeGain:
    return code_gain(dictionary, x, labels(len(x)), epsilon, rng=rng(), resamples=200)


def sparse_states(seed: int = 1, rows: int = ROWS) -> tuple[torch.Tensor, np.ndarray]:
    return superposition(8, 16).draw(rows, rng(seed))


def test_binary_features_cost_their_entropy() -> None:
    on = rng(1).random((ROWS, 6)) < 0.1
    found = gain(axes(6), torch.from_numpy(on.astype(np.float32)))
    entropy = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert found.switches == pytest.approx(6 * entropy, rel=0.05)
    # One value in one cell costs next to nothing, and what its centre misses is below the distortion.
    assert found.values < 0.1
    assert found.null == pytest.approx(3 * math.log2(20), rel=0.01)
    assert found.gain.value == pytest.approx(found.null - found.total)


def test_code_length_equals_a_loop() -> None:
    x, _ = sparse_states()
    w_enc, w_dec = (torch.from_numpy(rng(seed).standard_normal((8, 5))).float() for seed in (2, 3))
    dictionary = Dictionary(w_enc, torch.full((5,), -0.4), w_dec.T.contiguous(), torch.zeros(8), Relu())
    found = gain(dictionary, x)
    f, fitted = dictionary.encode(x).double().numpy(), first_half(labels())
    a, b, states = f[fitted], f[~fitted], x.double().numpy()[~fitted]
    distortion = 0.05 * np.trace(np.cov(states.T, bias=True)) / 8

    def rate(rows: np.ndarray) -> float:
        return sum(max(0.0, 0.5 * math.log2(one / distortion)) for one in np.linalg.eigvalsh(np.cov(rows.T, bias=True)))

    totals = {}
    for levels in (2, 4, 8, 16, 32):
        bits, decoded = 0.0, np.zeros_like(b)
        for i in range(5):
            positive = [value for value in a[:, i] if value > 0]
            p, r = (len(positive) + 0.5) / (len(a) + 1), float((b[:, i] > 0).mean())
            bits += -r * math.log2(p) - (1 - r) * math.log2(1 - p)
            width = np.quantile(positive, 0.999) / levels
            cells = [min(int(value / width), levels - 1) for value in positive]
            costs = []
            for row, value in enumerate(b[:, i]):
                if value > 0:
                    cell = min(int(value / width), levels - 1)
                    costs.append(-math.log2((cells.count(cell) + 0.5) / (len(cells) + levels / 2)))
                    decoded[row, i] = (cell + 0.5) * width
            bits += r * float(np.mean(costs))
        totals[levels] = bits + rate(states - decoded @ dictionary.w_dec.double().numpy())
    assert found.levels == min(totals, key=totals.__getitem__)
    assert found.total == pytest.approx(totals[found.levels], rel=1e-6)
    assert found.null == pytest.approx(rate(states), rel=1e-9)


def test_code_range_is_the_data_range() -> None:
    # SAEBench starts its range at 100: a dictionary of small values then pays for one cell, whatever the values say.
    on = rng(1).random((ROWS, 4)) < 0.1
    x = torch.from_numpy(np.where(on, rng(2).integers(1, 5, (ROWS, 4)), 0).astype(np.float32))
    small, large = gain(axes(4), x / 1000, 0.02), gain(axes(4), x * 1000, 0.02)
    assert small.levels == large.levels > 2
    assert small.gain.value == pytest.approx(large.gain.value or 0.0, rel=1e-4)


def test_zeros_are_not_values() -> None:
    # A histogram with the zeros in it makes each value dear and the first cell nearly free.
    on = rng(1).random((ROWS, 4)) < 0.02
    values = np.where(on, rng(2).integers(1, 3, (ROWS, 4)), 0).astype(np.float32)
    found = gain(axes(4), torch.from_numpy(values))
    assert found.values == pytest.approx(4 * 0.02, rel=0.2)  # two values, one bit each


def test_gaussian_data_gains_nothing() -> None:
    # Of equal covariance, and of equal coordinates that no longer belong together.
    x, _ = superposition(8, 16).draw(8000, rng(1))
    noise = rng(2).multivariate_normal(x.double().numpy().mean(0), np.cov(x.double().numpy().T), len(x))
    torn = np.stack([rng(9 + j).permutation(column) for j, column in enumerate(x.numpy().T)], axis=1)
    plan = Plan(latents=24, k=2, steps=60, batch=128, dictionaries=(Named(0),))
    for spoiled in (torch.from_numpy(noise).float(), torch.from_numpy(torn)):
        (dictionary,) = train([spoiled], plan)
        found = gain(dictionary, spoiled)
        assert found.ev > 0.3, "reconstruction alone proves nothing"
        assert (found.gain.high or 0.0) < 0.0


def test_what_was_never_on_in_the_first_half_has_no_code() -> None:
    x = torch.from_numpy(rng(1).standard_normal((ROWS, 3))).float()
    fitted = torch.from_numpy(first_half(labels()))
    x[:, 2] = torch.where(fitted, -x[:, 2].abs(), x[:, 2].abs())
    found = gain(axes(3), x)
    assert math.isfinite(found.total)
    assert found.switches > 0.5 * math.log2(ROWS), "the surprise is paid for"


def test_flags_say_when_the_number_is_not_to_be_read() -> None:
    x, _ = sparse_states()
    assert gain(axes(8), x, 0.2).flags == ("too_few_rows",)  # half of each coordinate's variance is negative values
    assert gain(axes(8), x.abs()).flags == ("epsilon_above_residual", "too_few_rows")
    assert gain(axes(8), sparse_states(rows=20_000)[0]).flags == ()


def test_interval_is_that_of_redrawn_groups() -> None:
    # The eigenvalues follow the draw to first order: against computing everything again in each draw.
    x, _ = sparse_states()
    dictionary, names = axes(8), labels()
    found = code_gain(dictionary, x, names, 0.05, rng=rng(), resamples=400)
    fitted = first_half(names)
    held = [name for name, first in zip(names, fitted, strict=True) if not first]
    rows = {name: [] for name in held}  # type: dict[str, list[int]]
    for row, (name, first) in enumerate(zip(names, fitted, strict=True)):
        if not first:
            rows[name].append(row)
    a = torch.from_numpy(np.flatnonzero(fitted))
    generator, again = rng(7), []
    for _ in range(30):
        picked = [row for at in generator.integers(0, len(rows), len(rows)) for row in rows[list(rows)[at]]]
        together = torch.cat([x[a], x[picked]])
        half = [name for name, first in zip(names, fitted, strict=True) if first] + [held[0]] * len(picked)
        again.append(code_gain(dictionary, together, half, 0.05, rng=rng(), resamples=2).gain.value or 0.0)
    assert found.gain.low is not None
    assert found.gain.high is not None
    assert found.gain.draws is not None
    assert float(found.gain.draws.std()) == pytest.approx(float(np.std(again)), rel=0.4)


def test_two_dictionaries_are_compared_draw_by_draw() -> None:
    x, _ = sparse_states()
    one, other = gain(axes(8), x), gain(axes(8, 0.05), x)
    gap = difference(one.gain, other.gain)
    assert gap.value == pytest.approx((one.gain.value or 0.0) - (other.gain.value or 0.0))
    assert (gap.high or 0.0) - (gap.low or 0.0) < (one.gain.high or 0.0) - (one.gain.low or 0.0)


def test_rows_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = sparse_states()
    whole = gain(axes(8), x)
    monkeypatch.setattr(codelength, "ROWS_AT_ONCE", 333)
    assert gain(axes(8), x).total == pytest.approx(whole.total, rel=1e-6)


PER_TOKEN: tuple[Norm, ...] = (TokenRms(), LayerNorm())


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("norm", PER_TOKEN, ids=str)
def test_a_norm_of_each_token_is_not_free(norm: Norm, epsilon: float) -> None:
    # Without a latent, decoding still took each state's length from the state: 4.2 bits where nothing was described.
    # Gaussian states have no shorter code than the Gaussian one, however much of their variance is along one direction.
    along = np.array([1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 1.5, -1.5])
    amount = 2.0 + 0.8 * rng(1).standard_normal(ROWS)
    for x in (
        amount[:, None] * along + 0.3 * rng(2).standard_normal((ROWS, 8)),
        rng(2).standard_normal((ROWS, 8)),
        rng(2).standard_normal((ROWS, 8)) + 3.0 * along,
    ):
        states = torch.from_numpy(x).float()
        found = gain(silent(states, norm), states, epsilon)
        assert found.norm > 0.0
        assert (found.gain.value or 0.0) < 0.0
        assert found.gain.value == pytest.approx(found.null - found.total)
        assert found.total == found.norm + found.switches + found.values + found.residual


@pytest.mark.parametrize("norm", PER_TOKEN, ids=str)
def test_two_lengths_gain_what_one_bit_tells(norm: Norm) -> None:
    # Lengths 1 and 4 at evens: told, they take the variance of the lengths away, and telling them costs a bit.
    # LayerNorm tells a mean as well, that never varies: nothing.
    rows, d, inner = 8000, 16, isinstance(norm, LayerNorm)
    along = rng(1).standard_normal(d)
    u = along - inner * along.mean() + 0.3 * rng(2).standard_normal((rows, d))
    u -= inner * u.mean(1, keepdims=True)
    u *= np.sqrt(d / (u**2).sum(1, keepdims=True))
    length = np.where(rng(3).random(rows) < 0.5, 1.0, 4.0)
    x = torch.from_numpy(length[:, None] * u).float()
    found = gain(silent(x, norm), x, 0.005)  # so fine that rounding the length hides nothing
    held = x.double().numpy()[~first_half(labels(rows))]
    scale = np.sqrt((held**2).mean(1, keepdims=True))
    known = held - scale * silent(x, norm).b_dec.numpy() * np.sqrt(d / (d - inner))

    def determinant(part: np.ndarray) -> float:
        at = np.linalg.eigvalsh(np.cov(part.T, bias=True))
        distortion = 0.005 * np.trace(np.cov(held.T, bias=True)) / d
        return 0.5 * float(np.log2(np.maximum(at / distortion, 1.0)).sum())

    told = determinant(held) - determinant(known)
    assert told > 1.5
    assert found.norm == pytest.approx(1.0, abs=0.02)
    assert found.gain.value == pytest.approx(told - 1.0, abs=0.1)


@pytest.mark.parametrize("norm", PER_TOKEN, ids=str)
def test_lengths_that_say_nothing_of_the_direction_cost_what_they_tell(norm: Norm) -> None:
    x = torch.from_numpy(np.exp(0.7 * rng(1).standard_normal((ROWS, 1))) * rng(2).standard_normal((ROWS, 8))).float()
    assert (gain(silent(x, norm), x).gain.high or 0.0) < 0.0


def test_side_numbers_are_rounded_to_the_distortion_and_cost_their_entropy() -> None:
    a, b = (np.stack([2.0 + rng(i).random(20_000), 5.0 * rng(i).random(20_000)], axis=1) for i in (1, 2))
    bits, rounded = coded(a, b, 1e-3)
    assert ((rounded - b) ** 2).mean(0).sum() == pytest.approx(1e-3, rel=0.03)
    width = math.sqrt(12 * 1e-3 / 2)
    assert bits.mean() == pytest.approx(math.log2(1 / width) + math.log2(5 / width), abs=0.05)
    # A length that does not vary is known; one that was never seen has the outermost cell, and not its own.
    flat = np.full((100, 1), 3.0)
    bits, rounded = coded(flat, np.array([[3.0], [9.0]]), 1e-3)
    assert bits.tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert rounded.tolist() == [[3.0], [3.0]]
    # Cells without a fitted row have a price, and no memory is taken for them.
    bits, _ = coded(np.array([[0.0], [1e9]]), np.array([[0.0], [5e8], [1e9]]), 1e-3)
    assert bits[1] == pytest.approx(bits[0] + math.log2(3.0))


def test_a_norm_that_is_one_number_costs_nothing() -> None:
    assert gain(axes(8), sparse_states()[0]).norm == 0.0


def test_bad_input_is_named() -> None:
    x, _ = sparse_states()
    with pytest.raises(ValueError, match=r"epsilon 1\.5"):
        gain(axes(8), x, 1.5)
    with pytest.raises(ValueError, match="cannot be halved"):
        code_gain(axes(8), x, ["one"] * ROWS, 0.05, rng=rng())
    with pytest.raises(ValueError, match="do not vary"):
        gain(axes(8), torch.ones(ROWS, 8))
