"""Follows the shape of one example through the layers of a feed-forward model.

A layer that does not fit is told once: after it the shape is unknown, and layers are judged by themselves alone until
the next linear one says what leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from sandbox.reader.error import ReaderError

Shape = tuple[int, ...]
"""Of one example's values: [features], or [channels, height, width]."""

Table = Mapping[str, Shape]


def walk(
    given: Shape, layers: Sequence[Mapping[str, Any]], table: Table, most: int
) -> tuple[list[Shape | None], list[ReaderError]]:
    """Return the shape after every layer, None where it cannot be known, and every layer that does not fit.

    Args:
        given: shape of the input.
        layers: ops with their good fields, defaults filled in; a layer without an op is unknown.
        table: shape of every tensor by name.
        most: values of one example that a layer may put out.
    """
    value: Shape | None = given
    outputs: list[Shape | None] = []
    problems: list[ReaderError] = []
    for index, layer in enumerate(layers):
        step = _Step(f"key:layers.{index}", layer, table, problems)
        value = _STEPS[layer["op"]](step, value) if layer else None
        if value is not None and prod(value) > most:
            problems.append(ReaderError("config_range", f"key:layers.{index}"))
            value = None
        outputs.append(value)
    return outputs, problems


class _Step:
    """One layer with its tensors, and where its problems go."""

    def __init__(self, at: str, layer: Mapping[str, Any], table: Table, problems: list[ReaderError]) -> None:
        self.at = at
        self.layer = layer
        self._table = table
        self._problems = problems

    def refuse(self, code: str, part: str = "") -> None:
        self._problems.append(ReaderError(code, f"{self.at}.{part}" if part else self.at))

    def tensor(self, name: str) -> Shape | None:
        """Return the shape of the tensor that a field names; None where there is none, or it is not in the files."""
        return self._table.get(self.layer.get(name, ""))

    def matrix(self, rank: int) -> Shape | None:
        """Return the shape of the weight, None where it is not of this rank or an axis is empty."""
        shape = self.tensor("weight")
        if shape is not None and (len(shape) != rank or 0 in shape):
            self.refuse("st_shape", "weight")
            return None
        return shape

    def vectors(self, size: int, *names: str) -> None:
        """Hold the tensors of these fields against [size]."""
        for name in names:
            shape = self.tensor(name)
            if shape is not None and shape != (size,):
                self.refuse("st_shape", name)

    def fits(self, value: Shape | None, rank: int) -> bool:
        """Tell whether the value is known and of this rank; a known one of another rank is told."""
        if value is not None and len(value) != rank:
            self.refuse("st_shape")
        return value is not None and len(value) == rank


def _linear(step: _Step, value: Shape | None) -> Shape | None:
    weight = step.matrix(2)
    fits = step.fits(value, 1)
    if weight is None:
        return None
    if fits and value != weight[1:]:
        step.refuse("st_shape", "weight")
        return None
    step.vectors(weight[0], "bias")
    return weight[:1]


def _conv2d(step: _Step, value: Shape | None) -> Shape | None:
    weight = step.matrix(4)
    fits = step.fits(value, 3)
    if weight is None:
        return None
    outputs, inputs, *kernel = weight
    stride, padding = step.layer.get("stride"), step.layer.get("padding")
    if padding is not None and padding >= min(kernel):
        step.refuse("config_range", "padding")
        padding = None
    if not fits or value is None:
        return None
    if value[0] != inputs:  # also how a convolution in groups shows itself
        step.refuse("st_shape", "weight")
        return None
    step.vectors(outputs, "bias")
    if stride is None or padding is None:
        return None
    sides = [(side + 2 * padding - one) // stride + 1 for side, one in zip(value[1:], kernel, strict=True)]
    if min(sides) < 1:
        step.refuse("config_range", "weight")
        return None
    return (outputs, *sides)


def _pool(step: _Step, value: Shape | None) -> Shape | None:
    size, stride = step.layer.get("size"), step.layer.get("stride")
    if not step.fits(value, 3) or value is None or size is None:
        return None
    if min(value[1:]) < size:
        step.refuse("config_range", "size")
        return None
    if stride is None:
        return None
    return (value[0], *((side - size) // stride + 1 for side in value[1:]))


def _global_avg_pool(step: _Step, value: Shape | None) -> Shape | None:
    return value[:1] if step.fits(value, 3) and value is not None else None


def _flatten(_step: _Step, value: Shape | None) -> Shape | None:
    return None if value is None else (prod(value),)


def _batchnorm(step: _Step, value: Shape | None) -> Shape | None:
    if value is not None:
        step.vectors(value[0], "weight", "bias", "mean", "var")
    return value


def _layernorm(step: _Step, value: Shape | None) -> Shape | None:
    if step.fits(value, 1) and value is not None:
        step.vectors(value[0], "weight", "bias")
    return value


def _same(_step: _Step, value: Shape | None) -> Shape | None:
    return value


_STEPS: Mapping[str, Callable[[_Step, Shape | None], Shape | None]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batchnorm": _batchnorm,
    "layernorm": _layernorm,
    "relu": _same,
    "leaky_relu": _same,
    "gelu": _same,
    "silu": _same,
    "tanh": _same,
    "maxpool2d": _pool,
    "avgpool2d": _pool,
    "global_avg_pool": _global_avg_pool,
    "flatten": _flatten,
}
