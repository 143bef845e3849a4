"""Correction of p-values that were looked at together."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Return Holm-adjusted p-values, in the order given (Holm 1979): each at most 1 and at least its own p.

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at alpha,
    whatever the dependence between the tests.
    """
    adjusted = [0.0] * len(p)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return tuple(adjusted)
