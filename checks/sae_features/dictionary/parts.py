"""From tensors of any names to the normal form: nothing unknown, nothing missing, every shape and number checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import torch

from checks.check import Refusal
from checks.sae_features.dictionary.settings import Settings, named
from checks.sae_features.dictionary.tensors import check_finite
from checks.sae_features.dictionary.value import Dictionary, Gate, Gated, Norm, Relu, Scale, Threshold, TopK

if TYPE_CHECKING:
    from jaxtyping import Float

UNSET = -1.0
"""Threshold of a trainer that has not measured one yet (dictionary_learning): refused, never dropped."""

ITEMS_MAX = 20
"""Names that one refusal lists."""


def exactly(
    tensors: Mapping[str, Float[torch.Tensor, "*axes"]], wanted: Sequence[str], optional: Sequence[str] = ()
) -> Mapping[str, Float[torch.Tensor, "*axes"]]:
    """Return the tensors, all finite, when they are those that are wanted and no others.

    Raises:
        Refusal: `unknown_tensor`, `missing_tensor` or `not_finite`, naming each.
    """
    strange = sorted(set(tensors) - set(wanted) - set(optional))
    if strange:
        raise Refusal("unknown_tensor", tuple(named("tensor", name) for name in strange[:ITEMS_MAX]))
    missing = sorted(set(wanted) - set(tensors))
    if missing:
        raise Refusal("missing_tensor", tuple(named("tensor", name) for name in missing))
    check_finite(tensors)
    return tensors


def threshold(theta: Float[torch.Tensor, " m"], name: str) -> Threshold:
    """Return the gate of a threshold that was set.

    Raises:
        Refusal: `threshold_unset`, naming the tensor and how many latents have none.
    """
    unset = int((theta == UNSET).sum())
    if unset:
        raise Refusal("threshold_unset", (named("tensor", name), f"latents:{unset}"))
    return Threshold(theta)


def scale(settings: Settings, key: str) -> Scale:
    """Return the scale that a configuration stores.

    Raises:
        Refusal: `config_value`: not a positive finite number.
    """
    s = float(settings.take(key, (int, float)))
    if not (isfinite(s) and s > 0):
        raise settings.wrong(key)
    return Scale(s)


def normal_form(
    settings: Settings,
    tensors: Mapping[str, Float[torch.Tensor, "*axes"]],
    gate: Gate,
    *,
    widths: tuple[str | None, str | None],
    pre_bias: bool,
    norm: Norm | None = None,
    rescale: bool = False,
) -> Dictionary:
    """Return the dictionary; tensors are named w_enc [d, m], b_enc [m], w_dec [m, d], b_dec [d].

    Args:
        settings: the configuration.
        tensors: by their names in the normal form; `b_enc` may be missing.
        gate: with tensors of its own.
        widths: keys under which the configuration states d and m, where it does; what it states must be so.
        pre_bias: whether b_dec is subtracted before encoding.
        norm: of the states.
        rescale: of a TopK.

    Raises:
        Refusal: `wrong_shape` naming a tensor, `wrong_width` naming a key, `config_value` for a k outside 1..m.
    """
    w_dec = tensors["w_dec"]
    if w_dec.ndim != 2 or 0 in w_dec.shape:
        raise Refusal("wrong_shape", ("tensor:w_dec",))
    m, d = w_dec.shape
    shapes = {"w_enc": (d, m), "w_dec": (m, d), "b_dec": (d,)}
    b_enc = tensors.get("b_enc", torch.zeros(m))
    given = {**tensors, "b_enc": b_enc, **_of_gate(gate)}
    wrong = sorted(name for name, tensor in given.items() if tuple(tensor.shape) != shapes.get(name, (m,)))
    if wrong:
        raise Refusal("wrong_shape", tuple(named("tensor", name) for name in wrong))
    for key, width in zip(widths, (d, m), strict=True):
        if key is not None and settings.take(key, int, width) != width:
            raise Refusal("wrong_width", (named("key", key), f"tensors:{width}"))
    if isinstance(gate, TopK) and not 1 <= gate.k <= m:
        raise settings.wrong("k")
    return Dictionary(given["w_enc"], b_enc, w_dec, given["b_dec"], gate, pre_bias, norm, rescale)


def _of_gate(gate: Gate) -> dict[str, Float[torch.Tensor, "*axes"]]:
    if isinstance(gate, Threshold):
        return {"theta": gate.theta}
    if isinstance(gate, Gated):
        return {"b_gate": gate.b_gate, "b_mag": gate.b_mag, "r_mag": gate.r_mag}
    assert isinstance(gate, Relu | TopK)
    return {}
