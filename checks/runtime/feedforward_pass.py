"""The forward pass of a declared feed-forward model, by torch.

Without convolutions the arithmetic is float64. With them it is float32, in which torch convolves five to fifteen times
as fast; outputs stay within 1e-5 of their size. Specification: clusterability, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from checks.feedforward import FeedForward, FeedForwardLayer

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float64

VALUES_AT_ONCE = 2**18
"""Values of the widest layer that one chunk of rows holds: 1 MiB in float32, which stays in the processor's cache."""

SMALL_ROWS = 64
"""A model is small where at least so many rows make a portion. Its layers take some ten microseconds each: a second
thread saves little, and where it must wait for a busy core the pass took five to ten times as long (measured)."""

Weights = Callable[[str], "np.ndarray"] | Mapping[str, "np.ndarray"]
"""A model's tensors by name."""


def outputs(
    model: FeedForward, weights: Weights, inputs: Float[np.ndarray, " row *input"]
) -> Float64[np.ndarray, "row out"]:
    """Return what a model answers to each input; batch norms use their running moments.

    Args:
        model: its layers.
        weights: its tensors.
        inputs: rows of the model's input shape.
    """
    layers = Layers(model, weights)
    values = layers.tensor(np.reshape(inputs, (len(inputs), *model.input)))
    return np.concatenate([array(layers.run(chunk, 0, len(model.layers))) for chunk in layers.chunks(values)])


class Layers:
    """A model's layers with their tensors.

    Args:
        model: its layers.
        weights: its tensors.
    """

    def __init__(self, model: FeedForward, weights: Weights) -> None:
        import torch

        self.model = model
        self._type = torch.float32 if any(layer.op == "conv2d" for layer in model.layers) else torch.float64
        read = weights.__getitem__ if isinstance(weights, Mapping) else weights
        names = {
            name
            for layer in model.layers
            for name in (layer.weight, layer.bias, layer.mean, layer.var)
            if name is not None
        }
        self._tensors = {name: self.tensor(read(name)) for name in sorted(names)}
        widest = max(int(np.prod(shape)) for shape in (model.input, *model.shapes))
        self._rows = max(1, VALUES_AT_ONCE // widest)

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        """Return a copy of an array in the type that this model runs in; what that cannot hold becomes infinite."""
        import torch

        return torch.tensor(np.asarray(values, dtype=np.float64)).to(self._type)

    def chunks(self, values: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return rows in the portions in which they are run; one empty portion where there are none."""
        return [values[at : at + self._rows] for at in range(0, max(len(values), 1), self._rows)]

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Run small layers on one thread meanwhile; the numbers are the same on any count."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1 if self._rows >= SMALL_ROWS else before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def run(self, values: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return what the layers from `start` until before `stop` make of rows, which stay as they are."""
        import torch

        with torch.inference_mode():
            for number in range(start, stop):
                values = self._apply(self.model.layers[number], values, self.model.shapes[number])
            return values

    def _apply(self, layer: FeedForwardLayer, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        from torch.nn import functional

        weight, bias, mean, var = (self._of(name) for name in (layer.weight, layer.bias, layer.mean, layer.var))
        match layer.op:
            case "linear":
                return functional.linear(values, _there(weight), bias)
            case "conv2d":
                return functional.conv2d(values, _there(weight), bias, layer.stride or 1, layer.padding or 0)
            case "batchnorm":
                return functional.batch_norm(values, mean, var, weight, bias, eps=_there(layer.eps))
            case "layernorm":
                return functional.layer_norm(values, shape, weight, bias, _there(layer.eps))
            case "relu":
                return functional.relu(values)
            case "leaky_relu":
                return functional.leaky_relu(values, _there(layer.slope))
            case "gelu":
                return functional.gelu(values, approximate="tanh" if layer.form == "tanh" else "none")
            case "silu":
                return functional.silu(values)
            case "tanh":
                return values.tanh()
            case "maxpool2d":
                return functional.max_pool2d(values, _there(layer.size), layer.stride)
            case "avgpool2d":
                return functional.avg_pool2d(values, _there(layer.size), layer.stride)
            case "global_avg_pool":
                return values.mean(dim=(2, 3)).reshape(len(values), *shape)
            case "flatten":
                return values.reshape(len(values), *shape)

    def _of(self, name: str | None) -> torch.Tensor | None:
        return None if name is None else self._tensors[name]


T = TypeVar("T")


def _there(given: T | None) -> T:
    """Return what the op cannot do without; the reader of declarations holds every op to its fields."""
    if given is None:
        raise ValueError("a layer lacks a field that its op needs")
    return given


def array(values: torch.Tensor) -> Float64[np.ndarray, "*axes"]:
    """Return a tensor as a float64 array."""
    return np.asarray(values.double().numpy())
