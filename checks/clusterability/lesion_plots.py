"""Plots of what lesions of clusters do to tasks, as numbers. Specification: section 7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from assay.result import Axis, Mark, Plot, Series

from checks.ask import as_name
from checks.clusterability.lesion_tables import TELLABLE
from checks.clusterability.lines import DIGITS, TEXT_MAX, in_order, line
from checks.quantise import decimal, p_value

if TYPE_CHECKING:
    from jaxtyping import Float

    from checks.clusterability.lesion import Lesions
    from checks.clusterability.lesion_tests import ClusterTest

MAP_DIGITS = 2
"""Significant digits of a cell of a map; the metrics have more, and an interval."""

TASKS_MAX = 64
"""Columns of a map, so that 16 rows of two maps are charged 4 KiB; the metrics have every task."""


def lesion_plots(
    partition: str, tasks: Sequence[str], lesions: Lesions, tests: Sequence[ClusterTest], alpha: float
) -> tuple[Plot, ...]:
    """Return the maps of lost accuracy and of risen loss, cluster by task, and the p-values of both tests.

    Args:
        partition: which partition was lesioned, e.g. "network".
        tasks: names, in the order of the tables' columns.
        lesions: the lesion matrix; row c is cluster c.
        tests: the tests of the clusters; a cluster without one is drawn all the same.
        alpha: level after Holm's correction.

    Returns:
        Two heat maps, whose rows' names say what passed or why a cluster was not tested, and, where any cluster was
        tested, bars of p after Holm's correction. What passes alpha still has an effect floor before it: the finding.

    Raises:
        ValueError: the names are not as many as the tables' columns.
    """
    if lesions.drop.value.shape[1] != len(tasks):
        raise ValueError(f"{len(tasks)} names of tasks for {lesions.drop.value.shape[1]} columns")
    names = _names(len(lesions.drop.value), tests, alpha)
    said = f"named: tests with p at most {decimal(alpha, DIGITS)} after Holm"
    maps = (
        ("accuracy lost without a cluster", "accuracy drop", "fraction", lesions.drop.value),
        ("loss risen without a cluster", "loss rise", "nats", lesions.loss_rise.value),
    )
    told = [
        _map(f"{as_name(partition)}: {title}; {said}", (label, unit), names, tasks, values, lesions.at_chance)
        for title, label, unit, values in maps
    ]
    return (*told, *_p_values(as_name(partition), tests, alpha))


def _names(clusters: int, tests: Sequence[ClusterTest], alpha: float) -> tuple[str, ...]:
    """Return for each cluster a name that carries what its tests say, e.g. "cluster-2:importance+specialisation"."""
    by_cluster = {test.cluster: test for test in tests}
    return tuple(f"cluster-{cluster}{_passed(by_cluster.get(cluster), alpha)}" for cluster in range(clusters))


def _passed(test: ClusterTest | None, alpha: float) -> str:
    if test is None:
        return ""
    if test.reason:
        return f":{test.reason}"
    passed = [
        name
        for name, p in (("importance", test.p_importance_holm), ("specialisation", test.p_specialisation_holm))
        if p <= alpha
    ]
    return f":{'+'.join(passed)}" if passed else ""


def _map(
    title: str,
    value: tuple[str, str],
    names: Sequence[str],
    tasks: Sequence[str],
    values: Float[np.ndarray, "cluster task"],
    at_chance: Sequence[bool],
) -> Plot:
    shown = tasks[:TASKS_MAX]
    left = f" (first {TASKS_MAX} of {len(tasks)} tasks)" if len(tasks) > TASKS_MAX else ""
    label, unit = value
    return Plot(
        title=f"{title}{left}"[:TEXT_MAX],
        kind="heatmap",
        x=Axis(label=in_order("task", shown), unit="count"),
        y=Axis(label=label, unit=unit),
        series=tuple(
            line(name, range(len(shown)), row[: len(shown)], digits=MAP_DIGITS)
            for name, row in zip(names, np.where(np.abs(values) < TELLABLE, values, np.nan), strict=True)
        ),
        marks=tuple(
            Mark(axis="x", at=str(task), label="baseline at chance: not tested")
            for task, untested in enumerate(at_chance[: len(shown)])
            if untested
        ),
    )


def _p_values(partition: str, tests: Sequence[ClusterTest], alpha: float) -> tuple[Plot, ...]:
    """Return both tests' p after Holm by cluster; specialisation only where there were two tasks to compare."""
    tested = [test for test in tests if not test.reason]
    if not tested:
        return ()
    of_gap = [test for test in tested if np.isfinite(test.gap)]
    bars = [_bars("importance", [(test.cluster, test.p_importance_holm) for test in tested])]
    if of_gap:
        bars.append(_bars("specialisation", [(test.cluster, test.p_specialisation_holm) for test in of_gap]))
    return (
        Plot(
            title=f"{partition}: p of each cluster's lesions against random sets of like units, after Holm",
            kind="bar",
            x=Axis(label="cluster, from 0", unit="count"),
            y=Axis(label="p after Holm", unit="1"),
            series=tuple(bars),
            marks=(Mark(axis="y", at=decimal(alpha, DIGITS), label="alpha"),),
        ),
    )


def _bars(name: str, held: Sequence[tuple[int, float]]) -> Series:
    # A p is never rounded down: a bar that ends at alpha passes it.
    return Series(name=name, x=tuple(str(cluster) for cluster, _ in held), y=tuple(p_value(p) for _, p in held))
