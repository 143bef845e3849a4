"""What splicing a reconstruction into the model does to its output, from logits: pure functions, no model.

Everything is in nats and float64, from log-softmax, never the logarithm of a softmax, which underflows. Source:
specification of `sae_features`, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from checks.sae_features.dictionary.grouped import Estimate, Groups, mean

if TYPE_CHECKING:
    from jaxtyping import Float, Int

HARMLESS = 0.05
"""Nats a token: where replacing the site by its mean costs less, a share of that cost says nothing (section 6)."""


def cross_entropy(
    logits: Float[torch.Tensor, "token vocabulary"], targets: Int[torch.Tensor, " token"]
) -> Float[np.ndarray, " token"]:
    """Return -log p of each token's target, in nats."""
    chosen = torch.log_softmax(logits.double(), dim=-1).gather(1, targets[:, None])[:, 0]
    return np.asarray(-chosen.numpy())


@dataclass(frozen=True, eq=False)
class TokenScores:
    """How the spliced output differs from the unedited one, by token."""

    kl: Float[np.ndarray, " token"]
    """KL(unedited ‖ spliced), nats."""
    same_top: Float[np.ndarray, " token"]
    """1 where the likeliest token is the same, else 0."""
    variation: Float[np.ndarray, " token"]
    """Total variation distance, half of the summed absolute difference."""


def token_scores(
    unedited: Float[torch.Tensor, "token vocabulary"], spliced: Float[torch.Tensor, "token vocabulary"]
) -> TokenScores:
    """Return the scores of a batch of tokens.

    Raises:
        ValueError: shapes differ, or a logit is NaN.
    """
    if unedited.shape != spliced.shape:
        raise ValueError(f"logits of shapes {tuple(unedited.shape)} and {tuple(spliced.shape)}")
    if bool(torch.isnan(unedited).any() | torch.isnan(spliced).any()):
        raise ValueError("a logit is NaN")
    log_p, log_q = (torch.log_softmax(logits.double(), dim=-1) for logits in (unedited, spliced))
    p = log_p.exp()
    # A token of probability 0 adds nothing, whatever its logarithm.
    terms = torch.where(p > 0, p * (log_p - log_q), 0.0)
    return TokenScores(
        kl=terms.sum(-1).numpy(),
        same_top=(unedited.argmax(-1) == spliced.argmax(-1)).double().numpy(),
        variation=((p - log_q.exp()).abs().sum(-1) / 2).numpy(),
    )


def output_fidelity(
    scores: TokenScores,
    unedited: Float[np.ndarray, " token"],
    spliced: Float[np.ndarray, " token"],
    zeroed: Float[np.ndarray, " token"],
    averaged: Float[np.ndarray, " token"],
    groups: Groups,
) -> Mapping[str, Estimate]:
    """Return delta_ce, delta_ce_zero, delta_ce_mean, dce_share, kl, top1_agree and tv, pooled over all tokens.

    Args:
        scores: of the spliced output.
        unedited: cross-entropy of each scored token (`cross_entropy`), nothing edited.
        spliced: the same with x̂ at all positions that are not special.
        zeroed: the same with 0 there.
        averaged: the same with the mean of the set there.
        groups: group of each scored token.
    """
    ones = np.ones(len(unedited))
    share = groups.estimate(mean, averaged - unedited, spliced - unedited)
    harm = float((averaged - unedited).mean())
    if harm < HARMLESS:
        share = replace(share, value=None, low=None, high=None, draws=None, reason="site_harmless_when_averaged")
    return {
        "delta_ce": groups.estimate(mean, ones, spliced - unedited),
        "delta_ce_zero": groups.estimate(mean, ones, zeroed - unedited),
        "delta_ce_mean": groups.estimate(mean, ones, averaged - unedited),
        "dce_share": share,
        "kl": groups.estimate(mean, ones, scores.kl),
        "top1_agree": groups.estimate(mean, ones, scores.same_top),
        "tv": groups.estimate(mean, ones, scores.variation),
    }
