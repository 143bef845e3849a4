"""How each reading of a dictionary reconstructs the states of one layer, all from one product with the encoder.

Source: specification of `sae_features`, section 4, convention self-test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from checks.sae_features.dictionary.value import (
    LAYER_NORM_EPS,
    Dictionary,
    Gated,
    LayerNorm,
    Norm,
    Scale,
    Threshold,
    TokenRms,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

CHUNK = 2**22
"""Pre-activations held at a time: 16 MiB, so that the passes over them stay in the cache of most machines."""

DENSE_SHARE = 0.06
"""Above this share of active latents one dense product is faster than gathering rows (measured, one thread)."""


@dataclass(frozen=True)
class Cell:
    """One way to read the dictionary."""

    layer: int
    """Of the states, counted from the declared site's: -1, 0 or 1."""
    pre_bias: bool
    norm: str
    """none, scale (the file's own), mean_norm (sqrt(d) / mean norm), token_rms (sqrt(d) / each norm), unit_rms
    (1 / sqrt of the mean squared norm, as dictionary_learning trains) or layer_norm."""
    gate: str
    """relu, topk, threshold or gated."""

    def __str__(self) -> str:
        return f"layer{self.layer:+d}.{'pre' if self.pre_bias else 'nopre'}.{self.norm}.{self.gate}"


@dataclass(frozen=True)
class CellResult:
    """How a reading fares."""

    cell: Cell
    ev: float
    """1 - E|x - x̂|² / E|x - mean|² over the layer's states; -inf where it is no number."""
    l0: float
    """Mean count of strictly positive latents a state."""


_Affine = tuple[
    "float | Float[torch.Tensor, 'row 1']",
    "Float[torch.Tensor, 'row 1'] | None",
    "float | Float[torch.Tensor, 'row 1']",
]


def grid(dictionary: Dictionary, x: Float[torch.Tensor, "row d"], layer: int, k: int) -> tuple[CellResult, ...]:
    """Return how every reading fares on the states of one layer, from one product x W_enc.

    z = a_t (x W) - a_t mu_t (1' W) - [pre] (b_dec' W) + b_enc, where the norm is a_t (x - mu_t).

    Args:
        dictionary: as declared.
        x: raw states.
        layer: for the cells' names.
        k: of the topk gate.
    """
    norms, gates = _norms(dictionary, x), gates_of(dictionary)
    squares = dict.fromkeys([(pre, norm, gate) for norm in norms for pre in (True, False) for gate in gates], 0.0)
    active = dict.fromkeys(squares, 0)
    # A TopK that rescales is one of unit rows whose encoder carries the norms.
    w_enc = dictionary.w_enc * dictionary.row_norms if dictionary.rescale else dictionary.w_enc
    b_enc = dictionary.b_enc * dictionary.row_norms if dictionary.rescale else dictionary.b_enc
    of_ones, of_bias, rows = w_enc.sum(dim=0), dictionary.b_dec @ w_enc, dictionary.rows
    if isinstance(dictionary.gate, Gated):
        b_enc = torch.zeros_like(b_enc)
    for part in torch.split(x.to(rows.dtype), max(1, CHUNK // dictionary.latents)):
        product = part @ w_enc
        for name, (factor, mean, undo) in _affine(norms, part).items():
            scaled = product if mean is None else product - mean * of_ones
            for pre in (True, False):
                z = (b_enc - of_bias if pre else b_enc) + scaled * factor
                for gate in gates:
                    made, count = _decoded(dictionary, z, rows, gate, k)
                    errors = part - (made + dictionary.b_dec) * undo
                    errors = errors if mean is None else errors - mean
                    squares[pre, name, gate] += float(errors.square().sum(dtype=torch.float64))
                    active[pre, name, gate] += count
    total = float((x.double() - x.double().mean(dim=0)).square().sum())
    return tuple(
        CellResult(Cell(layer, *key), share(square, total), active[key] / len(x)) for key, square in squares.items()
    )


def _decoded(
    dictionary: Dictionary,
    z: Float[torch.Tensor, "row m"],
    rows: Float[torch.Tensor, "m d"],
    kind: str,
    k: int,
) -> tuple[Float[torch.Tensor, "row d"], int]:
    """Return what the latents of one gate add up to, without b_dec, and how many are active in all rows."""
    gate = dictionary.gate
    value = torch.addcmul(gate.b_mag, z, gate.r_mag.exp()) if isinstance(gate, Gated) else z
    if kind == "relu":
        f = torch.relu(value)
        return f @ rows, int(torch.count_nonzero(f))
    if kind == "topk":
        return _bagged(value, value >= _kth(value, k), rows, most=k)
    if isinstance(gate, Gated):
        return _bagged(value, z > -gate.b_gate, rows)
    assert isinstance(gate, Threshold)
    return _bagged(value, z > gate.theta, rows)


def _kth(value: Float[torch.Tensor, "row m"], k: int) -> Float[torch.Tensor, "row 1"]:
    """Return the k-th largest value of each row; numpy's selection takes a fifth of the time of torch.topk on a CPU."""
    place = value.shape[1] - k
    return torch.from_numpy(np.partition(value.numpy(), place, axis=1)[:, place : place + 1])


def _bagged(
    value: Float[torch.Tensor, "row m"],
    kept: Bool[torch.Tensor, "row m"],
    rows: Float[torch.Tensor, "m d"],
    most: int = 0,
) -> tuple[Float[torch.Tensor, "row d"], int]:
    """Return the sum of the kept positive values times their rows, and how many there are.

    Args:
        value: what a latent is worth where it is kept.
        kept: which are kept.
        rows: decoder rows.
        most: latents that a row of states may keep (0: any number); of equal values the lower places are taken.
    """
    m = value.shape[1]
    places = np.flatnonzero(kept.numpy())
    if not most and len(places) > DENSE_SHARE * value.numel():
        f = torch.relu(value).mul_(kept)
        return f @ rows, int(torch.count_nonzero(f))
    starts = np.searchsorted(places, np.arange(len(value)) * m)
    if most and len(places) > most * len(value):  # a tie at the k-th place
        order = np.arange(len(places)) - np.repeat(starts, np.diff(starts, append=len(places)))
        places = places[order < most]
        starts = np.searchsorted(places, np.arange(len(value)) * m)
    values = torch.relu(value.flatten()[torch.from_numpy(places)])
    bags = torch.from_numpy(places % m), torch.from_numpy(starts)
    made = embedding_bag(bags[0], rows, offsets=bags[1], mode="sum", per_sample_weights=values)
    return made, int(torch.count_nonzero(values))


def gates_of(dictionary: Dictionary) -> tuple[str, ...]:
    """Return the gates of the grid, the declared kind first; one that is the declared kind stands once."""
    kind = type(dictionary.gate).__name__.lower()
    return (kind, *(name for name in ("relu", "topk") if name != kind))


def share(square: float, total: float) -> float:
    """Return the explained variance for a sum of squared errors and one of squared deviations; -inf if no number."""
    ev = 1 - square / total if total > 0 else -inf
    return ev if isfinite(ev) else -inf


def _norms(dictionary: Dictionary, x: Float[torch.Tensor, "row d"]) -> dict[str, Norm | None]:
    """Return the norms of the grid; the scales of a data set are those of these states."""
    lengths = torch.linalg.vector_norm(x.double(), dim=1)
    root = float(dictionary.width**0.5)
    norms: dict[str, Norm | None] = {
        "none": None,
        "mean_norm": Scale(root / max(float(lengths.mean()), 1e-30)),
        "token_rms": TokenRms(),
        "unit_rms": Scale(1 / max(float(lengths.square().mean().sqrt()), 1e-30)),
        "layer_norm": LayerNorm(),
    }
    return norms | ({"scale": dictionary.norm} if isinstance(dictionary.norm, Scale) else {})


def _affine(norms: Mapping[str, Norm | None], x: Float[torch.Tensor, "row d"]) -> dict[str, _Affine]:
    """Return each norm as a factor, a mean that is subtracted before it (None: 0), and the factor that undoes it."""
    made: dict[str, _Affine] = {}
    for name, norm in norms.items():
        made[name] = (1.0, None, 1.0)
        if isinstance(norm, Scale):
            made[name] = (norm.s, None, 1 / norm.s)
        elif isinstance(norm, TokenRms):
            lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
            undo = torch.where(lengths > 0, lengths, 1.0) / float(x.shape[1] ** 0.5)
            made[name] = (1 / undo, None, undo)
        elif isinstance(norm, LayerNorm):
            sd = x.std(dim=1, keepdim=True)
            made[name] = (1 / (sd + LAYER_NORM_EPS), x.mean(dim=1, keepdim=True), sd)
    return made
