"""The matrices of a feed-forward model in one form: norms folded in, kernels and positions summed to one weight.

Specification: clusterability, sections 4 and 4.1. What is folded changes nothing of what the model computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from checks.clusterability.canonical import SYMMETRIES, Affine, BatchNorm, folded_affine, folded_batchnorm
from checks.clusterability.views import in_range
from checks.feedforward import FeedForward, FeedForwardLayer

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Weights = Callable[[str], np.ndarray]
"""Returns a named tensor as float64, matrices as [out, in]: `Evidence.weights`."""

LayerFamily = Literal["linear", "conv"]

AVERAGES = ("avgpool2d", "global_avg_pool")
"""What a scale and a shift of whole channels pass unchanged, beside `flatten`."""


@dataclass(frozen=True)
class LayerMatrix:
    """The matrix of one linear or convolutional layer."""

    index: int
    """Place in `FeedForward.layers`: its units are the site "layer.{index}"."""
    name: str
    """The weight's tensor."""
    family: LayerFamily
    values: Float[np.ndarray, "out in"]
    """Canonical; a summed kernel, or summed positions, are the root of the sum of squares."""
    signs: Float[np.ndarray, "out in"]
    """-1, 0 or 1: of a sum, the sign of its largest weight."""
    steps: tuple[str, ...]
    """What was done to bring it to this form, for the log (4.1), e.g. "batchnorm_folded:1"."""
    fault: str | None = None
    """First entry that is not finite, as "tensor:row:column"; `values` then mean nothing."""

    @property
    def signed(self) -> Float[np.ndarray, "out in"]:
        """The magnitudes with their signs: what is tested."""
        return np.asarray(np.abs(self.values) * self.signs)


@dataclass(frozen=True)
class Partitioned:
    """A tested partition by the units that lesions can hold."""

    name: str
    """"network", "mlp.{l}" or "head_graph"."""
    sites: tuple[tuple[str, Int[np.ndarray, " unit"]], ...]
    """Per site the cluster of every unit in unit order, -1 for one that is in none."""
    matrix: str = ""
    """What was tested and gave these clusters, as the report names it; empty where that is `name`."""

    @property
    def found_in(self) -> str:
        """Label of the matrix, graph or net whose structure this partition is."""
        return self.matrix or self.name


@dataclass(frozen=True)
class Folded:
    """A feed-forward model with its norms folded into the layers beside them."""

    affines: Mapping[int, Affine]
    """Of every weighted layer whose tensors are finite, by its place."""
    gone: frozenset[int]
    """Batch norms that are folded in whole: there is nothing left to compute."""
    plain: frozenset[int]
    """Layer norms whose gain and shift are folded in: they still take the mean away and divide."""
    steps: Mapping[int, tuple[str, ...]]
    faults: Mapping[int, str]
    """First entry that is not finite of what a weighted layer's matrix is made of."""


@dataclass(frozen=True)
class _Norms:
    """Places of the norms that belong to one weighted layer."""

    behind: tuple[int, ...]
    """Batch norms right behind it."""
    before: tuple[int, ...]
    """Norms that it reads through nothing but reshapes and averages, nearest first."""


def folded(model: FeedForward, weights: Weights) -> Folded:
    """Return a model's weighted layers with norms folded in.

    A batch norm goes into the weighted layer right before it, else into the one that reads it; a layer norm's gain goes
    into the linear layer that reads it, whose rows lose their mean. A norm behind an activation that nothing linear
    reads, or before a convolution that pads with zeros, stays: its scale is one of whole rows or columns, which
    the test's own view does not see.
    """
    norms = _norms(model)
    affines: dict[int, Affine] = {}
    steps: dict[int, tuple[str, ...]] = {}
    faults: dict[int, str] = {}
    for index, own in norms.items():
        fault = _fault(model, index, own, weights)
        if fault is not None:
            faults[index], steps[index] = fault, ()
            continue
        with np.errstate(all="ignore"):  # biases may overflow or be broken: no matrix is made of them
            affines[index], steps[index] = _folded(model, index, own, weights)
    taken = {at for own in norms.values() for at in (*own.behind, *own.before)}
    plain = {at for at in taken if model.layers[at].op == "layernorm"}
    for at, layer in enumerate(model.layers):
        if layer.op in ("batchnorm", "layernorm") and at not in taken and norms:
            near = max([index for index in norms if index < at], default=model.weighted[0])
            steps[near] += (f"{layer.op}_left:{at}",)
    return Folded(affines, frozenset(taken - plain), frozenset(plain), steps, faults)


def _norms(model: FeedForward) -> dict[int, _Norms]:
    found: dict[int, _Norms] = {}
    taken: set[int] = set()
    for index in model.weighted:
        after = index + 1
        while after < len(model.layers) and model.layers[after].op == "batchnorm":
            after += 1
        behind = tuple(range(index + 1, after))
        found[index] = _Norms(behind, _read_through(model, index, taken))
        taken |= {*behind, *found[index].before}
    return found


def _read_through(model: FeedForward, index: int, taken: set[int]) -> tuple[int, ...]:
    reader = model.layers[index]
    pads, averaged = reader.op == "conv2d" and bool(reader.padding), False
    found: list[int] = []
    for at in range(index - 1, -1, -1):
        layer = model.layers[at]
        flat = len(model.shapes[at]) == 1
        if layer.op == "layernorm" and reader.op == "linear" and flat and not averaged:
            return (*found, at)  # what stands before it is not read linearly
        if layer.op == "batchnorm" and at not in taken and not pads:
            found.append(at)
        elif layer.op in AVERAGES:
            averaged = True
        elif layer.op != "flatten":
            break
    return tuple(found)


def _folded(model: FeedForward, index: int, own: _Norms, weights: Weights) -> tuple[Affine, tuple[str, ...]]:
    layer, steps = model.layers[index], []
    weight = np.asarray(weights(_named(layer.weight)), dtype=np.float64)
    affine = Affine(weight, np.zeros(len(weight)) if layer.bias is None else weights(layer.bias))
    for at in own.behind:
        affine = folded_batchnorm(affine, _batchnorm(model.layers[at], weights))
        steps.append(f"batchnorm_folded:{at}")
    for at in own.before:
        gain, shift = _scale_and_shift(model.layers[at], affine.weight.shape[1], weights)
        if model.layers[at].op == "layernorm":
            affine = folded_affine(affine, gain, shift, "layer")
            steps += [f"layernorm_gain_folded:{at}", f"row_means_removed:{at}"]
        else:
            across = (None, slice(None), *[None] * (affine.weight.ndim - 2))
            read = (affine.weight * shift[across]).reshape(len(affine.weight), -1).sum(axis=1)
            affine = Affine(affine.weight * gain[across], affine.bias + read)
            steps.append(f"batchnorm_folded:{at}")
    return affine, tuple(steps)


def _batchnorm(layer: FeedForwardLayer, weights: Weights) -> BatchNorm:
    mean, variance = weights(_named(layer.mean)), weights(_named(layer.var))
    gain = np.ones(len(mean)) if layer.weight is None else weights(layer.weight)
    shift = np.zeros(len(mean)) if layer.bias is None else weights(layer.bias)
    return BatchNorm(gain, shift, mean, variance, float(layer.eps or 0.0))


def _scale_and_shift(layer: FeedForwardLayer, inputs: int, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Return a norm's scale and shift, one for each input of its reader: a channel has many after `flatten`."""
    if layer.op == "layernorm":
        gain = weights(_named(layer.weight))
        shift = np.zeros(len(gain)) if layer.bias is None else weights(layer.bias)
    else:
        norm = _batchnorm(layer, weights)
        gain = norm.gain / np.sqrt(norm.variance + norm.eps)
        shift = norm.shift - norm.mean * gain
    return np.repeat(gain, inputs // len(gain)), np.repeat(shift, inputs // len(gain))


def layer_matrices(model: FeedForward, weights: Weights) -> tuple[LayerMatrix, ...]:
    """Return the canonical matrix of every linear and convolutional layer, in order of computation.

    The columns of each are the rows of the one before. A tensor that is not finite spoils its own matrix alone.

    Args:
        model: the declared layers.
        weights: returns a tensor as float64.
    """
    chain = folded(model, weights)
    return tuple(_matrix(model, index, chain, weights) for index in model.weighted)


def network_of(matrices: tuple[LayerMatrix, ...]) -> tuple[Float[np.ndarray, "out in"], ...]:
    """Return the chain of a model's matrices as the network partition reads it.

    Raises:
        ValueError: a matrix is not finite.
    """
    if any(one.fault for one in matrices):
        raise ValueError("a matrix is not finite")
    return tuple(one.signed for one in matrices)


def _matrix(model: FeedForward, index: int, chain: Folded, weights: Weights) -> LayerMatrix:
    layer = model.layers[index]
    name, family = _named(layer.weight), "conv" if layer.op == "conv2d" else "linear"
    steps = list(chain.steps[index])
    fault = chain.faults.get(index) or _first_bad(name, chain.affines[index].weight)
    if fault:
        blank = np.full(weights(name).shape[:2], np.nan)
        return LayerMatrix(index, name, family, blank, blank, tuple(steps), fault)  # type: ignore[arg-type]
    values = in_range(chain.affines[index].weight)
    positions = _positions(model, index)
    if family == "conv":
        steps.append("kernel_summed")
        values = values.reshape(*values.shape[:2], -1)
    elif positions > 1:
        steps.append(f"positions_summed:{positions}")
        values = values.reshape(len(values), -1, positions)
    if values.ndim == 3:
        largest = np.take_along_axis(values, np.abs(values).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
        values, signs = np.sqrt(np.square(values).sum(axis=2)), np.sign(largest)
    else:
        signs = np.sign(values)
    steps += _without_symmetry(model, index)
    return LayerMatrix(index, name, family, values, signs, tuple(steps))  # type: ignore[arg-type]


def _positions(model: FeedForward, index: int) -> int:
    """Return how many columns of a linear layer stand for one unit: a channel's positions after `flatten`.

    Positions of the input itself are no unit's: each is a node of its own, as where the input is declared flat.
    """
    earlier = [at for at in model.weighted if at < index]
    if not earlier:
        return 1
    for at in range(earlier[-1] + 1, index):
        if model.layers[at].op == "flatten" and len(model.shapes[at - 1]) > 1:
            return int(np.prod(model.shapes[at - 1][1:]))
    return 1


def _without_symmetry(model: FeedForward, index: int) -> list[str]:
    """Return a step for each activation under which a unit's scale is not free (4.1)."""
    ops = [model.layers[at].op for at in range(index + 1, model.held_after(index) + 1)]
    return [f"no_scale_symmetry:{op}" for op in ops if SYMMETRIES.get(op) == "none"]


def _fault(model: FeedForward, index: int, own: _Norms, weights: Weights) -> str | None:
    """Return the first entry that is not finite, or a variance that is not positive, of what makes up a matrix."""
    first = _not_finite(_named(model.layers[index].weight), weights)
    for at in (*own.behind, *own.before):
        norm = model.layers[at]
        for name in (norm.weight, norm.var):
            first = first or (None if name is None else _not_finite(name, weights))
        if first is None and norm.var is not None:
            below = np.flatnonzero(weights(norm.var) + float(norm.eps or 0.0) <= 0)
            first = f"{norm.var[:100]}:{below[0]}" if len(below) else None
    return first


def _not_finite(name: str, weights: Weights) -> str | None:
    return _first_bad(name, weights(name))


def _first_bad(name: str, values: np.ndarray) -> str | None:
    bad = np.argwhere(~np.isfinite(values))
    # Names keep their alphabet and length: the index follows in its own digits.
    return None if not len(bad) else ":".join([name[:100], *(str(place) for place in bad[0])])


def _named(name: str | None) -> str:
    assert name is not None, "the declaration was checked: this op has this tensor"
    return name
