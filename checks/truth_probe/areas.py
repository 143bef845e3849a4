"""AUROC of many scores on the same rows, under one cluster bootstrap: cheap, and comparable among methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from checks.truth_probe.scores import Estimate, auroc_intervals

if TYPE_CHECKING:
    from jaxtyping import Float, Int

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class Sure:
    """How sure an estimate is to be."""

    level: float
    """Level of each interval: simultaneous over the layers of a set (5.7)."""
    bootstrap: int
    """Draws of the cluster bootstrap."""
    permutations: int
    """Flips of whole clusters."""


def areas(
    scores: Mapping[K, Float[np.ndarray, " item"]],
    labels: Int[np.ndarray, " item"],
    cluster: Int[np.ndarray, " item"],
    sure: Sure,
    rng: np.random.Generator,
) -> dict[K, Estimate]:
    """Return each score's AUROC with its interval; nothing where the labels are all alike."""
    if not scores or len(np.unique(labels)) < 2:
        return {}
    columns = np.stack(list(scores.values()), axis=1)
    told = auroc_intervals(columns, labels, cluster, sure.level, sure.bootstrap, rng)
    return dict(zip(scores, told, strict=True))
