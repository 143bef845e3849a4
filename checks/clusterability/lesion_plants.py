"""Small ReLU nets whose lesions are known: what the lesion code is tried on, in tests and in every run.

A net is read in numpy, many ablations at once. Specification: clusterability, sections 6.1 and 8 (PlantedTwoNets,
ShuffledPartition).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.lesion import Rows, RowScores, Scored, Units

if TYPE_CHECKING:
    from jaxtyping import Float, Int

PLANT_INPUT, PLANT_HIDDEN, PLANT_CLASSES = 16, 64, 8
"""Sizes of each of the two planted nets: read 400 times in half a second. At 24 hidden neurons a random half of them
sometimes costs a task as much as the whole module; at 64 it costs half as much (largest of 50: .57 against .86-.90)."""

PLANT_ROWS, PLANT_FIT = 200, 2000
"""Rows of each task, and rows that the readouts are fitted on."""

PLANT_NOISE = 0.15
"""Standard deviation of the noise around a class's prototype, whose coordinates are N(0, 1)."""

RIDGE = 0.1
"""Weight of the readout's squared norm, in mean squares of a feature: keeps the readout from cancelling features."""


@dataclass(frozen=True)
class ReluNet:
    """A feed-forward net: linear layers with ReLU between them; its outputs are split into heads."""

    weights: tuple[Float[np.ndarray, "out in"], ...]
    biases: tuple[Float[np.ndarray, " out"], ...]
    heads: tuple[tuple[int, int], ...]
    """First output of each head, and the one after its last."""

    @cached_property
    def layer_of_unit(self) -> Int[np.ndarray, " unit"]:
        """The hidden layer of each hidden unit, counted from 0; units are numbered layer by layer."""
        return np.repeat(np.arange(len(self.weights) - 1), [len(w) for w in self.weights[:-1]])

    def hidden(self, inputs: Float[np.ndarray, "row in"]) -> Float[np.ndarray, "row unit"]:
        """Return the activations of all hidden units after ReLU, layer by layer."""
        state, kept = inputs, []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            state = np.maximum(state @ weight.T + bias, 0.0)
            kept.append(state)
        return np.concatenate(kept, axis=1)

    def outputs(
        self,
        inputs: Float[np.ndarray, "row in"],
        ablate: Sequence[Int[np.ndarray, " ablated"]] | None = None,
        means: Float[np.ndarray, " unit"] | None = None,
    ) -> Float[np.ndarray, "ablation row out"]:
        """Return the outputs under each of several ablations.

        Args:
            inputs: one row an example.
            ablate: for each ablation the hidden units that are held; None is one ablation that holds none.
            means: what an ablated unit is held at.
        """
        ablate = [np.zeros(0, dtype=np.int64)] if ablate is None else ablate
        # What comes before the first ablated layer is the same for all.
        entry = np.maximum(inputs @ self.weights[0].T + self.biases[0], 0.0) if len(self.weights) > 1 else inputs
        found = np.empty((len(ablate), len(inputs), len(self.weights[-1])))
        # One at a time: arrays of a few hundred kilobytes stay in the cache, all at once would not.
        for out, units in zip(found, ablate, strict=True):
            self._finish(entry.copy(), np.asarray(units, dtype=np.int64), means, out)
        return found

    def _finish(
        self,
        state: Float[np.ndarray, "row first"],
        units: Int[np.ndarray, " ablated"],
        means: Float[np.ndarray, " unit"] | None,
        out: Float[np.ndarray, "row out"],
    ) -> None:
        """Hold units at their means and run on from the first hidden layer; `state` is overwritten."""
        start = 0
        for layer in range(1, len(self.weights)):
            here = units[(units >= start) & (units < start + state.shape[1])]
            if means is not None:
                state[:, here - start] = means[here]
            start += state.shape[1]
            following = out if layer == len(self.weights) - 1 else np.empty((len(state), len(self.weights[layer])))
            np.matmul(state, self.weights[layer].T, out=following)
            following += self.biases[layer]
            if layer < len(self.weights) - 1:
                np.maximum(following, 0.0, out=following)
            state = following
        if len(self.weights) == 1:
            out[:] = state @ self.weights[0].T + self.biases[0]


@dataclass(frozen=True)
class LesionCase:
    """A net with rows to lesion it on."""

    net: ReluNet
    inputs: Float[np.ndarray, "row in"]
    labels: Int[np.ndarray, " row"]
    """Right output of the row's head, counted within the head."""
    head: Int[np.ndarray, " row"]
    rows: Rows

    @cached_property
    def means(self) -> Float[np.ndarray, " unit"]:
        """Mean activation of each unit, tasks weighted equally."""
        return np.asarray(self.rows.weights() @ self.net.hidden(self.inputs))

    @cached_property
    def units(self) -> Units:
        """Every hidden unit with the size by which random sets are matched."""
        spread = self.net.hidden(self.inputs)
        deviation = np.sqrt(self.rows.weights() @ np.square(spread - self.means))
        outgoing = np.concatenate([np.linalg.norm(weight, axis=0) for weight in self.net.weights[1:]])
        return Units(self.net.layer_of_unit, deviation * outgoing)

    def scored(self) -> Scored:
        """Return the function that the lesion code asks: right or wrong, and loss, of every row under ablations."""

        def score(ablations: Sequence[Int[np.ndarray, " ablated"]]) -> RowScores:
            outputs = self.net.outputs(self.inputs, ablations, self.means)
            correct = np.empty(outputs.shape[:2], dtype=bool)
            loss = np.empty(outputs.shape[:2])
            for index, (start, stop) in enumerate(self.net.heads):
                at = np.flatnonzero(self.head == index)
                logits = outputs[:, at, start:stop]
                logits = logits - logits.max(axis=2, keepdims=True)
                wanted = logits[:, np.arange(len(at)), self.labels[at]]
                correct[:, at] = logits.argmax(axis=2) == self.labels[at]
                loss[:, at] = np.log(np.exp(logits).sum(axis=2)) - wanted
            return RowScores(correct, loss)

        return score


def side_by_side(
    first: ReluNet, second: ReluNet, rng: np.random.Generator | None = None
) -> tuple[ReluNet, tuple[Int[np.ndarray, " node"], ...]]:
    """Return one net that holds two of equal depth without any weight between them, and which is whose.

    Args:
        first: its outputs come first.
        second: reads the inputs after those of `first`.
        rng: hides the two by shuffling every layer of hidden neurons; None leaves `first` before `second`.

    Returns:
        The net, and for each layer of nodes from inputs to outputs the owner of each node, 0 or 1.
    """
    pairs = list(zip(first.weights, second.weights, strict=True))
    sizes = [(a.shape[1], b.shape[1]) for a, b in pairs] + [(len(pairs[-1][0]), len(pairs[-1][1]))]
    orders = [np.arange(a + b) for a, b in sizes]
    if rng is not None:
        orders[1:-1] = [rng.permutation(order) for order in orders[1:-1]]
    weights, biases = [], []
    for layer, (a, b) in enumerate(pairs):
        whole = np.zeros((len(a) + len(b), a.shape[1] + b.shape[1]))
        whole[: len(a), : a.shape[1]], whole[len(a) :, a.shape[1] :] = a, b
        weights.append(whole[np.ix_(orders[layer + 1], orders[layer])])
        biases.append(np.concatenate([first.biases[layer], second.biases[layer]])[orders[layer + 1]])
    heads = first.heads + tuple((start + sizes[-1][0], stop + sizes[-1][0]) for start, stop in second.heads)
    owners = tuple((order >= a).astype(np.int64) for order, (a, _) in zip(orders, sizes, strict=True))
    return ReluNet(tuple(weights), tuple(biases), heads), owners


def planted_two_nets(rng: np.random.Generator) -> tuple[LesionCase, Int[np.ndarray, " unit"]]:
    """Return a case made of two nets that share nothing, each with its own task, and the owner of each hidden unit.

    Hidden layers are random and the readout is fitted in closed form, so the plant costs milliseconds and needs no
    training data: each task is to name the nearest of eight prototypes.
    """
    nets, inputs, labels = [], [], []
    for _ in range(2):
        prototypes = rng.standard_normal((PLANT_CLASSES, PLANT_INPUT))
        x, y = _around(prototypes, PLANT_FIT, rng)
        nets.append(_random_features(x, y, rng))
        x, y = _around(prototypes, 2 * PLANT_ROWS, rng)
        inputs.append(x)
        labels.append(y)
    net, owners = side_by_side(nets[0], nets[1], rng)
    head = np.repeat([0, 1], PLANT_ROWS)
    chosen = np.where(head == 0, labels[0], labels[1])
    rows = Rows(head, (1.0 / PLANT_CLASSES, 1.0 / PLANT_CLASSES))
    return LesionCase(net, np.concatenate(inputs, axis=1), chosen, head, rows), np.concatenate(owners[1:-1])


def _around(
    prototypes: Float[np.ndarray, "class in"], count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "row in"], Int[np.ndarray, " row"]]:
    labels = rng.permutation(np.arange(count) % len(prototypes))
    return prototypes[labels] + PLANT_NOISE * rng.standard_normal((count, prototypes.shape[1])), labels


def _random_features(x: Float[np.ndarray, "row in"], y: Int[np.ndarray, " row"], rng: np.random.Generator) -> ReluNet:
    """Return a net of two random hidden layers and a ridge readout."""
    sizes = (PLANT_INPUT, PLANT_HIDDEN, PLANT_HIDDEN)
    hidden = [rng.standard_normal((n, m)) * np.sqrt(2.0 / m) for m, n in itertools.pairwise(sizes)]
    state = x
    for weight in hidden:
        state = np.maximum(state @ weight.T, 0.0)
    centred = state - state.mean(axis=0)
    targets = np.eye(PLANT_CLASSES)[y]
    gram = centred.T @ centred
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    readout = np.linalg.solve(gram, centred.T @ (targets - targets.mean(axis=0))).T
    bias = targets.mean(axis=0) - readout @ state.mean(axis=0)
    weights = (*hidden, readout)
    return ReluNet(weights, (np.zeros(PLANT_HIDDEN), np.zeros(PLANT_HIDDEN), bias), ((0, PLANT_CLASSES),))


def shuffled_partition(
    labels: Int[np.ndarray, " unit"], rng: np.random.Generator, strata: Int[np.ndarray, " unit"] | None = None
) -> Int[np.ndarray, " unit"]:
    """Return a partition with the same cluster sizes and random members; dead units (-1) stay out.

    Args:
        labels: cluster of each unit.
        rng: draws.
        strata: units change places with those of their own stratum alone: every cluster then keeps its units of each
            layer and size, so that its lesion is one more draw of its own random sets.
    """
    shuffled = np.array(labels)
    alive = labels >= 0
    for stratum in [None] if strata is None else np.unique(strata[alive]):
        here = np.flatnonzero(alive if stratum is None else alive & (strata == stratum))
        shuffled[here] = labels[rng.permutation(here)]
    return shuffled
