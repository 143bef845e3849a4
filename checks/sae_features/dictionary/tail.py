"""The last steps of a training through the frozen model: a dictionary that costs the output less at nearly equal EV.

Loss ½ (alpha KL + MSE) with alpha = MSE / KL, held fixed, so that both parts weigh alike at each step. The states at
the site are replaced by x̂ wherever they may be edited, the site hands back the gradient of KL(unedited ‖ edited) with
respect to them, and the chain goes on through the dictionary here: the model's weights never leave the runtime. A
twin takes the same steps on the same states with MSE alone, since more steps alone help too. Sources: KL fine-tuning
(2503.17272); specification of `sae_features`, section 5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.sae_features.dictionary.kept import Kept, largest_of_batch, largest_of_rows
from checks.sae_features.dictionary.plan import Frozen, Plan
from checks.sae_features.dictionary.step import FLOOR_MEMORY, FLOOR_SHARE, SparseStep, Weights
from checks.sae_features.dictionary.training import CURVE_POINTS, TAIL, in_raw_units
from checks.sae_features.dictionary.value import Dictionary, Threshold, TopK

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from checks.passages import Site, States

    Editable = Callable[[States], Bool[np.ndarray, " token"]]

DECAY = 0.01
"""AdamW's decoupled weight decay, its usual value (Loshchilov & Hutter 2019, 1711.05101); decoder rows are brought back
to norm 1 and do not feel it."""

UNIT_ROWS = 1e-5
"""Rows whose norm differs from 1 by less are those of a training."""

COST = 3
"""Tokens charged for each that a gradient runs over (`checks.passages.Site`)."""


@dataclass(frozen=True)
class TailPoint:
    """Means since the last point."""

    step: int
    mse: float
    """E‖x' - x̂'‖² of the dictionary; x' has E‖x'‖² = 1."""
    kl: float
    """Nats an edited token."""
    twin_mse: float


@dataclass(frozen=True, eq=False)
class Tail:
    """What came of the last steps."""

    dictionary: Dictionary
    twin: Dictionary
    """The same start and steps with MSE alone."""
    curve: tuple[TailPoint, ...]
    steps: int
    tokens: int
    """Tokens charged to the needs."""
    order_sha256: str
    """Over the ids of the passages of each step, in order."""


def tail_budget(passages: Mapping[str, int], plan: Plan) -> int:
    """Return the tokens that a tail is charged at most, for one dictionary.

    Args:
        passages: tokens of each passage.
        plan: says steps and batch.
    """
    return COST * plan.tail_steps * (plan.batch + max(passages.values(), default=1) - 1)


def kl_tail(
    dictionary: Dictionary,
    site: Site,
    passages: Mapping[str, int],
    editable: Editable,
    plan: Plan,
    mean: Float[torch.Tensor, " d"],
    scale: float,
    rng: np.random.Generator,
    *,
    frozen: Frozen = "nothing",
) -> Tail:
    """Take the last steps of a plan of objective `mse_kl_tail`.

    Args:
        dictionary: as the steps on the stream left it (`training.Trained`).
        site: where it stands.
        passages: ids of training passages with their tokens; passed over again when they run out.
        editable: which states x̂ may replace: neither special nor outliers by their norm.
        plan: of that training.
        mean: mu of its head.
        scale: R of its head.
        rng: draws the order of passages.
        frozen: the matrix that stays as it is.

    Raises:
        ValueError: the plan has no tail, the dictionary is not one of this training, there is no passage or none with
            an editable state, or a state or gradient is not finite; says where.
    """
    if not plan.tail_steps:
        raise ValueError("the plan's objective has no steps through the model")
    if not passages or min(passages.values()) < 1:
        raise ValueError("no passages to train on, or one without tokens")
    _trained_here(dictionary, site, plan, mean)
    both = [TailStep(*normalised(dictionary, mean, scale), plan, frozen) for _ in range(2)]
    run = _TailRun(site, editable, plan, mean, scale, both[0], both[1])
    order, tokens = hashlib.sha256(), 0
    for ids in _batches(passages, plan, rng):
        order.update("\0".join(ids).encode() + b"\n")
        tokens += COST * sum(passages[one] for one in ids)
        run.take(ids)
    seen = torch.cat(run.seen)[-TAIL:]
    done = [in_raw_units(one.weights, plan, mean, scale, seen, one.theta) for one in (run.step, run.twin)]
    return Tail(done[0], done[1], tuple(run.curve), plan.tail_steps, tokens, order.hexdigest())


def normalised(dictionary: Dictionary, mean: Float[torch.Tensor, " d"], scale: float) -> tuple[Weights, float]:
    """Return the weights that take (x - mu) / R, and their threshold (0 for TopK): undoes `training.in_raw_units`."""
    enc = dictionary.w_enc.T.double()
    b_dec = (dictionary.b_dec.double() - mean.double()) / scale
    b_enc = dictionary.b_enc.double() / scale - enc @ b_dec
    theta = float(dictionary.gate.theta[0]) / scale if isinstance(dictionary.gate, Threshold) else 0.0
    dtype = dictionary.w_enc.dtype
    weights = Weights(enc.to(dtype, copy=True).contiguous(), b_enc.to(dtype), dictionary.w_dec.clone(), b_dec.to(dtype))
    return weights, theta


class TailStep(SparseStep):
    """A dictionary whose gate stands still within a step, whatever the pieces in which the model runs.

    Args:
        weights: changed in place.
        theta: threshold in normalised units; follows, as in the steps before, what keeps k a token.
        k: mean (batchtopk) or exact (topk) number of active latents a token.
        plan: says the sparsifier.
        frozen: the matrix that stays as it is.
    """

    def __init__(self, weights: Weights, theta: float, plan: Plan, frozen: Frozen = "nothing") -> None:
        super().__init__(weights, sparsifier=plan.sparsifier, frozen=frozen, dead_after=plan.dead_after)
        self.k = plan.k
        self.theta = theta

    def kept(self, x: Float[torch.Tensor, "n d"]) -> Kept:
        """Return the active latents of normalised states."""
        z = torch.addmm(self.weights.b_enc, x, self.weights.enc.T)
        if self.sparsifier == "topk":
            return largest_of_rows(z, self.k)
        on = z > max(self.theta, 0.0)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), on.sum(1).cumsum(0)])
        return Kept(starts.to(torch.int32), on.nonzero()[:, 1].to(torch.int32), z[on], z.shape[1])

    def rebuilt(self, x: Float[torch.Tensor, "n d"]) -> Float[torch.Tensor, "n d"]:
        """Return x̂' of normalised states."""
        return self.kept(x).product(self.weights.dec) + self.weights.b_dec

    def gradients(self, x: Float[torch.Tensor, "n d"], pull: Float[torch.Tensor, "n d"]) -> dict[str, torch.Tensor]:
        """Return the gradient of each trained tensor for a gradient with respect to x̂'."""
        return self._gradients(x, [(self.kept(x), pull)], pull.sum(0))

    def descend(self, x: Float[torch.Tensor, "n d"], pull: Float[torch.Tensor, "n d"], rate: float) -> None:
        """Take a step of AdamW, then let the threshold follow."""
        gradients = self.gradients(x, pull)
        if self.sparsifier == "batchtopk":
            z = torch.addmm(self.weights.b_enc, x, self.weights.enc.T)
            values = largest_of_batch(z, self.k * len(z), FLOOR_SHARE * self.theta).values
            if values.numel():
                self.theta = FLOOR_MEMORY * self.theta + (1 - FLOOR_MEMORY) * float(values.min())
        for tensor in self._trained().values():
            tensor.mul_(1.0 - rate * DECAY)
        self._descend(gradients, rate)


def both_parts(
    error: Float[torch.Tensor, "n d"], by_state: Float[torch.Tensor, "n d"], kl: float
) -> tuple[Float[torch.Tensor, "n d"], float]:
    """Return the gradient of ½ (alpha KL + MSE) with respect to x̂', and MSE.

    Args:
        error: x' - x̂'.
        by_state: gradient of the summed KL with respect to x̂'.
        kl: that sum; where it is 0 there is nothing to weigh, and MSE stands alone.
    """
    mse = float(error.square().sum()) / len(error)
    alpha = mse / kl if kl > 0.0 else 0.0  # of sums: the number of tokens cancels
    return 0.5 * (alpha * by_state - error * (2.0 / len(error))), mse


class _TailRun:
    """Both dictionaries under way."""

    def __init__(
        self,
        site: Site,
        editable: Editable,
        plan: Plan,
        mean: Float[torch.Tensor, " d"],
        scale: float,
        step: TailStep,
        twin: TailStep,
    ) -> None:
        self.site, self.editable, self.plan = site, editable, plan
        self.mean, self.scale = mean, scale
        self.step, self.twin = step, twin
        self.seen: list[Float[torch.Tensor, "n d"]] = []
        self.curve: list[TailPoint] = []
        self._taken = 0
        self._since: list[tuple[float, float, float]] = []

    @torch.no_grad()
    def take(self, ids: list[str]) -> None:
        """Take one step with both."""
        raw, by_state, kl = self._through_model(ids)
        x = (raw - self.mean) / self.scale
        pull, mse = both_parts(x - self.step.rebuilt(x), by_state * self.scale, kl)
        rate = self.plan.tail_rate_at(self._taken)
        self.step.descend(x, pull, rate)
        error = x - self.twin.rebuilt(x)
        self.twin.descend(x, error * (-2.0 / len(x)), rate)
        self._keep(raw)
        self._note(mse, kl / len(x), float(error.square().sum()) / len(x))

    def _through_model(self, ids: list[str]) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Return editable states, the gradient of the summed KL with respect to what replaced them, and that sum."""
        states, gradients, kl = [], [], 0.0
        for one in self.site.divergence_gradients(ids, self._change):
            ok = self.editable(one.states)
            for name, array in (("state", one.states.vectors[ok]), ("gradient", one.gradient[ok])):
                if not np.isfinite(array).all():
                    raise ValueError(
                        f"step {self._taken} of the tail: a {name} is not finite, among passages {ids[:4]}"
                    )
            states.append(torch.from_numpy(one.states.vectors[ok]))
            gradients.append(torch.from_numpy(np.ascontiguousarray(one.gradient[ok])))
            kl += float(one.value.sum())
        if not sum(map(len, states)):
            raise ValueError(f"step {self._taken} of the tail: no state may be edited, among passages {ids[:4]}")
        return torch.cat(states), torch.cat(gradients), kl

    def _change(self, states: States) -> Float[np.ndarray, "token d"]:
        ok = self.editable(states)
        changed = states.vectors.copy()
        with torch.no_grad():
            x = (torch.from_numpy(states.vectors[ok]) - self.mean) / self.scale
            changed[ok] = (self.step.rebuilt(x) * self.scale + self.mean).numpy()
        return changed

    def _keep(self, raw: Float[torch.Tensor, "n d"]) -> None:
        self.seen.append(raw)
        while sum(map(len, self.seen)) - len(self.seen[0]) >= TAIL:
            self.seen.pop(0)

    def _note(self, mse: float, kl: float, twin_mse: float) -> None:
        self._taken += 1
        self._since.append((mse, kl, twin_mse))
        if self._taken % max(1, self.plan.tail_steps // CURVE_POINTS) == 0:
            self.curve.append(TailPoint(self._taken, *(float(one) for one in np.mean(self._since, axis=0))))
            self._since.clear()


def _trained_here(dictionary: Dictionary, site: Site, plan: Plan, mean: Float[torch.Tensor, " d"]) -> None:
    gate = dictionary.gate
    if plan.sparsifier == "topk":
        right_gate = gate == TopK(plan.k)
    else:
        right_gate = isinstance(gate, Threshold) and bool((gate.theta == gate.theta[0]).all())
    unit = bool(((dictionary.row_norms - 1).abs() < UNIT_ROWS).all())
    if dictionary.width != site.width or len(mean) != site.width:
        raise ValueError(f"a dictionary of width {dictionary.width} at a site of width {site.width}")
    if not (right_gate and unit and dictionary.pre_bias and dictionary.norm is None):
        raise ValueError("only a dictionary of this training can go on: unit rows, pre_bias, the plan's gate")
    if dictionary.latents != plan.latents:
        raise ValueError(f"{dictionary.latents} latents, the plan says {plan.latents}")


def _batches(passages: Mapping[str, int], plan: Plan, rng: np.random.Generator) -> Iterator[list[str]]:
    """Yield the passages of each step: as many as hold a batch of tokens, none twice in a step."""
    names, left = list(passages), list[str]()
    for _ in range(plan.tail_steps):
        taken: list[str] = []
        while sum(passages[one] for one in taken) < plan.batch and len(taken) < len(names):
            left = left or [names[at] for at in rng.permutation(len(names))]
            fresh = next((one for one in left if one not in taken), None)
            if fresh is None:
                left = []
                continue
            left.remove(fresh)
            taken.append(fresh)
        yield taken
