"""One form for models that compute the same: norms folded into the matrices beside them.

Specification: section 4.1. Every function is pure and keeps what the model computes; matrices are [out, in]. A
LayerNorm divides by a scale that depends on the input and multiplies by a gain that does not. The gain goes into the
matrix that reads; what the norm takes away, the mean over the residual axes, is taken out of reader and writer alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

Norm = Literal["layer", "rms"]
"""`layer` takes the mean away and divides by the standard deviation; `rms` divides by the root mean square alone."""

Symmetry = Literal["any_positive_scale", "any_scale_of_up", "none"]
"""Rescalings of a hidden neuron that leave a model's outputs unchanged."""

SYMMETRIES: Mapping[str, Symmetry] = MappingProxyType(
    {
        # f(c x) = c f(x) for c > 0: (in, out) -> (c in, out / c).
        "relu": "any_positive_scale",
        "leaky_relu": "any_positive_scale",
        # down (f(gate x) * up x) is linear in up: (up, down) -> (c up, down / c) for every c but 0.
        "glu": "any_scale_of_up",
        "gelu": "none",
        "silu": "none",
        "tanh": "none",
    }
)
"""Scale symmetry of each activation (4.1); `glu` stands for every gated MLP, whose gate has none."""


@dataclass(frozen=True)
class Affine:
    """A linear map with its bias, float64."""

    weight: Float[np.ndarray, "out *in"]
    """[out, in], or [out, in, kernel height, kernel width]."""
    bias: Float[np.ndarray, " out"]


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm at inference: gain * (x - mean) / sqrt(variance + eps) + shift, by channel."""

    gain: Float[np.ndarray, " out"]
    shift: Float[np.ndarray, " out"]
    mean: Float[np.ndarray, " out"]
    variance: Float[np.ndarray, " out"]
    eps: float


def folded_reader(
    weight: Float[np.ndarray, "out in"], gain: Float[np.ndarray, " in"], norm: Norm
) -> Float[np.ndarray, "out in"]:
    """Return the matrix that reads the residual stream where the model reads it through a norm.

    weight @ norm(x) equals folded @ x / scale(x) but for the part of the norm's shift. For a LayerNorm each row's
    mean is taken away, so that the folded matrix does not see the mean that the norm removes.

    Raises:
        ValueError: the gain is not one number for each column.
    """
    if gain.shape != weight.shape[1:]:
        raise ValueError(f"a gain of shape {gain.shape} does not fit columns of {weight.shape}")
    scaled = weight * gain
    return np.asarray(scaled - scaled.mean(axis=1, keepdims=True) if norm == "layer" else scaled)


def folded_affine(
    reader: Affine, gain: Float[np.ndarray, " in"], shift: Float[np.ndarray, " in"], norm: Norm
) -> Affine:
    """Return a reader with the whole norm folded in: reader(norm(x)) = folded(x / scale(x)).

    Args:
        reader: what reads the norm's output.
        gain: the norm's weight.
        shift: the norm's bias; zeros for RMS norms.
        norm: which norm.
    """
    return Affine(folded_reader(reader.weight, gain, norm), reader.bias + reader.weight @ shift)


def centred_writer(weight: Float[np.ndarray, "residual in"], norm: Norm) -> Float[np.ndarray, "residual in"]:
    """Return the matrix that writes to the residual stream without what every later LayerNorm takes away.

    Each writing column loses its mean over the residual axes. RMS norms take nothing away.
    """
    return np.asarray(weight - weight.mean(axis=0, keepdims=True) if norm == "layer" else weight)


def carried(
    writes: Float[np.ndarray, "residual in"], gains: Sequence[Float[np.ndarray, " residual"]], norm: Norm
) -> Float[np.ndarray, "residual in"]:
    """Return writing columns after the norms that stand in the residual stream itself, in order of passage.

    Models that norm the stream after every addition (BERT) scale what was written earlier by each gain on the way;
    the input-dependent scales are left out, as everywhere.
    """
    for gain in gains:
        writes = centred_writer(writes, norm) * gain[:, None]
    return writes


def folded_batchnorm(layer: Affine, norm: BatchNorm) -> Affine:
    """Return the linear or convolutional layer that computes norm(layer(x)).

    Raises:
        ValueError: the norm has not one channel for each output, or a variance below 0.
    """
    out = layer.weight.shape[:1]
    if any(one.shape != out for one in (norm.gain, norm.shift, norm.mean, norm.variance)):
        raise ValueError(f"a batch norm of {norm.gain.shape} does not fit {out} outputs")
    if np.any(norm.variance + norm.eps <= 0):
        raise ValueError("a batch norm's variance plus eps is above 0")
    scale = norm.gain / np.sqrt(norm.variance + norm.eps)
    across = (slice(None), *[None] * (layer.weight.ndim - 1))
    return Affine(layer.weight * scale[across], (layer.bias - norm.mean) * scale + norm.shift)
