"""Feed-forward models written by hand, with a forward pass of their own: plain numpy, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms.small_nets import load

Tensors = Mapping[str, np.ndarray]


def declared(given: tuple[int, ...], layers: Sequence[FeedForwardLayer], tensors: Tensors) -> FeedForward:
    """Return a declaration with the shapes that the layers give."""
    seen, shapes = np.zeros((1, *given)), []
    for layer in layers:
        seen = step(layer, seen, tensors)
        shapes.append(seen.shape[1:])
    heads = (FeedForwardHead(name="out", start=0, stop=shapes[-1][0]),)
    return FeedForward(input=given, layers=tuple(layers), shapes=tuple(shapes), heads=heads)


def outputs(model: FeedForward, x: np.ndarray, tensors: Tensors) -> np.ndarray:
    """Return what a model answers to rows of inputs."""
    for layer in model.layers:
        x = step(layer, x, tensors)
    return x


def step(layer: FeedForwardLayer, x: np.ndarray, tensors: Tensors) -> np.ndarray:
    """Return one layer's values; rows first."""

    def of(name: str | None) -> np.ndarray:
        assert name is not None
        return np.asarray(tensors[name], dtype=np.float64)

    def across(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *[1] * (x.ndim - 2))

    match layer.op:
        case "linear":
            return np.asarray(x @ of(layer.weight).T + (0.0 if layer.bias is None else of(layer.bias)))
        case "conv2d":
            return conv(x, of(layer.weight), None if layer.bias is None else of(layer.bias), layer)
        case "batchnorm":
            scale = of(layer.weight) / np.sqrt(of(layer.var) + (layer.eps or 0.0))
            return np.asarray((x - across(of(layer.mean))) * across(scale) + across(of(layer.bias)))
        case "layernorm":
            return np.asarray(standard(x, layer.eps or 0.0) * of(layer.weight) + of(layer.bias))
        case "relu":
            return np.asarray(np.maximum(x, 0.0))
        case "tanh":
            return np.asarray(np.tanh(x))
        case "flatten":
            return x.reshape(len(x), -1)
        case "global_avg_pool":
            return np.asarray(x.mean(axis=(2, 3)))
    raise ValueError(layer.op)


def standard(x: np.ndarray, eps: float) -> np.ndarray:
    """Return rows without their mean, divided by their standard deviation."""
    return np.asarray((x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + eps))


def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, layer: FeedForwardLayer) -> np.ndarray:
    """Return a convolution (cross-correlation, as everywhere) with zeros around."""
    pad, stride = layer.padding or 0, layer.stride or 1
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    found = np.einsum("rchwij,ocij->rohw", windows, kernel)
    return np.asarray(found if bias is None else found + bias[:, None, None])


def linear(at: int, bias: str | None = None) -> FeedForwardLayer:
    return FeedForwardLayer(op="linear", weight=f"{at}.weight", bias=bias)


def batchnorm(at: int) -> FeedForwardLayer:
    return FeedForwardLayer(
        op="batchnorm", weight=f"{at}.weight", bias=f"{at}.bias", mean=f"{at}.mean", var=f"{at}.var", eps=1e-5
    )


def op(name: str) -> FeedForwardLayer:
    return FeedForwardLayer(op=name)  # type: ignore[arg-type]


def norm_tensors(at: int, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a batch norm's tensors, far from those of an untrained one."""
    return {
        f"{at}.weight": rng.normal(1.0, 0.5, size),
        f"{at}.bias": rng.normal(size=size),
        f"{at}.mean": rng.normal(size=size),
        f"{at}.var": rng.uniform(0.2, 3.0, size),
    }


def evidence_of_net(
    given: tuple[int, ...], layers: Sequence[FeedForwardLayer], tensors: Tensors, seed: int = 7
) -> InMemoryEvidence:
    """Return evidence of a feed-forward model."""
    with np.errstate(all="ignore"):
        model = declared(given, layers, tensors)
    facts = model_facts(
        architecture="feedforward",
        layers=len(model.weighted),
        width=0,
        heads=0,
        vocabulary=0,
        context=0,
        causal=False,
        tensors={name: array.shape for name, array in tensors.items()},
        feedforward=model,
    )
    return InMemoryEvidence(facts=facts, check="clusterability", seed=seed, weights=tensors)


def relu_chain(weights: Sequence[np.ndarray], seed: int = 7) -> InMemoryEvidence:
    """Return evidence of a ReLU net with these weights, named "0.weight", "2.weight", .."""
    layers: list[FeedForwardLayer] = []
    tensors: dict[str, np.ndarray] = {}
    for weight in weights:
        layers += [op("relu")] if layers else []
        tensors[f"{len(layers)}.weight"] = weight
        layers.append(linear(len(layers)))
    return evidence_of_net((weights[0].shape[1],), layers, tensors, seed)


def organism(name: str, seed: int = 7) -> tuple[InMemoryEvidence, tuple[np.ndarray, ...]]:
    """Return evidence of a committed small net, and the planted group of each node by layer."""
    known = load(name)
    return relu_chain(known.net.weights, seed), known.truth
