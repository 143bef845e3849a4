"""Exact intervals of a Monte Carlo p-value: what so few replicates leave open."""

from __future__ import annotations

from scipy.stats import beta


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion (Clopper & Pearson 1934)."""
    tail = (1.0 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1.0 - tail, successes + 1, n - successes))
    return low, high


def stopped_at(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a proportion where drawing stopped at the draw that gave the last success.

    The number of draws is then what chance decides (inverse binomial sampling, Haldane 1945): more than n of them were
    needed for so many successes where n draws hold fewer.

    Args:
        successes: at least 1; the last of them was draw n.
        n: draws.
        level: coverage.
    """
    tail = (1.0 - level) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1.0 - tail, successes, n - successes))
    return low, high
