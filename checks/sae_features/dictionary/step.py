"""One training step of a sparse dictionary whose cost, after the encoder's product, follows the kept entries alone.

A dense step multiplies all m latents of every row five times over; here one product is dense, and only the k kept
entries a row reach the decoder and the gradients. No [B, k, d] tensor and no dense [B, m] gradient is made. Equal to
the dense autograd step: the tests compare both after 20 steps. Sources: BatchTopK (Bussmann et al. 2024, 2412.06410),
TopK and AuxK (Gao et al. 2024, 2406.04093); specification of `sae_features`, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.optim.adam import adam

from checks.sae_features.dictionary.kept import (
    Kept,
    column_sums,
    inner_products,
    largest_of_batch,
    largest_of_rows,
    transposed_product,
)
from checks.sae_features.dictionary.plan import Frozen, Sparsifier

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

FLOOR_SHARE = 0.6
"""Candidates lie above this share of the running threshold (specification, section 5). Too low costs time, too high
falls back on the full selection; neither changes what is kept."""

FLOOR_MEMORY = 0.9
"""Weight of the past in the running threshold: about ten steps, fast enough for the k anneal and the warm-up."""

AUX_WEIGHT = 1 / 32
"""Weight of the auxiliary loss (Gao et al. 2024, appendix A.2)."""

BETAS, EPS, CLIP = (0.9, 0.999), 1e-8, 1.0
"""Adam's moments and the bound of the gradient's norm (specification, section 5)."""

CLIP_EPS = 1e-6
"""Added to the norm before dividing, as torch's `clip_grad_norm_` does, so that both steps are the same step."""


@dataclass(eq=False)
class Weights:
    """What a step changes in place: x̂' = f(x' encᵀ + b_enc) dec + b_dec, with normalised states x'."""

    enc: Float[torch.Tensor, "m d"]
    """Transposed, so that a latent's weights lie together."""
    b_enc: Float[torch.Tensor, " m"]
    dec: Float[torch.Tensor, "m d"]
    """Rows of norm 1."""
    b_dec: Float[torch.Tensor, " d"]

    @classmethod
    def tied(cls, rows: Float[np.ndarray, "m d"], dtype: torch.dtype = torch.float32) -> Weights:
        """Return the start of a training: rows brought to norm 1, the encoder their transpose, no bias."""
        unit = torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).to(dtype)
        m, d = unit.shape
        return cls(unit.clone(), torch.zeros(m, dtype=dtype), unit.clone(), torch.zeros(d, dtype=dtype))


class _Moments:
    """What Adam remembers of one tensor's gradients."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.mean, self.square = torch.zeros_like(tensor), torch.zeros_like(tensor)
        self.steps = torch.zeros((), dtype=torch.float32, device=tensor.device)


class SparseStep:
    """Trains one dictionary on one batch at a time.

    Args:
        weights: changed in place, float32 or float64.
        sparsifier: batchtopk keeps the k B largest of the batch, topk the k largest of each row.
        frozen: the matrix that stays as it is.
        dead_after: tokens of silence after which a latent joins the auxiliary loss.
    """

    def __init__(
        self, weights: Weights, *, sparsifier: Sparsifier = "batchtopk", frozen: Frozen = "nothing", dead_after: int
    ) -> None:
        self.weights = weights
        self.sparsifier = sparsifier
        self.frozen = frozen
        self.dead_after = dead_after
        m, d = weights.dec.shape
        self.silent: Int[torch.Tensor, " m"] = torch.zeros(m, dtype=torch.int64, device=weights.dec.device)
        """Tokens since each latent was last kept with a value above 0."""
        self.theta = 0.0
        """Running mean of the smallest kept value; only a floor for candidates."""
        self._aux_picks = max(1, d // 2)
        self._moments = {name: _Moments(tensor) for name, tensor in self._trained().items()}

    def _trained(self) -> dict[str, torch.Tensor]:
        own = self.weights
        by_name = {"enc": own.enc, "b_enc": own.b_enc, "dec": own.dec, "b_dec": own.b_dec}
        left_out = {"nothing": "", "decoder": "dec", "encoder": "enc"}[self.frozen]
        return {name: tensor for name, tensor in by_name.items() if name != left_out}

    @torch.no_grad()
    def __call__(self, x: Float[torch.Tensor, "B d"], k: int, rate: float) -> torch.Tensor:
        """Take one step and return the loss E‖x' - x̂'‖² before it, a scalar of the weights' dtype.

        Args:
            x: normalised states.
            k: latents a row: the mean of the batch (batchtopk) or of each row (topk).
            rate: Adam's learning rate of this step.
        """
        own = self.weights
        dead = self.silent >= self.dead_after
        z = torch.addmm(own.b_enc, x, own.enc.T)
        kept = self._select(z, k)
        error = x - torch.add(kept.product(own.dec), own.b_dec)
        loss = error.square().sum() / len(x)
        # Gradient of the loss with respect to x̂'; it reaches values, decoder rows and the output bias.
        pull = error * (-2.0 / len(x))
        terms = [(kept, pull)]
        if bool(dead.any()):
            terms += self._auxiliary(z, error, dead)
        self._descend(self._gradients(x, terms, pull.sum(0)), rate)
        self._note_firings(kept, len(x))
        return loss

    def _select(self, z: Float[torch.Tensor, "B m"], k: int) -> Kept:
        if self.sparsifier == "topk":
            return largest_of_rows(z, k)
        kept = largest_of_batch(z, k * len(z), FLOOR_SHARE * self.theta)
        if kept.values.numel():
            smallest = float(kept.values.min())
            self.theta = smallest if not self.theta else FLOOR_MEMORY * self.theta + (1 - FLOOR_MEMORY) * smallest
        return kept

    def _auxiliary(
        self, z: Float[torch.Tensor, "B m"], error: Float[torch.Tensor, "B d"], dead: Bool[torch.Tensor, " m"]
    ) -> list[tuple[Kept, Float[torch.Tensor, "B d"]]]:
        """Return the kept entries of dead latents and the gradient with respect to what they reconstruct.

        Loss: weight · min(1, dead / (d/2)) · E‖e - ê‖² / E‖e - ē‖², where e is the error, held fixed.
        """
        places = dead.nonzero()[:, 0]
        spread = (error - error.mean(0)).square().sum() / len(error)
        if not float(spread):
            return []
        kept = largest_of_rows(z[:, places], min(self._aux_picks, len(places))).among(places, z.shape[1])
        weight = AUX_WEIGHT * min(1.0, len(places) / self._aux_picks) / spread
        return [(kept, (error - kept.product(self.weights.dec)) * (weight * (-2.0 / len(error))))]

    def _gradients(
        self,
        x: Float[torch.Tensor, "B d"],
        terms: list[tuple[Kept, Float[torch.Tensor, "B d"]]],
        output_bias: Float[torch.Tensor, " d"],
    ) -> dict[str, torch.Tensor]:
        """Return the gradient of every trained tensor; a kept value is positive, so relu passes its gradient on."""
        found: dict[str, torch.Tensor] = {"b_dec": output_bias}

        def add(name: str, part: torch.Tensor) -> None:
            found[name] = found[name].add_(part) if name in found else part

        for kept, pull in terms:
            by_value = inner_products(kept, pull, self.weights.dec)
            add("b_enc", column_sums(kept, by_value))
            if self.frozen != "encoder":
                add("enc", transposed_product(kept, by_value, x))
            if self.frozen != "decoder":
                add("dec", transposed_product(kept, kept.values, pull))
        return found

    def _descend(self, gradients: dict[str, torch.Tensor], rate: float) -> None:
        """Remove what would lengthen decoder rows, clip, step, and bring the rows back to norm 1."""
        dec = self.weights.dec
        if self.frozen != "decoder":
            along = (gradients["dec"] * dec).sum(1, keepdim=True)
            gradients["dec"].addcmul_(along, dec, value=-1.0)
        norm = float(torch.stack([torch.linalg.vector_norm(one) for one in gradients.values()]).norm())
        shrink = CLIP / (norm + CLIP_EPS)
        if shrink < 1.0:
            for one in gradients.values():
                one.mul_(shrink)
        trained = self._trained()
        moments = [self._moments[name] for name in trained]
        # The functional form: the optimiser's class imports torch's compiler, a second of CPU in every process.
        adam(
            list(trained.values()),
            [gradients[name] for name in trained],
            [one.mean for one in moments],
            [one.square for one in moments],
            [],
            [one.steps for one in moments],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )
        if self.frozen != "decoder":
            dec.div_(torch.linalg.vector_norm(dec, dim=1, keepdim=True))

    def _note_firings(self, kept: Kept, rows: int) -> None:
        self.silent += rows
        self.silent[kept.columns.long()] = 0
