"""Fidelity against an independent float64 loop, and the errors that peers' metrics make."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from checks.organisms.sae_toy import superposition
from checks.sae_features.dictionary.fidelity import Fidelity, duplicates, enc_dec_cosine, fidelity
from checks.sae_features.dictionary.grouped import Groups, difference
from checks.sae_features.dictionary.output import cross_entropy, output_fidelity, token_scores
from checks.sae_features.dictionary.plan import Plan
from checks.sae_features.dictionary.training import in_raw_units, initial, normaliser
from checks.sae_features.dictionary.value import Dictionary, LayerNorm, Norm, Relu, Scale, TokenRms
from tests.checks.sae_features.dictionary.drawn import silent

N, D, M = 600, 6, 10


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def states(offset: float = 0.0, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(rng(seed).standard_normal((N, D)) + offset)


def told(x: torch.Tensor, xhat: torch.Tensor, f: torch.Tensor | None = None, **more: object) -> Fidelity:
    labels = [f"doc{row // 12}" for row in range(len(x))]
    latents = torch.ones(len(x), M) if f is None else f
    return fidelity(x, xhat, latents, labels, rng=rng(), resamples=200, **more)  # type: ignore[arg-type]


def value(found: Fidelity, name: str) -> float:
    number = found.estimates[name].value
    assert number is not None
    return number


@pytest.mark.parametrize("offset", [0.0, 1.0, 3.0, 1000.0])
def test_mean_predictor_has_zero_ev(offset: float) -> None:
    # SAEBench 8042bb38 and SAELens up to 6.45.0 give it .515 at an offset of one deviation, .867 at three.
    x = states(offset)
    assert value(told(x, x.mean(0).expand_as(x)), "ev") == pytest.approx(0.0, abs=1e-9)


def test_constant_bias_lowers_ev() -> None:
    # dictionary_learning's variance of the error ignores a constant: it says 1.000 of x + 2, the truth is -3.
    x = states()
    x = (x - x.mean(0)) / x.std(0, correction=0)
    assert value(told(x, x + 2.0), "ev") == pytest.approx(-3.0, abs=1e-9)


PER_TOKEN: tuple[Norm, ...] = (TokenRms(), LayerNorm())


def lengths_along_one_direction() -> torch.Tensor:
    along = np.array([2.0, -2.0, 1.0, -1.0, 0.5, -0.5])
    amount = np.exp(0.7 * rng(1).standard_normal((N, 1)))
    return torch.from_numpy(amount * (along + 0.5 * rng(2).standard_normal((N, D)))).float()


@pytest.mark.parametrize("norm", PER_TOKEN, ids=str)
def test_what_decoding_takes_from_the_state_is_not_explained(norm: Norm) -> None:
    # No latent is ever on, and the length alone reached an EV of .755.
    x = lengths_along_one_direction()
    dictionary = silent(x, norm)
    f = dictionary.encode(x)
    found = told(x, dictionary.decode(f, x), f, norm=norm)
    assert value(found, "ev") > 0.6
    assert value(found, "ev_given_norm") == pytest.approx(0.0, abs=1e-6)
    assert (found.estimates["ev_given_norm"].high or 0.0) < 1e-6


@pytest.mark.parametrize("norm", PER_TOKEN, ids=str)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_ev_given_norm_equals_least_squares_in_each_draw(norm: Norm, offset: float) -> None:
    x = lengths_along_one_direction().double() + offset
    xhat = x + 0.2 * torch.from_numpy(rng(3).standard_normal((N, D)))
    found = told(x, xhat, norm=norm).estimates["ev_given_norm"]

    def again(rows: np.ndarray) -> float:
        states = x.numpy()[rows]
        mean = states.mean(1, keepdims=True) if isinstance(norm, LayerNorm) else 0.0
        scale = states.std(1, ddof=1) if isinstance(norm, LayerNorm) else np.sqrt((states**2).mean(1))
        left = states - mean
        for column in left.T:
            column -= scale * np.linalg.lstsq(scale[:, None], column, rcond=None)[0]
        return 1.0 - float(((states - xhat.numpy()[rows]) ** 2).sum() / (left**2).sum())

    assert found.value == pytest.approx(again(np.arange(N)), rel=1e-6)
    times = Groups([f"doc{row // 12}" for row in range(N)], rng(), 200)
    assert found.draws is not None
    for draw in range(5):
        rows = np.repeat(np.arange(N), times.times[draw][times.index])
        assert found.draws[draw] == pytest.approx(again(rows), rel=1e-6)


@pytest.mark.parametrize("norm", [None, Scale(0.4)], ids=str)
def test_a_norm_that_is_one_number_takes_nothing_from_the_state(norm: Norm | None) -> None:
    x = states()
    plain, normed = told(x, 0.9 * x), told(x, 0.9 * x, norm=norm)
    assert "ev_given_norm" not in normed.estimates
    assert {name: one.value for name, one in plain.estimates.items()} == {
        name: one.value for name, one in normed.estimates.items()
    }


def test_where_the_length_is_all_there_is_nothing_is_left_to_explain() -> None:
    x = torch.zeros(N, D)
    x[:, 0] = 2.0 ** (torch.arange(N) % 5)
    found = told(x, 0.5 * x, norm=TokenRms()).estimates["ev_given_norm"]
    assert found.value is None or found.value < -1e6


def test_ev_is_not_a_mean_of_token_ratios() -> None:
    x = states()
    x[0] *= 100.0  # one state carries nearly all variance, and only it is reconstructed
    xhat = torch.zeros_like(x)
    xhat[0] = x[0]
    assert value(told(x, xhat), "ev") > 0.9


def test_ev_does_not_depend_on_batching() -> None:
    # A mean over batches of batch ratios: sorted by size, it tells another number.
    x = states() * torch.linspace(0.1, 5.0, N)[:, None]
    xhat = x + torch.from_numpy(rng(2).standard_normal((N, D)))
    order = torch.from_numpy(rng(3).permutation(N))
    assert value(told(x, xhat), "ev") == pytest.approx(value(told(x[order], xhat[order]), "ev"), rel=1e-12)
    ratios = [
        1 - ((x[i : i + 50] - xhat[i : i + 50]) ** 2).sum() / x[i : i + 50].var(0, correction=0).sum() / 50
        for i in range(0, N, 50)
    ]
    assert abs(float(np.mean([float(one) for one in ratios])) - value(told(x, xhat), "ev")) > 0.1


def test_mse_is_squared() -> None:
    x = states()
    assert value(told(x, x + 3.0), "mse") == pytest.approx(9.0 * D)


def test_mse_is_not_divided_by_tokens_again() -> None:
    x = states()
    assert value(told(x, x + 1.0), "mse") == pytest.approx(value(told(x[:60], x[:60] + 1.0), "mse"))


def test_l0_is_counted() -> None:
    # dictionary_learning reports k.
    f = torch.zeros(N, M)
    f[:, 0] = 1.0
    f[: N // 2, 1:3] = 0.5
    found = told(states(), states(), f)
    assert value(found, "l0") == 2.0
    assert [value(found, name) for name in ("l0_median", "l0_p5", "l0_p95")] == [2.0, 1.0, 3.0]


@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls CSR tensors beta
def test_zero_valued_pick_has_not_fired() -> None:
    picked = torch.sparse_csr_tensor(
        torch.arange(N + 1), torch.arange(N) % 2, (torch.arange(N) % 2).float(), (N, M), check_invariants=True
    )
    sparse, dense = told(states(), states(), picked), told(states(), states(), picked.to_dense())
    for found in (sparse, dense):
        assert value(found, "l0") == 0.5
        assert found.rates.tolist() == [0.0, 0.5] + [0.0] * 8
        assert value(found, "dead") == 0.9


def test_shrinkage_seen_through_large_mean() -> None:
    # Uncentred norms of x and 0.8 (x - mu) + mu agree to a part in a thousand at this mean.
    x = states(100.0)
    mu = x.mean(0)
    found = told(x, mu + 0.8 * (x - mu))
    assert value(found, "shrink_gamma") == pytest.approx(0.8)
    assert value(found, "norm_ratio") == pytest.approx(0.8)
    assert value(found, "cosine") == pytest.approx(1.0)
    assert float(((mu + 0.8 * (x - mu)).norm(dim=1) / x.norm(dim=1)).mean()) > 0.999


def test_dead_states_n() -> None:
    f = torch.zeros(N, M)
    f[0, 0] = 1.0
    found = told(states(), states(), f)
    assert (found.tokens, found.dead_rate_bound) == (N, 3 / N)
    assert value(found, "dead") == 0.9
    assert (1 - found.dead_rate_bound) ** N < 0.05  # a latent of this rate would have fired


def test_dense_latents_and_their_mass() -> None:
    f = torch.zeros(N, M)
    f[:300, 0] = f[:30, 1] = f[:3, 2] = 1.0
    found = told(states(), states(), f)
    names = ("dense01", "dense01_mass", "dense10", "dense10_mass", "dead")
    assert [value(found, name) for name in names] == pytest.approx([0.2, 330 / 333, 0.1, 300 / 333, 0.7])


def test_ev_by_position_is_centred_within_the_band() -> None:
    x, at = states(), np.arange(N) % 200
    x[(at >= 1) & (at < 8)] += 50.0
    xhat = x.clone()
    early = (at >= 1) & (at < 8)
    xhat[early] = x[early].mean(0)
    found = told(x, xhat, positions=at)
    assert value(found, "ev_1-7") == pytest.approx(0.0, abs=1e-9)
    assert [value(found, f"ev_{band}") for band in ("8-31", "32-127", "128+")] == [1.0] * 3
    assert found.estimates["ev_1-7"].n == int(early.sum())


def test_metrics_equal_a_loop_in_float64() -> None:
    x = states(2.0).float()
    xhat = x * 0.7 + torch.from_numpy(rng(5).standard_normal((N, D))).float() * 0.3
    found = told(x, xhat)
    mu = [math.fsum(float(x[i, j]) for i in range(N)) / N for j in range(D)]
    lost = spread = along = reached = cosines = ratios = 0.0
    for i in range(N):
        a = [float(x[i, j]) - mu[j] for j in range(D)]
        b = [float(xhat[i, j]) - mu[j] for j in range(D)]
        lost += sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        aa, bb, ab = sum(p * p for p in a), sum(q * q for q in b), sum(p * q for p, q in zip(a, b, strict=True))
        spread, reached, along = spread + aa, reached + bb, along + ab
        cosines += ab / math.sqrt(aa * bb)
        ratios += math.sqrt(bb / aa)
    wanted = {
        "ev": 1 - lost / spread,
        "mse": lost / N,
        "cosine": cosines / N,
        "shrink_gamma": reached / along,
        "norm_ratio": ratios / N,
    }
    for name, number in wanted.items():
        assert value(found, name) == pytest.approx(number, rel=1e-6), name


def test_interval_draws_groups_not_rows() -> None:
    # Fifty groups whose rows are alike: the interval is that of 50 numbers, not of 600.
    level = rng(4).standard_normal(50)
    x = states()
    xhat = x + torch.from_numpy(np.repeat(level, 12))[:, None]
    found = told(x, xhat).estimates["mse"]
    assert found.low is not None
    assert found.high is not None
    per_group = D * level**2
    assert (found.high - found.low) / 3.92 == pytest.approx(per_group.std() / 50**0.5, rel=0.2)
    assert found.groups == 50


def test_pairs_share_their_draws() -> None:
    x = states()
    noise = torch.from_numpy(rng(2).standard_normal((N, D)))
    one, other = told(x, x + 0.50 * noise).estimates["ev"], told(x, x + 0.51 * noise).estimates["ev"]
    gap = difference(one, other)
    assert (one.low or 0.0) < (other.high or 1.0), "apart, the intervals overlap"
    assert (gap.low or 0.0) > 0, "paired, the better one is better in every draw"
    elsewhere = fidelity(x, x, torch.ones(N, M), ["a"] * 300 + ["b"] * 300, rng=rng(), resamples=200)
    with pytest.raises(ValueError, match="share no draws"):
        difference(one, elsewhere.estimates["ev"])


def test_bad_input_is_named() -> None:
    x = states()
    with pytest.raises(ValueError, match="xhat holds a number that is not finite"):
        told(x, x / 0.0 * 0.0)
    with pytest.raises(ValueError, match="lengths"):
        fidelity(x, x, torch.ones(N, M), ["a"] * 3, rng=rng())
    assert told(torch.ones(5, D), torch.ones(5, D)).estimates["ev"].reason == "undefined"


def test_duplicates_and_encoder_cosines() -> None:
    w_dec = torch.eye(4, 5)
    w_dec[1] = torch.tensor([3.0, 0.3, 0, 0, 0])
    w_enc = torch.eye(4, 5).T.contiguous()
    dictionary = Dictionary(w_enc, torch.zeros(4), w_dec, torch.zeros(5), Relu())
    assert duplicates(dictionary) == 0.5
    assert enc_dec_cosine(dictionary) == pytest.approx(1.0)


def test_untrained_dictionary_is_not_good() -> None:
    # An untrained dictionary absorbs little and reads as "good" by that proxy: its reconstruction says what it is.
    x, _ = superposition().draw(4000, rng())
    plan = Plan(latents=128, k=4, steps=1)
    untrained = in_raw_units(initial(plan, 0, 32), plan, *normaliser(x), x)
    f = untrained.encode(x)
    found = fidelity(x, untrained.decode(f), f, [str(i % 40) for i in range(4000)], rng=rng(), resamples=50)
    assert value(found, "ev") < 0.2
    assert value(found, "shrink_gamma") > 1.5
    assert enc_dec_cosine(untrained) == pytest.approx(1.0)


# Output


def logits(seed: int, tokens: int = 40, vocabulary: int = 11) -> torch.Tensor:
    return torch.from_numpy(3.0 * rng(seed).standard_normal((tokens, vocabulary))).float()


def test_kl_is_unedited_to_spliced() -> None:
    # e2e_sae's docstring says the reverse of what it computes.
    p, q = logits(1), logits(2)
    found = token_scores(p, q).kl
    for token in range(3):
        a, b = (np.exp(one[token].double().numpy()) for one in (p, q))
        a, b = a / a.sum(), b / b.sum()
        assert found[token] == pytest.approx(float((a * np.log(a / b)).sum()))
    assert not np.allclose(found, token_scores(q, p).kl)


def test_kl_is_not_cross_entropy() -> None:
    # sparsify calls the cross-entropy of two distributions `kl`: it is not 0 for a model against itself.
    p = logits(1)
    assert token_scores(p, p).kl.max() < 1e-12


def test_kl_finite_for_underflow() -> None:
    # The logarithm of a bfloat16 softmax is -inf here, and 0 times that is NaN.
    p, q = torch.tensor([[0.0, -300.0, -torch.inf]]), torch.tensor([[-300.0, 0.0, -torch.inf]])
    found = token_scores(p.bfloat16(), q.bfloat16())
    assert found.kl.tolist() == pytest.approx([300.0], rel=0.01)
    assert (found.same_top.tolist(), found.variation.tolist()) == ([0.0], pytest.approx([1.0]))
    with pytest.raises(ValueError, match="NaN"):
        token_scores(p / 0.0 * 0.0, q)


def test_cross_entropy_is_in_nats() -> None:
    assert cross_entropy(torch.zeros(2, 8), torch.tensor([1, 2])).tolist() == pytest.approx([math.log(8)] * 2)


def test_ce_share_pooled_and_undefined_when_harmless() -> None:
    scores = token_scores(logits(1, 4), logits(2, 4))
    groups = Groups(["a", "a", "b", "b"], rng(), 100)
    base = np.zeros(4)
    spliced, zeroed, averaged = np.array([0.1, 0.1, 0.3, 0.1]), np.full(4, 9.0), np.array([1.0, 1.0, 0.1, 0.9])
    found = output_fidelity(scores, base, spliced, zeroed, averaged, groups)
    assert found["dce_share"].value == pytest.approx(0.6 / 3.0)  # the mean of ratios is .81
    assert found["delta_ce"].value == pytest.approx(0.15)
    assert found["delta_ce_zero"].value == 9.0
    assert found["delta_ce_mean"].value == pytest.approx(0.75)
    harmless = output_fidelity(scores, base, spliced, zeroed, np.full(4, 0.049), groups)["dce_share"]
    assert (harmless.value, harmless.low, harmless.reason) == (None, None, "site_harmless_when_averaged")
