"""Each peer's files are read as the peer reads them, and whatever no rule covers is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from checks.check import Refusal
from checks.sae_features.dictionary.formats import REASONS, check_site, hook_site, load_sae, save_assay
from checks.sae_features.dictionary.tensors import check_name
from checks.sae_features.dictionary.value import (
    Dictionary,
    LayerNorm,
    Norm,
    Origin,
    Relu,
    Scale,
    Threshold,
    TokenRms,
    TopK,
)
from tests.checks.sae_features.dictionary import written
from tests.checks.sae_features.dictionary.drawn import D, M, by_hand, drawn, relative, states

SIX = {"sae_lens_version": "6.54.12", "hook_name": "blocks.1.hook_resid_post", "model_name": "toy"}


def saelens(architecture: str, **over: Any) -> dict[str, Any]:
    return {"architecture": architecture, "d_in": D, "d_sae": M, "metadata": SIX, **over}


def refused(config: bytes, weights: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        load_sae(config, weights)
    assert caught.value.reason in REASONS
    return caught.value


def blob(dictionary: Dictionary) -> bytes:
    return written.safetensors(written.as_saelens(dictionary))


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("standard", "relu"), ("topk", "topk"), ("topk", "rescaled"), ("jumprelu", "threshold"), ("gated", "gated")],
)
@pytest.mark.parametrize("pre_bias", [True, False])
def test_saelens_files_make_what_their_formulas_say(architecture: str, kind: str, pre_bias: bool) -> None:
    rescale = kind == "rescaled"
    truth = drawn("topk" if rescale else kind, pre_bias=pre_bias, rescale=rescale)
    peer = saelens(architecture, apply_b_dec_to_input=pre_bias)
    if architecture == "topk":
        peer |= {"k": 5, "rescale_acts_by_decoder_norm": rescale}
    read = load_sae(written.config("saelens", peer), blob(truth))
    x = states()
    f, made = by_hand(truth, x)
    assert relative(read.encode(x), f) < 1e-5
    assert relative(read.reconstruct(x), made) < 1e-5
    assert read.origin.hook == "blocks.1.hook_resid_post"
    assert read.origin.dropped == ()


@pytest.mark.parametrize(
    ("said", "norm"), [("none", None), ("constant_norm_rescale", TokenRms()), ("layer_norm", LayerNorm())]
)
def test_saelens_norm_is_applied_and_undone(said: str, norm: Norm | None) -> None:
    truth = drawn("relu", pre_bias=True, norm=norm)
    read = load_sae(written.config("saelens", saelens("standard", normalize_activations=said)), blob(truth))
    x = states()
    assert relative(read.reconstruct(x), by_hand(truth, x)[1]) < 1e-5


@pytest.mark.parametrize("peer", [saelens("standard"), {"d_in": D, "d_sae": M}], ids=["six", "older"])
def test_missing_scale_is_refused(peer: dict[str, Any]) -> None:
    scaled = {**peer, "normalize_activations": "expected_average_only_in"}
    assert refused(written.config("saelens", scaled), blob(drawn("relu"))).reason == "scale_missing"
    truth = drawn("relu", pre_bias=True, norm=Scale(0.3))
    read = load_sae(written.config("saelens", {**scaled, "norm_scaling_factor": 0.3}), blob(truth))
    x = states()
    assert relative(read.fold().reconstruct(x), by_hand(truth, x)[1]) < 1e-5


def test_older_saelens_boolean_normalize_means_a_scale() -> None:
    peer = {"d_in": D, "d_sae": M, "normalize_activations": True}
    assert refused(written.config("saelens", peer), blob(drawn("relu"))).reason == "scale_missing"
    read = load_sae(written.config("saelens", {**peer, "normalize_activations": False}), blob(drawn("relu")))
    assert read.norm is None


@pytest.mark.parametrize("name", ["activation_fn", "activation_fn_str"])
def test_topk_is_not_relu(name: str) -> None:
    truth = drawn("topk", pre_bias=True)
    peer = {
        "d_in": D,
        "d_sae": M,
        name: "topk",
        "activation_fn_kwargs": {"k": 5},
        "hook_point": "blocks.0.hook_mlp_out",
    }
    read = load_sae(written.config("saelens", peer), blob(truth))
    assert read.gate == TopK(5)
    assert read.pre_bias  # the default before version 6
    assert read.origin.hook == "blocks.0.hook_mlp_out"
    x = states()
    assert relative(read.reconstruct(x), by_hand(truth, x)[1]) < 1e-5
    assert read.encode(x).count_nonzero(dim=1).max() == 5


def test_scaling_factor_must_be_ones() -> None:
    arrays = {**written.as_saelens(drawn("relu")), "scaling_factor": np.ones(M, dtype=np.float32)}
    peer = written.config("saelens", {"d_in": D, "d_sae": M})
    assert isinstance(load_sae(peer, written.safetensors(arrays)).gate, Relu)
    arrays["scaling_factor"][3] = 1.5
    refusal = refused(peer, written.safetensors(arrays))
    assert (refusal.reason, refusal.items) == ("scaling_factor", ("tensor:scaling_factor",))


def test_threshold_survives_import() -> None:
    truth = drawn("threshold", pre_bias=True)
    assert isinstance(truth.gate, Threshold)
    for config, weights in (
        (written.config("saelens", saelens("jumprelu")), blob(truth)),
        (written.config("gemma_scope"), written.npz(written.as_gemma(truth))),
        save_assay(truth),
    ):
        read = load_sae(config, weights)
        assert isinstance(read.gate, Threshold)
        assert written.same(read.gate.theta, truth.gate.theta)


def test_unset_threshold_refused() -> None:
    theta = torch.full((M,), 0.5)
    theta[7] = -1
    unset = drawn("threshold", gate=Threshold(theta))
    for config, weights in (
        (written.config("saelens", saelens("jumprelu")), blob(unset)),
        (written.config("gemma_scope"), written.npz(written.as_gemma(unset))),
        save_assay(unset),
    ):
        refusal = refused(config, weights)
        assert refusal.reason == "threshold_unset"
        assert refusal.items[1] == "latents:1"


def sparsify_config(**over: Any) -> bytes:
    peer = {"d_in": D, "expansion_factor": M // D, "num_latents": 0, "k": 5, "activation": "topk", **over}
    return written.config("sparsify", peer)


def test_sparsify_decoder_is_not_transposed() -> None:
    truth = drawn("topk", pre_bias=True)
    read = load_sae(sparsify_config(), written.safetensors(written.as_sparsify(truth)))
    assert written.same(read.w_dec, truth.w_dec)
    assert written.same(read.w_enc, truth.w_enc)
    square = drawn("topk", pre_bias=True, d=32, m=32)  # where a transposed W_dec would fit
    config = sparsify_config(d_in=32, expansion_factor=1)
    assert written.same(load_sae(config, written.safetensors(written.as_sparsify(square))).w_dec, square.w_dec)


@pytest.mark.parametrize("normalised", [True, False])
def test_sparsify_prebias(normalised: bool) -> None:
    truth = drawn("topk", pre_bias=True)
    config = sparsify_config(normalize_decoder=normalised, multi_topk=True, num_latents=M)
    read = load_sae(config, written.safetensors(written.as_sparsify(truth)))
    assert read.pre_bias
    x = states()
    assert relative(read.reconstruct(x), by_hand(truth, x)[1]) < 1e-5


@pytest.mark.parametrize("names", ["W", "w"])
def test_gemma_scope_takes_raw_states(names: str) -> None:
    truth = drawn("threshold", pre_bias=False)
    arrays = {name.replace("W_", f"{names}_"): array for name, array in written.as_gemma(truth).items()}
    read = load_sae(written.config("gemma_scope"), written.npz(arrays))
    assert not read.pre_bias
    x = states()
    assert relative(read.reconstruct(x), by_hand(truth, x)[1]) < 1e-5


def test_gemma_scope_of_embeddings_is_rescaled() -> None:
    truth = drawn("threshold")
    config = written.config("gemma_scope", {"hook_name": "hook_embed"}, site="embed")
    read = load_sae(config, written.npz(written.as_gemma(truth)))
    assert relative(read.w_enc, truth.w_enc / D**0.5) < 1e-6
    assert relative(read.w_dec, truth.w_dec * D**0.5) < 1e-6
    assert written.same(read.b_dec, truth.b_dec)
    assert hook_site("hook_embed") == "embed"


@pytest.mark.parametrize("norm", [None, Scale(0.123456789), TokenRms(), LayerNorm()], ids=str)
@pytest.mark.parametrize("kind", ["relu", "topk", "threshold", "gated"])
def test_saved_dictionary_reads_back_as_it_was(kind: str, norm: Norm | None) -> None:
    origin = Origin(site="resid.3", declared_l0=12.5, trained_on="submitted")
    truth = drawn(kind, pre_bias=kind == "gated", norm=norm, rescale=kind == "topk", origin=origin)
    config, weights = save_assay(truth)
    read = load_sae(config, weights)
    assert read.sha256 == truth.sha256
    assert (read.pre_bias, read.norm, read.rescale) == (truth.pre_bias, truth.norm, truth.rescale)
    assert type(read.gate) is type(truth.gate)
    assert (read.origin.site, read.origin.declared_l0, read.origin.trained_on) == ("resid.3", 12.5, "submitted")
    assert save_assay(read) == (config, weights)


def test_keys_that_no_rule_reads_are_listed() -> None:
    peer = saelens("standard", lr=0.1, metadata={**SIX, "wandb": "x"}, notes={"a": 1})
    assert load_sae(written.config("saelens", peer), blob(drawn("relu"))).origin.dropped == (
        "lr",
        "metadata.wandb",
        "notes",
    )


BAD_CONFIG: dict[str, tuple[bytes, str, str]] = {
    "not JSON": (b"{", "sae_config", "json_invalid"),
    "duplicate key": (b'{"a":1,"a":2}', "sae_config", "json_duplicate_key"),
    "a list": (b"[]", "sae_config", "not_an_object"),
    "over a megabyte": (b'{"a":"' + b"x" * 10**6 + b'"}', "sae_config", "size_cap"),
    "unknown field": (written.config("saelens", saelens("standard"), more=1), "sae_config", "key:more"),
    "missing field": (
        json.dumps({k: v for k, v in json.loads(written.config("saelens")).items() if k != "site"}).encode(),
        "sae_config", "key:site",
    ),
    "another schema": (written.config("saelens", schema="assay-sae/v2"), "sae_config", "key:schema"),
    "l0 a boolean": (written.config("saelens", declared_l0=True), "sae_config", "key:declared_l0"),
    "l0 below 0": (written.config("saelens", declared_l0=-1), "sae_config", "key:declared_l0"),
    "trained on what": (written.config("saelens", trained_on="x"), "sae_config", "key:trained_on"),
    "unknown format": (written.config("pickle"), "unknown_format", "format:pickle"),
    "no architecture": (written.config("saelens", {"metadata": SIX}), "config_value", "key:architecture"),
    "temporal": (written.config("saelens", saelens("temporal")), "unknown_architecture", "architecture:temporal"),
    "matching pursuit": (
        written.config("saelens", saelens("matching_pursuit")), "unknown_architecture", "architecture:matching_pursuit",
    ),
    "whitening": (
        written.config("saelens", saelens("standard", covariance_whitening=True)), "unknown_architecture",
        "covariance_whitening:True",
    ),
    "whitening as a norm": (
        written.config("saelens", saelens("standard", normalize_activations="covariance_whitening")),
        "unknown_architecture", "normalize_activations:covariance_whitening",
    ),
    "reshaped": (
        written.config("saelens", saelens("standard", reshape_activations="conv")), "unknown_architecture",
        "reshape_activations:conv",
    ),
    "absolute top-k": (
        written.config("saelens", saelens("standard", use_absolute=True)), "unknown_architecture", "use_absolute:True",
    ),
    "odd activation": (
        written.config("saelens", {"activation_fn": "tanh-relu"}), "unknown_architecture", "activation_fn:tanh-relu",
    ),
    "topk without k": (written.config("saelens", saelens("topk")), "config_value", "key:k"),
    "k too large": (written.config("saelens", saelens("topk", k=M + 1)), "config_value", "key:k"),
    "k a fraction": (written.config("saelens", saelens("topk", k=5.0)), "config_value", "key:k"),
    "d_in": (written.config("saelens", saelens("standard", d_in=D + 1)), "wrong_width", "key:d_in"),
    "d_sae": (written.config("saelens", saelens("standard", d_sae=M - 1)), "wrong_width", "key:d_sae"),
    "a scale of zero": (
        written.config("saelens", saelens(
            "standard", normalize_activations="expected_average_only_in", norm_scaling_factor=0)),
        "config_value", "key:norm_scaling_factor",
    ),
    "an odd version": (
        written.config("saelens", {"metadata": {"sae_lens_version": "v6"}}), "config_value",
        "key:metadata.sae_lens_version",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CONFIG)
def test_each_bad_configuration_is_refused_by_name(name: str) -> None:
    config, reason, item = BAD_CONFIG[name]
    refusal = refused(config, blob(drawn("relu")))
    assert refusal.reason == reason
    assert item in refusal.items


@pytest.mark.parametrize(
    ("over", "item"),
    [({"activation": "groupmax"}, "activation:groupmax"), ({"transcode": True}, "transcode:true"),
     ({"skip_connection": True}, "skip_connection:true")],
)  # fmt: skip
def test_sparsify_without_a_place_in_the_normal_form_is_refused(over: dict[str, Any], item: str) -> None:
    refusal = refused(sparsify_config(**over), written.safetensors(written.as_sparsify(drawn("topk"))))
    assert (refusal.reason, refusal.items) == ("unknown_architecture", (item,))


def bad_tensors() -> dict[str, tuple[written.Arrays, str, str]]:
    good = written.as_saelens(drawn("relu"))
    spoilt = good["W_enc"].copy()
    spoilt[1, 2] = np.nan
    huge = good["b_dec"].astype(np.float64)
    huge[0] = 1e300  # finite in the file, infinite in float32
    return {
        "unknown": ({**good, "W_skip": good["b_dec"]}, "unknown_tensor", "tensor:W_skip"),
        "missing": ({k: v for k, v in good.items() if k != "b_dec"}, "missing_tensor", "tensor:b_dec"),
        "nan": ({**good, "W_enc": spoilt}, "not_finite", "tensor:W_enc"),
        "overflow": ({**good, "b_dec": huge}, "not_finite", "tensor:b_dec"),
        "wrong width": ({**good, "b_dec": good["b_dec"][:-1]}, "wrong_shape", "tensor:b_dec"),
        "transposed": ({**good, "W_enc": good["W_enc"].T}, "wrong_shape", "tensor:w_enc"),
        "rank 1": ({**good, "W_dec": good["b_dec"]}, "wrong_shape", "tensor:w_dec"),
        "no latents": ({**good, "W_dec": good["W_dec"][:0]}, "wrong_shape", "tensor:w_dec"),
        "integers": ({**good, "b_dec": np.zeros(D, dtype=np.int64)}, "tensor_dtype", "tensor:b_dec"),
    }


@pytest.mark.parametrize("name", bad_tensors())
def test_each_bad_tensor_is_refused_by_name(name: str) -> None:
    arrays, reason, item = bad_tensors()[name]
    refusal = refused(written.config("saelens", saelens("standard")), written.safetensors(arrays))
    assert refusal.reason == reason
    assert item in refusal.items


def test_half_precision_files_are_read() -> None:
    arrays = {name: array.astype(np.float16) for name, array in written.as_saelens(drawn("relu")).items()}
    read = load_sae(written.config("saelens", saelens("standard")), written.safetensors(arrays))
    assert read.w_enc.dtype == torch.float32
    assert np.array_equal(read.w_enc.numpy(), arrays["W_enc"].astype(np.float32))


@pytest.mark.parametrize("form", ["saelens", "sparsify", "gemma_scope", "assay"])
def test_pickles_are_refused_with_advice(form: str) -> None:
    peer = saelens("standard") if form == "saelens" else None
    zipped = b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl" + b"\x80\x02}q\x00." + b"\0" * 100
    for weights in (b"\x80\x02}q\x00.", b"\x80\x04\x95" + b"\0" * 99, zipped):
        refusal = refused(written.config(form, peer), weights)
        assert (refusal.reason, refusal.items) == ("pickle_format", ("advice:export_as_safetensors",))


@pytest.mark.parametrize("name", ["ae.pt", "a/b/model.PTH", "pytorch_model.bin", "x.pkl"])
def test_pickle_names_are_refused(name: str) -> None:
    with pytest.raises(Refusal, match="pickle_format"):
        check_name(name)
    check_name("sae_weights.safetensors")
    check_name("params.npz")


@pytest.mark.parametrize("form", ["saelens", "gemma_scope"])
def test_bytes_of_another_kind_are_refused(form: str) -> None:
    for weights in (b"", b"\0" * 9, b"\xff" * 400, b"{}" * 40):
        refusal = refused(written.config(form, saelens("standard")), weights)
        assert refusal.reason == "weights_unreadable"
        assert refusal.items[0].startswith("st_" if form == "saelens" else "npz_")


def test_site_must_be_the_one_that_is_asked() -> None:
    origin = Origin(site="resid.1", hook="blocks.1.hook_resid_post", model_name="toy")
    assert check_site(origin, "resid.1", "toy") == ()
    assert check_site(replace(origin, hook="blocks.2.hook_resid_pre"), "resid.1") == ()
    for wrong, item in (
        (replace(origin, site="resid.2"), "site:resid.2"),
        (replace(origin, hook="blocks.1.hook_resid_pre"), "hook:blocks.1.hook_resid_pre"),
        (replace(origin, hook="somewhere"), "hook:somewhere"),
        (replace(origin, model_name="other"), "model:other"),
    ):
        with pytest.raises(Refusal) as caught:
            check_site(wrong, "resid.1", "toy")
        assert caught.value.reason == "site_mismatch"
        assert item in caught.value.items
        assert check_site(replace(wrong, assume_site=True), "resid.1", "toy") == (item,)


def header_mutants(count: int, seed: int) -> list[str]:
    """Return the reasons of refused mutants; the others read as the original, or this raises."""
    truth = drawn("gated", d=4, m=6)
    config, weights = save_assay(truth)
    begin = 8 + int.from_bytes(weights[:8], "little")
    rng = np.random.default_rng(seed)
    reasons: list[str] = []
    for _ in range(count):
        mutant = bytearray(weights)
        mutant[int(rng.integers(begin))] = int(rng.integers(256))  # the data have no checksum: only the header
        try:
            read = load_sae(config, bytes(mutant))
        except Refusal as refusal:
            reasons.append(refusal.reason)
            continue
        assert sorted(read.sha256.values()) == sorted(truth.sha256.values())
    return reasons


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_safetensors_mutants_are_refused_or_equal(count: int) -> None:
    reasons = header_mutants(count, seed=5)
    assert set(reasons) <= set(REASONS)
    assert len(reasons) > 0.8 * count
