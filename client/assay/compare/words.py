"""From differences to words, all of one comparison together.

Source: report specification, section 15. Levels are 1 - 0.05 / m (Bonferroni), p-values are Holm's (1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Word = Literal["equivalent", "regressed", "improved", "changed", "cannot_tell"]
Better = Literal["higher", "lower", "none"]

ALPHA = 0.05
"""Chance of any false "regressed" or "improved" in one comparison (specification, section 15)."""

P_FLOOR = 1e-12
"""No p-value is told below this: the error of its own computation is near (specification, section 3)."""


def tail(compared: int) -> float:
    """Return 0.05 / m: both tails of each interval when m metrics are compared."""
    return ALPHA / max(compared, 1)


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Return Holm's p-values in the order given: the k-th smallest of m times m - k + 1, made monotone, at most 1."""
    adjusted = [0.0] * len(p)
    so_far = 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p) - rank) * max(p[at], P_FLOOR)))
        adjusted[at] = so_far
    return tuple(adjusted)


def word(
    interval: tuple[float, float] | None,
    p: float | None,
    better: Better,
    margin: float | None,
    *,
    certain: bool = False,
) -> Word:
    """Return what may be said of a difference.

    Args:
        interval: of B less A, at the level of the comparison; None where nothing tells it.
        p: Holm's p-value; None where nothing was tested.
        better: which way the metric should go.
        margin: largest difference that does not matter; None where nobody named one.
        certain: both numbers are exact, so the interval alone decides.
    """
    if interval is None:
        return "cannot_tell"
    low, high = interval
    if margin is not None and -margin <= low and high <= margin:
        return "equivalent"
    if not (low > 0.0 or high < 0.0):
        return "cannot_tell"
    # Interval and Holm's test can disagree near the edge; then neither is said.
    if not certain and (p is None or p >= ALPHA):
        return "cannot_tell"
    if better == "none":
        return "changed"
    return "improved" if (low > 0.0) == (better == "higher") else "regressed"
