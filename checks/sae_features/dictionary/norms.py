"""Norms that a dictionary divides its states by, and what a norm of each token takes from the state it rebuilds.

A norm of one number for all tokens is part of the dictionary. A norm of each token is not: `decode` multiplies with the
length of the very state that it should describe, and adds its mean. Whoever scores such a reconstruction has to pay for
these numbers in a code and to give them to the reference of a variance explained. Specification of `sae_features`,
sections 4 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Float

LAYER_NORM_EPS = 1e-5
"""Added to the standard deviation before dividing, and not when it is multiplied back: so SAELens trains its files."""


@dataclass(frozen=True)
class Scale:
    """Each state times s before encoding, the result divided by s: sqrt(d) / mean norm of the training states."""

    s: float


@dataclass(frozen=True)
class TokenRms:
    """Each state brought to norm sqrt(d), undone at the output; SAELens' `constant_norm_rescale`."""


@dataclass(frozen=True)
class LayerNorm:
    """Each state minus its mean, over its unbiased standard deviation, undone at the output."""


Norm = Scale | TokenRms | LayerNorm


def into(norm: Norm | None, x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row d"]:
    """Return states in raw units as the encoder takes them."""
    if norm is None:
        return x
    if isinstance(norm, Scale):
        return x * norm.s
    if isinstance(norm, TokenRms):
        return x * _token_scale(x)
    return (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + LAYER_NORM_EPS)


def side(norm: Norm | None, x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row number"]:
    """Return what undoing the norm takes from each state, in raw units.

    TokenRms: its root mean square. LayerNorm: its unbiased standard deviation and its mean. Else no number at all.
    """
    if isinstance(norm, TokenRms):
        return 1.0 / _token_scale(x)
    if isinstance(norm, LayerNorm):
        return torch.cat([x.std(dim=-1, keepdim=True), x.mean(dim=-1, keepdim=True)], dim=-1)
    return x[:, :0]


def out_of(
    norm: Norm | None, made: Float[torch.Tensor, "row d"], taken: Float[torch.Tensor, "row number"] | None
) -> Float[torch.Tensor, "row d"]:
    """Return reconstructions in raw units.

    Args:
        norm: that of the dictionary.
        made: what decoding gives before the norm is undone.
        taken: as `side` returns it; read only where the norm is one of each token.
    """
    if isinstance(norm, Scale):
        return made / norm.s
    if norm is None or taken is None:
        return made
    return made * taken[:, :1] + taken[:, 1:] if isinstance(norm, LayerNorm) else made * taken[:, :1]


def coded(
    fitted: Float[np.ndarray, "row_a number"], measured: Float[np.ndarray, "row_b number"], distortion: float
) -> tuple[Float[np.ndarray, " row_b"], Float[np.ndarray, "row_b number"]]:
    """Return, for each measured row, the bits of its side numbers, and these numbers as they decode.

    How fine the cells are. A state is x = s u + m 1, where s is the scale, m the mean (0 under TokenRms), and u the
    normalised state, whose squared norm is d (d - 1 under LayerNorm). A scale that is off by delta and a mean that is
    off by eta move the reconstruction by delta u + eta 1: delta² |u|² / d + eta² = delta² + eta² per dimension at most,
    for u is orthogonal to 1 where there is a mean. Rounding to the mean of a cell of width w makes an error of mean
    square w² / 12 (uniform within a cell; less where lengths are few). So n numbers cause at most D per dimension where
    n w² / 12 = D, that is w = sqrt(12 D / n). Where decoding is worse than u, or the error lies in few directions, more
    of it is left: that is in the residual, whose covariance is taken with the rounded numbers, so that the code is
    whole whatever w is.

    Cells are counted from the mean of the fitted rows, which is a cell's centre, so that a length that never varies
    costs nothing. A cell decodes as the mean of the fitted rows in it, or its centre where there are none, and costs
    -log2 (count + 1/2) / (rows + cells / 2), with counts from the fitted rows and cells from their lowest to their
    highest; what lies beyond is coded as the outermost cell, and the rest of it stays in the residual.

    Args:
        fitted: side numbers of the rows that the code is fitted on.
        measured: those of the rows whose code is measured.
        distortion: D, mean square per dimension, in squared raw units.
    """
    bits, rounded = np.zeros(len(measured)), np.empty_like(measured)
    for number, values in enumerate(fitted.T):
        centre, width = values.mean(), np.sqrt(12.0 * distortion / fitted.shape[1])
        cells, own, counts = np.unique(np.rint((values - centre) / width), return_inverse=True, return_counts=True)
        means = np.bincount(own, weights=values) / counts
        here = np.clip(np.rint((measured[:, number] - centre) / width), cells[0], cells[-1])
        at = np.searchsorted(cells, here)
        seen = cells[at] == here
        bits -= np.log2((np.where(seen, counts[at], 0) + 0.5) / (len(fitted) + (cells[-1] - cells[0] + 1.0) / 2.0))
        rounded[:, number] = np.where(seen, means[at], centre + here * width)
    return bits, rounded


def norms(rows: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, " row"]:
    """Return the Euclidean norm of each row."""
    found: torch.Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return found


def divisor(lengths: Float[torch.Tensor, " m"]) -> Float[torch.Tensor, " m"]:
    """Return norms to divide by; a row of zeros has no direction and is left as it is."""
    return torch.where(lengths > 0, lengths, 1.0)


def _token_scale(x: Float[torch.Tensor, "row d"]) -> Float[torch.Tensor, "row 1"]:
    """Return sqrt(d) / norm of each state; a state of zeros stays zero."""
    return float(x.shape[-1] ** 0.5) / divisor(norms(x))[:, None]
