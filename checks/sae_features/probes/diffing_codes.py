"""What a dictionary makes of a model's states, kept sparse: a model of 16384 latents has few on at a token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array, vstack

from checks.sae_features.dictionary.value import LayerNorm, TokenRms

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from checks.sae_features.dictionary.value import Dictionary

ROWS_AT_ONCE = 2048
"""States encoded at a time; bounds memory, not the result."""


@dataclass(frozen=True, eq=False)
class Codes:
    """States of one model, their latents, and what the dictionary makes of them."""

    x: Float[np.ndarray, "n d"]
    f: csc_array
    """Latents [n, m], float64; only what is on is stored."""
    reconstructed: Float[np.ndarray, "n d"]
    """x̂ without what stands there when no latent is on; raw units, float32."""
    error: Float[np.ndarray, "n d"]
    """x - x̂, float32."""
    unit: Float[np.ndarray, " n"]
    """What a latent's direction is multiplied by at each state: 1 unless the norm is one of each token."""
    sizes: Float[np.ndarray, " m"]
    """Contribution of a latent of value 1."""

    @property
    def rates(self) -> Float[np.ndarray, " m"]:
        """P(f_i > 0)."""
        return np.asarray(np.diff(self.f.indptr) / self.f.shape[0])

    @property
    def live(self) -> Bool[np.ndarray, " m"]:
        """Which latents are on at least once."""
        return np.asarray(np.diff(self.f.indptr) > 0)


@torch.no_grad()
def codes(dictionary: Dictionary, x: Float[np.ndarray, "n d"]) -> Codes:
    """Return what a dictionary whose scale is folded makes of states."""
    latents, made, rest = [], np.empty(x.shape, np.float32), np.empty(x.shape, np.float32)
    for some, rows in _pieces(x):
        f = dictionary.encode(rows)
        xhat = dictionary.decode(f, rows).double()
        made[some] = (xhat - dictionary.decode(torch.zeros_like(f), rows).double()).numpy()
        rest[some] = (rows.double() - xhat).numpy()
        latents.append(csr_array(f.double().numpy()))
    unit = _unit(dictionary, x.astype(np.float64))
    return Codes(x, _stacked(latents, dictionary), made, rest, unit, sizes(dictionary))


@torch.no_grad()
def latents_of(dictionary: Dictionary, x: Float[np.ndarray, "n d"]) -> csc_array:
    """Return the latents [n, m] of states alone, float64; only what is on is stored."""
    found = [csr_array(dictionary.encode(rows).double().numpy()) for _, rows in _pieces(x)]
    return _stacked(found, dictionary)


def sizes(dictionary: Dictionary) -> Float[np.ndarray, " m"]:
    """Return the contribution of each latent of value 1, float64."""
    ones = torch.ones(1, dictionary.latents, dtype=dictionary.w_dec.dtype)
    return np.asarray(dictionary.contributions(ones)[0].double().numpy())


def _pieces(x: Float[np.ndarray, "n d"]) -> Iterator[tuple[slice, Float[torch.Tensor, "some d"]]]:
    for begin in range(0, len(x), ROWS_AT_ONCE):
        some = slice(begin, begin + ROWS_AT_ONCE)
        yield some, torch.from_numpy(np.array(x[some]))  # a copy: evidence may be read-only


def _stacked(pieces: list[csr_array], dictionary: Dictionary) -> csc_array:
    return csc_array(vstack(pieces)) if pieces else csc_array((0, dictionary.latents))


def _unit(dictionary: Dictionary, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    if isinstance(dictionary.norm, TokenRms):
        return np.asarray(np.linalg.norm(x, axis=1) / x.shape[1] ** 0.5)
    if isinstance(dictionary.norm, LayerNorm):
        return np.asarray(x.std(axis=1, ddof=1))
    return np.ones(len(x))
