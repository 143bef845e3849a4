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

from checks.sae_features.dictionary.kept import (
    Kept,
    add_columns,
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
        self._adam = torch.optim.Adam(self._trained(), lr=0.0, betas=BETAS, eps=EPS, fused=True)

    def _trained(self) -> list[torch.Tensor]:
        own = self.weights
        by_name = {"enc": own.enc, "b_enc": own.b_enc, "dec": own.dec, "b_dec": own.b_dec}
        left_out = {"nothing": None, "decoder": "dec", "encoder": "enc"}[self.frozen]
        return [tensor for name, tensor in by_name.items() if name != left_out]

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
        self._set_gradients(x, terms, pull.sum(0))
        self._descend(rate)
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

    def _set_gradients(
        self,
        x: Float[torch.Tensor, "B d"],
        terms: list[tuple[Kept, Float[torch.Tensor, "B d"]]],
        output_bias: Float[torch.Tensor, " d"],
    ) -> None:
        """Leave the gradient of every trained tensor in its `grad`; a kept value is positive, so relu passes it on."""
        own = self.weights
        for tensor in self._trained():
            tensor.grad = None
        own.b_dec.grad = output_bias
        for kept, pull in terms:
            by_value = inner_products(kept, pull, own.dec)
            add_columns(own.b_enc, kept, by_value)
            if self.frozen != "encoder":
                transposed_product(own.enc, kept, by_value, x)
            if self.frozen != "decoder":
                transposed_product(own.dec, kept, kept.values, pull)

    def _descend(self, rate: float) -> None:
        """Remove what would lengthen decoder rows, clip, step, and bring the rows back to norm 1."""
        dec = self.weights.dec
        if dec.grad is not None and self.frozen != "decoder":
            dec.grad.addcmul_((dec.grad * dec).sum(1, keepdim=True), dec, value=-1.0)
        trained = self._trained()
        norms = torch.stack([torch.linalg.vector_norm(tensor.grad) for tensor in trained if tensor.grad is not None])
        norm = float(torch.linalg.vector_norm(norms))
        if norm > CLIP:
            for tensor in trained:
                if tensor.grad is not None:
                    tensor.grad.mul_(CLIP / norm)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        if self.frozen != "decoder":
            dec.div_(torch.linalg.vector_norm(dec, dim=1, keepdim=True))

    def _note_firings(self, kept: Kept, rows: int) -> None:
        self.silent += rows
        self.silent[kept.columns.long()] = 0
