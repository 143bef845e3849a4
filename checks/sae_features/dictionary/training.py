"""Training of sparse dictionaries from a stream of states: several at once, on the same batches, in one sweep.

The stream is folded, not kept: a head of 20,000 states sets the normalisation, a ring in memory shuffles, and a tail of
65,536 states sets the threshold at the end. Same bytes for the same seed and thread count on one machine. Sources:
BatchTopK (Bussmann et al. 2024, 2412.06410), Gao et al. 2024 (2406.04093); specification of `sae_features`, section 5.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from checks.memory import generator
from checks.sae_features.dictionary.plan import Plan
from checks.sae_features.dictionary.step import SparseStep, Weights
from checks.sae_features.dictionary.stream import Ring
from checks.sae_features.dictionary.value import Dictionary, Gate, Relu, Threshold, TopK

if TYPE_CHECKING:
    from jaxtyping import Float, Int

HEAD, TAIL = 20_000, 65_536
"""States that set mean and scale, and states that set the threshold at the end (specification, section 5)."""

CURVE_POINTS = 200
"""Points of the loss curve: enough for a plot, bounded for a report."""

CALIBRATION_SHARE = 0.5
"""Pre-activations above this share of the running threshold are gathered first when the threshold is set."""

CALIBRATION_ROWS = 4096
"""States encoded at a time when the threshold is set; bounds memory, not the result."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Dictionaries that take raw states, and how they came about."""

    dictionaries: tuple[Dictionary, ...]
    """In the plan's order; decoder rows of norm 1."""
    steps: int
    """Steps taken; fewer than planned where the stream was short, and then the schedule did not end."""
    states: int
    """States read from the stream."""
    row_order_sha256: str
    """Over the stream positions of the states of every batch, in order, as little-endian int64."""
    curves: tuple[tuple[tuple[int, float], ...], ...]
    """For each dictionary (steps taken, mean loss E‖x' - x̂'‖² since the last point); x' has E‖x'‖² = 1."""
    mean: Float[torch.Tensor, " d"]
    """mu of the head."""
    scale: float
    """R = sqrt E‖x - mu‖² of the head."""
    dead: tuple[int, ...]
    """Latents of each dictionary that were dead when training ended."""
    short: bool
    """Whether the stream ended before the planned steps on it (all but those of a tail)."""


def train(stream: Iterable[Float[torch.Tensor, "row d"]], plan: Plan) -> tuple[Dictionary, ...]:
    """Return the plan's dictionaries, trained on a stream of raw states from which special positions were dropped.

    Raises:
        ValueError: a state is not finite, widths differ, or the stream holds less than one batch or does not vary.
    """
    return fold_stream(stream, plan).dictionaries


def fold_stream(stream: Iterable[Float[torch.Tensor, "row d"]], plan: Plan) -> Trained:
    """Return the same with the record of the training."""
    trainer = Trainer(plan)
    for rows in stream:
        trainer.take(rows)
        if trainer.full:
            break
    return trainer.finish()


class Trainer:
    """Folds pieces of a stream into dictionaries as they come; holds a head, a ring and a tail, never the stream."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._head: list[Float[torch.Tensor, "row d"]] = []
        self._tail: deque[Float[torch.Tensor, "row d"]] = deque()
        self._states = 0
        self._run: _Run | None = None

    @property
    def full(self) -> bool:
        """Whether all planned steps on the stream are taken: what comes now is not read."""
        return self._run is not None and self._run.step == self.plan.main_steps

    def take(self, rows: Float[torch.Tensor, "row d"]) -> None:
        """Take the next states of the stream, in raw units; states of less precision are promoted."""
        rows = rows.to(torch.float32)
        finite = torch.isfinite(rows).all(1)
        if not bool(finite.all()):
            at = self._states + int((~finite).nonzero()[0, 0])
            raise ValueError(f"state {at} of the stream is not finite: look at the model's activations there")
        if self.full or not len(rows):
            return
        self._keep_tail(rows)
        if self._run is None:
            self._head.append(rows)
            if self._states >= HEAD:
                self._begin()
        else:
            self._run.take(rows)

    def finish(self) -> Trained:
        """Train on what the ring still holds, set the thresholds, and return the dictionaries."""
        run = self._run or self._begin()
        run.drain()
        if not run.step:
            raise ValueError(f"{self._states} states are less than one batch of {self.plan.batch}")
        tail = torch.cat(tuple(self._tail))[-TAIL:]
        return Trained(
            dictionaries=tuple(
                in_raw_units(one.weights, self.plan, run.mean, run.scale, tail, one.theta) for one in run.trained
            ),
            steps=run.step,
            states=self._states,
            row_order_sha256=run.order.hexdigest(),
            curves=tuple(tuple(curve) for curve in run.curves),
            mean=run.mean,
            scale=run.scale,
            dead=tuple(int((one.silent >= one.dead_after).sum()) for one in run.trained),
            short=run.step < self.plan.main_steps,
        )

    def _keep_tail(self, rows: Float[torch.Tensor, "row d"]) -> None:
        self._states += len(rows)
        self._tail.append(rows)
        held = sum(map(len, self._tail))
        while held - len(self._tail[0]) >= TAIL:
            held -= len(self._tail.popleft())

    def _begin(self) -> _Run:
        if not self._head:
            raise ValueError("the stream holds no state")
        head = torch.cat(self._head)
        self._head = []
        self._run = _Run(self.plan, *normaliser(head[:HEAD]))
        self._run.take(head)
        return self._run


class _Run:
    """The dictionaries under way, and the batches that all of them take."""

    def __init__(self, plan: Plan, mean: Float[torch.Tensor, " d"], scale: float) -> None:
        self.plan = plan
        self.mean, self.scale = mean, scale
        self.step = 0
        self.order = hashlib.sha256()
        self.ring = Ring(plan.batch, len(mean), generator(plan.seed, "sae_features", "ring"))
        self.trained = tuple(
            SparseStep(
                initial(plan, one.seed, len(mean)),
                sparsifier=plan.sparsifier,
                frozen=one.frozen,
                dead_after=plan.dead_after,
            )
            for one in plan.dictionaries
        )
        self.curves: tuple[list[tuple[int, float]], ...] = tuple([] for _ in self.trained)
        self._losses: tuple[list[torch.Tensor], ...] = tuple([] for _ in self.trained)

    def take(self, rows: Float[torch.Tensor, "row d"]) -> None:
        """Take states in raw units and train on the batches that the ring releases."""
        self._follow(self.ring.put((rows - self.mean) / self.scale))

    def drain(self) -> None:
        """Train on what the ring still holds."""
        self._follow(self.ring.drain())

    def _follow(self, batches: Iterator[tuple[Float[torch.Tensor, "B d"], Int[torch.Tensor, " B"]]]) -> None:
        for x, positions in batches:
            if self.step == self.plan.main_steps:
                return
            self.order.update(positions.numpy().astype("<i8").tobytes())
            k, rate = self.plan.k_at(self.step), self.plan.rate_at(self.step)
            for one, losses in zip(self.trained, self._losses, strict=True):
                losses.append(one(x, k, rate))
            self.step += 1
            if self.step % max(1, self.plan.steps // CURVE_POINTS) == 0:
                self._add_points()

    def _add_points(self) -> None:
        for curve, losses in zip(self.curves, self._losses, strict=True):
            curve.append((self.step, float(torch.stack(losses).mean())))
            losses.clear()


def normaliser(head: Float[torch.Tensor, "row d"]) -> tuple[Float[torch.Tensor, " d"], float]:
    """Return mu and R = sqrt E‖x - mu‖² of the first states.

    Raises:
        ValueError: the states do not vary.
    """
    exact = head.double()
    mean = exact.mean(0)
    scale = float((exact - mean).square().sum(1).mean().sqrt())
    if not scale:
        raise ValueError(f"the first {len(head)} states do not vary: there is nothing to learn at this site")
    return mean.float(), scale


def initial(plan: Plan, seed: int, width: int) -> Weights:
    """Return the start of a dictionary: unit Gaussian rows, the encoder their transpose, no bias."""
    return Weights.tied(
        generator(plan.seed, "sae_features", f"dictionary/{seed}").standard_normal((plan.latents, width))
    )


def in_raw_units(
    weights: Weights,
    plan: Plan,
    mean: Float[torch.Tensor, " d"],
    scale: float,
    tail: Float[torch.Tensor, "row d"],
    running_theta: float = 0.0,
) -> Dictionary:
    """Return the dictionary that takes raw states: mu and R folded in, rows of norm 1, latents in raw units.

    x̂ = R (f' dec + b_dec') + mu with f' of (x - mu) / R, so that f = R f'. The subtraction of b_dec stays a subtraction
    (`pre_bias`): folded into b_enc it would cancel digits where the mean is large.

    Args:
        weights: of normalised states.
        plan: says the gate.
        mean: mu.
        scale: R.
        tail: raw states on which the threshold keeps exactly k a token.
        running_theta: threshold of training, in normalised units; speeds up and changes nothing.
    """
    b_dec = weights.b_dec.double() * scale + mean.double()
    b_enc = (weights.b_enc.double() + weights.enc.double() @ weights.b_dec.double()) * scale
    w_enc, w_dec = weights.enc.T.contiguous().float(), weights.dec.float()
    raw = Dictionary(w_enc, b_enc.float(), w_dec.clone(), b_dec.float(), Relu(), pre_bias=True)
    gate: Gate = TopK(plan.k)
    if plan.sparsifier == "batchtopk":
        theta = threshold(raw, tail, plan.k, CALIBRATION_SHARE * running_theta * scale)
        gate = Threshold(torch.full((plan.latents,), theta))
    return replace(raw, gate=gate)


def threshold(ungated: Dictionary, tail: Float[torch.Tensor, "row d"], k: int, floor: float = 0.0) -> float:
    """Return the theta above which exactly k latents a token are active on these states; 0 where fewer are positive.

    A running mean of each batch's least kept value, as published, gave L0 7.44 for k 8 (specification, section 5).
    """
    found = []
    for rows in torch.split(tail, CALIBRATION_ROWS):
        f = ungated.encode(rows)
        found.append(f[f > max(floor, 0.0)])
    values, wanted = torch.cat(found), k * len(tail)
    if len(values) <= wanted:
        return threshold(ungated, tail, k) if floor > 0.0 else 0.0
    return float(values.kthvalue(len(values) - wanted).values)
