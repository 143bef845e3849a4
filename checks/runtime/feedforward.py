"""How the trials of a feed-forward model fare while units are held.

What lies before the first held unit is computed once for all lesions. Each lesion then runs alone over the same chunks
of rows, so that its answer does not depend on the lesions it came with. Specification: clusterability, section 6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from checks.check import Lesion, TrialScores, VectorTrial
from checks.errors import NotAskedFor
from checks.feedforward import WEIGHTED, FeedForward, FeedForwardHead
from checks.runtime.feedforward_pass import Layers, Weights, array

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Float64, Int64

SITE = re.compile(r"layer\.(0|[1-9][0-9]{0,3})")

KEPT_BYTES = 2**28
"""What the states that lesions start from may take; sites beyond it start from the last kept one before them."""


class FeedForwardLesions:
    """Answers the lesions of one check, within its budget; implements `checks.memory.Lesioned`.

    Args:
        model: the declared layers.
        weights: the model's tensors.
        trials: what is scored under every lesion.
        sites: "layer.{i}" for hidden weighted layers, whose units may be held.
        budget: lesions that may be asked for.

    Raises:
        NotAskedFor: a site at which this model has no hidden units.
    """

    def __init__(
        self, model: FeedForward, weights: Weights, trials: Sequence[VectorTrial], sites: Sequence[str], budget: int
    ) -> None:
        self._layers, self._left, self._trials = Layers(model, weights), budget, len(trials)
        indices = sorted({_layer_of(site, model) for site in sites})
        lost = {trial.id: reason for trial in trials if (reason := _reason(trial, model))}
        kept = [number for number, trial in enumerate(trials) if trial.id not in lost]
        inputs = self._inputs([trials[number] for number in kept])
        with self._layers.threads():
            finite = self._finite(inputs, indices)
            lost |= {trials[kept[row]].id: "activation_not_finite" for row in np.flatnonzero(~finite)}
            self._kept = np.array(kept, dtype=np.int64)[finite]
            scored = [trials[number] for number in self._kept]
            self._answers = _answers(scored, model)
            moments = self._moments(inputs[finite], indices, _weights_of([trial.group for trial in scored]))
            self._sites = {f"layer.{index}": _Site.of(self._layers, index, moments[index].mean) for index in indices}
            self._states = self._kept_states(inputs[finite])
            self._whole = self._outputs({})
        self.lost: Mapping[str, str] = MappingProxyType(lost)
        """Ids of trials that cannot be scored, with the reason."""
        self.unit_sd: Mapping[str, Float64[np.ndarray, " unit"]] = MappingProxyType(
            {f"layer.{index}": np.sqrt(moments[index].square) for index in indices}
        )
        """Standard deviation of each unit by site, over trials and positions, groups weighted equally."""

    def __call__(self, lesions: Sequence[Lesion]) -> TrialScores:
        """Return how every trial fares under each lesion; a lost trial is wrong, its loss NaN.

        Raises:
            NotAskedFor: more lesions than the budget has left, or a site or unit that is not there.
        """
        for lesion in lesions:
            self._check(lesion)
        if len(lesions) > self._left:
            raise NotAskedFor(f"{len(lesions)} lesions, and {self._left} left of what the needs declared")
        self._left -= len(lesions)
        correct = np.zeros((len(lesions), self._trials), dtype=bool)
        loss = np.full((len(lesions), self._trials), np.nan)
        with self._layers.threads():
            for number, lesion in enumerate(lesions):
                held = {site: units for site, units in lesion.items() if len(units)}
                said = self._outputs(held) if held else self._whole
                for answers in self._answers:
                    right, lost = answers.scored(said)
                    at = self._kept[answers.rows]
                    correct[number, at], loss[number, at] = right, lost
        return TrialScores(correct=correct, loss=loss)

    def _check(self, lesion: Lesion) -> None:
        for site, units in lesion.items():
            if site not in self._sites:
                raise NotAskedFor(f"a lesion at {site!r}, which is not among the sites that the needs name")
            if len(units) and not np.issubdtype(units.dtype, np.integer):
                raise NotAskedFor(f"a lesion at {site!r} holds units that are no whole numbers")
            count = self._sites[site].units
            strange = units[(units < 0) | (units >= count)]
            if len(strange):
                raise NotAskedFor(f"a lesion at {site!r} holds unit {strange[0]}: there are {count}")

    def _inputs(self, trials: Sequence[VectorTrial]) -> torch.Tensor:
        shape = (len(trials), *self._layers.model.input)
        return self._layers.tensor(np.array([trial.values for trial in trials], dtype=np.float64).reshape(shape))

    def _held(self, chunk: torch.Tensor, indices: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield each site's state as it is held, and at last the outputs, under -1."""
        at = 0
        for index in indices:
            stop = self._layers.model.held_after(index) + 1
            chunk, at = self._layers.run(chunk, at, stop), stop
            yield index, chunk
        yield -1, self._layers.run(chunk, at, len(self._layers.model.layers))

    def _finite(self, inputs: torch.Tensor, indices: Sequence[int]) -> Bool[np.ndarray, " row"]:
        """Return which rows leave all states and outputs finite: one that does not would spoil every mean."""
        found = np.ones(len(inputs), dtype=bool)
        at = 0
        for chunk in self._layers.chunks(inputs):
            for _, state in self._held(chunk, indices):
                found[at : at + len(chunk)] &= state.flatten(1).isfinite().all(dim=1).numpy()
            at += len(chunk)
        return found

    def _moments(
        self, inputs: torch.Tensor, indices: Sequence[int], weights: Float64[np.ndarray, " row"]
    ) -> dict[int, _Moments]:
        """Return each site's mean map and spread, by two passes over all rows; NaN where there are none."""
        start = 0.0 if len(inputs) else np.nan
        model = self._layers.model
        found = {index: _Moments.of(model.shapes[model.held_after(index)], start) for index in indices}
        for add in (_Moments.add_mean, _Moments.add_square):
            at = 0
            for chunk in self._layers.chunks(inputs):
                share = weights[at : at + len(chunk)]
                for index, state in self._held(chunk, indices):
                    if index in found:
                        add(found[index], share, array(state))
                at += len(chunk)
        return found

    def _kept_states(self, inputs: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return states of all rows by the number of layers they have run through; the inputs always, sites as fit."""
        import torch

        states, state, at, left = {0: inputs}, inputs, 0, KEPT_BYTES
        for site in self._sites.values():
            size = len(inputs) * int(np.prod(self._layers.model.shapes[site.stop - 1])) * inputs.element_size()
            if size > left:
                break
            parts = [self._layers.run(chunk, at, site.stop) for chunk in self._layers.chunks(state)]
            state, at, left = torch.cat(parts), site.stop, left - size
            states[at] = state
        return states

    def _outputs(self, lesion: Lesion) -> Float64[np.ndarray, "row out"]:
        """Return the outputs of all rows while the units of a lesion are held."""
        sites = [(site, site.mask(lesion[name])) for name, site in self._sites.items() if name in lesion]
        first = sites[0][0].stop if sites else 0
        start = max(stop for stop in self._states if stop <= first)
        parts = []
        for state in self._layers.chunks(self._states[start]):
            at, chunk = start, state
            for site, mask in sites:
                chunk, at = site.hold(self._layers.run(chunk, at, site.stop), mask), site.stop
            parts.append(array(self._layers.run(chunk, at, len(self._layers.model.layers))))
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Sums over rows that are added up portion by portion; the mean is whole before any square is added."""

    mean: Float64[np.ndarray, " unit *positions"]
    square: Float64[np.ndarray, " unit"]
    """Mean squared distance from the unit's mean over all positions."""

    @classmethod
    def of(cls, shape: tuple[int, ...], start: float) -> _Moments:
        return cls(np.full(shape, start), np.full(shape[0], start))

    def add_mean(self, share: Float64[np.ndarray, " row"], values: Float64[np.ndarray, " row unit *positions"]) -> None:
        self.mean[...] += np.tensordot(share, values, 1)

    def add_square(
        self, share: Float64[np.ndarray, " row"], values: Float64[np.ndarray, " row unit *positions"]
    ) -> None:
        positions = tuple(range(1, self.mean.ndim))
        middle = self.mean.mean(axis=positions, keepdims=True)
        apart = np.square(values - middle).mean(axis=tuple(axis + 1 for axis in positions))
        self.square[...] += share @ apart


@dataclass(frozen=True, eq=False)
class _Site:
    """Where a layer's units are held: as late as each value still belongs to one unit, just before they are read.

    Pools and flattening keep units apart, so holding after them what they make of the means is the same, and they need
    not run again for every lesion.
    """

    stop: int
    """Layers that have run when the units are held."""
    units: int
    means: Float[torch.Tensor, " values"]
    """What each value is held at, in C order: unit by unit."""

    @classmethod
    def of(cls, layers: Layers, index: int, mean: Float64[np.ndarray, " unit *positions"]) -> _Site:
        start = stop = layers.model.held_after(index) + 1
        while layers.model.layers[stop].op not in (*WEIGHTED, "layernorm"):
            stop += 1
        units = layers.model.units(index)
        return cls(stop, units, layers.run(layers.tensor(mean[None]), start, stop).flatten())

    def mask(self, units: Int64[np.ndarray, " held"]) -> Bool[torch.Tensor, " values"]:
        import torch

        held = np.zeros(self.units, dtype=bool)
        held[units] = True
        return torch.from_numpy(held.repeat(len(self.means) // self.units))

    def hold(self, state: torch.Tensor, mask: Bool[torch.Tensor, " values"]) -> torch.Tensor:
        import torch

        return torch.where(mask, self.means, state.flatten(1)).reshape(state.shape)


@dataclass(frozen=True, eq=False)
class _Answers:
    """The trials of one head."""

    head: FeedForwardHead
    rows: Int64[np.ndarray, " asked"]
    labels: Int64[np.ndarray, " asked"]

    def scored(self, said: Float64[np.ndarray, "row out"]) -> tuple[np.ndarray, np.ndarray]:
        """Return what is right, the lowest of equal outputs counting as the largest, and the losses in nats."""
        logits = said[self.rows, self.head.start : self.head.stop]
        with np.errstate(invalid="ignore"):  # what is not finite ends as a loss that is not
            logits -= logits.max(axis=1, keepdims=True)
            loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), self.labels]
        finite = np.isfinite(loss)
        return finite & (logits.argmax(axis=1) == self.labels), np.where(finite, loss, np.nan)


def _answers(trials: Sequence[VectorTrial], model: FeedForward) -> tuple[_Answers, ...]:
    labels = np.array([trial.label for trial in trials], dtype=np.int64)
    asked = np.array([trial.head or model.heads[0].name for trial in trials], dtype=object)
    rows = [(head, np.flatnonzero(asked == head.name)) for head in model.heads]
    return tuple(_Answers(head, at, labels[at]) for head, at in rows if len(at))


def _weights_of(groups: Sequence[str]) -> Float64[np.ndarray, " row"]:
    """Return each row's weight in a mean that counts every group equally."""
    names, at, counts = np.unique(np.array(groups, dtype=str), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[at] / max(len(names), 1))


def _reason(trial: VectorTrial, model: FeedForward) -> str | None:
    """Return why a trial cannot be scored, or None."""
    heads = {head.name: head for head in model.heads}
    if len(trial.values) != np.prod(model.input):
        return "wrong_number_of_values"
    if not np.isfinite(trial.values).all():
        return "value_not_finite"
    if trial.head is None and len(heads) > 1:
        return "head_missing"
    head = model.heads[0] if trial.head is None else heads.get(trial.head)
    if head is None:
        return "unknown_head"
    return None if 0 <= trial.label < head.stop - head.start else "label_outside_head"


def _layer_of(site: str, model: FeedForward) -> int:
    found = SITE.fullmatch(site)
    if not found or int(found[1]) not in model.hidden:
        raise NotAskedFor(f"site {site!r} has no hidden units: those are at {[f'layer.{i}' for i in model.hidden]}")
    return int(found[1])
