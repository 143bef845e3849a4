from __future__ import annotations

import numpy as np
import pytest

from checks.clusterability.cocluster import cocluster
from checks.clusterability.lesion import lesion_matrix
from checks.clusterability.lesion_tests import ClusterTest, lesion_tests
from checks.clusterability.network import network_partition
from checks.clusterability.scores import adjusted_rand, scores
from checks.organisms import enmeshment, nets, small_nets
from checks.organisms.enmeshment import Map, block_maps
from checks.organisms.small_nets import KnownNet


def specialised(known: KnownNet) -> tuple[ClusterTest, ...]:
    case = nets.class_tasks(known.net, small_nets.held_out())
    labels, scored = network_partition(known.net.weights, 4, seed=0).hidden, case.scored()
    assert adjusted_rand(labels, np.concatenate(known.truth[1:-1])) == 1.0
    lesions = lesion_matrix(scored, labels, case.rows, np.random.default_rng(1), draws=50)
    return lesion_tests(scored, labels, case.units, case.rows, lesions, 199, np.random.default_rng(2))


def shares(known: KnownNet) -> list[float]:
    maps = zip(known.truth[1:], known.truth[:-1], strict=True)
    return [enmeshment.share(w, Map(*labels)) for w, labels in zip(known.net.weights, maps, strict=True)]


def test_share_is_raw_c() -> None:
    rng = np.random.default_rng(0)
    maps = block_maps((20, 30, 12), 3, rng)
    weights = [rng.standard_normal((30, 20)), rng.standard_normal((12, 30))]
    each = [scores(w, at.rows, at.columns, "raw").c for w, at in zip(weights, maps, strict=True)]
    assert enmeshment.enmeshment(weights, maps) == pytest.approx(np.mean(each))


def test_gradient_against_finite_differences_and_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    maps = block_maps((8, 10, 6), 2, rng)
    weights = [rng.standard_normal((10, 8)), rng.standard_normal((6, 10))]
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    mean = enmeshment.torch_enmeshment(tensors, maps)
    assert mean.item() == pytest.approx(enmeshment.enmeshment(weights, maps))
    mean.backward()  # type: ignore[no-untyped-call]
    for weight, at, tensor in zip(weights, maps, tensors, strict=True):
        gradient = enmeshment.gradient(weight, at)
        assert tensor.grad.numpy() * len(weights) == pytest.approx(gradient)
        for i, j in rng.integers(0, 6, size=(5, 2)):
            moved = [weight.copy(), weight.copy()]
            moved[0][i, j] += 1e-6
            moved[1][i, j] -= 1e-6
            slope = (enmeshment.share(moved[0], at) - enmeshment.share(moved[1], at)) / 2e-6
            assert gradient[i, j] == pytest.approx(slope, abs=1e-8)


def test_maps_are_equal_blocks_that_meet() -> None:
    for rng in (None, np.random.default_rng(2)):
        maps = block_maps((64, 64, 10), 4, rng)
        assert np.array_equal(maps[0].rows, maps[1].columns)
        assert np.bincount(maps[0].rows).tolist() == [16] * 4
        assert np.bincount(maps[1].rows).tolist() == [3, 3, 2, 2]
    assert np.all(np.diff(block_maps((64, 64), 4)[0].columns) >= 0)
    with pytest.raises(ValueError, match="a map of 64 x 64 for a matrix of"):
        enmeshment.share(np.ones((3, 4)), block_maps((64, 64), 4)[0])


def test_c_is_trained_in_at_no_cost() -> None:
    # A tenth of the steps; the committed nets have all of them.
    data, dims = nets.digits(0), (64, 32, 32, 10)
    maps = block_maps(dims, 4, np.random.default_rng(3))
    trained = {lam: enmeshment.train(dims, data.train, lam, (1,), maps, steps=300, seed=0) for lam in (0.0, 20.0)}
    c = {lam: enmeshment.share(net.weights[1], maps[1]) for lam, net in trained.items()}
    right = {lam: nets.accuracy(net, data.test)[0] for lam, net in trained.items()}
    assert c[0.0] < 0.4
    assert c[20.0] > 0.97
    assert right[20.0] > right[0.0] - 0.03
    assert enmeshment.share(trained[20.0].weights[0], maps[0]) < 0.4  # only what was chosen


def test_structure_without_specialisation() -> None:
    known = small_nets.load("e1")
    assert min(shares(known)[1:3]) >= 0.999
    assert nets.accuracy(known.net, small_nets.held_out())[0] >= 0.97
    for layer in enmeshment.HIDDEN:
        found = cocluster(known.net.weights[layer], 4, seed=0)
        assert adjusted_rand(found.rows, known.truth[layer + 1]) == 1.0
        assert adjusted_rand(found.columns, known.truth[layer]) == 1.0
    for test in specialised(known):
        assert test.p_specialisation > 0.3
        assert test.p_importance > 0.3


def test_specialised_and_not_important() -> None:
    known = small_nets.load("e2")
    assert min(shares(known)) >= 0.998
    assert nets.accuracy(known.net, small_nets.held_out())[0] >= 0.95
    for test in specialised(known):
        assert test.p_specialisation_holm <= 0.05
        assert test.gap >= 0.5
        assert test.p_importance_holm > 0.05
        assert test.p_importance > 0.1


@pytest.mark.slow
def test_nets_enmeshed_anew_have_what_the_committed_ones_have() -> None:
    for name, low, high in (("e1", 0, 1), ("e2", 2, 4)):
        for seed in range(2):
            known = small_nets.make(name, seed)
            chosen = shares(known)[1:3] if name == "e1" else shares(known)
            assert min(chosen) >= 0.997
            assert nets.accuracy(known.net, small_nets.held_out())[0] >= 0.94
            tests = specialised(known)
            assert low <= sum(test.p_specialisation_holm <= 0.05 for test in tests) <= high
            assert min(test.p_importance_holm for test in tests) > 0.05
