"""What each peer's configuration and tensor names mean in the normal form.

One function for each format of specification `sae_features`, section 4; peers: SAELens (decoderesearch/SAELens),
sparsify (EleutherAI/sparsify), Gemma Scope (Lieberum et al. 2024, 2408.05147). What no rule covers is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from checks.check import Refusal
from checks.sae_features.dictionary.parts import exactly, normal_form, scale, threshold
from checks.sae_features.dictionary.settings import Settings, unknown
from checks.sae_features.dictionary.value import Dictionary, Gate, Gated, LayerNorm, Norm, Relu, TokenRms, TopK

if TYPE_CHECKING:
    from jaxtyping import Float

FOREIGN = ("whitening", "absolute", "crosscoder")
"""Words in a key that stand for a way of encoding which the normal form cannot hold; refused where the key is set."""

_SAELENS_GATES: Mapping[str, tuple[str, ...]] = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
"""Tensors of each architecture beside W_enc, W_dec and b_dec; BatchTopK is stored as jumprelu."""

_FINETUNED = ("scaling_factor", "finetuning_scaling_factor")

GEMMA_NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


def saelens(settings: Settings, tensors: Mapping[str, Float[torch.Tensor, "*axes"]]) -> Dictionary:
    """Return the dictionary of a SAELens folder; files from before version 6 have names and defaults of their own."""
    _refuse_foreign(settings)
    metadata = settings.part("metadata")
    kind, k = _saelens_kind(settings, _before_six(settings, metadata))
    if settings.take("reshape_activations", str, "none") not in ("none", "hook_z"):
        raise unknown("reshape_activations", settings.values["reshape_activations"])
    hook_out = metadata.take("hook_name_out", str, None)
    if hook_out is not None and hook_out != metadata.take("hook_name", str, None):
        raise unknown("hook_name_out", hook_out)  # a transcoder
    found = exactly(tensors, ("W_enc", "W_dec", "b_dec", *_SAELENS_GATES[kind]), optional=_FINETUNED)
    for name in _FINETUNED:
        if name in found and not bool((found[name] == 1).all()):
            raise Refusal("scaling_factor", (f"tensor:{name}",))
    gate: Gate = Relu()
    if kind == "topk":
        gate = TopK(k)
    elif kind == "jumprelu":
        gate = threshold(found["threshold"], "threshold")
    elif kind == "gated":
        gate = Gated(found["b_gate"], found["b_mag"], found["r_mag"])
    return normal_form(
        settings,
        _renamed(found),
        gate,
        widths=("d_in", "d_sae"),
        pre_bias=settings.take("apply_b_dec_to_input", bool, True),
        norm=_saelens_norm(settings, metadata),
        rescale=kind == "topk" and settings.take("rescale_acts_by_decoder_norm", bool, False),
    )


def sparsify(settings: Settings, tensors: Mapping[str, Float[torch.Tensor, "*axes"]]) -> Dictionary:
    """Return the dictionary of a sparsify folder: encoder.weight and W_dec are both [m, d], the latter as we store it.

    The pre-bias is always applied: only transcoders leave it out. `normalize_decoder` and `multi_topk` are rules of
    training. ReLU before or after the top k gives equal latents.
    """
    _refuse_foreign(settings)
    if settings.take("activation", str, "topk") != "topk":
        raise unknown("activation", settings.values["activation"])
    for key in ("transcode", "skip_connection"):
        if settings.take(key, bool, False):
            raise unknown(key, "true")
    found = exactly(tensors, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    d = settings.take("d_in", int)
    m = settings.take("num_latents", int, 0) or d * settings.take("expansion_factor", int, 32)
    if tuple(found["encoder.weight"].shape) != (m, d):
        raise Refusal("wrong_width", ("tensor:encoder.weight", f"config:{m}x{d}"))
    normal = {
        "w_enc": found["encoder.weight"].T.contiguous(),
        "b_enc": found["encoder.bias"],
        "w_dec": found["W_dec"],
        "b_dec": found["b_dec"],
    }
    gate = TopK(settings.take("k", int))
    for key in ("normalize_decoder", "multi_topk"):
        settings.take(key, bool, False)
    return normal_form(settings, normal, gate, widths=("d_in", None), pre_bias=True)


def gemma_scope(settings: Settings, tensors: Mapping[str, Float[torch.Tensor, "*axes"]]) -> Dictionary:
    """Return the dictionary of a Gemma Scope file: no pre-bias, raw states.

    One of the embeddings was trained on states that the model multiplies by sqrt(d) afterwards: W_enc / sqrt(d) and
    W_dec sqrt(d). It is known by the hook or folder that the configuration names.
    """
    _refuse_foreign(settings)
    found = exactly({_upper(name): tensor for name, tensor in tensors.items()}, GEMMA_NAMES)
    gate = threshold(found["threshold"], "threshold")
    named = [settings.take(key, str, "") for key in ("hook_name", "folder_name")]
    normal = _renamed(found)
    if any("embed" in name for name in named):
        root = float(found["b_dec"].shape[0] ** 0.5)
        normal |= {"w_enc": found["W_enc"] / root, "w_dec": found["W_dec"] * root}
    return normal_form(settings, normal, gate, widths=("d_in", "d_sae"), pre_bias=False)


def _refuse_foreign(settings: Settings) -> None:
    for key, value in settings.values.items():
        if value and any(word in key.lower() for word in FOREIGN):
            raise unknown(key, value if isinstance(value, str | int) else "set")


def _before_six(settings: Settings, metadata: Settings) -> bool:
    """Tell whether a SAELens file is from before version 6: it states no version, or a lower one."""
    version = metadata.take("sae_lens_version", str, None) or settings.take("sae_lens_version", str, None)
    major = (version or "0").partition(".")[0]
    if not major.isascii() or not major.isdigit():
        raise metadata.wrong("sae_lens_version")
    return int(major[:9]) < 6


def _saelens_kind(settings: Settings, old: bool) -> tuple[str, int]:
    """Return the architecture and k; before version 6 a "standard" one may be a TopK by its activation function."""
    kind = settings.take("architecture", str, "standard") if old else settings.take("architecture", str)
    if kind not in _SAELENS_GATES:
        raise unknown("architecture", kind)
    if not old:
        return kind, settings.take("k", int) if kind == "topk" else 0
    key = "activation_fn_str" if "activation_fn_str" in settings.values else "activation_fn"
    function = settings.take(key, str, "topk" if kind == "topk" else "relu")
    if (kind, function) not in {("standard", "relu"), ("jumprelu", "relu"), ("gated", "relu")} and (
        kind not in ("standard", "topk") or function != "topk"
    ):
        raise unknown(key, function)
    if function != "topk":
        return kind, 0
    own = settings.values.get("k")
    return "topk", settings.take("k", int) if own is not None else settings.part("activation_fn_kwargs").take("k", int)


def _saelens_norm(settings: Settings, metadata: Settings) -> Norm | None:
    """Return the norm of the states; a scale that is not stored cannot be known from the weights.

    Raises:
        Refusal: `scale_missing` (SAELens #222, #381).
    """
    said: Any = settings.take("normalize_activations", (str, bool), "none")
    if said is True or settings.take("normalize", bool, False):
        said = "expected_average_only_in"
    if said == "expected_average_only_in":
        holder = settings if settings.values.get("norm_scaling_factor") is not None else metadata
        if holder.values.get("norm_scaling_factor") is None:
            raise Refusal("scale_missing", ("key:normalize_activations",))
        return scale(holder, "norm_scaling_factor")
    norms: Mapping[Any, Norm | None] = {
        "none": None, False: None, "constant_norm_rescale": TokenRms(), "layer_norm": LayerNorm(),
    }  # fmt: skip
    if said not in norms:
        raise unknown("normalize_activations", said)
    return norms[said]


def _renamed(tensors: Mapping[str, Float[torch.Tensor, "*axes"]]) -> dict[str, Float[torch.Tensor, "*axes"]]:
    names = {"W_enc": "w_enc", "b_enc": "b_enc", "W_dec": "w_dec", "b_dec": "b_dec"}
    return {ours: tensors[name] for name, ours in names.items() if name in tensors}


def _upper(name: str) -> str:
    """Return Gemma Scope's own spelling of a matrix that a file writes with a small w."""
    return f"W{name[1:]}" if name.startswith("w_") else name
