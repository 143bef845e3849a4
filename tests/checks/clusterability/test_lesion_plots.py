"""Lesion plots say what lesions did, and never that something passed which was not tested."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from assay.result import Plot

from checks.clusterability.lesion import Lesions, Table
from checks.clusterability.lesion_plots import TASKS_MAX, lesion_plots
from checks.clusterability.lesion_tests import ClusterTest
from sandbox.budget import charge_bytes

LESION_BYTES = 6 * 1024
"""What the plots of one partition may be charged at 16 clusters and as many tasks as a map has columns."""

NAN = float("nan")


def lesions(drop: np.ndarray, rise: np.ndarray | None = None, at_chance: tuple[bool, ...] = ()) -> Lesions:
    tasks = drop.shape[1]
    losses = drop * 2 if rise is None else rise
    off, risen, on = (Table(values, values - 0.1, values + 0.1) for values in (drop, losses, 1.0 - drop))
    return Lesions(
        baseline=np.full(tasks, 0.9),
        baseline_loss=np.full(tasks, 0.1),
        drop=off,
        loss_rise=risen,
        on=on,
        at_chance=at_chance or (False,) * tasks,
    )


def cluster_test(
    cluster: int, importance: float, specialisation: float, reason: str = "", gap: float = 0.5
) -> ClusterTest:
    return ClusterTest(
        cluster=cluster,
        units=10,
        reason=reason,
        task=0,
        max_drop=0.5,
        gap=gap,
        s=1.0,
        importance=0,
        specialisation=0,
        n=0 if reason else 199,
        p_importance=importance,
        p_specialisation=specialisation,
        p_importance_holm=importance,
        p_specialisation_holm=specialisation,
    )


DROP = np.array([[0.87, 0.0], [0.013, 0.4], [0.0, -0.02]])
TESTS = (cluster_test(0, 0.01, 0.01), cluster_test(1, 0.04, 0.2), cluster_test(2, 1.0, 1.0, "layer_spanning_cluster"))


def test_rows_are_clusters_and_columns_are_tasks() -> None:
    drop, rise, _ = lesion_plots("network", ("left digit", "right"), lesions(DROP), TESTS, 0.05)
    assert drop.kind == rise.kind == "heatmap"
    assert [[float(y) for y in row.y] for row in drop.series] == pytest.approx(DROP)
    assert [[float(y) for y in row.y] for row in rise.series] == pytest.approx(
        np.array([[1.7, 0.0], [0.026, 0.8], [0.0, -0.04]])
    )
    assert all(row.x == ("0", "1") for row in drop.series)
    assert drop.x.label == "task: 0 left_digit, 1 right"
    assert (drop.y.unit, rise.y.unit) == ("fraction", "nats")


def test_names_of_rows_carry_the_tests() -> None:
    drop, rise, _ = lesion_plots("mlp.3", ("a", "b"), lesions(DROP), TESTS, 0.05)
    told = [row.name for row in drop.series]
    assert told == [
        "cluster-0:importance+specialisation",
        "cluster-1:importance",
        "cluster-2:layer_spanning_cluster",
    ]
    assert [row.name for row in rise.series] == told
    assert "p at most 0.05 after Holm" in drop.title
    strict = lesion_plots("mlp.3", ("a", "b"), lesions(DROP), TESTS[:2], 0.02)[0]
    assert [row.name for row in strict.series] == ["cluster-0:importance+specialisation", "cluster-1", "cluster-2"]


def test_p_values_are_drawn_of_what_was_tested_and_never_rounded_down() -> None:
    close = replace(TESTS[1], p_importance_holm=0.0500000004)
    *_, bars = lesion_plots("network", ("a", "b"), lesions(DROP), (TESTS[0], close, TESTS[2]), 0.05)
    importance, specialisation = bars.series
    assert importance.x == specialisation.x == ("0", "1")  # cluster 2 was not tested: its p of 1 says nothing
    assert float(importance.y[1]) > 0.05
    assert [(mark.axis, mark.at, mark.label) for mark in bars.marks] == [("y", "0.05", "alpha")]


def test_no_bars_where_nothing_was_tested_and_none_of_a_gap_that_one_task_has_not() -> None:
    spanning = tuple(replace(test, reason="layer_spanning_cluster") for test in TESTS)
    assert {plot.kind for plot in lesion_plots("network", ("a", "b"), lesions(DROP), spanning, 0.05)} == {"heatmap"}
    one = (replace(TESTS[0], gap=NAN), replace(TESTS[1], gap=NAN))
    *_, bars = lesion_plots("network", ("a",), lesions(DROP[:2, :1]), one, 0.05)
    assert [row.name for row in bars.series] == ["importance"]


def test_a_task_at_chance_is_marked() -> None:
    drop, rise, bars = lesion_plots("network", ("a", "b"), lesions(DROP, at_chance=(False, True)), TESTS, 0.05)
    for plot in (drop, rise):
        assert [(mark.axis, mark.at) for mark in plot.marks] == [("x", "1")]
    assert all(mark.axis == "y" for mark in bars.marks)


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    rise = np.array([[np.inf, 0.5], [NAN, 0.0], [1.0, 2.0]])
    _, drawn, _ = lesion_plots("network", ("a", "b"), lesions(DROP, rise), TESTS, 0.05)
    assert [row.x for row in drawn.series] == [("1",), ("1",), ("0", "1")]


def test_names_of_tasks_are_as_many_as_columns() -> None:
    with pytest.raises(ValueError, match="3 names of tasks for 2 columns"):
        lesion_plots("network", ("a", "b", "c"), lesions(DROP), TESTS, 0.05)


def test_many_clusters_and_tasks_stay_within_their_budget() -> None:
    rng = np.random.default_rng(0)
    tests = tuple(cluster_test(c, float(p), float(p)) for c, p in enumerate(rng.uniform(0, 1, 16)))
    tasks = [f"task number {number} of many that somebody wrote" for number in range(100)]
    told = lesion_plots("network", tasks, lesions(rng.uniform(-1, 1, (16, 100))), tests, 0.05)
    assert all(len(row.x) == TASKS_MAX for plot in told[:2] for row in plot.series)
    assert "first 64 of 100 tasks" in told[0].title
    known = set(json.dumps(Plot.model_json_schema()).split('"'))
    assert charge_bytes([plot.to_json() for plot in told], known) <= LESION_BYTES
    for plot in told:
        assert Plot.model_validate_json(json.dumps(plot.to_json())) == plot
