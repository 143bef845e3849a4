"""An estimate with its interval, and the draws that intervals come from. Specification: sections 6.9, 7 and 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta, t

from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from jaxtyping import Float, Int

LEVEL = 0.95
"""Coverage of every interval of this check (sections 6.9 and 7.1: 95 %)."""

DRAWS = 2000
"""Bootstrap draws (6.9, 7.4): a 2.5 % bound then rests on 50 of them."""


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, what it rests on and where it lies when there is nothing to find."""

    value: float
    low: float
    high: float
    n: int
    """Independent units behind it."""
    method: str
    """How the interval was made."""
    null: float | None = None
    """The value expected where there is nothing to find; None where none is known."""


def counted(successes: int, n: int, null: float | None = None) -> Estimate:
    """Return a share with Clopper and Pearson's exact interval (1934, Biometrika 26:404).

    Raises:
        ValueError: n is not positive, or the successes lie outside 0..n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    half = (1 - LEVEL) / 2
    low = float(beta.ppf(half, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - half, successes + 1, n - successes)) if successes < n else 1.0
    return Estimate(successes / n, low, high, n, "clopper-pearson", null)


def scored(successes: int, n: int, null: float | None = None) -> Estimate:
    """Return a share with Wilson's score interval.

    Raises:
        ValueError: n is not positive, or the successes lie outside 0..n.
    """
    low, high = proportion_interval(successes, n, LEVEL)
    return Estimate(successes / n, low, high, n, "wilson", null)


def averaged(values: Float[np.ndarray, " n"], null: float | None = None) -> Estimate:
    """Return a mean with Student's t interval.

    Raises:
        ValueError: there are fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"a mean of {n} values has no interval")
    mean = float(np.mean(values))
    half = float(t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n, "t", null)


def cluster_index(names: Sequence[Hashable | None]) -> Int[np.ndarray, " unit"]:
    """Return each unit's cluster as a number from 0, in order of first use; None is a cluster of its own."""
    known: dict[Hashable, int] = {}
    return np.array(
        [known.setdefault(("", row) if name is None else ("name", name), len(known)) for row, name in enumerate(names)],
        dtype=np.int64,
    )


def cluster_weights(
    cluster: Int[np.ndarray, " unit"], draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "draw unit"]:
    """Return how often each unit occurs in each bootstrap draw of whole clusters.

    Args:
        cluster: each unit's cluster, numbers from 0 without gaps.
        draws: how many.
        rng: generator of these draws.
    """
    count = int(cluster.max()) + 1 if len(cluster) else 0
    if not count:
        return np.zeros((draws, 0), dtype=np.int64)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    return np.asarray(drawn[:, cluster])


def quantiles(values: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    """Return the percentile interval of bootstrap draws."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
