"""Feed-forward models (MLPs and CNNs) as they are declared beside their weights: layers in sequence, and heads.

The file `architecture.json` is read and held against the tensors by `sandbox.reader.feedforward`; this is what checks
and the runtime see of it. Specification: clusterability, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Op = Literal[
    "linear",
    "conv2d",
    "batchnorm",
    "layernorm",
    "relu",
    "leaky_relu",
    "gelu",
    "silu",
    "tanh",
    "maxpool2d",
    "avgpool2d",
    "global_avg_pool",
    "flatten",
]
"""What a layer does; there is no residual addition."""

WEIGHTED: tuple[Op, ...] = ("linear", "conv2d")
"""Layers whose outputs are units; all others leave their number, or spread a channel over positions (`flatten`)."""

ELEMENTWISE: tuple[Op, ...] = ("batchnorm", "layernorm", "relu", "leaky_relu", "gelu", "silu", "tanh")
"""What follows a weighted layer and still belongs to its units."""


@dataclass(frozen=True, kw_only=True)
class FeedForwardLayer:
    """One layer; fields that its op does not have are None."""

    op: Op
    weight: str | None = None
    """Tensor: linear [out, in], conv2d [out, in, height, width], norms [channels]."""
    bias: str | None = None
    mean: str | None = None
    """Tensor of a batch norm's running mean; likewise `var`."""
    var: str | None = None
    stride: int | None = None
    """Of conv2d (1 where the file says nothing) and of pools (their size where the file says nothing)."""
    padding: int | None = None
    """Of conv2d, zeros on each side."""
    size: int | None = None
    """Side of a pool's window."""
    eps: float | None = None
    slope: float | None = None
    form: Literal["erf", "tanh"] | None = None
    """Of gelu."""


@dataclass(frozen=True, kw_only=True)
class FeedForwardHead:
    """A part of the outputs that answers one kind of question."""

    name: str
    start: int
    stop: int
    """The output after its last."""


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """A declared model, checked against its tensors."""

    input: tuple[int, ...]
    """[features] or [channels, height, width]."""
    layers: tuple[FeedForwardLayer, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Shape of one example's values after each layer; the last is [outputs]."""
    heads: tuple[FeedForwardHead, ...]
    """At least one: without a declaration a single head named "out" over all outputs."""

    @property
    def weighted(self) -> tuple[int, ...]:
        """Indices of the linear and convolutional layers, in order."""
        return tuple(index for index, layer in enumerate(self.layers) if layer.op in WEIGHTED)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Indices of the weighted layers whose units are hidden: all but the last."""
        return self.weighted[:-1]

    def held_after(self, index: int) -> int:
        """Return the layer after which the units of a weighted layer are held by a lesion.

        That is the last elementwise layer that follows it, before anything pools, flattens or weighs again.
        """
        while index + 1 < len(self.layers) and self.layers[index + 1].op in ELEMENTWISE:
            index += 1
        return index

    def units(self, index: int) -> int:
        """Return how many units a weighted layer has: neurons, or channels."""
        return self.shapes[index][0]
