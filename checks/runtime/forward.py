"""One forward pass: padded tokens in; states and the log-probabilities of single tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.runtime.loading import Loaded

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float64, Int64

LOGITS_AT_ONCE = 64
"""Positions whose logits are normalised in one go, in float64: 64 MiB at a vocabulary of 128 Ki."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One token to score in a batch."""

    row: int
    position: int
    """Where its logits stand: the position before its own."""
    token: int


Hook = tuple[str, Callable[..., Any]]
"""Name of a hook point of the bridge, and what is called there with (tensor, hook=...)."""


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Int64[torch.Tensor, "row position"], ...]:
    """Return tokens and mask (1 for a token, 0 for padding) of sequences of unequal length.

    Padding stands on the right: a causal row never sees it, a bidirectional one masks it.
    """
    import torch

    shape = (len(sequences), max(len(sequence) for sequence in sequences))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for number, sequence in enumerate(sequences):
        ids[number, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[number, : len(sequence)] = 1
    return ids, mask


def run(
    loaded: Loaded,
    ids: Int64[torch.Tensor, "row position"],
    mask: Int64[torch.Tensor, "row key"],
    *,
    hooks: Sequence[Hook],
    wanted: Sequence[Wanted] = (),
    **more: Any,
) -> Float64[np.ndarray, " wanted"]:
    """Run one batch and return the log-probability (nats) of each wanted token.

    The head is applied at the wanted positions alone: logits over the whole vocabulary at every position would be
    far larger than the model's states.

    Args:
        loaded: the model.
        ids: tokens.
        mask: 1 where a key may be seen.
        hooks: what else is called, in the model's order; where nothing is wanted one of them ends the pass.
        wanted: tokens to score; the model must have a head.
        more: passed to the model.
    """
    import torch

    places = sorted({(one.row, one.position) for one in wanted})
    at = {place: number for number, place in enumerate(places)}
    rows, positions = torch.tensor(places, dtype=torch.long).reshape(-1, 2).T

    def gather(state: torch.Tensor, **_: Any) -> torch.Tensor:
        return state[rows, positions].unsqueeze(0)

    head: list[Hook] = [("unembed.hook_in", gather)] if wanted else []
    with torch.inference_mode():
        out = loaded.bridge.run_with_hooks(ids, attention_mask=mask, fwd_hooks=[*hooks, *head], **more)
        if not wanted:
            return np.empty(0)
        indices = torch.tensor([at[one.row, one.position] for one in wanted])
        return _log_probabilities(out[0], indices, torch.tensor([one.token for one in wanted]))


def _log_probabilities(
    logits: Float[torch.Tensor, "place token"],
    indices: Int64[torch.Tensor, " wanted"],
    tokens: Int64[torch.Tensor, " wanted"],
) -> Float64[np.ndarray, " wanted"]:
    """Return log softmax at single tokens, in float64 from float32 logits."""
    import torch

    # One normaliser a place, however many tokens are asked there.
    normalisers = torch.cat([torch.logsumexp(part.double(), dim=-1) for part in torch.split(logits, LOGITS_AT_ONCE)])
    scores: np.ndarray = (logits[indices, tokens].double() - normalisers[indices]).cpu().numpy()
    return scores
