"""Feed-forward models through the whole check: layers, convolutions, the network, and every bad weight by its name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from assay.result import Measured
from pydantic import ValidationError

from checks.ask import ask
from checks.check import Evidence, Refusal
from checks.clusterability.asking import owed_of
from checks.clusterability.candidates import candidates_of, usable_matrices
from checks.clusterability.check import Clusterability
from checks.clusterability.controls import planted
from checks.clusterability.findings import matrices_of, word_of
from checks.clusterability.layers import Partitioned
from checks.clusterability.partitions import partitions_of
from checks.clusterability.scores import adjusted_rand
from checks.clusterability.testing import all_tests, structure_metrics
from checks.feedforward import FeedForwardLayer
from checks.memory import InMemoryEvidence, model_facts
from tests.checks.clusterability.nets import (
    batchnorm,
    evidence_of_net,
    linear,
    norm_tensors,
    op,
    organism,
    relu_chain,
)

FEW = Clusterability(k=(2, 4), nulls=99)


def words(check: Clusterability, seen: Evidence) -> dict[str, str]:
    return words_of(check, check.measure(seen))


def both(check: Clusterability, seen: Evidence) -> tuple[Measured, tuple[Partitioned, ...]]:
    """Return the numbers and the partitions of one run."""
    owed = owed_of(check, seen.facts)
    run = all_tests(check, candidates_of(check, owed, seen), seen)
    told = Measured(coverage={"matrix": owed.names}, metrics=structure_metrics(run))
    return told, partitions_of(check, run, seen.facts)


def words_of(check: Clusterability, measured: Measured) -> dict[str, str]:
    return {numbers.matrix: word_of(numbers, check.limits())[0] for numbers in matrices_of(measured)}


def random_mlp(seed: int, dims: Sequence[int] = (64, 48, 48, 20)) -> InMemoryEvidence:
    rng = np.random.default_rng(seed)
    return relu_chain([rng.standard_normal((n, m)) for m, n in pairwise(dims)], seed)


def value(measured: Measured, name: str, **labels: str) -> float:
    found = measured.find(name, **labels)
    assert found is not None, name
    return float(found.value)


def test_two_nets_side_by_side_are_found_layer_by_layer_and_as_a_whole() -> None:
    """Organism D1: the network partition is the two nets exactly, and each layer's C is 1."""
    seen, truth = organism("d1")
    measured, (net,) = both(FEW, seen)
    assert set(words_of(FEW, measured).values()) == {"detected"}
    assert measured.coverage["matrix"] == ("0.weight", "2.weight", "4.weight", "network")
    for matrix in ("0.weight", "2.weight", "4.weight"):
        assert value(measured, "c", matrix=matrix, view="raw") == pytest.approx(1.0, abs=1e-6)
        # The whole chain's view: hidden neurons at norm 1, their scale in what reads them.
        assert value(measured, "c", matrix=matrix, view="unit_in_norm") == pytest.approx(1.0, abs=1e-6)
    assert value(measured, "k", matrix="network") == 2
    assert (net.name, [site for site, _ in net.sites]) == ("network", ["layer.0", "layer.2"])
    for (_, labels), known in zip(net.sites, truth[1:-1], strict=True):
        alive = labels >= 0
        assert alive.mean() > 0.9
        assert adjusted_rand(labels[alive], known[alive]) == 1.0


def test_trained_in_blocks_are_detected() -> None:
    """Organism E1: structure alone; that its clusters serve no task is for lesions to say."""
    seen, truth = organism("e1")
    check = Clusterability(k=(2, 4), nulls=99)
    measured, (net,) = both(check, seen)
    found = words_of(check, measured)
    assert {found[matrix] for matrix in ("2.weight", "4.weight", "network")} == {"detected"}
    assert [adjusted_rand(labels, known) for (_, labels), known in zip(net.sites, truth[1:-1], strict=True)] == [
        pytest.approx(1.0, abs=0.05)
    ] * 3


def test_a_random_mlp_is_not_detected() -> None:
    assert set(words(FEW, random_mlp(1)).values()) == {"not-detected"}


def conv_net(rng: np.random.Generator, rho: float) -> InMemoryEvidence:
    """A net of two convolutions and a linear layer after `flatten`, planted in blocks of channels."""
    first, _ = planted((32, 3), 2, 1.0, rng)
    blocks, truth = planted((48, 32), 3, rho, rng)
    kernels = blocks[:, :, None, None] * rng.uniform(0.5, 1.5, (48, 32, 3, 3)) * rng.choice([-1, 1], (48, 32, 3, 3))
    # Channels of the second convolution, 4 positions each, and outputs in blocks of the same kind.
    inside = np.where((np.arange(24) % 3)[:, None] == truth.rows, 1.0, rho)
    read = np.repeat(inside, 4, axis=1) * rng.standard_normal((24, 192))
    tensors = {
        "0.weight": np.repeat(first[:, :, None, None], 3, axis=2),
        "2.weight": kernels,
        **norm_tensors(3, 48, rng),
        "6.weight": read,
    }
    layers = [
        FeedForwardLayer(op="conv2d", weight="0.weight", stride=1, padding=0),
        op("relu"),
        FeedForwardLayer(op="conv2d", weight="2.weight", stride=2, padding=1),
        FeedForwardLayer(op="batchnorm", weight="3.weight", bias="3.bias", mean="3.mean", var="3.var", eps=1e-5),
        op("relu"),
        op("flatten"),
        linear(6),
    ]
    return evidence_of_net((3, 6, 4), layers, tensors)


def test_channels_in_blocks_are_detected_in_a_convolution() -> None:
    seen = conv_net(np.random.default_rng(2), 0.2)
    check = Clusterability(k=(2, 3, 4), nulls=99)
    measured = check.measure(seen)
    found = words_of(check, measured)
    assert found["2.weight"] == "detected"
    assert found["6.weight"] == "detected"
    assert value(measured, "k", matrix="2.weight") == 3
    assert ("0.weight", "too_small") in {(one.item, one.reason) for one in measured.skipped}
    only = Clusterability(families=("conv",), k=(2, 3), nulls=199).measure(seen)
    assert only.coverage["matrix"] == ("0.weight", "2.weight")


def test_channels_without_blocks_are_not() -> None:
    check = Clusterability(k=(2, 3), nulls=99)
    assert set(words(check, conv_net(np.random.default_rng(3), 1.0)).values()) == {"not-detected"}


@pytest.mark.slow
def test_an_mlp_is_answered_end_to_end_with_its_controls() -> None:
    check = Clusterability(k=(2, 3, 4), nulls=199, layers=(1,))
    answer = ask(check, organism("e1")[0])
    assert answer.outcome == "measured"
    found = {finding.labels["matrix"]: finding.word for finding in answer.findings if "matrix" in finding.labels}
    assert found == {"2.weight": "detected", "network": "detected"}


def test_the_shapes_of_controls_are_those_of_summed_matrices() -> None:
    check, seen = Clusterability(), conv_net(np.random.default_rng(2), 0.2)
    assert [one.values.shape for one in usable_matrices(check, owed_of(check, seen.facts), seen)] == [
        (48, 32),
        (24, 48),
    ]


def test_families_follow_the_kind_of_model() -> None:
    seen = random_mlp(4)
    assert owed_of(Clusterability(), seen.facts).names == ("0.weight", "2.weight", "4.weight", "network")
    assert Clusterability().needs(seen.facts, {}).weights == ("0.weight", "2.weight", "4.weight")
    assert owed_of(Clusterability(layers=(1,)), seen.facts).names == ("2.weight", "network")
    mixed = Clusterability(families=("linear", "conv", "mlp_in", "head_graph"))
    owed = owed_of(mixed, seen.facts)
    assert owed.names == ("0.weight", "2.weight", "4.weight")
    assert set(owed.absent) == {("mlp_in", "no_mlp"), ("head_graph", "no_attention"), ("conv", "no_conv")}
    facts = model_facts(layers=2, mlp_in=("a.in", "b.in"), mlp_out=("a.out", "b.out"))
    of_transformer = owed_of(Clusterability(families=("mlp_in", "network", "linear")), facts)
    assert of_transformer.names == ("a.in", "b.in")
    assert set(of_transformer.absent) == {("network", "no_network"), ("linear", "no_linear")}


def test_what_this_kind_has_not_is_told_in_the_answer() -> None:
    check = Clusterability(families=("linear", "mlp_in"), nulls=199, k=(2,))
    told = check.measure(random_mlp(5)).skipped
    assert ("mlp_in", "no_mlp") in {(one.item, one.reason) for one in told}
    with pytest.raises(Refusal, match="no_mlp"):
        Clusterability(families=("mlp_out",)).needs(random_mlp(5).facts, {})


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refusal, match="layer_out_of_range: layer:3"):
        Clusterability(layers=(3,)).needs(random_mlp(6).facts, {})


def test_one_layer_is_no_network() -> None:
    rng = np.random.default_rng(7)
    measured = FEW.measure(relu_chain([rng.standard_normal((32, 40))]))
    assert [(one.item, one.reason) for one in measured.skipped] == [("network", "no_network")]
    assert measured.coverage["matrix"] == ("0.weight",)


def spoiled(tensor: str, make: object) -> InMemoryEvidence:
    seen = random_mlp(8)
    weight = seen.weights(tensor).copy()
    make(weight)  # type: ignore[operator]
    return seen.replacing(weights={tensor: weight})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_weight_names_its_tensor_and_the_others_are_measured(bad: float) -> None:
    def make(weight: np.ndarray) -> None:
        weight[3, 7] = bad

    measured = FEW.measure(spoiled("2.weight", make))
    told = {(one.item, one.reason) for one in measured.skipped}
    assert told == {("2.weight:3:7", "non_finite"), ("network", "non_finite")}
    assert [m.labels["matrix"] for m in measured.named("p_holm")] == ["0.weight", "4.weight"]


def test_a_broken_norm_names_itself_and_its_matrix() -> None:
    seen = conv_net(np.random.default_rng(2), 0.2)
    bad = seen.weights("3.var").copy()
    bad[5] = np.nan
    told = {(one.item, one.reason) for one in FEW.measure(seen.replacing(weights={"3.var": bad})).skipped}
    assert {("3.var:5", "non_finite"), ("2.weight", "non_finite"), ("network", "non_finite")} <= told


def test_an_all_zero_matrix_is_named() -> None:
    def make(weight: np.ndarray) -> None:
        weight[:] = 0.0

    told = {(one.item, one.reason) for one in FEW.measure(spoiled("2.weight", make)).skipped}
    assert told == {("2.weight", "empty"), ("network", "empty")}


def test_a_small_layer_is_named_and_takes_part_in_the_network() -> None:
    measured = FEW.measure(random_mlp(9, (64, 48, 10)))
    assert [(one.item, one.reason) for one in measured.skipped] == [("2.weight", "too_small")]
    excess = measured.find("excess_q", matrix="network")
    assert excess is not None
    assert excess.n == 122


def test_a_net_of_few_neurons_is_not_tested_as_a_whole() -> None:
    told = {(one.item, one.reason) for one in FEW.measure(random_mlp(10, (64, 64, 64))).skipped}
    assert told == set()
    with pytest.raises(Refusal, match="nothing_testable") as refused:
        FEW.measure(random_mlp(10, (64, 8, 8)))
    assert set(refused.value.items) == {"too_small:0.weight", "too_small:2.weight", "too_small:network"}


def test_a_very_large_net_is_not_tested_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.clusterability.candidates.NETWORK_ENTRIES_MAX", 6000)
    told = {(one.item, one.reason) for one in FEW.measure(random_mlp(11)).skipped}
    assert told == {("network", "too_large")}


def test_dead_neurons_are_counted_and_in_no_cluster() -> None:
    seen = random_mlp(12)
    first, second = seen.weights("0.weight").copy(), seen.weights("2.weight").copy()
    first[4], second[:, 4] = 0.0, 0.0
    seen = seen.replacing(weights={"0.weight": first, "2.weight": second})
    measured, (net,) = both(FEW, seen)
    assert [value(measured, "dead_nodes", matrix=at) for at in ("0.weight", "2.weight", "network")] == [1, 1, 1]
    ((_, labels), _) = net.sites
    assert labels[4] == -1
    assert (np.delete(labels, 4) >= 0).all()


def test_too_large_k_is_skipped_by_name() -> None:
    measured = Clusterability(k=(2, 16), nulls=99).measure(random_mlp(13, (64, 24, 24, 20)))
    told = {(one.item, one.reason) for one in measured.skipped}
    assert told == {(f"{name}:k:16", "k_too_large") for name in ("0.weight", "2.weight", "4.weight", "network")}


def test_holm_runs_over_layers_and_network_together() -> None:
    measured = FEW.measure(random_mlp(14))
    families = {m.multiplicity.m for m in measured.named("p_holm") if m.multiplicity}
    assert families == {4}
    ps = {m.labels["matrix"]: float(m.value) for m in measured.named("p")}
    smallest = min(ps, key=lambda name: ps[name])
    assert value(measured, "p_holm", matrix=smallest) == pytest.approx(min(1.0, 4 * ps[smallest]), abs=0.02)


def test_views_that_were_not_asked_for_are_not_told() -> None:
    seen = organism("d1")[0]
    bare = Clusterability(k=(2,), nulls=199, families=("linear",), comparable_views=())
    assert {m.labels["view"] for m in bare.measure(seen).named("c")} == {"balanced"}


def test_details_are_told_of_what_passes_alone() -> None:
    rng = np.random.default_rng(15)
    blocks = planted((64, 64), 4, 0.3, rng)[0]
    measured = FEW.measure(relu_chain([blocks, rng.standard_normal((48, 64))]))
    for name in ("eigengap", "seed_ari", "size_entropy"):
        assert {m.labels["matrix"] for m in measured.named(name)} == {"0.weight"}
    sizes = [float(m.value) for m in measured.named("cluster_size") if m.labels["matrix"] == "0.weight"]
    assert (len(sizes), sum(sizes)) == (4, 128)
    c, expected, q = (value(measured, name, matrix="0.weight", view="balanced") for name in ("c", "c_exp", "q_b"))
    assert q == pytest.approx(c - expected, abs=1e-5)
    top = value(measured, "c_max", matrix="0.weight", view="balanced")
    adjusted = value(measured, "c_adj", matrix="0.weight", view="balanced")
    assert adjusted == pytest.approx((c - expected) / (top - expected), abs=1e-4)


def test_a_network_repeats_to_the_byte() -> None:
    check = Clusterability(families=("network",), nulls=99, k=(2,))
    first, second = (check.measure(random_mlp(16)).model_dump_json() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "params",
    [
        {"comparable_views": ["balanced"]},
        {"comparable_views": ["raw", "raw"]},
        {"lesion_layers": "some"},
        {"lesion_nulls": 5},
        {"min_drop": "2"},
        {"families": "all"},
    ],
)
def test_wrong_parameters_are_rejected(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Clusterability.model_validate(params)


def test_a_net_whose_folded_layer_overflows_is_refused_as_a_whole() -> None:
    # Every tensor is finite, but a batch norm's gain over its small deviation is not: `fault` alone does not see it.
    rng = np.random.default_rng(60)
    layers = [linear(0), FeedForwardLayer(op="relu"), linear(2), batchnorm(3)]
    tensors = {"0.weight": rng.standard_normal((32, 24)), "2.weight": rng.standard_normal((32, 32))}
    tensors |= norm_tensors(3, 32, rng)
    tensors["2.weight"][5] *= 1e200
    tensors["3.weight"] = np.full(32, 1e200)
    seen = evidence_of_net((24,), layers, tensors)
    check = Clusterability(k=(2,), nulls=99)
    found = candidates_of(check, owed_of(check, seen.facts), seen)
    assert [one.name for one in found.candidates] == ["0.weight"]
    assert found.chain == ()
    assert ("network", "non_finite") in {(one.item, one.reason) for one in found.skipped}
    assert {one.item.split(":")[0] for one in found.skipped if one.reason == "non_finite"} == {"network", "2.weight"}
