"""The largest answers that lesions can give stay within what an audit may carry out and a result document may hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from assay.result import Answer, Measured

from checks.clusterability.check import Clusterability
from checks.clusterability.lesion import Lesions, Table
from checks.clusterability.lesion_findings import lesion_findings
from checks.clusterability.lesion_metrics import lesion_metrics
from checks.clusterability.lesion_plots import lesion_plots
from checks.clusterability.lesion_reasons import left_out
from checks.clusterability.lesion_tables import CLUSTERS_MOST, PartitionLesions
from checks.clusterability.lesion_tests import ClusterTest
from sandbox.budget import charge_bytes
from tests.checks.clusterability.lesioned import LIMITS

SETS = 199


def strings(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set(value).union(*map(strings, value.values()))
    return set().union(*map(strings, value)) if isinstance(value, list | tuple) else set()


KNOWN = strings(Answer.model_json_schema()) | {one.name for one in Clusterability.metrics}


def drawn(name: str, clusters: int, tasks: tuple[str, ...], rng: np.random.Generator) -> PartitionLesions:
    """Return lesions whose every number is another."""
    shape = (clusters, len(tasks))

    def table() -> Table:
        value = rng.uniform(-0.1, 0.9, shape)
        return Table(value, value - rng.uniform(0.01, 0.05, shape), value + rng.uniform(0.01, 0.05, shape))

    def test(cluster: int, drops: np.ndarray) -> ClusterTest:
        low, high = (int(count) for count in rng.integers(0, 150, 2))
        p, q = (1 + low) / (SETS + 1), (1 + high) / (SETS + 1)
        task = int(drops.argmax())
        gap = float(drops[task] - np.delete(drops, task).mean())
        told = (cluster, int(rng.integers(10, 400)), "", task, float(drops[task]), gap, float(rng.uniform(0.5, 1)))
        held = (min(1.0, clusters * p), min(1.0, clusters * q))
        return ClusterTest(*told, low, high, SETS, p, q, *held, rng.uniform(0, 1, SETS), rng.uniform(0, 1, SETS))

    drop = table()
    tests = tuple(test(cluster, drop.value[cluster]) for cluster in range(clusters))
    scores = (rng.uniform(0.5, 1, len(tasks)), rng.uniform(0, 2, len(tasks)))
    draws = rng.uniform(0, 1, (clusters, 99, len(tasks)))
    lesions = Lesions(*scores, drop, table(), table(), (False,) * len(tasks), draws)
    return PartitionLesions(name, tasks, rng.integers(50, 300, len(tasks)), lesions, tests, f"h.{name}.mlp.c_fc.weight")


@pytest.mark.parametrize("tasks", [2, 6, 12])
def test_the_most_clusters_of_the_most_tasks_leave_room_for_structure(tasks: int) -> None:
    rng = np.random.default_rng(61)
    names = tuple(f"a-task-of-some-length-{task}" for task in range(tasks))
    told = [drawn(name, CLUSTERS_MOST // 2, names, rng) for name in ("mlp.11", "head_graph")]
    measured = Measured(
        metrics=lesion_metrics(told),
        plots=tuple(plot for one in told for plot in lesion_plots(one.name, one.tasks, one.lesions, one.tests, 0.05)),
        skipped=left_out(told),
        coverage={"partition": tuple(one.name for one in told), "task": names},
    )
    findings = lesion_findings(measured, LIMITS, (), tuple(one.matrix for one in told))
    assert len(findings) == 2 * CLUSTERS_MOST + 2
    whole = {"measured": measured.to_json(), "findings": [one.to_json() for one in findings]}
    # Forty matrices that all pass are charged 39 of 56 KiB; of so many, plots (12 and 3 KiB) are left out.
    assert charge_bytes(whole, KNOWN) < 28 * 1024
    assert len(json.dumps(whole)) < 400_000
    cells = {name: len(measured.named(name)) for name in ("drop", "loss_rise", "on_accuracy")}
    left = {one.item for one in measured.skipped if one.reason == "lesion_cells_too_many"}
    assert (cells["drop"] < tasks * CLUSTERS_MOST) == ("partition:head_graph:drop" in left)
    assert (cells["loss_rise"] < tasks * CLUSTERS_MOST) == ("partition:head_graph:loss_rise" in left)
