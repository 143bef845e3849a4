"""Numbers pooled over rows with intervals from their groups: a bootstrap that needs each group's sums only.

Rows of one group (a document, a template) are not independent, so groups are what is drawn again. Every statistic is a
function of sums, so that a draw is a weighting of group sums and costs nothing a row. Equal generators over the same
groups draw the same: two estimates are compared draw by draw. Specification of `sae_features`, section 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RESAMPLES, LEVEL = 1000, 0.95
"""Draws and coverage of the percentile interval (specification, sections 2 and 6)."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number, its interval, and what it rests on."""

    value: float | None
    """None where the number is not defined; `reason` says why."""
    n: int
    """Rows."""
    groups: int
    low: float | None = None
    """Lower bound; None where no interval is made."""
    high: float | None = None
    reason: str = ""
    draws: Float[np.ndarray, " resample"] | None = None
    drawn_from: str = ""
    """Digest of groups and draws: two estimates of one digest can be subtracted draw by draw."""


class Groups:
    """Which row belongs to which group, and how often each group stands in each draw.

    Args:
        labels: group of each row.
        rng: draws the resamples.
        resamples: number of draws.

    Raises:
        ValueError: there is no row.
    """

    def __init__(self, labels: Sequence[str], rng: np.random.Generator, resamples: int = RESAMPLES) -> None:
        if not len(labels):
            raise ValueError("no rows: nothing can be estimated")
        names, self.index = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        self.rows, self.count = len(labels), len(names)
        self.times: Int[np.ndarray, "resample group"] = rng.multinomial(
            self.count, np.full(self.count, 1.0 / self.count), size=resamples
        )
        seen = hashlib.sha256("\0".join(names.tolist()).encode())
        seen.update(self.times.astype("<i8").tobytes())
        self.digest = seen.hexdigest()

    def sums(self, values: Float[np.ndarray, row * axis]) -> Float[np.ndarray, group * axis]:
        """Return each group's sum, in float64."""
        exact = np.asarray(values, dtype=np.float64)
        if exact.ndim == 1:
            return np.bincount(self.index, weights=exact, minlength=self.count)
        found = np.zeros((self.count, *exact.shape[1:]))
        order = np.argsort(self.index, kind="stable")
        starts = np.searchsorted(self.index[order], np.arange(self.count))
        found[:] = np.add.reduceat(exact[order], starts, axis=0)
        return found

    def estimate(
        self,
        statistic: Callable[..., Float[np.ndarray, " draw"]],
        *values: Float[np.ndarray, row * axis],
        level: float = LEVEL,
    ) -> Estimate:
        """Return a function of pooled sums with its percentile interval.

        Args:
            statistic: takes one array of sums [draw, ...] for each of `values` and returns one number a draw; NaN
                where it is not defined.
            values: what is summed, by row.
            level: coverage.
        """
        by_group = [self.sums(one) for one in values]
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(*(one.sum(0)[None] for one in by_group))[0])
            draws = statistic(*(np.tensordot(self.times, one, 1) for one in by_group))
        if not np.isfinite(value):
            return Estimate(None, self.rows, self.count, reason="undefined")
        return self.told(value, draws, level)

    def told(self, value: float, draws: Float[np.ndarray, " resample"], level: float = LEVEL) -> Estimate:
        """Return an estimate with the percentile interval of its draws; none from a single group."""
        kept = draws[np.isfinite(draws)]
        if self.count < 2 or not len(kept):
            return Estimate(value, self.rows, self.count, draws=draws, drawn_from=self.digest)
        tails = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
        # A bound on the wrong side of the estimate is bootstrap bias; the interval holds its own estimate.
        low, high = min(value, float(tails[0])), max(value, float(tails[1]))
        return Estimate(value, self.rows, self.count, low, high, draws=draws, drawn_from=self.digest)

    def plain(self, value: float) -> Estimate:
        """Return an estimate without an interval."""
        return Estimate(value, self.rows, self.count)


def difference(one: Estimate, other: Estimate, level: float = LEVEL) -> Estimate:
    """Return one minus the other with the interval of the paired draws.

    Raises:
        ValueError: the two were not drawn from the same groups with the same draws.
    """
    if one.drawn_from != other.drawn_from or one.draws is None or other.draws is None:
        raise ValueError("these estimates share no draws: give both the same groups and a generator of the same label")
    if one.value is None or other.value is None:
        return Estimate(None, one.n, one.groups, reason="undefined")
    value, draws = one.value - other.value, one.draws - other.draws
    kept = draws[np.isfinite(draws)]
    if one.groups < 2 or not len(kept):
        return Estimate(value, one.n, one.groups, draws=draws, drawn_from=one.drawn_from)
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value, one.n, one.groups, min(value, float(low)), max(value, float(high)), draws=draws,
        drawn_from=one.drawn_from,
    )  # fmt: skip


def mean(rows: Float[np.ndarray, " draw"], total: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " draw"]:
    """Return a pooled mean: never a mean of group or batch means."""
    return np.asarray(total / rows)
