"""Whether a direction of one data set reads truth in another: a matrix of signed AUROC, train set by test set.

Specification: section 5.11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.truth_probe.scores import Estimate, Reading, auroc_intervals

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CHANCE = 0.5
"""AUROC of a direction that tells nothing."""


@dataclass(frozen=True)
class Target:
    """Displacements of a set on which directions are scored."""

    u: Float[np.ndarray, "item width"]
    """x+ - x-, normalised by this set's own train statistics."""
    labels: Int[np.ndarray, " item"]
    """1 where the + text is true, else 0."""
    cluster: Int[np.ndarray, " item"]


@dataclass(frozen=True)
class Transfer:
    """A direction of set `train`, as signed there, on the test items of set `to`."""

    train: str
    to: str
    auroc: Reading

    @property
    def inverted(self) -> bool:
        """Whether the direction reads the opposite of truth there."""
        return self.auroc.estimate is not None and polarity_inverted(self.auroc.estimate)


def polarity_inverted(estimate: Estimate) -> bool:
    """Return whether a whole interval lies below one half: the direction reads "matches", not "true"."""
    return estimate.high < CHANCE


def transfer_matrix(
    directions: Mapping[str, Float[np.ndarray, " width"]],
    tests: Mapping[str, Target],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Transfer, ...]:
    """Return the signed AUROC of every direction on every test set; signs are never turned here.

    All directions are scored on a test set under the same bootstrap draws, so that its columns compare.

    Args:
        directions: by train set, signed by that set's anchors or labels.
        tests: by name; negated rows, conjunctions and disjunctions are further sets.
        level: coverage level.
        draws: bootstrap draws.
        rng: the generator of this bootstrap; drawn from in the order of `tests`.

    Returns:
        One entry a pair of sets, test sets outermost; without an estimate where a set holds one class only.
    """
    told: list[Transfer] = []
    for to, test in tests.items():
        clusters, positive = len(np.unique(test.cluster)), int(np.sum(test.labels == 1))
        if not directions or not 0 < positive < len(test.labels):
            told += [
                Transfer(train, to, Reading(None, len(test.labels), clusters, "one_class")) for train in directions
            ]
            continue
        scores = test.u.astype(np.float64) @ np.stack(list(directions.values()), axis=1)
        areas = auroc_intervals(scores, test.labels, test.cluster, level, draws, rng)
        told += [
            Transfer(train, to, Reading(area, len(test.labels), clusters))
            for train, area in zip(directions, areas, strict=True)
        ]
    return tuple(told)
