from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from checks.clusterability.lesion import (
    Lesions,
    Rows,
    RowScores,
    Scored,
    Table,
    Units,
    drops_of,
    lesion_matrix,
    random_sets,
)
from checks.clusterability.lesion_plants import LesionCase, ReluNet, planted_two_nets, shuffled_partition, side_by_side
from checks.clusterability.lesion_tests import ClusterTest, effect_size, gap_of, lesion_tests
from checks.clusterability.network import network_partition
from checks.organisms import small_nets
from checks.organisms.nets import head_tasks


def random_net(sizes: Sequence[int], heads: Sequence[tuple[int, int]], rng: np.random.Generator) -> ReluNet:
    weights = tuple(rng.standard_normal((n, m)) for m, n in pairwise(sizes))
    return ReluNet(weights, tuple(rng.standard_normal(n) for n in sizes[1:]), tuple(heads))


def vote(masks: Sequence[Sequence[int]], rows: int) -> Scored:
    """Return a model whose row r is right while any of the units masks[r] is left; its loss counts the lost ones."""

    def score(ablations: Sequence[np.ndarray]) -> RowScores:
        lost = np.array([[np.isin(masks[row % len(masks)], held).mean() for row in range(rows)] for held in ablations])
        return RowScores(lost < 1.0, lost)

    return score


def lesioned(case: LesionCase, labels: np.ndarray, n: int, seed: int) -> tuple[Lesions, tuple[ClusterTest, ...]]:
    scored = case.scored()
    lesions = lesion_matrix(scored, labels, case.rows, np.random.default_rng(seed), draws=200)
    return lesions, lesion_tests(scored, labels, case.units, case.rows, lesions, n, np.random.default_rng([seed, 1]))


def untested(chance: tuple[bool, ...], drop: np.ndarray) -> Lesions:
    """Return lesions with given drops, of which nothing else is read."""
    table = Table(drop, drop, drop)
    return Lesions(np.ones(len(chance)), np.zeros(len(chance)), table, table, table, chance)


def test_lesion_matrix_of_a_model_that_is_known() -> None:
    # Unit 0 alone carries task 0; units 1 and 2 back each other up on task 1; unit 3 does nothing.
    rows = Rows(np.arange(200) % 2, (0.1, 0.1))
    labels = np.array([0, 1, 1, 2])
    got = lesion_matrix(vote([[0], [1, 2]], 200), labels, rows, np.random.default_rng(0))
    assert got.drop.value == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert got.loss_rise.value == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert got.on.value == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert got.baseline == pytest.approx([1.0, 1.0])
    assert got.at_chance == (False, False)
    single = drops_of(vote([[0], [1, 2]], 200), got.baseline, [np.array([1]), np.array([2])], rows)
    assert single == pytest.approx(np.zeros((2, 2)))  # neither is needed while the other is there


def test_units_are_held_at_their_mean_and_never_at_zero() -> None:
    # A unit that is always 3: the output needs it, and its mean is all that it ever says.
    net = ReluNet((np.zeros((1, 2)), np.array([[1.0], [0.0]])), (np.array([3.0]), np.array([0.0, 1.0])), ((0, 2),))
    inputs = np.random.default_rng(0).standard_normal((120, 2))
    zeros = np.zeros(120, dtype=np.int64)
    case = LesionCase(net, inputs, zeros, zeros, Rows(zeros, (0.5,)))
    assert case.means == pytest.approx([3.0])
    assert lesion_matrix(case.scored(), zeros[:1], case.rows, np.random.default_rng(1)).drop.value == pytest.approx(0.0)
    assert case.net.outputs(inputs, [np.array([0])], np.zeros(1))[0].argmax(axis=1).all()  # at zero all would be lost


def test_means_weigh_tasks_equally() -> None:
    rows = Rows(np.repeat([0, 1], [300, 60]), (0.5, 0.5))
    assert rows.weights().sum() == pytest.approx(1.0)
    assert rows.weights()[:300].sum() == pytest.approx(0.5)
    net = ReluNet((np.array([[1.0]]), np.zeros((2, 1))), (np.zeros(1), np.zeros(2)), ((0, 2),))
    case = LesionCase(net, rows.task[:, None] * 4.0, rows.task, np.zeros(360, dtype=np.int64), rows)
    assert case.means == pytest.approx([2.0])  # the plain mean would be 4 * 60 / 360
    assert case.units.size == pytest.approx([0.0])  # nothing reads it


def test_ablated_outputs_against_one_pass_at_a_time() -> None:
    rng = np.random.default_rng(2)
    net = random_net((5, 7, 6, 4), ((0, 4),), rng)
    inputs, means = rng.standard_normal((9, 5)), rng.random(13)
    ablations = [np.array([0, 3, 8]), np.array([], dtype=int), np.array([12]), np.arange(13)]
    got = net.outputs(inputs, ablations, means)
    for held, outputs in zip(ablations, got, strict=True):
        for row in range(9):
            first = np.maximum(net.weights[0] @ inputs[row] + net.biases[0], 0)
            first = np.array([means[u] if u in held else first[u] for u in range(7)])
            second = np.maximum(net.weights[1] @ first + net.biases[1], 0)
            second = np.array([means[7 + u] if 7 + u in held else second[u] for u in range(6)])
            assert outputs[row] == pytest.approx(net.weights[2] @ second + net.biases[2])
    assert net.outputs(inputs)[0] == pytest.approx(got[1])


def test_scores_are_read_from_each_rows_own_head() -> None:
    rng = np.random.default_rng(3)
    net = random_net((5, 6, 7), ((0, 3), (3, 7)), rng)
    inputs, head = rng.standard_normal((40, 5)), np.arange(40) % 2
    labels = np.where(head == 0, rng.integers(0, 3, 40), rng.integers(0, 4, 40))
    got = LesionCase(net, inputs, labels, head, Rows(head, (1 / 3, 1 / 4))).scored()([np.array([], dtype=int)])
    for row in range(40):
        logits = net.outputs(inputs[row : row + 1])[0, 0][slice(*net.heads[head[row]])]
        assert got.correct[0, row] == (logits.argmax() == labels[row])
        assert got.loss[0, row] == pytest.approx(-np.log(np.exp(logits)[labels[row]] / np.exp(logits).sum()))


def test_two_nets_in_one_compute_what_they_did_alone() -> None:
    rng = np.random.default_rng(4)
    first, second = random_net((3, 5, 2), ((0, 2),), rng), random_net((4, 6, 3), ((0, 3),), rng)
    both, owners = side_by_side(first, second, rng)
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 4))
    alone = np.concatenate([first.outputs(x)[0], second.outputs(y)[0]], axis=1)
    assert both.outputs(np.concatenate([x, y], axis=1))[0] == pytest.approx(alone)
    assert both.heads == ((0, 2), (2, 5))
    assert [int(owner.sum()) for owner in owners] == [4, 6, 3]
    for weights, columns, rows in zip(both.weights, owners, owners[1:], strict=False):
        assert not weights[rows[:, None] != columns].any()


def test_random_sets_match_layer_and_size_and_leave_dead_units_out() -> None:
    rng = np.random.default_rng(5)
    units = Units(np.repeat([0, 1], 40), rng.random(80))
    alive = np.ones(80, dtype=bool)
    alive[[2, 50]] = False
    strata = units.strata(alive)
    for layer in (0, 1):
        here = alive & (units.layer == layer)
        counts = np.bincount(strata[here] - 4 * layer)
        assert len(counts) == 4
        assert counts.min() >= 9
        order = np.argsort(units.size[here])
        assert np.all(np.diff(strata[here][order]) >= 0)
    cluster = np.array([0, 1, 5, 7, 44, 47])
    sets = random_sets(cluster, strata, 50, rng)
    assert len(sets) == 50
    wanted = np.sort(strata[cluster])
    for members in sets:
        assert len(set(members)) == 6
        assert np.array_equal(np.sort(strata[members]), wanted)
    assert not {2, 50} & {int(unit) for members in sets for unit in members}
    assert len({tuple(members) for members in sets}) > 40


def test_intervals_are_paired_and_cover() -> None:
    # A row is lost by either lesion with the same chance, so drop has the spread of a mean of 0 and 1.
    rng = np.random.default_rng(6)
    hit = rng.random(400) < 0.3
    rows = Rows(np.arange(400) % 2, (0.01, 0.01))
    got = lesion_matrix(vote([[0] if lost else [1] for lost in hit], 400), np.array([0]), rows, rng)
    for task in (0, 1):
        share, n = hit[task::2].mean(), 200
        assert got.drop.value[0, task] == pytest.approx(share)
        half = 1.96 * np.sqrt(share * (1 - share) / n)
        assert got.drop.low[0, task] == pytest.approx(share - half, abs=0.02)
        assert got.drop.high[0, task] == pytest.approx(share + half, abs=0.02)
    # All rows change alike: unpaired draws of baseline and lesion would still spread, paired ones do not.
    noisy = rng.random(400)

    def worse_by_one(ablations: Sequence[np.ndarray]) -> RowScores:
        return RowScores(
            np.ones((len(ablations), 400), dtype=bool), np.array([noisy + bool(len(a)) for a in ablations])
        )

    got = lesion_matrix(worse_by_one, np.array([0]), rows, rng)
    assert got.loss_rise.high - got.loss_rise.low == pytest.approx(np.zeros((1, 2)), abs=1e-12)


def test_planted_two_nets_are_found() -> None:
    for seed in range(2):
        case, owner = planted_two_nets(np.random.default_rng(seed))
        lesions, tests = lesioned(case, owner, 199, seed)
        assert lesions.baseline.min() > 0.95
        for test in tests:
            assert test.p_importance <= 0.01
            assert test.p_specialisation <= 0.01
            assert test.p_specialisation_holm <= 0.02
            assert test.s >= 0.95
            assert abs(lesions.drop.value[test.cluster, 1 - test.task]) <= 0.02
            # The module alone keeps its own task and knows nothing of the other.
            assert lesions.on.value[test.cluster, test.task] == lesions.baseline[test.task]
            assert lesions.on.value[test.cluster, 1 - test.task] < 0.3


def test_shuffled_partition_is_not_specialised() -> None:
    case, owner = planted_two_nets(np.random.default_rng(7))
    low = 0
    for draw in range(10):
        labels = shuffled_partition(owner, np.random.default_rng([8, draw]))
        assert np.array_equal(np.bincount(labels), np.bincount(owner))
        low += lesioned(case, labels, 39, draw)[1][0].p_specialisation <= 0.05
    assert low <= 3
    dead = np.array([0, -1, 1, 0, -1])
    assert np.array_equal(np.flatnonzero(shuffled_partition(dead, np.random.default_rng(0)) < 0), [1, 4])


def test_worst_task_carries_importance() -> None:
    # Organism D1: a module that carries one of two tasks costs as much on average as random units do, which hurt both.
    net = small_nets.load("d1").net
    case = head_tasks(net, small_nets.held_out_pairs())
    labels = network_partition(net.weights, 2, seed=0).hidden
    lesions, tests = lesioned(case, labels, 199, 0)
    strata = case.units.strata(labels >= 0)
    for test in tests:
        sets = random_sets(np.flatnonzero(labels == test.cluster), strata, 99, np.random.default_rng(9))
        null = drops_of(case.scored(), lesions.baseline, sets, case.rows).mean(axis=1)
        assert (1 + int((null >= lesions.drop.value[test.cluster].mean()).sum())) / 100 > 0.2
        assert test.p_importance == 0.005


def test_two_task_specialisation_can_vary() -> None:
    rng = np.random.default_rng(11)
    drops = rng.random((50, 2))
    mean, spread = drops.mean(axis=1), drops.max(axis=1) - drops.min(axis=1)
    assert (drops.max(axis=1) - mean) / spread == pytest.approx(np.full(50, 0.5))  # the peer's statistic
    assert gap_of(drops) == pytest.approx(spread)
    assert gap_of(drops).std() > 0.1
    assert gap_of(np.array([0.9, 0.1, 0.2, 0.0])) == pytest.approx(0.8)
    assert effect_size(np.array([0.8, 0.2, -0.4])) == pytest.approx(1 - 0.1 / 0.8)
    assert effect_size(np.array([0.8, -0.1])) == 1.0
    assert np.isnan(effect_size(np.array([0.0, -0.1])))


def test_cluster_that_spans_a_layer_is_not_tested() -> None:
    units = Units(np.repeat([0, 1], 20), np.arange(40.0))
    labels = np.concatenate([np.repeat([0, 1], [19, 1]), np.repeat([1, 2, 2], [9, 10, 1])])
    rows = Rows(np.arange(100) % 2, (0.1, 0.1))
    calls: list[np.ndarray] = []

    def counted(ablations: Sequence[np.ndarray]) -> RowScores:
        calls.extend(ablations)
        return vote([[0, 1], [30, 31]], 100)(ablations)

    lesions = lesion_matrix(counted, labels, rows, np.random.default_rng(0), draws=10)
    calls.clear()
    found = lesion_tests(counted, labels, units, rows, lesions, 19, np.random.default_rng(1))
    assert [test.reason for test in found] == ["layer_spanning_cluster", "", ""]
    assert (found[0].n, found[0].p_importance, found[0].p_importance_holm) == (0, 1.0, 1.0)
    assert found[0].max_drop == 1.0  # it stays in the table
    assert len(calls) == 2 * 19
    # Nine tenths exactly, or dead units in the layer, are another matter.
    labels[18] = 1
    assert lesion_tests(counted, labels, units, rows, lesions, 19, np.random.default_rng(1))[0].reason == ""
    labels[18:20] = -1
    spanning = lesion_tests(counted, labels, units, rows, lesions, 19, np.random.default_rng(1))
    assert spanning[0].reason == "layer_spanning_cluster"
    labels[[22, 25, 33]] = -1
    calls.clear()
    lesion_tests(counted, labels, units, rows, lesions, 19, np.random.default_rng(1))
    assert not np.isin(np.concatenate(calls), [18, 19, 22, 25, 33]).any()  # dead units are in no random set either


def test_cluster_of_inputs_only_has_no_units() -> None:
    units, rows = Units(np.zeros(6, dtype=int), np.arange(6.0)), Rows(np.arange(100) % 2, (0.1, 0.1))
    labels = np.array([0, 0, 2, 2, 2, 0])
    scored = vote([[0], [2]], 100)
    lesions = lesion_matrix(scored, labels, rows, np.random.default_rng(0), draws=10)
    found = lesion_tests(scored, labels, units, rows, lesions, 19, np.random.default_rng(1))
    assert [test.reason for test in found] == ["", "no_units", ""]
    assert [test.units for test in found] == [3, 0, 3]


def test_baseline_at_chance_is_told_and_not_tested() -> None:
    rows = Rows(np.arange(300) % 3, (0.5, 0.5, 0.01))
    right = np.where(rows.task == 1, np.arange(300) % 2 == 0, True)  # task 1 is guessed

    def score(ablations: Sequence[np.ndarray]) -> RowScores:
        # Unit 0 carries task 0, a little of task 2, and breaks all of task 1.
        lost = np.array([0.6, 1.0, 0.1])[rows.task]
        correct = [right & ~(np.isin(0, held) & (np.arange(300) % 10 < 10 * lost)) for held in ablations]
        return RowScores(np.array(correct), np.zeros((len(ablations), 300)))

    labels = np.array([0, 1, 1, 1, 1, 1])
    lesions = lesion_matrix(score, labels, rows, np.random.default_rng(0), draws=10)
    assert lesions.at_chance == (False, True, False)
    assert lesions.drop.value[0, 1] > 0.4
    units = Units(np.zeros(6, dtype=int), np.arange(6.0))
    found = lesion_tests(score, labels, units, rows, lesions, 19, np.random.default_rng(1))
    assert found[0].task == 0
    assert found[0].gap == pytest.approx(lesions.drop.value[0, 0] - lesions.drop.value[0, 2])
    for chance, reason, wide in (((True, True, True), "baseline_at_chance", True), ((True, True, False), "", True)):
        some = lesion_tests(
            score, labels, units, rows, untested(chance, lesions.drop.value), 19, np.random.default_rng(1)
        )[0]
        assert some.reason == reason
        assert np.isnan(some.gap) == wide  # one task has no other to be more special than
        assert some.p_specialisation == 1.0


def test_p_is_never_zero_and_ties_count_for_the_null() -> None:
    rows = Rows(np.arange(100) % 2, (0.1, 0.1))
    units = Units(np.zeros(8, dtype=int), np.zeros(8))
    labels = np.array([0, 1, 1, 1, 1, 1, 1, -1])
    for masks, p in (([[0], [0]], None), ([[9], [9]], 1.0)):
        lesions = lesion_matrix(vote(masks, 100), labels, rows, np.random.default_rng(0), draws=10)
        test = lesion_tests(vote(masks, 100), labels, units, rows, lesions, 39, np.random.default_rng(1))[0]
        assert test.p_importance >= 1 / 40
        assert test.p_importance == (1 + test.importance) / 40
        assert p is None or (test.p_importance, test.p_specialisation) == (p, p)  # nothing is lost, by any set


def test_holm_runs_over_tested_clusters() -> None:
    case, owner = planted_two_nets(np.random.default_rng(1))
    _, tests = lesioned(case, 2 * owner, 99, 0)
    assert [test.reason for test in tests] == ["", "no_units", ""]
    assert [test.p_importance for test in tests] == [0.01, 1.0, 0.01]
    assert [test.p_importance_holm for test in tests] == [0.02, 1.0, 0.02]
