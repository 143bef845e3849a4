"""Labels that mean nothing, drawn by group: what every number here is held against.

Rows of one group are not independent, so labels do not change places row by row. Each group is dealt the whole sequence
of labels of another group, repeated or cut to its size and turned by a random offset: groups of one label keep one
label, and groups that hold a pair of a positive and a negative row swap it half of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int

REDRAWS = 100
"""Times that a draw of a single class is drawn again before there is no permutation to speak of."""


class Dealer:
    """Deals labels among the groups of some rows.

    Args:
        labels: 0 or 1, both present.
        groups: group of each row; within a group the order of the rows is the order of its labels.
    """

    def __init__(self, labels: Int[np.ndarray, " row"], groups: Sequence[str]) -> None:
        names, self._group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self.groups = len(names)
        order = np.argsort(self._group, kind="stable")
        self._sizes = np.bincount(self._group, minlength=self.groups)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self._sequence = np.asarray(labels, dtype=np.int8)[order]
        self._within = np.empty(len(order), dtype=np.int64)
        self._within[order] = np.arange(len(order)) - self._starts[self._group[order]]

    def deal(self, draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draw row"]:
        """Return permuted labels, both classes in every draw.

        Raises:
            ValueError: hardly any permutation has both classes.
        """
        found = self._once(draws, rng)
        for _ in range(REDRAWS):
            single = found.min(1) == found.max(1)
            if not single.any():
                return found
            found[single] = self._once(int(single.sum()), rng)
        raise ValueError("labels of one class only cannot be permuted")

    def _once(self, draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draw row"]:
        donor = rng.permuted(np.tile(np.arange(self.groups), (draws, 1)), axis=1)
        turn = rng.integers(0, self._sizes[donor])
        at = (self._within + turn[:, self._group]) % self._sizes[donor][:, self._group]
        return np.asarray(self._sequence[self._starts[donor][:, self._group] + at])
