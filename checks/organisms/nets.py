"""Small ReLU nets on handwritten digits: two nets in one, one net for two tasks, and a monolith.

Specification: clusterability, section 8, organisms D. Training is plain numpy and takes a few seconds a net; the
digits are scikit-learn's bundled set (UCI, Alpaydin & Kaynak 1998), which only makes and tests organisms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.lesion import Rows
from checks.clusterability.lesion_plants import LesionCase, ReluNet, side_by_side

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RATE, BATCH, STEPS = 3e-3, 256, 1500
"""Adam's step size, rows a step and steps (section 8, D)."""

MOMENTS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's decay rates and the floor of its divisor (Kingma & Ba 2015)."""

CLASSES, PIXELS, PIXEL_MAX = 10, 64, 16.0
"""Digits are 8 x 8 pixels of 0 to 16."""

HELD_OUT = 0.3
"""Share of each class's digits that are kept for testing: 52 to 55 a class, above the 50 rows that a task needs."""

PAIRINGS = 8
"""Times that each training digit is paired with another, drawn afresh: with one, D2 learns the pairs by heart."""

DIMS_MODULE, DIMS_JOINT, DIMS_MONOLITH = (64, 32, 32, 10), (128, 64, 64, 20), (64, 64, 64, 10)
"""Layer sizes of each net of D1, of D2 and of D3 (section 8)."""

Extra = Callable[[Sequence["Float[np.ndarray, 'out in']"]], Sequence["Float[np.ndarray, 'out in'] | None"]]
"""Returns what is added to each weight's gradient of the loss, or None where nothing is."""


@dataclass(frozen=True)
class Examples:
    """Inputs with one right output for each head."""

    inputs: Float[np.ndarray, "row in"]
    labels: Int[np.ndarray, "row head"]


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out."""

    train: Examples
    test: Examples


def digits(seed: int) -> Split:
    """Return the digits, pixels from 0 to 1, split within each class."""
    from sklearn.datasets import load_digits

    found = load_digits()
    inputs, labels = found.data / PIXEL_MAX, found.target[:, None].astype(np.int64)
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in range(CLASSES):
        of_class = rng.permutation(np.flatnonzero(labels[:, 0] == label))
        held[of_class[: round(HELD_OUT * len(of_class))]] = True
    return Split(Examples(inputs[~held], labels[~held]), Examples(inputs[held], labels[held]))


def paired(split: Split, seed: int) -> Split:
    """Return examples of two independent digits side by side, with a head for each."""
    train = pair(split.train, PAIRINGS, np.random.default_rng([seed, 1]))
    return Split(train, pair(split.test, 1, np.random.default_rng(seed)))


def pair(single: Examples, times: int, rng: np.random.Generator) -> Examples:
    """Return every example beside another one, drawn afresh each time."""
    count = len(single.inputs)
    first = np.tile(np.arange(count), times)
    other = np.concatenate([rng.permutation(count) for _ in range(times)])
    both = np.concatenate([single.inputs[first], single.inputs[other]], axis=1)
    return Examples(both, np.concatenate([single.labels[first], single.labels[other]], axis=1))


def fit(
    dims: Sequence[int],
    data: Examples,
    heads: Sequence[tuple[int, int]],
    seed: int,
    *,
    steps: int = STEPS,
    extra: Extra | None = None,
) -> ReluNet:
    """Train a ReLU net by Adam on the sum of its heads' cross-entropies.

    Args:
        dims: layer sizes, inputs first.
        data: what it learns.
        heads: first output of each head and the one after its last, in the order of the labels' columns.
        seed: of the starting weights (He et al. 2015) and of the batches.
        steps: batches.
        extra: further gradients of the weights; None for the plain loss.
    """
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((n, m)) * np.sqrt(2.0 / m) for m, n in itertools.pairwise(dims)]
    values = weights + [np.zeros(n) for n in dims[1:]]
    first, second = ([np.zeros_like(value) for value in values] for _ in range(2))
    for step in range(1, steps + 1):
        rows = rng.choice(len(data.inputs), min(BATCH, len(data.inputs)), replace=False)
        net = ReluNet(tuple(values[: len(weights)]), tuple(values[len(weights) :]), tuple(heads))
        gradients = loss_gradients(net, Examples(data.inputs[rows], data.labels[rows]))
        for index, more in enumerate(extra(net.weights) if extra else ()):
            if more is not None:
                gradients[index] += more
        for value, gradient, mean, square in zip(values, gradients, first, second, strict=True):
            mean += (1 - MOMENTS[0]) * (gradient - mean)
            square += (1 - MOMENTS[1]) * (np.square(gradient) - square)
            unbiased = np.sqrt(square / (1 - MOMENTS[1] ** step)) + EPSILON
            value -= RATE / (1 - MOMENTS[0] ** step) * mean / unbiased
    return ReluNet(tuple(values[: len(weights)]), tuple(values[len(weights) :]), tuple(heads))


def loss_gradients(net: ReluNet, batch: Examples) -> list[np.ndarray]:
    """Return the gradients of the heads' summed cross-entropy: of all weights, then of all biases."""
    states = [batch.inputs]
    for weight, bias in zip(net.weights[:-1], net.biases[:-1], strict=True):
        states.append(np.maximum(states[-1] @ weight.T + bias, 0.0))
    outputs = states[-1] @ net.weights[-1].T + net.biases[-1]
    back = np.zeros_like(outputs)
    rows = np.arange(len(outputs))
    for head, (start, stop) in enumerate(net.heads):
        shares = np.exp(outputs[:, start:stop] - outputs[:, start:stop].max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[rows, batch.labels[:, head]] -= 1.0
        back[:, start:stop] = shares / len(outputs)
    of_weights: list[np.ndarray] = []
    of_biases: list[np.ndarray] = []
    for layer in reversed(range(len(net.weights))):
        of_weights.insert(0, back.T @ states[layer])
        of_biases.insert(0, back.sum(axis=0))
        back = (back @ net.weights[layer]) * (states[layer] > 0)
    return of_weights + of_biases


def accuracy(net: ReluNet, data: Examples) -> tuple[float, ...]:
    """Return each head's share of right answers."""
    outputs = net.outputs(data.inputs)[0]
    return tuple(
        float(np.mean(outputs[:, start:stop].argmax(axis=1) == data.labels[:, head]))
        for head, (start, stop) in enumerate(net.heads)
    )


def two_in_one(data: Split, seed: int) -> tuple[ReluNet, tuple[Int[np.ndarray, " node"], ...]]:
    """Return organism D1, two digit nets side by side with shuffled neurons, and the owner of each node by layer.

    Args:
        data: single digits.
        seed: of both nets and of the shuffle.
    """
    nets = [fit(DIMS_MODULE, data.train, ((0, CLASSES),), 2 * seed + which) for which in range(2)]
    return side_by_side(nets[0], nets[1], np.random.default_rng([seed, 1]))


def joint(data: Split, seed: int) -> ReluNet:
    """Return organism D2: one net that learned to read two digits at once, from `paired` examples."""
    return fit(DIMS_JOINT, data.train, ((0, CLASSES), (CLASSES, 2 * CLASSES)), seed)


def monolith(data: Split, seed: int) -> ReluNet:
    """Return organism D3: one plain digit net."""
    return fit(DIMS_MONOLITH, data.train, ((0, CLASSES),), seed)


def noisy(net: ReluNet, share: float, rng: np.random.Generator) -> ReluNet:
    """Return a net whose weights got Gaussian noise of this share of each matrix's root mean square."""
    weights = tuple(w + share * np.sqrt(np.mean(np.square(w))) * rng.standard_normal(w.shape) for w in net.weights)
    return ReluNet(weights, net.biases, net.heads)


def head_tasks(net: ReluNet, data: Examples) -> LesionCase:
    """Return the lesion case in which each head is a task: every input stands once for each."""
    heads, count = len(net.heads), len(data.inputs)
    head = np.repeat(np.arange(heads), count)
    rows = Rows(head, tuple(1.0 / (stop - start) for start, stop in net.heads))
    return LesionCase(net, np.tile(data.inputs, (heads, 1)), data.labels.T.ravel(), head, rows)


def class_tasks(net: ReluNet, data: Examples) -> LesionCase:
    """Return the lesion case in which each class of a one-headed net is a task."""
    labels = data.labels[:, 0]
    rows = Rows(labels, (1.0 / CLASSES,) * CLASSES)
    return LesionCase(net, data.inputs, labels, np.zeros(len(labels), dtype=np.int64), rows)
