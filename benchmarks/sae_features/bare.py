"""What every user would write first: a dictionary's training step as dense autograd, BatchTopK with AuxK.

The reference of the speed table and of the test that the sparse step is the same step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class Bare:
    """Dense autograd: relu, top-k by a full sort, Adam, decoder rows of norm 1."""

    def __init__(
        self,
        rows: Float[torch.Tensor, "m d"],
        *,
        sparsifier: Literal["batchtopk", "topk"] = "batchtopk",
        frozen: Literal["nothing", "decoder", "encoder"] = "nothing",
        dead_after: int = 2**62,
        fused: bool = False,
    ) -> None:
        m, d = rows.shape
        self.enc = rows.T.clone().requires_grad_(frozen != "encoder")
        self.b_enc = torch.zeros(m, dtype=rows.dtype, requires_grad=True)
        self.dec = rows.clone().requires_grad_(frozen != "decoder")
        self.b_dec = torch.zeros(d, dtype=rows.dtype, requires_grad=True)
        self.trained = [one for one in (self.enc, self.b_enc, self.dec, self.b_dec) if one.requires_grad]
        self.adam = torch.optim.Adam(self.trained, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=fused)
        self.silent = torch.zeros(m, dtype=torch.int64)
        self.sparsifier, self.dead_after = sparsifier, dead_after

    def __call__(self, x: Float[torch.Tensor, "B d"], k: int, rate: float) -> torch.Tensor:
        z = x @ self.enc + self.b_enc
        f = self.kept(torch.relu(z), k)
        error = x - (f @ self.dec + self.b_dec)
        loss = error.square().sum(1).mean()
        dead = self.silent >= self.dead_after
        torch.autograd.backward(loss + self.auxiliary(z, error.detach(), dead) if dead.any() else loss)
        if self.dec.grad is not None:
            along = (self.dec.grad * self.dec.data).sum(1, keepdim=True)
            self.dec.grad -= along * self.dec.data
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0, foreach=False)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.adam.zero_grad()
        if self.dec.requires_grad:
            self.dec.data /= self.dec.data.norm(dim=1, keepdim=True)
        self.silent = torch.where((f > 0).any(0), 0, self.silent + len(x))
        return loss.detach()

    def kept(self, f: Float[torch.Tensor, "B m"], k: int) -> Float[torch.Tensor, "B m"]:
        if self.sparsifier == "topk":
            top = f.topk(k, dim=1)
            return torch.zeros_like(f).scatter(1, top.indices, top.values)
        flat = f.flatten().topk(k * len(f))
        return torch.zeros_like(f.flatten()).scatter(0, flat.indices, flat.values).reshape(f.shape)

    def auxiliary(
        self, z: Float[torch.Tensor, "B m"], error: Float[torch.Tensor, "B d"], dead: Bool[torch.Tensor, " m"]
    ) -> torch.Tensor:
        half, count = error.shape[1] // 2, int(dead.sum())
        top = torch.relu(z.masked_fill(~dead, -torch.inf)).topk(min(half, count), dim=1)
        guess = torch.zeros_like(z).scatter(1, top.indices, top.values) @ self.dec
        spread = (error - error.mean(0)).square().sum(1).mean()
        return min(1.0, count / half) / 32 * (error - guess).square().sum(1).mean() / spread
