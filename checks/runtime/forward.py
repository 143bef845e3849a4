"""One forward pass: padded tokens in; states and the log-probabilities of single tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.runtime.loading import Loaded

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Float64, Int64

LOGITS_AT_ONCE = 64
"""Positions whose logits are normalised in one go, in float64: 64 MiB at a vocabulary of 128 Ki."""

NUMBERS_AT_ONCE = LOGITS_AT_ONCE * 2**17
"""Logits that are graded in one go: as many as above, in more positions where the vocabulary is small."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One token to score in a batch."""

    row: int
    position: int
    """Where its logits stand: the position before its own."""
    token: int


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Tokens to grade in a batch, as arrays: where their logits stand, and what they are."""

    rows: Int64[torch.Tensor, " target"]
    positions: Int64[torch.Tensor, " target"]
    """Position before the token's own."""
    tokens: Int64[torch.Tensor, " target"]


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


def grade(
    loaded: Loaded,
    ids: Int64[torch.Tensor, "row position"],
    mask: Int64[torch.Tensor, "row key"],
    *,
    hooks: Sequence[Hook],
    targets: Targets,
) -> tuple[Float64[np.ndarray, " target"], Bool[np.ndarray, " target"]]:
    """Run one batch and return each target's log-probability (nats), and whether no token is likelier.

    Of equally likely tokens the one of the lowest number counts as the likeliest. As in `run`, the head is applied
    where a target is wanted alone; unlike there, thousands of targets cost no Python step each.

    Args:
        loaded: the model; it must have a head.
        ids: tokens.
        mask: 1 where a key may be seen.
        hooks: what else is called, in the model's order.
        targets: at least one.
    """
    import torch

    def gather(state: torch.Tensor, **_: Any) -> torch.Tensor:
        return state[targets.rows, targets.positions].unsqueeze(0)

    with torch.inference_mode():
        logits = loaded.bridge.run_with_hooks(
            ids, attention_mask=mask, fwd_hooks=[*hooks, ("unembed.hook_in", gather)]
        )[0]
        parts = torch.split(logits, max(1, NUMBERS_AT_ONCE // logits.shape[-1]))
        normalisers = torch.cat([torch.logsumexp(part.double(), dim=-1) for part in parts])
        scored = logits.gather(1, targets.tokens[:, None])[:, 0].double() - normalisers
        likeliest = logits.argmax(dim=-1) == targets.tokens
    return scored.cpu().numpy(), likeliest.cpu().numpy()
