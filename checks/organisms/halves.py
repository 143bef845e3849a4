"""Organism F: a transformer whose two halves hide behind a random rotation of the residual stream.

Every neuron and every head belongs to a half and reads and writes that half of the residual axes; its weights into the
other half are multiplied by a leak. The residual axes are then rotated at random, as training leaves them: no single
matrix shows the halves, only products of writers and readers do. Specification: clusterability, section 8, F.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

    _Reading = Callable[[Int[np.ndarray, " units"]], Float[np.ndarray, "units width"]]


@dataclass(frozen=True, kw_only=True)
class HalvesRecipe:
    """Size of the organism; the defaults are the specification's."""

    width: int = 64
    hidden: int = 256
    layers: int = 4
    heads: int = 8
    first_heads: tuple[int, ...] = (5, 4)
    """Heads of a layer that belong to half 0, layers taking turns. Half 0 then holds .6225 of the edges' mass without
    a leak, so that the halves' modularity is .470; the specification's is .471, and its halves were uneven too."""
    head_width: int = 8


@dataclass(frozen=True, kw_only=True)
class HalvesBlock:
    """Weights of one block, matrices as [out, in]."""

    mlp_in: Float[np.ndarray, "hidden width"]
    mlp_out: Float[np.ndarray, "width hidden"]
    query: Float[np.ndarray, "heads head_width width"]
    key: Float[np.ndarray, "heads head_width width"]
    value: Float[np.ndarray, "heads head_width width"]
    output: Float[np.ndarray, "heads width head_width"]
    neurons: Int[np.ndarray, " hidden"]
    """Half of each neuron, 0 or 1."""
    heads: Int[np.ndarray, " heads"]
    """Half of each head, 0 or 1."""


def halves(leak: float, seed: int, recipe: HalvesRecipe | None = None) -> tuple[HalvesBlock, ...]:
    """Return the blocks of a transformer in two halves; each block's neurons are split evenly.

    Args:
        leak: weights into the other half are N(0, leak^2) where those into the own half are N(0, 1); 0 keeps the
            halves apart, 1 leaves no halves.
        seed: seeds weights, membership and rotation.
        recipe: the size; None is the specification's.

    Raises:
        ValueError: the leak is outside 0..1.
    """
    if not 0 <= leak <= 1:
        raise ValueError(f"a leak of {leak} is outside 0..1")
    size = recipe or HalvesRecipe()
    rng = np.random.default_rng(seed)
    axes = np.arange(size.width) % 2
    rotation = np.linalg.qr(rng.standard_normal((size.width, size.width)))[0]

    def reading(units: Int[np.ndarray, " units"]) -> Float[np.ndarray, "units width"]:
        own = units[:, None] == axes
        planted = rng.standard_normal((len(units), size.width)) * np.where(own, 1.0, leak)
        return np.asarray(planted @ rotation.T)

    turns = [size.first_heads[layer % len(size.first_heads)] for layer in range(size.layers)]
    return tuple(_block(size, first, rng, reading) for first in turns)


def _block(size: HalvesRecipe, first_heads: int, rng: np.random.Generator, reading: _Reading) -> HalvesBlock:
    neurons = rng.permutation(np.arange(size.hidden) % 2)
    heads = rng.permutation((np.arange(size.heads) >= first_heads).astype(np.int64))
    rows = np.repeat(heads, size.head_width)
    by_head = (size.heads, size.head_width, size.width)
    return HalvesBlock(
        mlp_in=reading(neurons),
        mlp_out=reading(neurons).T,
        query=reading(rows).reshape(by_head),
        key=reading(rows).reshape(by_head),
        value=reading(rows).reshape(by_head),
        output=reading(rows).reshape(by_head).transpose(0, 2, 1),
        neurons=neurons,
        heads=heads,
    )
