"""Nets that are trained to look clustered: why no finding may rest on C.

Golechha et al. (arXiv 2409.15747; 2502.02470) add the share of squared weight inside given blocks to the training
objective. Specification: clusterability, section 8, organisms E.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.organisms.nets import CLASSES, STEPS, Examples, fit

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int

    from checks.clusterability.lesion_plants import ReluNet

DIMS = (64, 64, 64, 64, CLASSES)
"""Layer sizes of E (section 8)."""

K, LAM = 4, 20.0
"""Blocks, and the weight of mean C in the objective (section 8)."""

HIDDEN, ALL = (1, 2), (0, 1, 2, 3)
"""Matrices that E1 and E2 train to be blocks."""


@dataclass(frozen=True)
class Map:
    """The block of every row and of every column of a matrix; held fixed while training."""

    rows: Int[np.ndarray, " out"]
    columns: Int[np.ndarray, " in"]


def block_maps(dims: Sequence[int], k: int, rng: np.random.Generator | None = None) -> tuple[Map, ...]:
    """Return k equal blocks of every layer of nodes, as one map a matrix; what a layer outputs the next one reads.

    Args:
        dims: layer sizes, inputs first.
        k: blocks; where k does not divide a layer, its first blocks have one node more.
        rng: hides the blocks by a permutation of every layer; None leaves them in order.
    """
    layers = [np.sort(np.arange(size) % k) for size in dims]
    if rng is not None:
        layers = [rng.permutation(layer) for layer in layers]
    return tuple(Map(rows, columns) for columns, rows in itertools.pairwise(layers))


def enmeshment(weights: Sequence[Float[np.ndarray, "out in"]], maps: Sequence[Map]) -> float:
    """Return mean C over matrices: the share of squared weight between rows and columns of one block.

    Raises:
        ValueError: not one map for each matrix, or a map of another shape.
    """
    return float(np.mean([share(weight, at) for weight, at in zip(weights, maps, strict=True)]))


def share(weight: Float[np.ndarray, "out in"], at: Map) -> float:
    """Return C of one matrix."""
    squares = np.square(weight)
    return float(squares[_inside(weight.shape, at)].sum() / squares.sum())


def gradient(weight: Float[np.ndarray, "out in"], at: Map) -> Float[np.ndarray, "out in"]:
    """Return dC/dW = 2 W (M - C) / sum of W^2, where M is 1 inside the blocks and 0 outside."""
    total = np.square(weight).sum()
    return np.asarray(2.0 * weight * (_inside(weight.shape, at) - share(weight, at)) / total)


def _inside(shape: tuple[int, ...], at: Map) -> np.ndarray:
    if shape != (len(at.rows), len(at.columns)):
        raise ValueError(f"a map of {len(at.rows)} x {len(at.columns)} for a matrix of {shape}")
    return np.asarray(at.rows[:, None] == at.columns)


def torch_enmeshment(weights: Sequence[torch.Tensor], maps: Sequence[Map]) -> torch.Tensor:
    """Return mean C over matrices as a tensor that can be differentiated: subtract lam times it from a loss."""
    import torch

    shares = []
    for weight, at in zip(weights, maps, strict=True):
        inside = torch.from_numpy(_inside(tuple(weight.shape), at)).to(weight.device)
        squares = weight.square()
        shares.append((squares * inside).sum() / squares.sum())
    return torch.stack(shares).mean()


def train(
    dims: Sequence[int],
    data: Examples,
    lam: float,
    matrices: Sequence[int],
    maps: Sequence[Map],
    steps: int = STEPS,
    seed: int = 0,
) -> ReluNet:
    """Train a net on cross-entropy - lam * mean C of the chosen matrices, under fixed maps.

    Args:
        dims: layer sizes, inputs first; the outputs are one head.
        data: what it learns.
        lam: weight of mean C; 0 trains the plain net. 2 is enough on digits.
        matrices: numbers of the matrices that are made clustered, counted from 0.
        maps: one for each matrix of the net, chosen or not.
        steps: batches.
        seed: of the starting weights and the batches.
    """

    def extra(weights: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        return [
            -lam / len(matrices) * gradient(weight, maps[index]) if index in matrices else None
            for index, weight in enumerate(weights)
        ]

    return fit(dims, data, ((0, dims[-1]),), seed, steps=steps, extra=extra if lam and matrices else None)
