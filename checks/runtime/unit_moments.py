"""Mean and spread of units over trials, in one pass and whatever the order: every group counts equally.

A token weighs 1 / (tokens of its trial), a trial 1 / (trials of its group), a group 1 / (groups). How many trials of a
group there are is known at the end only, since trials whose numbers are not finite leave no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Float64

NUMBERS_AT_ONCE = 2**22
"""Activations that are taken to float64 in one go: 32 MiB, a few times over."""


@dataclass(frozen=True)
class Moments:
    """Mean and mean square deviation of every unit."""

    mean: Float64[np.ndarray, "*axes"]
    square: Float64[np.ndarray, "*axes"]
    """Mean square deviation from `mean`."""


def of_rows(state: Float[torch.Tensor, "row position unit"], lengths: Sequence[int]) -> Moments:
    """Return [row, unit] moments over each row's own tokens; what stands behind them is padding.

    Args:
        state: activations of a batch, padded on the right.
        lengths: tokens of each row.
    """
    import torch

    parts: list[tuple[np.ndarray, np.ndarray]] = []
    at_once = max(1, NUMBERS_AT_ONCE // max(1, state[0].numel()))
    for start in range(0, len(lengths), at_once):
        own = torch.tensor(lengths[start : start + at_once])
        here = state[start : start + at_once].double()
        padding = (torch.arange(here.shape[1]) >= own[:, None])[:, :, None]
        # Filled and not multiplied by nothing: padding may hold numbers that are none.
        mean = here.masked_fill(padding, 0.0).sum(dim=1) / own[:, None]
        apart = (here - mean[:, None]).masked_fill(padding, 0.0)
        parts.append((mean.numpy(), (apart.square().sum(dim=1) / own[:, None]).numpy()))
    return Moments(np.concatenate([mean for mean, _ in parts]), np.concatenate([square for _, square in parts]))


@dataclass
class _Group:
    trials: int = 0
    sites: dict[str, Moments] = field(default_factory=dict)


class Tally:
    """Adds up the moments of trials, group by group."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def add(self, group: str, trials: int, of_trial: Mapping[str, Moments]) -> None:
        """Take in trials that are alike.

        Args:
            group: their group.
            trials: how many they are.
            of_trial: [unit] moments over the tokens of one of them, by site; the same sites each time.
        """
        into = self._groups.setdefault(group, _Group())
        into.trials += trials
        share = trials / into.trials
        for site, new in of_trial.items():
            old = into.sites.get(site, new)
            # Means and squares of two parts make those of the whole (Chan, Golub, LeVeque 1983), without the
            # difference of two large numbers.
            apart = new.mean - old.mean
            into.sites[site] = Moments(
                old.mean + share * apart,
                (1 - share) * old.square + share * new.square + share * (1 - share) * apart**2,
            )

    def total(self, site: str) -> Moments | None:
        """Return the [unit] moments of a site over all groups; None where no trial was taken in."""
        groups = [self._groups[name].sites[site] for name in sorted(self._groups)]
        if not groups:
            return None
        mean = np.mean([one.mean for one in groups], axis=0)
        return Moments(mean, np.mean([one.square + (one.mean - mean) ** 2 for one in groups], axis=0))
