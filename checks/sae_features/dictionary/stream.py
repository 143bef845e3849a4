"""The order of a stream of states: which positions are left out, and a ring in memory that shuffles the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int

OUTLIER_NORM = 10.0
"""States whose norm is above so many median norms are special positions (specification, section 3)."""

RING_BATCHES = 20
"""Batches that the ring holds; half of them are handed out, then it is filled again (specification, section 5)."""


def usable(
    x: Float[torch.Tensor, "row d"], special: Bool[torch.Tensor, " row"], median_norm: float
) -> Bool[torch.Tensor, " row"]:
    """Return which states may be trained on, measured and edited.

    Args:
        x: states in raw units.
        special: true at BOS, EOS and PAD.
        median_norm: median norm of the corpus' states, so that a batch does not set its own bound.
    """
    norms: torch.Tensor = torch.linalg.vector_norm(x.to(torch.float32), dim=1)
    return torch.logical_and(~special, norms <= OUTLIER_NORM * median_norm)


class Ring:
    """Takes states in stream order and hands out shuffled batches with the stream positions of their states.

    Args:
        batch: states a batch.
        width: width of a state.
        rng: draws the order.
    """

    def __init__(self, batch: int, width: int, rng: np.random.Generator) -> None:
        self.batch = batch
        self.rng = rng
        size = RING_BATCHES * batch
        self._states = torch.empty(size, width)
        self._positions = torch.empty(size, dtype=torch.int64)
        self._held = 0
        self._read = 0

    def put(
        self, rows: Float[torch.Tensor, "row d"]
    ) -> Iterator[tuple[Float[torch.Tensor, "B d"], Int[torch.Tensor, " B"]]]:
        """Take states; yield half of the ring each time it is full."""
        begin = 0
        while begin < len(rows):
            taken = min(len(rows) - begin, len(self._states) - self._held)
            place = slice(self._held, self._held + taken)
            self._states[place] = rows[begin : begin + taken]
            self._positions[place] = torch.arange(self._read, self._read + taken)
            begin, self._held, self._read = begin + taken, self._held + taken, self._read + taken
            if self._held == len(self._states):
                yield from self._hand_out(RING_BATCHES // 2)

    def drain(self) -> Iterator[tuple[Float[torch.Tensor, "B d"], Int[torch.Tensor, " B"]]]:
        """Yield what is left in whole batches; fewer states than a batch are left over."""
        if self._held >= self.batch:
            yield from self._hand_out(self._held // self.batch)

    def _hand_out(self, batches: int) -> Iterator[tuple[Float[torch.Tensor, "B d"], Int[torch.Tensor, " B"]]]:
        order = torch.from_numpy(self.rng.permutation(self._held))
        for one in torch.split(order[: batches * self.batch], self.batch):
            yield self._states[one], self._positions[one]
        rest = order[batches * self.batch :]
        self._held = len(rest)
        self._states[: self._held], self._positions[: self._held] = self._states[rest], self._positions[rest]
