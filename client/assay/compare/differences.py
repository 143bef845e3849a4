"""The difference of one metric between two reports, with its standard error: B less A.

Sources: report specification, section 15. Clusters: the t interval of cluster totals (Liang & Zeger 1986, with
G / (G - 1) and G - 1 degrees of freedom). Shares of the same items: Bonett & Price 2012 for the interval, McNemar's
exact test for p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from math import dist, fsum, hypot, sqrt
from operator import mul, sub
from typing import Literal

from assay.compare import distributions as known
from assay.compare.influence import Influence, influence
from assay.compare.items import Items

Method = Literal["paired_t", "bonett_price", "unpaired", "exact", "none"]
"""How a difference was judged. "exact": both numbers are certain; "none": nothing tells how uncertain it is."""

CLUSTERS_LEAST = 8
"""Fewer independent clusters cannot tell: their t interval is known to be too short (specification, section 15)."""

NOISE = 1e-12
"""A standard error below this share of the influence values' scale is rounding of float64, not spread."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """B less A: what was found, and how sure it is at any level."""

    d: float
    method: Method
    se: float | None = None
    """None where nothing tells it."""
    p: float | None = None
    """Two-sided; None where nothing was tested."""
    reason: str | None = None
    """Why nothing can be told, where nothing can: few_clusters, no_interval, no_spread, items_absent."""
    freedom: float | None = None
    """Degrees of freedom of the t interval."""
    centre: float | None = None
    """Middle of the interval where that is not `d` (Bonett & Price)."""

    @property
    def tested(self) -> bool:
        """Whether it counts among the metrics that were compared."""
        return self.p is not None

    def interval(self, tail: float) -> tuple[float, float] | None:
        """Return the interval whose level is 1 - tail; None where nothing tells it."""
        if self.method == "exact":
            return (self.d, self.d)
        if self.se is None or self.p is None:
            return None
        if self.method == "bonett_price":
            assert self.centre is not None
            reach = known.normal_quantile(tail) * self.se
            return (max(-1.0, self.centre - reach), min(1.0, self.centre + reach))
        factor = known.normal_quantile(tail) if self.freedom is None else known.t_quantile(tail, self.freedom)
        return (self.d - factor * self.se, self.d + factor * self.se)


def paired(a: Items, b: Items, value_a: float, value_b: float) -> Difference:
    """Return the difference of two metrics over the same items, as `compare` has made sure they are.

    Args:
        a: items of A.
        b: items of B: same ids, order, clusters and targets.
        value_a: the metric as A's report has it; used where the items do not give it (reducer `influence`).
        value_b: the same of B's.
    """
    groups = a.groups
    bits_a, bits_b = (_as_bits(a), _as_bits(b)) if groups is None else (None, None)
    if bits_a is not None and bits_b is not None:
        return shares(bits_a, bits_b)
    psi_a, psi_b = influence(a), influence(b)
    theta_a = value_a if psi_a.theta is None else psi_a.theta
    theta_b = value_b if psi_b.theta is None else psi_b.theta
    same = a.scores == b.scores and a.scale == b.scale
    return clustered(theta_b - theta_a, psi_a, psi_b, groups, same=same)


def clustered(
    d: float, a: Influence, b: Influence, groups: tuple[Sequence[int], int] | None, *, same: bool = False
) -> Difference:
    """Return the t interval of a difference from both sides' influence values.

    SE = sqrt(G / (G - 1) * sum of U_g^2) / n, where U_g is a cluster's sum of psi_B - psi_A. An SE of 0 says that the
    interval has nothing to go by, not that the difference is certain. One case is: where every item scored the same on
    both sides, these items have no difference, and d = 0 is no estimate.

    Args:
        d: theta_B - theta_A.
        a: influence values of A.
        b: the same of B, item by item.
        groups: each item's cluster, from 0 to below n, and their number; None where every item is its own.
        same: whether every item has one score on both sides.
    """
    n = len(a.values)
    count = n if groups is None else groups[1]
    if count < CLUSTERS_LEAST:
        return Difference(d=d, method="paired_t", reason="few_clusters")
    se = sqrt(count / (count - 1)) * _length(a, b, groups) / n
    size = abs(a.centre) + abs(b.centre) + abs(d)
    if se <= NOISE * size:
        if not same or d != 0.0:
            return Difference(d=d, method="none", reason="no_spread")
        return Difference(d=d, method="paired_t", se=0.0, p=1.0, freedom=count - 1)
    return Difference(d=d, method="paired_t", se=se, p=known.t_two_sided(d / se, count - 1), freedom=count - 1)


def _length(a: Influence, b: Influence, groups: tuple[Sequence[int], int] | None) -> float:
    """Return the root of the sum of U_g^2. The passes over all items run in C: a report may have millions."""
    centre = b.centre - a.centre
    if a.scale == b.scale:
        # Whole scores are subtracted and summed exactly.
        apart, scale = map(sub, b.values, a.values), a.scale
    else:
        apart, scale = map(sub, map(mul, b.values, repeat(b.scale)), map(mul, a.values, repeat(a.scale))), 1.0
    shift = centre / scale
    if groups is None:
        return scale * dist(tuple(apart), (shift,) * len(a.values))
    totals = [0.0] * len(a.values)
    for group, value in zip(groups[0], map(sub, apart, repeat(shift)), strict=True):
        totals[group] += value
    return scale * hypot(*totals)


def _as_bits(items: Items) -> Sequence[int] | None:
    """Return 1 for each item that scored 1 and 0 for each that scored 0, where all did and their mean is the metric."""
    one, scores = round(1.0 / items.scale), items.scores
    # A step above 1 makes no score a 1.
    if items.reducer != "mean" or one < 1 or scores.count(0) + scores.count(one) != len(scores):
        return None
    return scores if one == 1 else [int(score == one) for score in scores]


def shares(a: Sequence[int], b: Sequence[int]) -> Difference:
    """Return the difference of two shares over the same items, each an independent one.

    Bonett & Price: p12 = (b + 1) / (n + 2), p21 = (c + 1) / (n + 2), SE = sqrt((p12 + p21 - (p21 - p12)^2) / (n + 2)),
    interval p21 - p12 +- z SE in [-1, 1]. p is McNemar's exact one.

    Args:
        a: 1 for each item that A has right, else 0.
        b: the same of B.
    """
    n = len(a)
    both = sum(map(mul, a, b))
    lost, won = sum(a) - both, sum(b) - both
    d = (won - lost) / n
    if n < CLUSTERS_LEAST:
        return Difference(d=d, method="bonett_price", reason="few_clusters")
    p12, p21 = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    se = sqrt((p12 + p21 - (p21 - p12) ** 2) / (n + 2))
    p = known.binomial_half_two_sided(lost, won)
    return Difference(d=d, method="bonett_price", se=se, p=p, centre=p21 - p12)


@dataclass(frozen=True)
class Told:
    """A number as a report has it."""

    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = None
    certain: bool = False
    """Whether the report says that it is exact."""

    @property
    def se(self) -> float | None:
        """Standard error that the interval amounts to, as a normal one; 0 of a certain number; None without either."""
        if self.low is None or self.high is None or self.level is None:
            return 0.0 if self.certain else None
        return (self.high - self.low) / (2.0 * known.normal_quantile(1.0 - self.level))


def unpaired(a: Told, b: Told) -> Difference:
    """Return the difference of two numbers that nothing pairs: SE^2 = SE_A^2 + SE_B^2, from their intervals.

    An interval without width of a number that is not exact tells no error: a bootstrap of five equal items gives one.
    """
    d = fsum((b.value, -a.value))
    error_a, error_b = a.se, b.se
    if error_a is None or error_b is None:
        return Difference(d=d, method="none", reason="no_interval")
    if any(one.se == 0.0 and not one.certain for one in (a, b)):
        return Difference(d=d, method="none", reason="no_spread")
    if error_a == error_b == 0.0:
        return Difference(d=d, method="exact", se=0.0)
    se = hypot(error_a, error_b)
    return Difference(d=d, method="unpaired", se=se, p=known.normal_two_sided(d / se))
