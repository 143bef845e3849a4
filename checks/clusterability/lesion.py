"""What is lost when the units of a cluster are held at their mean: the lesion matrix, its intervals, its null sets.

Everything here works on an abstract model: a function that says, for each of several ablations, which rows are still
right and what they lose. Specification: clusterability, sections 6.1 and 6.2 (after Filan et al., arXiv 2110.08058).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checks.statistics import proportion_interval

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Ablation = Int[np.ndarray, " ablated"]
    """Numbers of the units that are replaced by their mean over the lesion rows, tasks weighted equally; never zero."""

BOOTSTRAP_DRAWS = 1000
"""Paired draws over rows (6.1)."""

LEVEL = 0.95
"""Level of the percentile intervals (6.1)."""

BLOCK = 32
"""Ablations that are asked for at once: bounds what a model must hold to this many times its rows."""

QUARTILES = (0.25, 0.5, 0.75)
"""Random sets match a cluster in each quartile of a layer's activation sd times outgoing norm (6.1)."""


@dataclass(frozen=True)
class Rows:
    """Which task each lesion row belongs to, and what guessing would score."""

    task: Int[np.ndarray, " row"]
    """Task of each row, 0 to tasks - 1; every task has rows."""
    chance: tuple[float, ...]
    """Accuracy of guessing, by task: 1 / outputs of the head, or 1 / vocabulary."""

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return len(self.chance)

    def weights(self) -> Float[np.ndarray, " row"]:
        """Return the weight of each row in a mean that counts every task equally; they add up to 1."""
        return np.asarray(1.0 / np.bincount(self.task, minlength=self.tasks)[self.task] / self.tasks)

    def by_task(self, values: Float[np.ndarray, "ablation row"]) -> Float[np.ndarray, "ablation task"]:
        """Return the mean over each task's rows."""
        member = (self.task[:, None] == np.arange(self.tasks)).astype(float)
        # Divided last: counts of right answers add up exactly, so equal accuracies are equal.
        return np.asarray(values @ member / member.sum(axis=0))


@dataclass(frozen=True)
class Units:
    """The units that can be ablated, numbered through all layers."""

    layer: Int[np.ndarray, " unit"]
    size: Float[np.ndarray, " unit"]
    """Activation sd times outgoing norm: how much a unit can matter; random sets are matched by it."""

    def strata(self, alive: Bool[np.ndarray, " unit"]) -> Int[np.ndarray, " unit"]:
        """Return for each unit a number for its layer and its quartile of size there; -1 for units that are dead.

        Dead units are in no cluster. In random sets they would make these seem harmless.
        """
        found = np.full(len(self.layer), -1)
        for layer in np.unique(self.layer[alive]):
            here = alive & (self.layer == layer)
            edges = np.quantile(self.size[here], QUARTILES)
            found[here] = layer * (len(QUARTILES) + 1) + np.searchsorted(edges, self.size[here], side="left")
        return found


@dataclass(frozen=True)
class RowScores:
    """How each row fared under each ablation."""

    correct: Bool[np.ndarray, "ablation row"]
    loss: Float[np.ndarray, "ablation row"]
    """Nats."""


Scored = Callable[[Sequence["Ablation"]], RowScores]
"""Scores all rows under each ablation; an empty ablation is the model as it is."""


@dataclass(frozen=True)
class Table:
    """A number for each cluster and task, with its interval."""

    value: Float[np.ndarray, "cluster task"]
    low: Float[np.ndarray, "cluster task"]
    high: Float[np.ndarray, "cluster task"]


@dataclass(frozen=True)
class Lesions:
    """What lesions of each cluster, and of everything else, do to each task."""

    baseline: Float[np.ndarray, " task"]
    """Accuracy of the whole model."""
    baseline_loss: Float[np.ndarray, " task"]
    """Mean loss of the whole model, nats."""
    drop: Table
    """D: accuracy of the whole model less accuracy without the cluster."""
    loss_rise: Table
    """Loss without the cluster less loss of the whole model, nats."""
    on: Table
    """Accuracy with all units but the cluster's ablated."""
    at_chance: tuple[bool, ...]
    """Tasks whose baseline interval includes chance: told, not tested."""
    drawn: Float[np.ndarray, "cluster draw task"] | None = None
    """Bootstrap draws of `drop`, for intervals of what is made of several of them."""


def lesion_matrix(
    scored: Scored,
    labels: Int[np.ndarray, " unit"],
    rows: Rows,
    rng: np.random.Generator,
    *,
    draws: int = BOOTSTRAP_DRAWS,
) -> Lesions:
    """Ablate each cluster, and everything but each cluster, and return what that does to each task.

    Args:
        scored: the model.
        labels: cluster of each unit, 0 to k - 1; -1 is in none.
        rows: tasks of the rows that `scored` scores.
        rng: draws the bootstrap.
        draws: bootstrap draws.
    """
    members = clusters_of(labels)
    units = np.arange(len(labels))
    base = scored([units[:0]])
    off = _scored(scored, members)
    on = _scored(scored, [np.setdiff1d(units, cluster) for cluster in members])
    accuracy, loss = rows.by_task(base.correct)[0], rows.by_task(base.loss)[0]
    counts = np.bincount(rows.task, minlength=rows.tasks)
    chance = tuple(
        proportion_interval(round(float(share * n)), int(n))[0] <= guess
        for share, n, guess in zip(accuracy, counts, rows.chance, strict=True)
    )
    # One resampling of the rows serves all three tables, so that they can be compared.
    means = _resampled(rows, draws, rng)
    lost = base.correct.astype(float) - off.correct
    return Lesions(
        baseline=accuracy,
        baseline_loss=loss,
        drop=_table(lost, rows, means),
        loss_rise=_table(off.loss - base.loss, rows, means),
        on=_table(on.correct.astype(float), rows, means),
        at_chance=chance,
        drawn=np.stack([lost[:, at] @ weights.T for at, weights in means], axis=-1),
    )


def clusters_of(labels: Int[np.ndarray, " unit"]) -> tuple[Ablation, ...]:
    """Return the units of each cluster 0 to k - 1; a cluster may have none."""
    return tuple(np.flatnonzero(labels == cluster) for cluster in range(int(labels.max(initial=-1)) + 1))


def drops_of(
    scored: Scored, baseline: Float[np.ndarray, " task"], ablations: Sequence[Ablation], rows: Rows
) -> Float[np.ndarray, "ablation task"]:
    """Return the accuracy drop of each task under each ablation, asked for in blocks."""
    found = [
        baseline - rows.by_task(scored(ablations[at : at + BLOCK]).correct) for at in range(0, len(ablations), BLOCK)
    ]
    return np.concatenate(found) if found else np.zeros((0, rows.tasks))


def random_sets(
    cluster: Ablation, strata: Int[np.ndarray, " unit"], n: int, rng: np.random.Generator
) -> tuple[Ablation, ...]:
    """Return n random sets with as many units of each stratum as a cluster has: of each layer and quartile of size."""
    wanted = [(np.flatnonzero(strata == s), int((strata[cluster] == s).sum())) for s in np.unique(strata[cluster])]
    return tuple(
        np.sort(np.concatenate([rng.choice(pool, count, replace=False) for pool, count in wanted]))
        if wanted
        else cluster
        for _ in range(n)
    )


def _scored(scored: Scored, ablations: Sequence[Ablation]) -> RowScores:
    parts = [scored(ablations[at : at + BLOCK]) for at in range(0, len(ablations), BLOCK)]
    return RowScores(np.concatenate([p.correct for p in parts]), np.concatenate([p.loss for p in parts]))


Resampled = tuple[tuple["Int[np.ndarray, ' of_task']", "Float[np.ndarray, 'draw of_task']"], ...]
"""For each task its rows, and for each draw the weight of each of them."""


def _resampled(rows: Rows, draws: int, rng: np.random.Generator) -> Resampled:
    """Return bootstrap weights: rows are drawn with replacement within their task, whose number of rows is fixed."""
    found = []
    for task in range(rows.tasks):
        at = np.flatnonzero(rows.task == task)
        found.append((at, rng.multinomial(len(at), np.full(len(at), 1.0 / len(at)), size=draws) / len(at)))
    return tuple(found)


def _table(values: Float[np.ndarray, "cluster row"], rows: Rows, means: Resampled) -> Table:
    """Return the mean over each task's rows with its percentile interval; a row's values stay paired."""
    edges = ((1.0 - LEVEL) / 2, (1.0 + LEVEL) / 2)
    bounds = [np.quantile(weights @ values[:, at].T, edges, axis=0) for at, weights in means]
    low, high = np.stack(bounds, axis=-1)
    return Table(rows.by_task(values), low, high)
