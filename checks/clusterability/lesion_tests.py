"""Does a cluster matter more than random units, and more to one task than to the others.

Specification: clusterability, section 6.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from checks.clusterability.lesion import Lesions, Rows, Scored, Units, clusters_of, drops_of, random_sets
from checks.holm import holm

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

SPANNING = 0.9
"""A cluster with a greater share of a tested layer's units is not tested: its random sets equal itself (6.2)."""

SLACK = 1e-9
"""Accuracies are sums of 1/n in some order: drops this close are equal, and count for the null."""

CLAIMS = ("importance", "specialisation")
"""What is tested of a cluster."""


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
    null_drop: Float[np.ndarray, " draw"] | None = field(default=None, compare=False, repr=False)
    """Largest drop of each random set; None where it was not tested."""
    null_gap: Float[np.ndarray, " draw"] | None = field(default=None, compare=False, repr=False)
    """Gap of each random set; None also with fewer than two tasks that can be tested."""


@dataclass(frozen=True)
class Counted:
    """Where one cluster lies among random sets; fields as those of `ClusterTest`."""

    reason: str
    task: int
    top: float
    gap: float
    s: float
    importance: int
    specialisation: int
    n: int
    null_drop: Float[np.ndarray, " draw"] | None = None
    null_gap: Float[np.ndarray, " draw"] | None = None

    @property
    def p(self) -> dict[str, float]:
        """Return the p-value of each claim: never 0, and 1 where nothing was drawn."""
        return {name: (1 + getattr(self, name)) / (1 + self.n) for name in CLAIMS}


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
        reason = untested(members, labels, units, usable)
        null = np.zeros((0, int(usable.sum())))
        if not reason:
            null = drops_of(scored, lesions.baseline, random_sets(members, strata, n, rng), rows)[:, usable]
        counted.append(count(reason, drop, null, np.flatnonzero(usable)))
    return _told(counted, labels)


def count_testable(labels: Int[np.ndarray, " unit"], units: Units, lesions: Lesions) -> int:
    """Return how many clusters `lesion_tests` will test: what the number of random sets has to allow for."""
    usable = ~np.array(lesions.at_chance)
    return sum(not untested(members, labels, units, usable) for members in clusters_of(labels))


def held_together(families: Sequence[Sequence[ClusterTest]]) -> tuple[tuple[ClusterTest, ...], ...]:
    """Return the tests of several partitions, corrected by Holm over the tested clusters of all of them."""
    tested = [test for family in families for test in family if not test.reason]
    important = iter(holm([test.p_importance for test in tested]))
    special = iter(holm([test.p_specialisation for test in tested]))
    return tuple(
        tuple(
            test
            if test.reason
            else replace(test, p_importance_holm=next(important), p_specialisation_holm=next(special))
            for test in family
        )
        for family in families
    )


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


def untested(
    members: Int[np.ndarray, " of_cluster"],
    labels: Int[np.ndarray, " unit"],
    units: Units,
    usable: Bool[np.ndarray, " task"],
) -> str:
    """Return why a cluster is not tested; empty where it is."""
    if not len(members):
        return "no_units"
    for layer in np.unique(units.layer[members]):
        if (units.layer[members] == layer).sum() > SPANNING * (units.layer[labels >= 0] == layer).sum():
            return "layer_spanning_cluster"
    return "" if usable.any() else "baseline_at_chance"


def count(
    reason: str,
    drop: Float[np.ndarray, " usable"],
    null: Float[np.ndarray, "draw usable"],
    tasks: Int[np.ndarray, " usable"],
) -> Counted:
    """Place a cluster's drops among those of random sets, on the tasks that can be tested.

    Args:
        reason: why it is not tested; empty where it is.
        drop: of the cluster.
        null: of the random sets; none where it is not tested.
        tasks: numbers of those tasks among all.
    """
    if not len(tasks):
        return Counted(reason, -1, float("nan"), float("nan"), float("nan"), 0, 0, 0)
    best, n = int(np.argmax(drop)), len(null)
    most = null.max(axis=1) if n else None
    reached = 0 if most is None else int((most >= drop[best] - SLACK).sum())
    task, top = int(tasks[best]), float(drop[best])
    if len(tasks) < 2:
        return Counted(reason, task, top, float("nan"), float("nan"), reached, n, n, most)
    gap, gaps = float(gap_of(drop)), gap_of(null) if n else None
    wider = 0 if gaps is None else int((gaps >= gap - SLACK).sum())
    return Counted(reason, task, top, gap, effect_size(drop), reached, wider, n, most, gaps)


def _told(counted: Sequence[Counted], labels: Int[np.ndarray, " unit"]) -> tuple[ClusterTest, ...]:
    tests = tuple(
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
            p_importance=found.p["importance"],
            p_specialisation=found.p["specialisation"],
            p_importance_holm=1.0,
            p_specialisation_holm=1.0,
            null_drop=found.null_drop,
            null_gap=found.null_gap,
        )
        for index, found in enumerate(counted)
    )
    return held_together([tests])[0]
