"""What a training is asked for: sizes, the dictionaries that share its batches, and the schedules of k and of the rate.

Source: specification of `sae_features`, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sparsifier = Literal["batchtopk", "topk"]
Frozen = Literal["nothing", "decoder", "encoder"]
Objective = Literal["mse", "mse_kl_tail"]
"""Reconstruction alone; or, in the last steps (`tail.py`), reconstruction and the output's divergence alike."""

DEAD_TOKENS, DEAD_SHARE = 20_000, 0.10
"""A latent is dead after so many silent tokens or this share of the run, whichever is more. A fixed 10 M, as published,
is more than a short run has, and its auxiliary loss never fires (specification, section 5)."""

ANNEAL_FROM, ANNEAL_UNTIL = 3, 0.5
"""k falls from three times its value in a line over the first half; worth MCC .980 to .997 on O1 (section 5)."""

RATE, RATE_LATENTS = 2e-4, 16384
"""Learning rate 2e-4 sqrt(16384 / m) (specification, section 5)."""

WARM_STEPS, WARM_SHARE, DECAY_SHARE = 1000, 0.05, 0.20
"""Warm-up of 1000 steps or a twentieth of the run, whichever is less; linear decay over the last fifth."""


TAIL_SHARE, TAIL_LEAST, TAIL_RATE = 0.20, 200, 0.3
"""With `mse_kl_tail` the last fifth of the steps, and at least 200, are taken through the model, at a rate that falls
from .3 of the peak to 0 (specification, section 5)."""


@dataclass(frozen=True)
class Named:
    """One of the dictionaries that are trained together."""

    seed: int = 0
    """Which initial rows: drawn from the label "dictionary/<seed>"."""
    frozen: Frozen = "nothing"
    """The matrix that stays as it was drawn; "decoder" is the control FrozenDecoder."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, for how long.

    Raises:
        ValueError: a count is not positive, k is larger than the number of latents, or the tail takes so many of the
            steps that k has not come down when it begins.
    """

    latents: int
    """m."""
    k: int
    """Mean (batchtopk) or exact (topk) number of active latents a token."""
    steps: int
    """Steps that the schedule is made for; a shorter stream ends earlier."""
    batch: int = 1024
    """States a step, B."""
    sparsifier: Sparsifier = "batchtopk"
    dictionaries: tuple[Named, ...] = (Named(0), Named(1))
    seed: int = 0
    """The audit's seed: it draws initial rows and the order of the ring."""
    anneal: bool = True
    """Whether k starts at three times its value."""
    objective: Objective = "mse"

    def __post_init__(self) -> None:
        if min(self.latents, self.k, self.steps, self.batch, len(self.dictionaries)) < 1:
            raise ValueError(f"latents, k, steps, batch and dictionaries are at least 1: {self}")
        if self.k > self.latents:
            raise ValueError(f"k {self.k} is more than the {self.latents} latents")
        if self.main_steps < ANNEAL_UNTIL * self.steps:
            raise ValueError(
                f"{self.steps} steps are too few for a tail of {self.tail_steps}: at least {2 * TAIL_LEAST}"
            )

    @property
    def tail_steps(self) -> int:
        """Steps through the model at the end; 0 where the objective is reconstruction alone."""
        return 0 if self.objective == "mse" else max(TAIL_LEAST, round(TAIL_SHARE * self.steps))

    @property
    def main_steps(self) -> int:
        """Steps on the stream of states."""
        return self.steps - self.tail_steps

    def k_at(self, step: int) -> int:
        """Return k of a step, counted from 0; never more than there are latents."""
        if not self.anneal:
            return self.k
        fall = (ANNEAL_FROM - 1) * self.k * step / (ANNEAL_UNTIL * self.steps)
        return min(self.latents, max(self.k, round(ANNEAL_FROM * self.k - fall)))

    @property
    def peak(self) -> float:
        """Largest learning rate."""
        return float(RATE * (RATE_LATENTS / self.latents) ** 0.5)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0; before a tail it does not fall."""
        warm = max(1.0, min(WARM_STEPS, WARM_SHARE * self.steps))
        left = (self.steps - step) / (DECAY_SHARE * self.steps)
        return float(self.peak * min(1.0, (step + 1) / warm, left if self.objective == "mse" else 1.0))

    def tail_rate_at(self, step: int) -> float:
        """Return the learning rate of a step of the tail, counted from its beginning."""
        return TAIL_RATE * self.peak * (1.0 - step / self.tail_steps)

    @property
    def dead_after(self) -> int:
        """Tokens of silence after which a latent is dead."""
        return int(max(DEAD_TOKENS, DEAD_SHARE * self.steps * self.batch))
