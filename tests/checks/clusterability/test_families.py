"""Sparse matrices, products of MLPs and the graph of heads through the whole check, and noise of heavy tails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assay.result import Answer, Measured

from checks.ask import ask
from checks.check import Refusal
from checks.clusterability.check import Clusterability
from checks.clusterability.controls import HeavyNoise
from checks.clusterability.masks import planted_mask
from checks.clusterability.planted_graphs import planted_transformer
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms.halves import halves
from tests.checks.clusterability.evidence import evidence_of


def transformer(leak: float, seed: int = 3) -> InMemoryEvidence:
    """Return organism F under the names of a GPT-2, two halves that share so much."""
    weights: dict[str, np.ndarray] = {}
    blocks = halves(leak, seed)
    width = blocks[0].mlp_out.shape[0]
    for layer, block in enumerate(blocks):
        at = f"transformer.h.{layer}."
        weights[f"{at}mlp.c_fc.weight"], weights[f"{at}mlp.c_proj.weight"] = block.mlp_in, block.mlp_out
        parts = [part.reshape(-1, width) for part in (block.query, block.key, block.value)]
        weights[f"{at}attn.c_attn.weight"] = np.concatenate(parts)
        weights[f"{at}attn.c_proj.weight"] = block.output.transpose(1, 0, 2).reshape(width, -1)
        weights |= {f"{at}{name}.weight": np.ones(width) for name in ("ln_1", "ln_2")}
    facts = model_facts(
        layers=len(blocks),
        width=width,
        heads=len(blocks[0].heads),
        tensors={name: array.shape for name, array in weights.items()},
        mlp_in=tuple(f"transformer.h.{layer}.mlp.c_fc.weight" for layer in range(len(blocks))),
        mlp_out=tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in range(len(blocks))),
    )
    return InMemoryEvidence(facts=facts, check="clusterability", seed=1, weights=weights)


CHECK = Clusterability(families=("virtual_mlp", "head_graph"), nulls=199, k=(2, 3))


def words(answer: Answer) -> dict[str, str]:
    return {one.labels["matrix"]: one.word for one in answer.findings if "matrix" in one.labels}


def value(measured: Measured, name: str, matrix: str) -> float:
    found = measured.find(name, matrix=matrix)
    assert found is not None
    return float(found.value)


def test_two_halves_are_found_across_layers_and_single_matrices_hide_them() -> None:
    answer = ask(CHECK, transformer(0.3))
    assert words(answer) == {**{f"virtual_mlp.{layer}": "detected" for layer in range(3)}, "head_graph": "detected"}
    measured = answer.measured
    assert measured is not None
    for layer in range(3):
        assert value(measured, "excess_q", f"virtual_mlp.{layer}") == pytest.approx(0.236, abs=0.04)
        assert value(measured, "k", f"virtual_mlp.{layer}") == 2
    assert value(measured, "k", "head_graph") == 2
    assert all("Basis" not in one.claim for one in answer.findings)


def test_without_halves_nothing_is_found() -> None:
    answer = ask(CHECK, transformer(1.0))
    assert set(words(answer).values()) == {"not-detected"}


def test_needs_name_every_tensor_of_products_and_heads() -> None:
    seen = transformer(1.0)
    first = {f"transformer.h.0.{name}.weight" for name in ("ln_2", "mlp.c_fc")}
    unread = first | {"transformer.h.3.mlp.c_proj.weight"}
    assert set(CHECK.needs(seen.facts, {}).weights) == set(seen.facts.tensors) - unread
    one_layer = Clusterability(families=("virtual_mlp",), layers=(1,))
    assert one_layer.needs(seen.facts, {}).weights == ()


def test_a_sparse_matrix_is_tested_by_its_zeros_alone() -> None:
    rng = np.random.default_rng(5)
    mask, _ = planted_mask((96, 256), 4, 0.2, 0.05, rng)
    weights = np.where(mask, rng.standard_normal(mask.shape), 0.0)
    noise = np.where(rng.random(mask.shape) < 0.1, rng.standard_normal(mask.shape), 0.0)
    answer = ask(Clusterability(nulls=199, k=(2, 4)), evidence_of({"planted": weights, "noise": noise}))
    assert words(answer) == {"planted": "detected", "noise": "not-detected"}
    assert all("magnitudes left out" in one.claim for one in answer.findings if "matrix" in one.labels)
    measured = answer.measured
    assert measured is not None
    excess = measured.find("excess_q", matrix="planted")
    assert excess is not None
    assert excess.null is not None
    assert excess.null.kind == "curveball-same-degrees"
    # Drawing stopped early on noise: that must not read as too few replicates.
    held = measured.find("p_holm", matrix="noise")
    assert held is not None
    assert held.n == 199


def test_heavy_noise_is_drawn_in_every_run_and_not_called_clustered() -> None:
    check = Clusterability()
    seen = evidence_of({"w": np.random.default_rng(31).standard_normal((96, 256))})
    (band,) = HeavyNoise().bands(check, check.measure(HeavyNoise().spoil(check, seen)))
    assert (band.low, band.high) == (0.0, 1.0)
    assert band.value <= band.high


@pytest.mark.parametrize("families", [(), ("mlp_in", "mlp_in"), ("embeddings",)])
def test_families_are_named_once_and_from_the_list(families: Any) -> None:
    with pytest.raises(ValueError, match="families"):
        Clusterability(families=families)


def test_a_broken_tensor_leaves_out_its_products_by_name() -> None:
    seen = transformer(0.3)
    broken = seen.weights("transformer.h.1.mlp.c_fc.weight").copy()
    broken[0, 0] = np.nan
    real = CHECK.measure(seen.replacing(weights={"transformer.h.1.mlp.c_fc.weight": broken}))
    assert ("virtual_mlp.0", "non_finite") in {(one.item, one.reason) for one in real.skipped}
    assert real.find("p", matrix="virtual_mlp.1") is not None


def test_a_single_layer_has_no_product_and_no_graph() -> None:
    seen = evidence_of({"w": np.zeros((96, 256))})
    with pytest.raises(Refusal, match="nothing_testable"):
        CHECK.measure(seen)


def test_the_graph_of_heads_is_sought_at_the_numbers_of_groups_that_were_asked() -> None:
    check = Clusterability(families=("head_graph",), nulls=99, k=(3, 5, 16))
    measured = check.measure(transformer(0.3))
    assert value(measured, "k", "head_graph") in (3, 5, 16)
    only = Clusterability(families=("head_graph",), nulls=99, k=(5,))
    assert value(only.measure(transformer(0.3)), "k", "head_graph") == 5


def test_a_number_of_groups_beyond_half_of_the_heads_is_left_out_by_name() -> None:
    # 3 layers of 8 heads hold twelve groups at most.
    facts, weights = planted_transformer(3, 0.2, np.random.default_rng(4))
    seen = InMemoryEvidence(facts=facts, check="clusterability", seed=1, weights=weights)
    told = Clusterability(families=("mlp_in", "head_graph"), nulls=99, k=(2, 16)).measure(seen)
    assert ("head_graph:k:16", "k_too_large") in {(one.item, one.reason) for one in told.skipped}
    assert value(told, "k", "head_graph") == 2
    with pytest.raises(Refusal) as refused:
        Clusterability(families=("head_graph",), nulls=99, k=(13, 16)).measure(seen)
    assert refused.value.items == ("k_too_large:head_graph:k:13", "k_too_large:head_graph:k:16")
