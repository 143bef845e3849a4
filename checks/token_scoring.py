"""What a model makes of each token: log-probability, and its mean and spread over the vocabulary.

One pure function from logits, so that the runtime's sweep and a check's own small organism count alike. The mean and
standard deviation are those of Min-K%++ (Zhang et al. 2024, arXiv 2404.02936): each token of the vocabulary counts by
its probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from checks.check import TokenScores

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int64

NUMBERS_AT_ONCE = 2**22
"""Logits that are reduced in one go, in float64: 32 MiB, and some four times that in work space."""


def scores_of(
    logits: Float[torch.Tensor, "position vocabulary"], tokens: Int64[torch.Tensor, " position"]
) -> TokenScores:
    """Return what logits make of the tokens that follow them; reduced in float64.

    A token of the vocabulary that is impossible (a logit of minus infinity) counts nothing in mean and spread.

    Args:
        logits: at each position, before its token; float32 or float64.
        tokens: the token that follows each position.

    Raises:
        ValueError: positions and tokens differ in number.
    """
    import torch

    if len(logits) != len(tokens):
        raise ValueError(f"{len(logits)} positions, {len(tokens)} tokens")
    parts: list[np.ndarray] = [np.empty((0, 3))]
    rows = max(1, NUMBERS_AT_ONCE // max(1, logits.shape[-1]))
    for part, of_part in zip(torch.split(logits, rows), torch.split(tokens, rows), strict=True):
        logp = part.double().log_softmax(-1)
        share = logp.exp()
        told = torch.where(share > 0, logp, 0.0)  # 0 times minus infinity is 0 here
        mean = (share * told).sum(-1)
        sd = (share * (told - mean[:, None]).square()).sum(-1).sqrt()
        parts.append(torch.stack([logp.gather(1, of_part[:, None])[:, 0], mean, sd], dim=1).cpu().numpy())
    whole = np.concatenate(parts)
    return TokenScores(logp=whole[:, 0].copy(), mean=whole[:, 1].copy(), sd=whole[:, 2].copy())
