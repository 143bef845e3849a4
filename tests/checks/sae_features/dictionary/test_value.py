"""The normal form computes what its formulas say, and folding changes nothing that is reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from checks.sae_features.dictionary.value import (
    Dictionary,
    FoldIllegal,
    Gated,
    LayerNorm,
    NeedsInput,
    Norm,
    Relu,
    Scale,
    Threshold,
    TokenRms,
    TopK,
)
from tests.checks.sae_features.dictionary.drawn import M, by_hand, drawn, relative, states

ROUND_TRIP = 1e-5
KINDS = ("relu", "topk", "threshold", "gated")
NORMS: tuple[Norm | None, ...] = (None, Scale(0.4), TokenRms(), LayerNorm())


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("pre_bias", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, "rescaled"])
def test_encode_and_decode_equal_their_formulas(kind: str, pre_bias: bool, norm: Norm | None) -> None:
    dictionary = drawn("topk" if kind == "rescaled" else kind, pre_bias=pre_bias, norm=norm, rescale=kind == "rescaled")
    x = states()
    f, made = by_hand(dictionary, x)
    assert relative(dictionary.encode(x), f) < ROUND_TRIP
    assert relative(dictionary.reconstruct(x), made) < ROUND_TRIP
    assert 0 < np.count_nonzero(f) < f.size


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("kind", ["relu", "threshold", "gated", "rescaled"])
def test_fold_changes_no_reconstruction(kind: str, norm: Norm | None) -> None:
    dictionary = drawn("topk" if kind == "rescaled" else kind, pre_bias=True, norm=norm, rescale=kind == "rescaled")
    folded = dictionary.fold()
    x = states()
    assert relative(folded.reconstruct(x), dictionary.reconstruct(x)) <= ROUND_TRIP
    assert torch.allclose(folded.row_norms, torch.ones(M), atol=1e-6)
    assert not isinstance(folded.norm, Scale)
    g, g_folded = dictionary.contributions(dictionary.encode(x)), folded.contributions(folded.encode(x))
    assert relative(g_folded, g) <= ROUND_TRIP
    assert relative(folded.fold().reconstruct(x), folded.reconstruct(x)) <= ROUND_TRIP


def test_fold_scales_b_dec() -> None:
    dictionary = drawn("threshold", pre_bias=True, norm=Scale(0.25))
    folded = dictionary.fold_scale()
    assert torch.equal(folded.b_dec, dictionary.b_dec / 0.25)
    assert torch.equal(folded.w_enc, dictionary.w_enc * 0.25)
    assert torch.equal(folded.w_dec, dictionary.w_dec / 0.25)
    assert isinstance(folded.gate, Threshold)
    assert isinstance(dictionary.gate, Threshold)
    assert torch.equal(folded.gate.theta, dictionary.gate.theta)
    assert torch.equal(folded.b_enc, dictionary.b_enc)
    x = states()
    assert relative(folded.reconstruct(x), by_hand(dictionary, x)[1]) <= ROUND_TRIP
    forgotten = replace(folded, b_dec=dictionary.b_dec)  # what a fold without b_dec would give
    assert relative(forgotten.reconstruct(x), by_hand(dictionary, x)[1]) > 0.1


def test_fold_takes_threshold_and_bias_along() -> None:
    dictionary = drawn("threshold")
    folded = dictionary.fold()
    assert isinstance(folded.gate, Threshold)
    assert isinstance(dictionary.gate, Threshold)
    assert torch.equal(folded.gate.theta, dictionary.gate.theta * dictionary.row_norms)
    assert torch.equal(folded.b_enc, dictionary.b_enc * dictionary.row_norms)


def test_gated_fold_keeps_r_mag() -> None:
    dictionary = drawn("gated")
    folded = dictionary.fold()
    assert isinstance(folded.gate, Gated)
    assert isinstance(dictionary.gate, Gated)
    assert torch.equal(folded.gate.r_mag, dictionary.gate.r_mag)
    assert torch.equal(folded.gate.b_gate, dictionary.gate.b_gate * dictionary.row_norms)
    assert torch.equal(folded.gate.b_mag, dictionary.gate.b_mag * dictionary.row_norms)


def test_topk_fold_raises() -> None:
    dictionary = drawn("topk")
    with pytest.raises(FoldIllegal):
        dictionary.fold()
    assert replace(dictionary, rescale=True).fold().rescale is False
    unit = replace(dictionary, w_dec=dictionary.w_dec / dictionary.row_norms[:, None])
    assert unit.fold() is unit  # nothing to fold
    scaled = replace(unit, norm=Scale(2.0))
    with pytest.raises(FoldIllegal):  # its raw rows have norm 1/2
        scaled.fold()


def test_topk_fold_would_change_what_is_taken() -> None:
    # Why it is illegal: moving norms into the encoder changes which k are largest.
    dictionary = drawn("topk")
    n = dictionary.row_norms
    moved = replace(
        dictionary, w_enc=dictionary.w_enc * n, b_enc=dictionary.b_enc * n, w_dec=dictionary.w_dec / n[:, None]
    )
    x = states()
    assert relative(moved.reconstruct(x), dictionary.reconstruct(x)) > 0.1


def test_row_of_zeros_stays_and_adds_nothing() -> None:
    base = drawn("topk", rescale=True)
    w_dec = base.w_dec.clone()
    w_dec[3] = 0
    for dictionary in (replace(base, w_dec=w_dec), replace(drawn("threshold"), w_dec=w_dec)):
        folded = dictionary.fold()
        x = states()
        assert torch.isfinite(dictionary.reconstruct(x)).all()
        assert relative(folded.reconstruct(x), dictionary.reconstruct(x)) <= ROUND_TRIP
        assert folded.contributions(folded.encode(x))[:, 3].abs().max() == 0


def test_threshold_is_strict() -> None:
    eye = torch.eye(2)
    dictionary = Dictionary(eye, torch.zeros(2), eye, torch.zeros(2), Threshold(torch.tensor([1.0, 1.0])))
    assert dictionary.encode(torch.tensor([[1.0, 1.5]])).tolist() == [[0.0, 1.5]]


def test_topk_picks_of_negative_value_are_zero() -> None:
    eye = torch.eye(3)
    dictionary = Dictionary(eye, torch.zeros(3), eye, torch.zeros(3), TopK(2))
    assert dictionary.encode(torch.tensor([[2.0, -1.0, -3.0]])).tolist() == [[2.0, 0.0, 0.0]]


@pytest.mark.parametrize("norm", [TokenRms(), LayerNorm()], ids=str)
def test_norm_of_each_token_needs_the_states(norm: Norm) -> None:
    dictionary = drawn("relu", norm=norm)
    with pytest.raises(NeedsInput):
        dictionary.decode(dictionary.encode(states()))


@pytest.mark.parametrize(("norm", "numbers"), [(None, 0), (Scale(0.4), 0), (TokenRms(), 1), (LayerNorm(), 2)], ids=str)
def test_decoding_takes_no_more_of_the_states_than_is_told(norm: Norm | None, numbers: int) -> None:
    dictionary, x = drawn("relu", norm=norm), states()
    taken, f = dictionary.side(x), dictionary.encode(x)
    assert taken.shape == (len(x), numbers)
    assert torch.equal(dictionary.decode(f, taken=taken), dictionary.decode(f, x))
    doubled = dictionary.decode(f, taken=2 * taken)
    assert relative(doubled, (2 if numbers else 1) * by_hand(dictionary, x)[1]) < ROUND_TRIP


def test_half_precision_states_are_promoted() -> None:
    dictionary, x = drawn("relu"), states().bfloat16()
    assert dictionary.encode(x).dtype == torch.float32
    assert torch.equal(dictionary.encode(x), dictionary.encode(x.float()))


def test_digests_tell_each_tensor_apart() -> None:
    dictionary = drawn("gated")
    assert set(dictionary.sha256) == {"w_enc", "b_enc", "w_dec", "b_dec", "b_gate", "b_mag", "r_mag"}
    changed = replace(dictionary, b_dec=dictionary.b_dec + 1)
    assert {name for name in dictionary.sha256 if dictionary.sha256[name] != changed.sha256[name]} == {"b_dec"}


@pytest.mark.parametrize(
    "over",
    [
        {"b_enc": torch.zeros(3)},
        {"w_dec": torch.zeros(16, 48)},
        {"b_dec": torch.zeros(16, dtype=torch.float64)},
        {"gate": TopK(0)},
        {"gate": TopK(49)},
        {"gate": Threshold(torch.zeros(47))},
        {"gate": Relu(), "rescale": True},
    ],
    ids=lambda over: "-".join(over),
)
def test_what_does_not_fit_together_is_no_dictionary(over: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"shape|dtype|float|outside|rescale"):
        replace(drawn("relu"), **over)
