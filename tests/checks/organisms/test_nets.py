from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from checks.clusterability.lesion import Lesions, lesion_matrix
from checks.clusterability.lesion_plants import LesionCase, ReluNet
from checks.clusterability.lesion_tests import ClusterTest, lesion_tests
from checks.clusterability.network import network_partition
from checks.clusterability.scores import adjusted_rand, scores
from checks.organisms import nets, small_nets
from checks.organisms.nets import Examples, accuracy, class_tasks, head_tasks


def lesioned(case: LesionCase, k: int, n: int = 199) -> tuple[Lesions, tuple[ClusterTest, ...]]:
    """Return the lesions and tests of the clusters found without knowing the truth."""
    labels, scored = network_partition(case.net.weights, k, seed=0).hidden, case.scored()
    lesions = lesion_matrix(scored, labels, case.rows, np.random.default_rng(1), draws=50)
    return lesions, lesion_tests(scored, labels, case.units, case.rows, lesions, n, np.random.default_rng(2))


def loss_of(net: ReluNet, data: Examples) -> float:
    outputs, total = net.outputs(data.inputs)[0], 0.0
    for head, (start, stop) in enumerate(net.heads):
        logits = outputs[:, start:stop]
        wanted = logits[np.arange(len(logits)), data.labels[:, head]]
        total += float(np.mean(np.log(np.exp(logits).sum(axis=1)) - wanted))
    return total


def test_gradients_against_finite_differences() -> None:
    rng = np.random.default_rng(0)
    sizes = (5, 7, 6, 7)
    weights = [rng.standard_normal((n, m)) for m, n in pairwise(sizes)]
    biases = [rng.standard_normal(n) for n in sizes[1:]]
    net = ReluNet(tuple(weights), tuple(biases), ((0, 3), (3, 7)))
    data = Examples(rng.standard_normal((20, 5)), np.stack([rng.integers(0, 3, 20), rng.integers(0, 4, 20)], axis=1))
    for value, gradient in zip(weights + biases, nets.loss_gradients(net, data), strict=True):
        for at in [tuple(rng.integers(0, size) for size in value.shape) for _ in range(4)]:
            kept, step = value[at], 1e-6
            value[at] = kept + step
            above = loss_of(net, data)
            value[at] = kept - step
            below = loss_of(net, data)
            value[at] = kept
            assert gradient[at] == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_training_repeats_from_its_seed_and_learns() -> None:
    data = nets.digits(0)
    first, again, other = (nets.fit((64, 24, 10), data.train, ((0, 10),), seed, steps=120) for seed in (1, 1, 2))
    assert np.array_equal(first.weights[0], again.weights[0])
    assert not np.array_equal(first.weights[0], other.weights[0])
    assert accuracy(first, data.test)[0] > 0.85


def test_held_out_digits_are_those_no_net_was_trained_on() -> None:
    data, committed = nets.digits(small_nets.SPLIT_SEED), small_nets.held_out()
    assert np.array_equal(committed.inputs, data.test.inputs)
    assert np.array_equal(committed.labels, data.test.labels)
    assert np.bincount(committed.labels[:, 0]).min() >= 50
    seen = {row.tobytes() for row in data.train.inputs}
    assert not any(row.tobytes() in seen for row in committed.inputs)
    pairs = nets.paired(data, small_nets.PAIRS_SEED)
    assert np.array_equal(small_nets.held_out_pairs().inputs, pairs.test.inputs)
    assert len(pairs.train.inputs) == nets.PAIRINGS * len(data.train.inputs)
    left, right = pairs.train.inputs[:, :64], pairs.train.inputs[:, 64:]
    assert np.array_equal(left[: len(data.train.inputs)], data.train.inputs)
    assert {row.tobytes() for row in right} <= seen


def test_two_nets_in_one_are_found_and_each_serves_its_own_task() -> None:
    known = small_nets.load("d1")
    data = small_nets.held_out_pairs()
    assert min(accuracy(known.net, data)) > 0.95
    for share in (0.0, 0.1, 0.3):
        noisy = nets.noisy(known.net, share, np.random.default_rng(3))
        found = network_partition(noisy.weights, 2, seed=0)
        assert adjusted_rand(found.joined, np.concatenate(known.truth)) == 1.0
    found = network_partition(known.net.weights, 2, seed=0)
    for weights, columns, rows in zip(known.net.weights, found.layers[:-1], found.layers[1:], strict=True):
        assert scores(weights, rows, columns, "raw").c == pytest.approx(1.0, abs=1e-12)
    lesions, tests = lesioned(head_tasks(known.net, data), 2)
    for test in tests:
        assert 0.83 <= test.max_drop <= 0.92
        assert lesions.drop.value[test.cluster, 1 - test.task] == 0.0
        assert (test.p_importance, test.p_specialisation, test.s) == (0.005, 0.005, 1.0)


def test_joint_net_is_neither_important_nor_specialised() -> None:
    net, data = small_nets.load("d2").net, small_nets.held_out_pairs()
    assert min(accuracy(net, data)) > 0.95
    found = network_partition(net.weights, 2, seed=0)
    assert adjusted_rand(found.layers[0], np.repeat([0, 1], 64)) <= 0.07
    lesions, tests = lesioned(head_tasks(net, data), 2)
    assert lesions.drop.value.min() > 0.2  # both clusters serve both tasks
    for test in tests:
        assert test.p_importance_holm > 0.05
        assert test.p_specialisation_holm > 0.05


def test_monolith_is_no_negative_control() -> None:
    net, data = small_nets.load("d3").net, small_nets.held_out()
    assert accuracy(net, data)[0] > 0.96
    tests = lesioned(class_tasks(net, data), 4)[1]
    assert sorted(test.p_specialisation for test in tests)[:2] == [0.005, 0.005]
    assert sum(test.p_specialisation_holm <= 0.05 for test in tests) == 2


def test_organism_survives_its_file(tmp_path: Path) -> None:
    known = small_nets.load("d1")
    small_nets.save(known, tmp_path / "d1.safetensors")
    again = small_nets.load("d1", tmp_path)
    assert again.net.heads == known.net.heads == ((0, 10), (10, 20))
    for a, b in zip(known.net.weights + known.truth, again.net.weights + again.truth, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.slow
def test_nets_trained_anew_have_what_the_committed_ones_have() -> None:
    data = small_nets.held_out_pairs()
    gaps = {}
    for name in ("d1", "d2"):
        for seed in range(3):
            net = small_nets.make(name, seed).net
            assert min(accuracy(net, data)) > 0.94
            tests = lesioned(head_tasks(net, data), 2, 99)[1]
            gaps[name, seed] = [test.gap for test in tests]
            if name == "d1":
                assert [(test.p_importance, test.s) for test in tests] == [(0.01, 1.0)] * 2
    # A joint net may specialise in part; it never comes near two nets.
    assert min(gap for (name, _), pair in gaps.items() for gap in pair if name == "d1") > 0.8
    assert max(gap for (name, _), pair in gaps.items() for gap in pair if name == "d2") < 0.7
