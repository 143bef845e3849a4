"""Loading a supplied dictionary from its two files, and writing our own.

The role `sae_config` says what the other file is: {"schema": "assay-sae/v1", "format": "saelens" | "sparsify" |
"gemma_scope" | "assay", "config": the peer's own configuration or {}, "site", "declared_l0": number or null,
"trained_on": "base" | "submitted" | "unknown", "assume_site": true or false}. Specification `sae_features`, section 4.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from checks.check import Refusal
from checks.sae_features.dictionary.parts import exactly, normal_form, scale, threshold
from checks.sae_features.dictionary.peers import GEMMA_NAMES, gemma_scope, saelens, sparsify
from checks.sae_features.dictionary.settings import Settings, named, unknown
from checks.sae_features.dictionary.tensors import read_arrays, read_safetensors
from checks.sae_features.dictionary.value import (
    Dictionary,
    Gate,
    Gated,
    LayerNorm,
    Norm,
    Origin,
    Relu,
    Scale,
    TokenRms,
    TopK,
)
from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError

if TYPE_CHECKING:
    from jaxtyping import Float

SCHEMA = "assay-sae/v1"

CONFIG_MAX = 10**6
"""Bytes of `sae_config` (specification, section 3)."""

REASONS = (
    "config_value", "convention_unconfirmed", "missing_tensor", "not_finite", "pickle_format", "sae_config",
    "scale_missing", "scaling_factor", "site_mismatch", "tensor_dtype", "threshold_unset", "too_few_vectors",
    "unknown_architecture", "unknown_format", "unknown_tensor", "weights_unreadable", "wrong_shape", "wrong_width",
)  # fmt: skip
"""Reason codes of every refusal that reading or confirming a dictionary can end in."""

_KEYS = frozenset({"schema", "format", "config", "site", "declared_l0", "trained_on", "assume_site"})

_HOOKS = (
    (re.compile(r"blocks\.([0-9]{1,4})\.hook_resid_post"), "resid.{}", 0),
    (re.compile(r"blocks\.([0-9]{1,4})\.hook_resid_pre"), "resid.{}", -1),
    (re.compile(r"blocks\.([0-9]{1,4})\.hook_mlp_out"), "mlp_out.{}", 0),
    (re.compile(r"blocks\.([0-9]{1,4})\.attn\.hook_z"), "attn_z.{}", 0),
    (re.compile(r"layers\.([0-9]{1,4})"), "resid.{}", 0),
)
"""Hooks of peers and the sites they are: a state before block l is the one after block l - 1, and sparsify's folder
`layers.l` holds the output of block l (its issue #74)."""


def load_sae(config: bytes, weights: bytes) -> Dictionary:
    """Return a supplied dictionary; its `origin` holds what its files state.

    Args:
        config: the role `sae_config`.
        weights: the role `sae`: safetensors, for Gemma Scope npz.

    Raises:
        Refusal: one of `REASONS`; the items name the tensor, key or reader's code.
    """
    stated = _stated(config)
    settings = Settings(stated["config"])
    reader, rule = _FORMATS[stated["format"]]
    dictionary = rule(settings, reader(weights))
    metadata = settings.part("metadata")
    hook = metadata.take("hook_name", str, None) or settings.take("hook_name", str, None)
    hook = hook or settings.take("hook_point", str, None)
    model_name = metadata.take("model_name", str, None) or settings.take("model_name", str, None)
    origin = Origin(
        format=stated["format"],
        sha256=hashlib.sha256(weights).hexdigest(),
        site=stated["site"],
        hook=hook,
        model_name=model_name,
        declared_l0=None if stated["declared_l0"] is None else float(stated["declared_l0"]),
        trained_on=stated["trained_on"],
        assume_site=stated["assume_site"],
        dropped=settings.dropped(),
    )
    return replace(dictionary, origin=origin)


def hook_site(hook: str) -> str | None:
    """Return the site that a peer's hook is, e.g. "resid.3"; None where no rule knows it."""
    for pattern, site, shift in _HOOKS:
        matched = pattern.fullmatch(hook)
        if matched:
            layer = int(matched[1]) + shift
            return site.format(layer) if layer >= 0 else "embed"
    return "embed" if hook == "hook_embed" else None


def check_site(origin: Origin, site: str, model_name: str | None = None) -> tuple[str, ...]:
    """Hold what a dictionary's files state against where it is used.

    Args:
        origin: of the dictionary.
        site: where the audit looks, e.g. "resid.3".
        model_name: of the audited model, where it has one to compare.

    Returns:
        What differs although `assume_site` asks to go on; to be reported as a statement of the sender.

    Raises:
        Refusal: `site_mismatch`, naming what differs.
    """
    wrong = []
    if origin.site != site:
        wrong.append(named("site", origin.site))
    if origin.hook is not None and hook_site(origin.hook) != site:
        wrong.append(named("hook", origin.hook))
    if None not in (model_name, origin.model_name) and origin.model_name != model_name:
        wrong.append(named("model", origin.model_name))
    if wrong and not origin.assume_site:
        raise Refusal("site_mismatch", (*wrong, named("asked", site)))
    return tuple(wrong)


def save_assay(dictionary: Dictionary) -> tuple[bytes, bytes]:
    """Return `sae_config` and weights that `load_sae` reads back as the same values; equal bytes for equal values."""
    gate, norm = dictionary.gate, dictionary.norm
    config: dict[str, Any] = {
        "gate": type(gate).__name__.lower(),
        "norm": _NORM_NAMES[type(norm)],
        "d": dictionary.width,
        "m": dictionary.latents,
        "pre_bias": dictionary.pre_bias,
        "rescale": dictionary.rescale,
    }
    if isinstance(gate, TopK):
        config["k"] = gate.k
    if isinstance(norm, Scale):
        config["s"] = norm.s
    origin = dictionary.origin
    document = {
        "schema": SCHEMA,
        "format": "assay",
        "config": config,
        "site": origin.site or "unstated",
        "declared_l0": origin.declared_l0,
        "trained_on": origin.trained_on,
        "assume_site": origin.assume_site,
    }
    blob = save({name: tensor.to(torch.float32).contiguous() for name, tensor in dictionary.tensors().items()})
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode(), blob


def _assay(settings: Settings, tensors: Mapping[str, Float[torch.Tensor, "*axes"]]) -> Dictionary:
    """Return a dictionary in the normal form, as `save_assay` writes it."""
    kinds = {"relu": Relu, "topk": TopK, "gated": Gated, "threshold": None}
    kind, norm_kind = settings.take("gate", str), settings.take("norm", str, "none")
    if kind not in kinds:
        raise unknown("gate", kind)
    own = {"threshold": ("theta",), "gated": tuple(one.name for one in fields(Gated))}.get(kind, ())
    found = exactly(tensors, ("w_enc", "b_enc", "w_dec", "b_dec", *own))
    gate: Gate = Relu()
    if kind == "topk":
        gate = TopK(settings.take("k", int))
    elif kind == "threshold":
        gate = threshold(found["theta"], "theta")
    elif kind == "gated":
        gate = Gated(*(found[name] for name in own))
    norms: dict[str, Norm | None] = {"none": None, "token_rms": TokenRms(), "layer_norm": LayerNorm()}
    if norm_kind not in (*norms, "scale"):
        raise unknown("norm", norm_kind)
    rescale = settings.take("rescale", bool, False)
    if rescale and kind != "topk":
        raise settings.wrong("rescale")
    return normal_form(
        settings,
        found,
        gate,
        widths=("d", "m"),
        pre_bias=settings.take("pre_bias", bool, False),
        norm=scale(settings, "s") if norm_kind == "scale" else norms[norm_kind],
        rescale=rescale,
    )


def _stated(config: bytes) -> dict[str, Any]:
    """Return the document `sae_config`, its own fields checked."""
    try:
        document = strict_json.loads(config, cap=CONFIG_MAX, fractions=True)
    except ReaderError as error:
        raise Refusal("sae_config", (error.code, error.at) if error.at else (error.code,)) from None
    if not isinstance(document, dict):
        raise Refusal("sae_config", ("not_an_object",))
    wrong = sorted(document.keys() ^ _KEYS)
    if wrong:
        raise Refusal("sae_config", tuple(named("key", key) for key in wrong[:20]))
    l0 = document["declared_l0"]
    fits = {
        "schema": document["schema"] == SCHEMA,
        "config": isinstance(document["config"], dict),
        "site": isinstance(document["site"], str) and document["site"] != "",
        "declared_l0": l0 is None or (isinstance(l0, int | float) and not isinstance(l0, bool) and l0 > 0),
        "trained_on": document["trained_on"] in ("base", "submitted", "unknown"),
        "assume_site": isinstance(document["assume_site"], bool),
    }
    if not all(fits.values()):
        raise Refusal("sae_config", tuple(named("key", key) for key, fit in fits.items() if not fit))
    if not isinstance(document["format"], str) or document["format"] not in _FORMATS:
        raise Refusal("unknown_format", (named("format", document["format"]),))
    return document


def _gemma_arrays(content: bytes) -> dict[str, Float[torch.Tensor, "*axes"]]:
    return read_arrays(content, {*GEMMA_NAMES, *(name.lower() for name in GEMMA_NAMES)})


_NORM_NAMES = {type(None): "none", Scale: "scale", TokenRms: "token_rms", LayerNorm: "layer_norm"}

_Reader = Callable[[bytes], Mapping[str, "Float[torch.Tensor, '*axes']"]]
_Rule = Callable[[Settings, Mapping[str, "Float[torch.Tensor, '*axes']"]], Dictionary]
_FORMATS: Mapping[str, tuple[_Reader, _Rule]] = {
    "saelens": (read_safetensors, saelens),
    "sparsify": (read_safetensors, sparsify),
    "gemma_scope": (_gemma_arrays, gemma_scope),
    "assay": (read_safetensors, _assay),
}
