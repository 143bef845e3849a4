"""Intervals that several checks share."""

from __future__ import annotations

import math
from statistics import NormalDist


def proportion_interval(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927, JASA 22:209).

    Args:
        successes: count of successes, 0..n; fractional where ties count half.
        n: independent trials.
        level: coverage level.

    Returns:
        Lower and upper bound, within [0, 1].

    Raises:
        ValueError: n is not positive, successes lie outside 0..n, or level outside (0, 1).
    """
    if n <= 0:
        raise ValueError(f"a proportion of {n} trials has no interval")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is outside (0, 1)")
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2) / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n successes the bound is exactly 0 or 1; rounding would put it beside.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
