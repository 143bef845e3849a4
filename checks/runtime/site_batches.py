"""What was asked of a site, batch by batch: charged, laid out for a pass, and told token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.errors import NotAskedFor
from checks.passages import States
from checks.runtime.site_passages import Tokenised
from checks.runtime.site_passes import Batch, Unedited, batches_of

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Int64

Follows = tuple["Int64[np.ndarray, ' place']", "Int64[torch.Tensor, ' place']", "Bool[np.ndarray, ' place']"]
"""Which tokens have a next one, the next one, and whether the two are scored."""

BATCH_TOKENS = 8192
"""Tokens of passages in a batch, padding included: edited passes hold several streams of a batch at once."""


class Budget:
    """Tokens that may run forward, and those that did.

    Args:
        declared: what the needs declared.
    """

    def __init__(self, declared: int) -> None:
        self.declared = declared
        self.spent = 0

    def charge(self, tokens: int) -> None:
        """Count tokens before they run.

        Raises:
            NotAskedFor: more than are left.
        """
        left = self.declared - self.spent
        if tokens > left:
            raise NotAskedFor(f"{tokens} tokens of passages, and {left} are left of {self.declared} that were declared")
        self.spent += tokens


@dataclass(frozen=True, eq=False)
class Part:
    """One batch of what was asked."""

    begin: int
    """Number, among the ids that were asked, of its first; likewise the first after its last."""
    end: int
    sequences: Int64[np.ndarray, " row"]
    """Number of the sequence of each row that runs; lost contrasts do not."""
    batch: Batch | None
    """None where nothing of it runs."""
    asked: Int64[np.ndarray, " row"]
    """Number of each row among the ids that were asked."""


def parts_of(
    tokenised: Tokenised,
    numbers: Int64[np.ndarray, " id"],
    passes: int,
    budget: Budget,
    ran: Bool[np.ndarray, " sequence"],
) -> Iterator[Part]:
    """Yield what was asked batch by batch, in its order.

    Args:
        tokenised: the check's passages and contrasts.
        numbers: sequences that were asked; one may come twice.
        passes: how often each token of them is charged.
        budget: charged before a batch runs.
        ran: of each sequence, set where it runs.

    Raises:
        NotAskedFor: the budget is spent.
    """
    lengths = np.diff(tokenised.starts)[numbers]
    for begin, end in batches_of(lengths.tolist(), BATCH_TOKENS):
        asked = begin + np.flatnonzero(lengths[begin:end])
        sequences = numbers[asked]
        batch = None
        if len(asked):
            own = [tokenised.tokens[tokenised.starts[one] : tokenised.starts[one + 1]] for one in sequences]
            budget.charge(passes * int(lengths[asked].sum()))
            ran[sequences] = True
            batch = Batch.of(np.concatenate(own), lengths[asked])
        yield Part(begin, end, sequences, batch, asked)


def given_of(tokenised: Tokenised, part: Part, batch: Batch, first: Unedited) -> States:
    """Return the states of a batch at its real tokens."""
    tokens = batch.ids[batch.rows, batch.positions].numpy()
    reads = [tokenised.read[tokenised.starts[one] : tokenised.starts[one + 1]] for one in part.sequences]
    return States(
        vectors=first.states[batch.rows, batch.positions].numpy(),
        passage=part.asked[batch.rows.numpy()],
        position=batch.positions.numpy(),
        token=tokens,
        special=tokenised.special[tokens],
        read=np.concatenate(reads),
    )


def followed_of(batch: Batch, given: States) -> Follows:
    """Return which tokens have a next one, the next one, and whether neither of the two is special."""
    import torch

    followed = np.flatnonzero(given.position + 1 < np.repeat(batch.lengths, batch.lengths))
    scored = ~(given.special[followed] | given.special[followed + 1])
    return followed, torch.from_numpy(given.token[followed + 1]), scored


def asked_of(
    tokenised: Tokenised, part: Part, batch: Batch
) -> tuple[tuple[torch.Tensor, torch.Tensor], Int64[torch.Tensor, "contrast 2"]]:
    """Return where each prompt ends, and the tokens that are held against each other there."""
    import torch

    answers = torch.tensor([tokenised.answers[int(one)] for one in part.sequences], dtype=torch.long)
    return (torch.arange(len(batch.lengths)), torch.from_numpy(batch.lengths - 1)), answers
