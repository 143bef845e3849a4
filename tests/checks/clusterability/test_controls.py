"""Controls that re-run the whole pipeline: a model of fresh weights must show nothing, planted groups must be found."""

from __future__ import annotations

import numpy as np
import pytest
from assay.result import Measured

from checks.check import Evidence, Expected
from checks.clusterability import controls, masks, planted_graphs, structure
from checks.clusterability.check import Clusterability
from checks.clusterability.controls import (
    HeavyNoise,
    IidNoise,
    PlantedBlocks,
    RandomWeights,
    audited_shapes,
    gains,
    planted,
)
from checks.clusterability.planted_graphs import PlantedGraphs, planted_net, planted_transformer
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.memory import InMemoryEvidence, model_facts
from tests.checks.clusterability.evidence import evidence_of
from tests.checks.promised import hold_bands

QUICK = Clusterability(nulls=99)


def transformer(leak: float = 1.0, layers: int = 3) -> InMemoryEvidence:
    facts, weights = planted_transformer(layers, leak, np.random.default_rng(1))
    return InMemoryEvidence(facts=facts, check="clusterability", seed=5, weights=weights)


def net(leak: float = 1.0, layers: int = 3) -> InMemoryEvidence:
    facts, weights = planted_net(layers, leak, np.random.default_rng(2))
    return InMemoryEvidence(facts=facts, check="clusterability", seed=5, weights=weights)


def cnn() -> InMemoryEvidence:
    """Return a small net with a batch norm, a kernel and biases."""
    rng = np.random.default_rng(3)
    layers = (
        FeedForwardLayer(op="conv2d", weight="a.weight", bias="a.bias", stride=1, padding=1),
        FeedForwardLayer(op="batchnorm", weight="n.weight", bias="n.bias", mean="n.mean", var="n.var", eps=1e-5),
        FeedForwardLayer(op="relu"),
        FeedForwardLayer(op="flatten"),
        FeedForwardLayer(op="linear", weight="b.weight", bias="b.bias"),
    )
    declared = FeedForward(
        input=(16, 4, 4),
        layers=layers,
        shapes=((32, 4, 4), (32, 4, 4), (32, 4, 4), (512,), (20,)),
        heads=(FeedForwardHead(name="out", start=0, stop=20),),
    )
    weights = {
        "a.weight": rng.standard_normal((32, 16, 3, 3)),
        "a.bias": rng.standard_normal(32),
        **{f"n.{name}": rng.uniform(0.5, 2.0, 32) for name in ("weight", "bias", "mean", "var")},
        "b.weight": rng.standard_normal((20, 512)),
        "b.bias": rng.standard_normal(20),
    }
    facts = model_facts(
        architecture="feedforward",
        layers=2,
        width=0,
        heads=0,
        tensors={name: array.shape for name, array in weights.items()},
        feedforward=declared,
    )
    return InMemoryEvidence(facts=facts, check="clusterability", seed=5, weights=weights)


def bands(control: RandomWeights | PlantedGraphs, check: Clusterability, seen: Evidence) -> dict[str, Expected]:
    measured: Measured = check.measure(control.spoil(check, seen))
    told = control.bands(check, measured)
    hold_bands(control, told)
    return {f"{one.metric}/{one.labels.get('matrix', '')}": one for one in told}


def missed(told: dict[str, Expected]) -> set[str]:
    return {name for name, one in told.items() if not one.low <= one.value <= one.high}


def test_fresh_weights_are_fresh_and_of_the_same_architecture() -> None:
    # A control that measured the audited weights again would hold on every model without clusters.
    for seen in (transformer(0.1), net(0.1), cnn()):
        spoiled = RandomWeights().spoil(QUICK, seen)
        assert spoiled.facts == seen.facts
        assert spoiled.roles() == ()
        for name in QUICK.needs(seen.facts, {}).weights:
            fresh = spoiled.weights(name)
            assert fresh.shape == seen.weights(name).shape
            if fresh.ndim > 1:
                assert np.std(fresh) * np.sqrt(np.prod(fresh.shape[1:])) == pytest.approx(1.0, abs=0.12), name
                assert abs(np.corrcoef(fresh.ravel(), seen.weights(name).ravel())[0, 1]) < 0.2, name


def test_fresh_norms_pass_their_input_on() -> None:
    spoiled = RandomWeights().spoil(QUICK, cnn())
    at_one = {"n.weight", "n.var"}
    assert gains(cnn().facts) == at_one
    for name in ("n.weight", "n.var", "n.bias", "n.mean", "a.bias", "b.bias"):
        assert np.array_equal(spoiled.weights(name), np.full(len(spoiled.weights(name)), float(name in at_one))), name
    blocks = RandomWeights().spoil(QUICK, transformer())
    assert np.array_equal(blocks.weights("transformer.h.1.ln_2.weight"), np.ones(32))


def test_nothing_is_found_in_fresh_weights_of_a_clustered_model() -> None:
    for seen, families in (
        (transformer(0.1), ("mlp_in", "head_graph")),
        (net(0.1), ("linear", "network")),
        (cnn(), ("conv", "linear")),
    ):
        told = bands(RandomWeights(), Clusterability.model_validate({"families": families, "nulls": 99}), seen)
        assert set(told) == {"flagged/"}
        assert told["flagged/"].value == 0
        assert told["flagged/"].high == 2


def test_a_rule_that_flags_everything_misses_the_band(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "word_of", lambda *_: ("detected", "all_hold"))
    assert missed(bands(RandomWeights(), Clusterability(families=("mlp_in",)), transformer())) == {"flagged/"}


def test_planted_halves_are_found_by_products_and_heads() -> None:
    told = bands(PlantedGraphs(), Clusterability(families=("virtual_mlp", "head_graph"), nulls=99), transformer())
    each = {f"{name}/virtual_mlp.{layer}" for name in ("p", "k", "planted_ari", "excess_q") for layer in (0, 1)}
    assert set(told) == each | {f"{name}/head_graph" for name in ("p", "k", "planted_ari", "excess_q")}
    assert missed(told) == set()


def test_planted_groups_are_found_through_a_net() -> None:
    told = bands(PlantedGraphs(), Clusterability(families=("network",), nulls=99), net())
    assert set(told) == {f"{name}/network" for name in ("p", "k", "planted_ari", "excess_q")}
    assert missed(told) == set()


@pytest.mark.parametrize(("name", "seen"), [("LEAK", transformer), ("NET_LEAK", net)])
def test_without_groups_the_bands_are_missed(name: str, seen: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_graphs, name, 1.0)
    told = bands(PlantedGraphs(), Clusterability(families=("virtual_mlp", "network"), nulls=99), seen())  # type: ignore[operator]
    gone = {one.split("/")[0] for one in missed(told)}
    assert {"p", "excess_q", "planted_ari"} <= gone


@pytest.mark.parametrize(
    ("check", "seen", "wanted"),
    [
        (Clusterability(layers=(5,), families=("head_graph",), nulls=99), transformer(layers=6), "p/head_graph"),
        (Clusterability(layers=(4, 5), families=("virtual_mlp",), nulls=99), transformer(layers=6), "p/virtual_mlp.1"),
        (Clusterability(layers=(3,), families=("network",), nulls=99), net(layers=4), "p/network"),
        (Clusterability(k=(5,), families=("network",), nulls=99), net(), "p/network"),
        (Clusterability(families=("linear",), nulls=99), net(), "p/planted.blocks"),
        (Clusterability(families=("linear",), k=(2,), nulls=99), net(), "planted_ari/planted.blocks"),
        (Clusterability(families=("mlp_in",), k=(16,), nulls=99), transformer(), "planted_ari/planted.blocks"),
        (Clusterability(families=("virtual_mlp",), k=(16,), nulls=99), transformer(), "p/virtual_mlp.0"),
        (Clusterability(families=("head_graph",), k=(16,), nulls=99), transformer(layers=4), "p/head_graph"),
        (Clusterability(families=("head_graph",), k=(2, 3), nulls=99), transformer(), "planted_ari/head_graph"),
        (Clusterability(families=("network",), k=(16,), nulls=99), net(), "p/network"),
        (Clusterability(families=("linear", "network"), k=(2,), nulls=99), net(), "planted_ari/network"),
        (Clusterability(families=("mlp_in",), nulls=99), transformer(), "p/planted.blocks"),
        (Clusterability(nulls=99), evidence_of({"w": np.ones((64, 256))}), "p/planted.blocks"),
    ],
)
def test_no_parameter_silences_the_plant(check: Clusterability, seen: InMemoryEvidence, wanted: str) -> None:
    # A control that says nothing counts as missed, and every word would be inconclusive.
    told = bands(PlantedGraphs(), check, seen)
    assert wanted in told
    assert missed(told) == set()


def test_shapes_of_a_net_are_those_of_its_canonical_matrices() -> None:
    # A kernel is one weight, and a flattened channel one column: 32x16 and 20x32.
    assert set(audited_shapes(QUICK, cnn())) == {(16, 32), (20, 32)}


def test_shapes_without_a_candidate_of_k_are_not_planted() -> None:
    # Only 40x64 can hold sixteen clusters.
    rng = np.random.default_rng(0)
    seen = evidence_of({"a": rng.standard_normal((20, 64)), "b": rng.standard_normal((40, 64))})
    assert audited_shapes(Clusterability(k=(16,)), seen) == ((40, 64),)


@pytest.mark.parametrize("nulls", [99, 199, 500, "auto"])
@pytest.mark.parametrize(("control", "shape", "clustered"), [(IidNoise(), (32, 32), 3), (HeavyNoise(), (96, 256), 2)])
def test_clustered_noise_misses_its_band_however_many_draws(
    control: IidNoise | HeavyNoise,
    shape: tuple[int, int],
    clustered: int,
    nulls: int | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ten matrices with a Holm family of their own could never pass it at 99 draws, and the control could not fail.
    monkeypatch.setattr(structure, "CONFIRM_DRAWS", 9)
    rng = np.random.default_rng(62)
    check = Clusterability.model_validate({"k": (2,), "nulls": nulls})
    seen = evidence_of({"w": rng.standard_normal(shape)})
    noise = control.spoil(check, seen)
    weights = {name: noise.weights(name) for name in noise.facts.mlp_in}
    assert not missed_of(control, check, noise)
    for name in list(weights)[:clustered]:
        weights[name] = planted(shape, 2, 0.2, rng)[0]
    spoiled = InMemoryEvidence(facts=noise.facts, check=check.name, seed=3, weights=weights)
    assert missed_of(control, check, spoiled) == {"flagged"}


def test_noise_is_flagged_as_the_audit_would_flag_it() -> None:
    # Twelve matrices are owed: p of one noise matrix is corrected by twelve, not by the ten of the control.
    weights = {f"w.{at}": np.random.default_rng(at).standard_normal((32, 32)) for at in range(12)}
    check = Clusterability(k=(2,), nulls=199)
    measured = check.measure(IidNoise().spoil(check, evidence_of(weights)))
    for told in measured.named("p_holm"):
        p = measured.find("p", **told.labels)
        assert p is not None
        assert float(told.value) == pytest.approx(min(1.0, 12 * float(p.value)), rel=1e-3)


def missed_of(control: IidNoise | HeavyNoise | PlantedBlocks, check: Clusterability, seen: Evidence) -> set[str]:
    told = control.bands(check, check.measure(seen))
    assert told
    hold_bands(control, told)
    return {one.metric for one in told if not one.low <= one.value <= one.high}


@pytest.mark.parametrize(("shape", "k"), [((16, 16), 8), ((20, 64), 4), ((32, 32), 4), ((32, 32), 8), ((32, 32), 16)])
def test_planted_blocks_hold_at_every_number_of_groups_that_may_be_asked(shape: tuple[int, int], k: int) -> None:
    # At one rho for all of them sixteen groups of 32 rows were never found, and every word was inconclusive.
    check = Clusterability(k=(k,), nulls=99)
    for seed in range(3):
        seen = evidence_of({"w": np.random.default_rng(seed).standard_normal(shape)}, seed)
        assert not missed_of(PlantedBlocks(), check, PlantedBlocks().spoil(check, seen)), seed


def test_the_plant_has_three_layers_whatever_is_asked_of_the_model() -> None:
    check = Clusterability(layers=(15,), families=("network",), nulls=99)
    assert PlantedGraphs().spoil(check, net(layers=16)).facts.layers == 3


SPARSE = {
    "w": np.where(np.random.default_rng(70).random((24, 40)) < 0.3, np.random.default_rng(71).random((24, 40)), 0)
}


@pytest.mark.parametrize("nulls", [99, pytest.param("auto", marks=pytest.mark.slow)])
def test_masks_are_planted_and_drawn_where_a_matrix_is_sparse(nulls: int | str) -> None:
    check, seen = Clusterability.model_validate({"k": (2,), "nulls": nulls}), evidence_of(SPARSE)
    for control, names in ((PlantedBlocks(), {"masked.32x40"}), (IidNoise(), {f"mask.{at}" for at in range(5)})):
        spoiled = control.spoil(check, seen)
        assert {name for name in spoiled.facts.mlp_in if "mask" in name} == names
        assert not missed_of(control, check, spoiled)
    dense = evidence_of({"w": SPARSE["w"] + 1.0})
    assert not [name for name in IidNoise().spoil(check, dense).facts.mlp_in if "mask" in name]


@pytest.mark.parametrize("k", [4, 8, 16])
def test_planted_masks_hold_at_every_number_of_groups_that_may_be_asked(k: int) -> None:
    check, seen = Clusterability(k=(k,), nulls=99), evidence_of({"w": np.tile(SPARSE["w"], (2, 1))})
    assert not missed_of(PlantedBlocks(), check, PlantedBlocks().spoil(check, seen))


@pytest.mark.parametrize(
    ("broken", "control"), [(0, IidNoise()), (10, PlantedBlocks())], ids=["no exceedances", "exceedances only"]
)
def test_a_broken_null_of_masks_misses(
    broken: int, control: IidNoise | PlantedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_exceedances", lambda _, q: broken if len(q) > 9 else 0)
    check = Clusterability(k=(2,), nulls=99)
    assert missed_of(control, check, control.spoil(check, evidence_of(SPARSE)))


def test_a_null_of_masks_that_is_shifted_down_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = masks._exceedances
    monkeypatch.setattr(masks, "_exceedances", lambda observed, q: counted(observed, q - 0.1))
    check = Clusterability(k=(2,), nulls=99)
    assert missed_of(IidNoise(), check, IidNoise().spoil(check, evidence_of(SPARSE))) == {"flagged"}


def test_fresh_weights_are_as_sparse_as_the_real_ones() -> None:
    fresh = RandomWeights().spoil(QUICK, evidence_of(SPARSE)).weights("w")
    assert np.count_nonzero(fresh) == np.count_nonzero(SPARSE["w"])
    assert not np.array_equal(fresh != 0, SPARSE["w"] != 0)
