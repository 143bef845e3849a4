"""What `speed.py` is measured against: CCS as its paper describes it, one layer and one restart, by autograd.

A linear probe and a bias, the loss of Burns et al. 2022 (arXiv 2212.03827), full batch, torch's own AdamW. Nothing is
shared between restarts. It is written plainly, and neither slowed nor tuned.
"""

from __future__ import annotations

import torch

RATE, DECAY = 0.01, 0.01


def train(pos: torch.Tensor, neg: torch.Tensor, epochs: int, seed: int) -> tuple[torch.Tensor, float]:
    """Return weights with the bias last, and the last loss.

    Args:
        pos: float32 states of the + texts, one a row.
        neg: those of the - texts.
        epochs: steps over the full batch.
        seed: of the start on the unit sphere.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.nn.functional.normalize(torch.randn(pos.shape[1] + 1, generator=generator), dim=0)
    theta = start[:-1].clone().requires_grad_()
    bias = start[-1:].clone().requires_grad_()
    optimizer = torch.optim.AdamW([theta, bias], lr=RATE, weight_decay=DECAY)
    loss = torch.zeros(())
    for _ in range(epochs):
        optimizer.zero_grad()
        p, q = torch.sigmoid(pos @ theta + bias), torch.sigmoid(neg @ theta + bias)
        loss = ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    return torch.cat([theta, bias]).detach(), float(loss.detach())
