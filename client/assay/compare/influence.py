"""Influence values: by how much each item moves a metric. Their spread is the metric's standard error.

Source: report specification, section 15. mean: s_i - mean. auc: n/n_pos (V10_i - AUC) of a positive, n/n_neg (V01_j -
AUC) of a negative, where V is the share of the other class that is beaten, ties half (DeLong et al. 1988). influence:
as the check handed them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from assay.compare.items import Items


@dataclass(frozen=True)
class Influence:
    """Influence values of n items: psi_i = scale * values_i - centre, kept unscaled because whole numbers are exact."""

    theta: float | None
    """The metric as the items give it; None where they cannot (reducer `influence`)."""
    values: Sequence[float]
    scale: float
    centre: float

    def psi(self) -> list[float]:
        """Return the influence values themselves."""
        return [self.scale * value - self.centre for value in self.values]


def influence(items: Items) -> Influence:
    """Return the influence values of a metric's items."""
    if items.reducer == "influence":
        return Influence(None, items.scores, items.scale, 0.0)
    if items.reducer == "mean":
        mean = sum(items.scores) / len(items.scores) * items.scale
        return Influence(mean, items.scores, items.scale, mean)
    assert items.targets is not None
    return _of_area(items.scores, items.targets)


def _of_area(scores: Sequence[int], targets: Sequence[int]) -> Influence:
    n, positives = len(scores), sum(targets)
    beaten = _beaten(scores, targets)
    doubled = sum(map(int.__mul__, beaten, targets))
    area = doubled / (2 * positives * (n - positives))
    # beaten counts twice what an item beats of the other class, so V = beaten / (2 * size of the other class), and
    # n/own * (V - AUC) = n/(2 * own * other) * beaten - n/own * AUC.
    each = n / (2 * positives * (n - positives))
    less = (n / (n - positives) * area, n / positives * area)
    values = [each * count - less[target] for count, target in zip(beaten, targets, strict=True)]
    return Influence(area, values, 1.0, 0.0)


def _beaten(scores: Sequence[int], targets: Sequence[int]) -> list[int]:
    """Return, for each item, twice the number of items of the other class that it beats, ties counted once.

    A positive beats a negative of a lower score, a negative one of a higher.
    """
    # One sort of whole numbers that hold score and class is several times faster than a sort of pairs.
    coded = sorted([score * 2 + target for score, target in zip(scores, targets, strict=True)])
    positives = sum(targets)
    starts = [at for at, (left, right) in enumerate(pairwise(coded), 1) if left >> 1 != right >> 1]
    twice: tuple[dict[int, int], dict[int, int]] = ({}, {})
    below = 0
    for first, end in pairwise((0, *starts, len(coded))):
        score, size = coded[first] >> 1, end - first
        here = sum(code & 1 for code in coded[first:end]) if size > 1 else coded[first] & 1
        negatives_below = first - below
        twice[1][score] = 2 * negatives_below + (size - here)
        twice[0][score] = 2 * (positives - below) - here
        below += here
    return [twice[target][score] for score, target in zip(scores, targets, strict=True)]
