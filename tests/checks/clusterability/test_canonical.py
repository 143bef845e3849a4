"""Folded models compute what the original computes, to 1e-5: matrix by matrix and model by model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from checks.clusterability.canonical import (
    Affine,
    BatchNorm,
    Norm,
    carried,
    centred_writer,
    folded_affine,
    folded_batchnorm,
    folded_reader,
)
from tests.checks.models import MODELS

IDS = torch.tensor([[3, 9, 4, 11, 20, 5]])


def scale_of(x: np.ndarray, norm: Norm, eps: float) -> np.ndarray:
    spread = x.var(axis=1) if norm == "layer" else np.square(x).mean(axis=1)
    scale: np.ndarray = np.sqrt(spread + eps)[:, None]
    return scale


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_folded_reader_reads_what_the_norm_gave(norm: Norm) -> None:
    rng = np.random.default_rng(0)
    x, gain, shift = 3 + rng.normal(size=(7, 12)), rng.normal(size=12), rng.normal(size=12)
    shift = shift if norm == "layer" else np.zeros(12)
    reader = Affine(rng.normal(size=(5, 12)), rng.normal(size=5))
    torch_norm = (
        torch.nn.LayerNorm(12, eps=1e-5).double() if norm == "layer" else torch.nn.RMSNorm(12, eps=1e-5).double()
    )
    torch_norm.weight.data = torch.from_numpy(gain)
    if norm == "layer":
        torch_norm.bias.data = torch.from_numpy(shift)
    normed = torch_norm(torch.from_numpy(x)).detach().numpy()
    folded = folded_affine(reader, gain, shift, norm)
    expected = normed @ reader.weight.T + reader.bias
    assert (x / scale_of(x, norm, 1e-5)) @ folded.weight.T + folded.bias == pytest.approx(expected, abs=1e-9)
    assert np.array_equal(folded.weight, folded_reader(reader.weight, gain, norm))


def test_centred_writers_leave_every_later_layer_norm_as_it_was() -> None:
    rng = np.random.default_rng(1)
    writes, h = rng.normal(size=(12, 4)), rng.normal(size=(4, 7))
    stream = rng.normal(size=(12, 7))
    norm = torch.nn.LayerNorm(12).double()
    plain, centred = (
        norm(torch.from_numpy((stream + one @ h).T)).detach().numpy()
        for one in (writes, centred_writer(writes, "layer"))
    )
    assert centred == pytest.approx(plain, abs=1e-9)
    assert np.array_equal(centred_writer(writes, "rms"), writes)


def test_what_is_carried_along_the_stream_is_the_norms_linear_part() -> None:
    rng = np.random.default_rng(2)
    writes, gains = rng.normal(size=(6, 2)), rng.normal(size=(2, 6))
    centre = np.eye(6) - 1 / 6
    expected = np.diag(gains[1]) @ centre @ np.diag(gains[0]) @ centre @ writes
    assert carried(writes, list(gains), "layer") == pytest.approx(expected)
    assert carried(writes, list(gains), "rms") == pytest.approx(np.diag(gains[1] * gains[0]) @ writes)
    assert np.array_equal(carried(writes, (), "layer"), writes)


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_a_batch_norm_goes_into_the_layer_before_it(kind: str) -> None:
    rng = np.random.default_rng(3)
    shape = (5, 4) if kind == "linear" else (5, 4, 3, 3)
    layer = Affine(rng.normal(size=shape), rng.normal(size=5))
    norm = BatchNorm(rng.normal(size=5), rng.normal(size=5), rng.normal(size=5), rng.uniform(0.1, 3, size=5), 1e-5)
    x = torch.from_numpy(rng.normal(size=(7, 4) if kind == "linear" else (7, 4, 8, 8)))

    def run(one: Affine) -> Any:
        call = torch.nn.functional.linear if kind == "linear" else torch.nn.functional.conv2d
        return call(x, torch.from_numpy(one.weight), torch.from_numpy(one.bias))

    mean, variance, gain, shift = map(torch.from_numpy, (norm.mean, norm.variance, norm.gain, norm.shift))
    expected = torch.nn.functional.batch_norm(run(layer), mean, variance, gain, shift, eps=norm.eps)
    assert run(folded_batchnorm(layer, norm)).numpy() == pytest.approx(expected.numpy(), abs=1e-9)


def test_norms_that_do_not_fit_are_refused() -> None:
    ones = np.ones(5)
    with pytest.raises(ValueError, match="gain"):
        folded_reader(np.ones((3, 4)), ones, "rms")
    with pytest.raises(ValueError, match="fit"):
        folded_batchnorm(Affine(np.ones((4, 2)), np.ones(4)), BatchNorm(ones, ones, ones, ones, 1e-5))
    with pytest.raises(ValueError, match="variance"):
        folded_batchnorm(Affine(np.ones((5, 2)), ones), BatchNorm(ones, ones, ones, -ones, 1e-5))


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        read: np.ndarray = model(IDS).logits.numpy()
    return read


def random_model(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]().eval().double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def fold(linear: Any, norm: Any, kind: Norm, turned: bool) -> None:
    """Fold a norm into a torch layer that reads it, in place; `turned` for weights stored as [in, out]."""
    weight = linear.weight.data.numpy()
    weight = weight.T if turned else weight
    bias = np.zeros(len(weight)) if linear.bias is None else linear.bias.data.numpy()
    shift = norm.bias.data.numpy() if kind == "layer" else np.zeros(weight.shape[1])
    folded = folded_affine(Affine(weight, bias), norm.weight.data.numpy(), shift, kind)
    linear.weight.data = torch.from_numpy(np.ascontiguousarray(folded.weight.T if turned else folded.weight))
    if linear.bias is not None:
        linear.bias.data = torch.from_numpy(folded.bias)


def reset(norm: Any) -> None:
    norm.weight.data.fill_(1.0)
    if getattr(norm, "bias", None) is not None:
        norm.bias.data.zero_()


def test_a_folded_gpt2_gives_the_same_logits() -> None:
    model = random_model("gpt2")
    before = logits(model)
    for block in model.transformer.h:
        for linear, norm in ((block.attn.c_attn, block.ln_1), (block.mlp.c_fc, block.ln_2)):
            fold(linear, norm, "layer", turned=True)
            reset(norm)
        for linear in (block.attn.c_proj, block.mlp.c_proj):
            centred = centred_writer(linear.weight.data.numpy().T, "layer").T
            linear.weight.data = torch.from_numpy(np.ascontiguousarray(centred))
            linear.bias.data -= linear.bias.data.mean()
    assert logits(model) == pytest.approx(before, abs=1e-5)
    assert np.ptp(before) > 0.5


def test_a_folded_llama_gives_the_same_logits() -> None:
    model = random_model("llama")
    before = logits(model)
    for block in model.model.layers:
        attention, mlp = block.self_attn, block.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            fold(linear, block.input_layernorm, "rms", turned=False)
        for linear in (mlp.gate_proj, mlp.up_proj):
            fold(linear, block.post_attention_layernorm, "rms", turned=False)
        reset(block.input_layernorm)
        reset(block.post_attention_layernorm)
    assert logits(model) == pytest.approx(before, abs=1e-5)
    assert np.ptp(before) > 0.5
