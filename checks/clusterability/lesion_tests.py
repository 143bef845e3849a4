"""Does a cluster matter more than random units, and more to one task than to the others.

Specification: clusterability, section 6.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.lesion import Lesions, Rows, Scored, Units, clusters_of, drops_of, random_sets
from checks.holm import holm

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SPANNING = 0.9
"""A cluster with a greater share of a tested layer's units is not tested: its random sets equal itself (6.2)."""

SLACK = 1e-9
"""Accuracies are sums of 1/n in some order: drops this close are equal, and count for the null."""


@dataclass(frozen=True)
class ClusterTest:
    """Both tests of one cluster."""

    cluster: int
    units: int
    reason: str
    """Why it was not tested: `layer_spanning_cluster`, `no_units`, `baseline_at_chance`; empty where it was."""
    task: int
    """The task that loses most among those that can be tested; -1 where none can."""
    max_drop: float
    """D at `task`; NaN where no task can be tested."""
    gap: float
    """G: D at `task` less the mean of the other tasks' D; NaN with fewer than two tasks that can be tested."""
    s: float
    """Effect size 1 - mean of max(0, other D) / D at `task`, reported and never tested; NaN where nothing is lost."""
    importance: int
    """Random sets whose largest drop reaches `max_drop`."""
    specialisation: int
    """Random sets whose gap reaches `gap`."""
    n: int
    """Random sets; 0 where it was not tested."""
    p_importance: float
    """(1 + importance) / (1 + n); 1 where it was not tested."""
    p_specialisation: float
    """(1 + specialisation) / (1 + n); 1 where it was not tested, and with fewer than two tasks."""
    p_importance_holm: float
    """After Holm over the clusters that were tested; 1 where it was not."""
    p_specialisation_holm: float


@dataclass(frozen=True)
class _Counted:
    reason: str
    task: int
    top: float
    gap: float
    s: float
    importance: int
    specialisation: int
    n: int


def lesion_tests(
    scored: Scored,
    labels: Int[np.ndarray, " unit"],
    units: Units,
    rows: Rows,
    lesions: Lesions,
    n: int,
    rng: np.random.Generator,
) -> tuple[ClusterTest, ...]:
    """Place every cluster's largest drop and its gap among those of random sets of like units.

    Args:
        scored: the model.
        labels: cluster of each unit, -1 for none.
        units: layer and size of each unit.
        rows: tasks of the rows.
        lesions: the lesion matrix of the same labels.
        n: random sets for each cluster; the smallest p is 1 / (n + 1).
        rng: draws the sets.
    """
    usable = ~np.array(lesions.at_chance)
    strata = units.strata(labels >= 0)
    counted = []
    for cluster, members in enumerate(clusters_of(labels)):
        drop = lesions.drop.value[cluster][usable]
        reason = _untested(members, labels, units) or ("" if usable.any() else "baseline_at_chance")
        null = np.zeros((0, int(usable.sum())))
        if not reason:
            null = drops_of(scored, lesions.baseline, random_sets(members, strata, n, rng), rows)[:, usable]
        counted.append(_count(reason, drop, null, np.flatnonzero(usable)))
    return _corrected(counted, labels)


def gap_of(drops: Float[np.ndarray, "... task"]) -> Float[np.ndarray, " ..."]:
    """Return the largest drop less the mean of the others.

    Unlike (largest - mean) / range, which is always one half with two tasks, it can vary whatever their number.
    """
    top, tasks = drops.max(axis=-1), drops.shape[-1]
    return np.asarray(top - (drops.sum(axis=-1) - top) / (tasks - 1))


def effect_size(drops: Float[np.ndarray, " task"]) -> float:
    """Return S = 1 - mean of max(0, other D) / largest D; NaN where nothing is lost or there is no other task."""
    best = int(np.argmax(drops))
    others = np.maximum(np.delete(drops, best), 0.0)
    return 1.0 - float(others.mean() / drops[best]) if drops[best] > SLACK and len(others) else float("nan")


def _untested(members: Int[np.ndarray, " of_cluster"], labels: Int[np.ndarray, " unit"], units: Units) -> str:
    if not len(members):
        return "no_units"
    for layer in np.unique(units.layer[members]):
        if (units.layer[members] == layer).sum() > SPANNING * (units.layer[labels >= 0] == layer).sum():
            return "layer_spanning_cluster"
    return ""


def _count(
    reason: str,
    drop: Float[np.ndarray, " usable"],
    null: Float[np.ndarray, "draw usable"],
    tasks: Int[np.ndarray, " usable"],
) -> _Counted:
    if not len(tasks):
        return _Counted(reason, -1, float("nan"), float("nan"), float("nan"), 0, 0, 0)
    best, n = int(np.argmax(drop)), len(null)
    reached = int((null.max(axis=1) >= drop[best] - SLACK).sum()) if n else 0
    if len(tasks) < 2:
        return _Counted(reason, int(tasks[best]), float(drop[best]), float("nan"), float("nan"), reached, n, n)
    gap = float(gap_of(drop))
    wider = int((gap_of(null) >= gap - SLACK).sum()) if n else 0
    return _Counted(reason, int(tasks[best]), float(drop[best]), gap, effect_size(drop), reached, wider, n)


def _corrected(counted: Sequence[_Counted], labels: Int[np.ndarray, " unit"]) -> tuple[ClusterTest, ...]:
    tested = [index for index, found in enumerate(counted) if not found.reason]
    raw = {
        name: [(1 + getattr(found, name)) / (1 + found.n) for found in counted]
        for name in ("importance", "specialisation")
    }
    held = {name: [1.0] * len(counted) for name in raw}
    for name, p in raw.items():
        for index, adjusted in zip(tested, holm([p[index] for index in tested]), strict=True):
            held[name][index] = adjusted
    return tuple(
        ClusterTest(
            cluster=index,
            units=int((labels == index).sum()),
            reason=found.reason,
            task=found.task,
            max_drop=found.top,
            gap=found.gap,
            s=found.s,
            importance=found.importance,
            specialisation=found.specialisation,
            n=found.n,
            p_importance=raw["importance"][index],
            p_specialisation=raw["specialisation"][index],
            p_importance_holm=held["importance"][index],
            p_specialisation_holm=held["specialisation"][index],
        )
        for index, found in enumerate(counted)
    )
