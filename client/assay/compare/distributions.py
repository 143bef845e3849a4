"""Normal, beta and Student t distributions in pure Python: the client has no numpy.

Sources: NIST DLMF 8.17.22 (the continued fraction of the incomplete beta function), Abramowitz & Stegun 6.1.40 (the
rest of Stirling's series), 26.5.24 and 26.7.1 (binomial and t as incomplete beta functions).
"""

from __future__ import annotations

from functools import lru_cache
from math import erfc, exp, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist

TINY = 1e-300
"""What a vanishing denominator of the continued fraction is replaced by (Lentz's method)."""

CLOSE = 1e-15
"""Relative change at which the continued fraction and the quantiles stop: a few units in the last place."""

ROUNDS = 100_000
"""Most terms of the continued fraction. It takes about sqrt(max(a, b)): 10^4 for 10^8 items."""

STIRLING_FROM = 10.0
"""From here four terms of Stirling's series are exact to 1e-12; below, lgamma itself loses nothing."""

NEWTON = 200
"""Most steps to a quantile; fewer than 20 are taken for any degrees of freedom from 7."""

_NORMAL = NormalDist()


def normal_two_sided(z: float) -> float:
    """Return the chance that a standard normal lies at least |z| from zero."""
    return erfc(abs(z) / sqrt(2.0))


def normal_quantile(tail: float) -> float:
    """Return z such that a standard normal lies at least z from zero with chance `tail`.

    Args:
        tail: both tails together, in (0, 1), e.g. 0.05 for 1.96.
    """
    _check_tail(tail)
    return -_NORMAL.inv_cdf(tail / 2.0)


def beta_cdf(a: float, b: float, x: float, y: float | None = None) -> float:
    """Return the regularised incomplete beta function I_x(a, b).

    Args:
        a: first shape, above 0.
        b: second shape, above 0.
        x: in [0, 1].
        y: 1 - x, where the caller knows it more exactly.
    """
    y = 1.0 - x if y is None else y
    if not (a > 0.0 and b > 0.0 and 0.0 <= x <= 1.0):
        raise ValueError("beta_cdf needs positive shapes and 0 <= x <= 1")
    if x == 0.0 or y == 0.0:
        return 0.0 if x == 0.0 else 1.0
    # The fraction converges fast on one side of the mean; the other side is its complement.
    if x * (a + b + 2.0) > a + 1.0:
        return 1.0 - _front(b, a, y, x) * _fraction(b, a, y) / b
    return _front(a, b, x, y) * _fraction(a, b, x) / a


def _front(a: float, b: float, x: float, y: float) -> float:
    """Return x^a y^b / B(a, b), without the cancellation of three large lgammas."""
    n = a + b
    power = a * _log_ratio(x * n, a) + b * _log_ratio(y * n, b)
    return sqrt(a / n * b / (2.0 * pi)) * exp(power + _rest(n) - _rest(a) - _rest(b))


def _log_ratio(found: float, expected: float) -> float:
    return log1p((found - expected) / expected) if 0.5 * expected < found < 2.0 * expected else log(found / expected)


def _rest(z: float) -> float:
    """Return log Gamma(z) less Stirling's formula."""
    if z < STIRLING_FROM:
        return lgamma(z) - (z - 0.5) * log(z) + z - 0.5 * log(2.0 * pi)
    square = z * z
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square) / square) / z


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, ROUNDS):
        even = a + 2 * m
        for term in (
            m * (b - m) * x / ((even - 1.0) * even),
            -(a + m) * (a + b + m) * x / (even * (even + 1.0)),
        ):
            d = 1.0 / _nonzero(1.0 + term * d)
            c = _nonzero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < CLOSE:
            break
    return value


def _nonzero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def t_two_sided(t: float, freedom: float) -> float:
    """Return the chance that Student's t lies at least |t| from zero."""
    square = t * t
    if square == float("inf"):
        return 0.0
    return beta_cdf(freedom / 2.0, 0.5, freedom / (freedom + square), square / (freedom + square))


@lru_cache(maxsize=1024)
def t_quantile(tail: float, freedom: float) -> float:
    """Return t such that Student's t lies at least t from zero with chance `tail` (both tails together).

    Newton's method on log(chance) against log(t), which is concave: after one step it comes down from above.
    """
    _check_tail(tail)
    t = normal_quantile(tail)
    if t <= 0.0:
        return 0.0
    target = log(tail)
    for _ in range(NEWTON):
        chance = t_two_sided(t, freedom)
        slope = -2.0 * t * _t_density(t, freedom) / chance
        step = (target - log(chance)) / slope
        t *= exp(min(step, 1.0))
        if abs(step) < CLOSE:
            break
    return t


def _t_density(t: float, freedom: float) -> float:
    half = freedom / 2.0
    log_scale = _rest(half + 0.5) - _rest(half) + half * log1p(0.5 / half) - 0.5
    return exp(log_scale - (half + 0.5) * log1p(t * t / freedom)) / sqrt(2.0 * pi)


def binomial_half_two_sided(low: int, high: int) -> float:
    """Return the exact two-sided p of `low` against `high` fair coin tosses: min(1, 2 P(Bin(low + high, 1/2) <= min)).

    McNemar's exact test, from the two counts of discordant pairs (McNemar 1947; report specification, section 15).
    """
    least, most = sorted((low, high))
    if least == most:
        return 1.0
    return min(1.0, 2.0 * beta_cdf(float(most), least + 1.0, 0.5, 0.5))


def _check_tail(tail: float) -> None:
    if not 0.0 < tail < 1.0:
        raise ValueError("a tail lies between 0 and 1")
