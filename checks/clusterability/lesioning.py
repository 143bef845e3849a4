"""Lesions within the check: what is asked for, what of it came back, and the measuring of every partition.

Specification: clusterability, sections 2, 3 and 6. What cannot be lesioned is told in `skipped` and refuses no check:
structure needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from assay.result import Metric, Plot, Skipped

from checks.check import Evidence, Lesion, ModelFacts, Refusal, Trial, TrialScores
from checks.clusterability.layers import Partitioned
from checks.clusterability.lesion import Lesions, RowScores, Scored, lesion_matrix
from checks.clusterability.lesion_kept import LesionData, kept_rows
from checks.clusterability.lesion_metrics import lesion_metrics
from checks.clusterability.lesion_plots import lesion_plots
from checks.clusterability.lesion_reasons import (
    BUDGET,
    INERT,
    NO_HEAD,
    NO_PARTITION,
    ROLE_ITEM,
    TOO_MANY_CELLS,
    left_out,
)
from checks.clusterability.lesion_rows import ROLE, LesionRows, lesion_rows
from checks.clusterability.lesion_tables import CLUSTERS_MOST, PartitionLesions
from checks.clusterability.lesion_tests import ClusterTest, count_testable, held_together, lesion_tests
from checks.clusterability.lesion_units import LesionParameters, OwedPartition, Prepared, owed_partitions, prepared

if TYPE_CHECKING:
    pass

SETS_LEAST, SETS_MOST = 199, 1999
"""Random sets of each cluster where the caller names no number: at least what section 2 says; at most what lets fifty
clusters reach .05 after Holm with room to spare."""

SETS_FEWEST = 19
"""With fewer random sets no p-value reaches .05: nothing is measured."""

TRIALS_MOST: Mapping[str, int] = {"feedforward": 40_000_000, "transformer": 4_000_000}
"""Rows times lesions of one audit: what bounds its time. Where that leaves too few random sets, p cannot reach alpha,
and the words say so (`p_resolution`); fewer rows or fewer clusters make room."""

INERT_MOST = 1e-4
"""Nats, or share of a loss that is above 1, by which a trial that lesions reach may move without having moved: float32
passes that are cut into portions otherwise differ by a tenth of it."""

CONTROL_LESIONS = 320
"""Lesions left for the control that shuffles the audited partitions."""


@dataclass(frozen=True)
class LesionNeeds:
    """What lesions add to the check's needs; empty where no role came."""

    trials: tuple[Trial, ...] = ()
    units: tuple[str, ...] = ()
    """Sites whose units a partition may hold."""
    lesions: int = 0
    skipped: tuple[Skipped, ...] = ()
    """Why lesions are not asked for although the role came."""
    weights: tuple[str, ...] = ()
    """Tensors that tell how strongly each unit is read."""


@dataclass(frozen=True)
class LesionMeasured:
    """What lesions add to the check's numbers."""

    metrics: tuple[Metric, ...] = ()
    plots: tuple[Plot, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    coverage: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    partitions: tuple[PartitionLesions, ...] = ()
    """What the metrics were made of."""


@dataclass(frozen=True)
class Lesioned:
    """What was measured of one evidence: a control shuffles it without finding the partitions anew."""

    data: LesionData
    partitions: tuple[tuple[Prepared, Lesions, tuple[ClusterTest, ...]], ...]


_REMEMBERED: WeakKeyDictionary[Evidence, Lesioned] = WeakKeyDictionary()


def remembered(evidence: Evidence) -> Lesioned | None:
    """Return what `lesion_measured` found in this very evidence; None where it measured nothing."""
    return _REMEMBERED.get(evidence)


def lesion_needs(check: LesionParameters, facts: ModelFacts, rows: Sequence[Mapping[str, Any]] | None) -> LesionNeeds:
    """Return what lesions need, before any weight is read.

    Args:
        check: the parameters.
        facts: the model.
        rows: of the role `lesion`, as parsed; None where it did not come.

    Raises:
        Refusal: `layer_out_of_range`: a lesion layer that the model does not have; `lesion_cells_too_many`: more
            clusters than an answer has room for.
    """
    if rows is None:
        return LesionNeeds()
    read = _read(check, facts, rows)
    if isinstance(read, tuple):
        return LesionNeeds(skipped=read)
    owed = owed_partitions(check, facts)
    clusters = sum(one.clusters for one in owed)
    if clusters > CLUSTERS_MOST:
        numbers = (f"partitions:{len(owed)}", f"clusters:{clusters}", f"tasks:{len(read.tasks)}")
        raise Refusal(TOO_MANY_CELLS, (*numbers, f"limit:clusters:{CLUSTERS_MOST}"))
    return LesionNeeds(
        trials=read.trials,
        units=tuple(site for one in owed for site in one.sites),
        lesions=_budget(check, facts, owed, len(read.trials)),
        weights=tuple(dict.fromkeys(name for one in owed for name in one.weights)),
    )


def lesion_measured(
    check: LesionParameters, evidence: Evidence, partitions: Sequence[Partitioned], *, sets: int | None = None
) -> LesionMeasured:
    """Lesion every cluster of every partition, and test it against random sets of like units.

    Args:
        check: the parameters.
        evidence: rows, unit sds, the weights that read the units, and lesions.
        partitions: those to lesion; of MLPs only the layers that are to be lesioned.
        sets: random sets of each cluster, whatever the parameters say; for controls.
    """
    if ROLE not in evidence.roles():
        return LesionMeasured()
    rows = evidence.data(ROLE)
    read = _read(check, evidence.facts, rows)
    if isinstance(read, tuple):
        return LesionMeasured(skipped=read)
    owed = owed_partitions(check, evidence.facts)
    names = tuple(partition.name for partition in partitions)
    missing = tuple(one.name for one in owed if not one.met_by(names))
    skipped = [Skipped(item=f"partition:{name}", reason=NO_PARTITION) for name in missing]
    covered = {"partition": (*names, *missing)}
    if not partitions:
        return LesionMeasured(skipped=tuple(skipped), coverage=covered)
    data, lost = kept_rows(read, evidence.lost())
    if data is None:
        return LesionMeasured(skipped=lost)
    budget = _budget(check, evidence.facts, owed, len(read.trials))
    try:
        found = _lesioned(check, evidence, [prepared(one, evidence) for one in partitions], data, budget, sets)
    except Refusal as why:
        return LesionMeasured(skipped=_refused(why))
    _REMEMBERED[evidence] = found
    counts = np.bincount(data.rows.task, minlength=data.rows.tasks)
    told = tuple(
        PartitionLesions(one.name, data.tasks, counts, lesions, tests, one.matrix)
        for one, lesions, tests in found.partitions
    )
    alpha = float(check.alpha)
    drawn = [lesion_plots(one.name, one.tasks, one.lesions, one.tests, alpha) for one in told]
    return LesionMeasured(
        metrics=lesion_metrics(told),
        plots=tuple(plot for plots in drawn for plot in plots),
        skipped=(*skipped, *lost, *left_out(told)),
        coverage=covered | {"task": read.tasks},
        partitions=told,
    )


def scored_of(one: Prepared, data: LesionData, lesioned: Callable[[Sequence[Lesion]], TrialScores]) -> Scored:
    """Return the function that the lesion code asks, on the rows that are kept."""

    def score(ablations: Sequence[np.ndarray]) -> RowScores:
        found = lesioned([one.lesion(np.asarray(ablation, dtype=np.int64)) for ablation in ablations])
        loss = np.asarray(found.loss, dtype=np.float64)[:, data.kept]
        return RowScores(np.asarray(found.correct)[:, data.kept], np.where(np.isfinite(loss), loss, np.nan))

    return score


def random_sets_wanted(check: LesionParameters, tests: int) -> int:
    """Return the random sets of each cluster: the caller's number, or what lets so many tests reach alpha."""
    if check.lesion_nulls != "auto":
        return int(check.lesion_nulls)
    return min(max(SETS_LEAST, ceil(2 * tests / float(check.alpha)) - 1), SETS_MOST)


def _read(
    check: LesionParameters, facts: ModelFacts, rows: Sequence[Mapping[str, Any]]
) -> LesionRows | tuple[Skipped, ...]:
    """Return the role's rows, or why nothing can be lesioned with them."""
    if not owed_partitions(check, facts):
        return (Skipped(item=ROLE_ITEM, reason=NO_PARTITION),)
    if facts.kind == "transformer" and not facts.causal:
        return (Skipped(item=ROLE_ITEM, reason=NO_HEAD),)
    try:
        return lesion_rows(rows, facts)
    except Refusal as why:
        return _refused(why)


def _refused(why: Refusal) -> tuple[Skipped, ...]:
    """Return how a refusal of the role is told: the check as a whole is still answered."""
    items = (ROLE_ITEM, *(f"{ROLE_ITEM}:{item}"[:128] for item in why.items))
    return tuple(Skipped(item=item, reason=why.reason) for item in items)


def _budget(check: LesionParameters, facts: ModelFacts, owed: Sequence[OwedPartition], rows: int) -> int:
    """Return the lesions that may be asked for: an upper bound of what is needed, or what the rows leave room for."""
    clusters = sum(one.clusters for one in owed)
    wanted = 3 * len(owed) + clusters * (2 + random_sets_wanted(check, clusters)) + CONTROL_LESIONS
    return min(wanted, max(TRIALS_MOST[facts.kind] // rows, 1))


def _lesioned(
    check: LesionParameters,
    evidence: Evidence,
    parts: Sequence[Prepared],
    data: LesionData,
    budget: int,
    sets: int | None,
) -> Lesioned:
    """Lesion and test all partitions.

    Raises:
        Refusal: the budget leaves no room for it, or lesions of all units change nothing.
    """
    left = budget - CONTROL_LESIONS - sum(3 + 2 * one.clusters for one in parts)
    if left < SETS_FEWEST * sum(one.clusters for one in parts):
        raise Refusal(BUDGET)
    scored = [scored_of(one, data, evidence.lesioned) for one in parts]
    inert = [one.name for one, score in zip(parts, scored, strict=True) if _inert(score, len(one.labels))]
    if inert:
        raise Refusal(INERT, tuple(f"partition:{name}" for name in inert))
    found = [
        lesion_matrix(score, one.labels, data.rows, evidence.rng(f"lesion/bootstrap/{one.name}"))
        for one, score in zip(parts, scored, strict=True)
    ]
    tests = sum(count_testable(one.labels, one.units, lesions) for one, lesions in zip(parts, found, strict=True))
    n = min(random_sets_wanted(check, tests) if sets is None else sets, left // max(tests, 1))
    tested = held_together(
        [
            lesion_tests(score, one.labels, one.units, data.rows, lesions, n, evidence.rng(f"lesion/sets/{one.name}"))
            for one, score, lesions in zip(parts, scored, found, strict=True)
        ]
    )
    return Lesioned(data, tuple(zip(parts, found, tested, strict=True)))


def _inert(score: Scored, units: int) -> bool:
    """Return whether no trial's loss moves while every unit of a partition is held: then no lesion was ever made."""
    before, after = score([np.arange(0), np.arange(units)]).loss
    with np.errstate(invalid="ignore"):
        still = np.abs(after - before) <= INERT_MOST * np.maximum(1.0, np.abs(before))
    return bool(still.all())
