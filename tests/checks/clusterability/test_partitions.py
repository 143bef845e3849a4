"""What of a transformer's partitions lesions can hold: every unit of a site has a label, in unit order."""

from __future__ import annotations

import numpy as np
import pytest

from checks.check import Evidence
from checks.clusterability.asking import owed_of
from checks.clusterability.candidates import candidates_of
from checks.clusterability.check import Clusterability
from checks.clusterability.controls import planted
from checks.clusterability.layers import Partitioned
from checks.clusterability.partitions import partitions_of
from checks.clusterability.scores import adjusted_rand, scores_of
from checks.clusterability.testing import Run, all_tests
from checks.clusterability.views import unit_in_norm
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms.halves import halves
from tests.checks.clusterability.test_families import transformer


def blocks() -> tuple[InMemoryEvidence, np.ndarray]:
    """Return two blocks of MLPs, the second one's neurons in clusters; and those clusters."""
    rng = np.random.default_rng(1)
    clustered, truth = planted((96, 64), 2, 0.3, rng)
    weights = {
        "0.in": rng.standard_normal((96, 64)),
        "0.out": rng.standard_normal((64, 96)),
        "1.in": clustered,
        "1.out": planted((64, 96), 2, 0.3, rng)[0],
    }
    facts = model_facts(layers=2, mlp_in=("0.in", "1.in"), mlp_out=("0.out", "1.out"))
    return InMemoryEvidence(facts=facts, check="clusterability", seed=3, weights=weights), truth.rows


def run_of(check: Clusterability, seen: Evidence) -> tuple[Run, tuple[Partitioned, ...]]:
    run = all_tests(check, candidates_of(check, owed_of(check, seen.facts), seen), seen)
    return run, partitions_of(check, run, seen.facts)


def check_of(**more: object) -> Clusterability:
    return Clusterability.model_validate({"families": ("mlp_in", "mlp_out"), "k": (2,), "nulls": 99} | more)


def test_the_neurons_of_the_largest_excess_are_lesioned() -> None:
    seen, truth = blocks()
    (told,) = run_of(check_of(), seen)[1]
    ((site, labels),) = told.sites
    assert (told.name, site) == ("mlp.1", "mlp.1")
    assert adjusted_rand(labels, truth) > 0.9


@pytest.mark.parametrize(("layers", "names"), [((0,), ["mlp.0"]), ((0, 1), ["mlp.0", "mlp.1"]), ("none", [])])
def test_lesion_layers_are_those_named(layers: object, names: list[str]) -> None:
    seen, _ = blocks()
    assert [one.name for one in run_of(check_of(lesion_layers=layers), seen)[1]] == names


def test_dead_neurons_keep_their_place_and_have_no_cluster() -> None:
    seen, truth = blocks()
    weight = seen.weights("1.in").copy()
    weight[[5, 40]] = 0.0
    ((_, labels),) = run_of(check_of(), seen.replacing(weights={"1.in": weight}))[1][0].sites
    assert np.flatnonzero(labels < 0).tolist() == [5, 40]
    assert adjusted_rand(labels[labels >= 0], truth[labels >= 0]) > 0.9


def test_heads_have_their_labels_layer_by_layer() -> None:
    check = Clusterability(families=("head_graph",), nulls=99)
    ((name, sites),) = [(one.name, one.sites) for one in run_of(check, transformer(0.3))[1]]
    assert name == "head_graph"
    assert [site for site, _ in sites] == [f"heads.{layer}" for layer in range(4)]
    known = np.concatenate([np.asarray(block.heads) for block in halves(0.3, 3)])
    assert adjusted_rand(np.concatenate([labels for _, labels in sites]), known) == 1.0


def test_a_blocks_last_matrix_takes_over_the_scale_of_its_neurons() -> None:
    """The view unit_in_norm of the two matrices of a block is that of their chain."""
    seen, _ = blocks()
    scaled = seen.weights("1.in") * np.linspace(0.1, 10.0, 96)[:, None]
    seen = seen.replacing(weights={"1.in": scaled})
    run, _ = run_of(check_of(), seen)
    (last,) = [one for one in run.matrices if one.name == "1.out"]
    assert last.detail is not None
    assert last.detail.unit_in_norm is not None
    chain = unit_in_norm([scaled, seen.weights("1.out")])[1]
    part = last.found.partition
    expected = scores_of(chain / chain.sum(), part.rows, part.columns).c
    assert scores_of(last.detail.unit_in_norm, part.rows, part.columns).c == pytest.approx(expected)
    alone = unit_in_norm([seen.weights("1.out")])[0]
    assert scores_of(alone / alone.sum(), part.rows, part.columns).c != pytest.approx(expected, abs=1e-3)
    assert Clusterability(families=("mlp_out",)).needs(seen.facts, {}).weights == ("0.out", "1.out", "0.in", "1.in")
