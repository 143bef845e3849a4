"""Controls of lesions hold where the code is right, and fail where it is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from checks.check import Expected, Lesion, TrialScores
from checks.clusterability import lesion_controls, lesion_tests, lesioning
from checks.clusterability.lesion import random_sets
from checks.clusterability.lesion_cases import lesioned_by
from checks.clusterability.lesion_controls import (
    DRAWS,
    SHUFFLED_CLUSTERS,
    SHUFFLED_SETS,
    PlantedLesionFacts,
    PlantedTwoNets,
    ShuffledPartition,
    planted_lesions,
)
from checks.clusterability.lesion_findings import LESION_CONTROLS
from checks.clusterability.lesion_plants import LesionCase, planted_two_nets, shuffled_partition
from checks.clusterability.lesioning import CONTROL_LESIONS, lesion_measured
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms import small_nets
from checks.organisms.nets import class_tasks
from tests.checks.clusterability.lesioned import Asked, evidence_of_case, found_in, network_of
from tests.checks.promised import hold_bands


def nothing(seed: int = 3) -> InMemoryEvidence:
    """Return evidence of a model without lesion data."""
    return InMemoryEvidence(facts=model_facts(), check="clusterability", seed=seed)


def bands_of(control: PlantedTwoNets | ShuffledPartition, seen: InMemoryEvidence) -> Sequence[Expected]:
    measured = planted_lesions(Asked(), control.spoil(Asked(), seen))
    assert measured is not None
    told = control.bands(Asked(), measured)
    hold_bands(control, told)
    return told


def held(bands: Sequence[Expected]) -> bool:
    return bool(bands) and all(one.low <= one.value <= one.high for one in bands)


def lesioned_case(case: LesionCase, k: int, **asked: Any) -> InMemoryEvidence:
    seen = evidence_of_case(case)
    lesion_measured(Asked(**asked), seen, [found_in(case, k)])
    return seen


def test_names_are_those_that_gate_lesions() -> None:
    assert (PlantedTwoNets.name, ShuffledPartition.name) == LESION_CONTROLS


def test_other_evidence_is_not_a_controls_own() -> None:
    assert planted_lesions(Asked(), nothing()) is None


def test_both_controls_hold_without_any_lesion_data() -> None:
    planted, shuffled = bands_of(PlantedTwoNets(), nothing()), bands_of(ShuffledPartition(), nothing())
    assert len(planted) == 8
    assert held(planted)
    assert held(shuffled)
    assert shuffled[0].labels == {"partition": "planted-two-nets"}


def test_parameters_of_the_audit_do_not_reach_the_plant() -> None:
    asked = Asked(lesion_nulls=99, lesion_layers="none", families=("mlp_out",), alpha="0.001", k=(3,))
    control = PlantedTwoNets()
    measured = planted_lesions(asked, control.spoil(asked, nothing()))
    assert measured is not None
    assert held(control.bands(asked, measured))


def test_the_audited_partition_is_shuffled_where_it_was_lesioned() -> None:
    case = class_tasks(small_nets.load("d3").net, small_nets.held_out())
    seen = lesioned_case(case, 4)
    asked: list[int] = []
    inner = lesioned_by(case)

    def counted(lesions: Sequence[Lesion]) -> TrialScores:
        asked.append(len(lesions))
        return inner(lesions)

    seen._lesioned = counted
    bands = bands_of(ShuffledPartition(), seen)
    assert bands[0].labels == {"partition": "network"}
    # Two of its four clusters are specialised; as many random units of the same layers and sizes are not.
    assert held(bands)
    assert sum(asked) == DRAWS + SHUFFLED_CLUSTERS * SHUFFLED_SETS <= CONTROL_LESIONS


def test_lesions_that_no_cluster_can_carry_are_shuffled_on_the_plant() -> None:
    case, owner = planted_two_nets(np.random.default_rng(41))
    seen = evidence_of_case(case)
    spanning = np.zeros(len(owner), dtype=np.int64)
    lesion_measured(Asked(lesion_nulls=99), seen, [network_of(case, spanning)])
    assert bands_of(ShuffledPartition(), seen)[0].labels == {"partition": "planted-two-nets"}


def test_shuffles_keep_every_clusters_units_of_each_layer_and_size() -> None:
    rng = np.random.default_rng(42)
    labels, strata = rng.integers(-1, 3, 200), rng.integers(0, 8, 200)
    strata[labels < 0] = -1
    shuffled = shuffled_partition(labels, rng, strata)
    assert (shuffled != labels).sum() > 50
    assert np.array_equal(shuffled < 0, labels < 0)
    for cluster in range(3):
        assert np.array_equal(np.bincount(strata[shuffled == cluster]), np.bincount(strata[labels == cluster]))


def test_controls_repeat_from_the_seed_and_differ_between_seeds() -> None:
    control = PlantedTwoNets()
    first, again, other = (control.spoil(Asked(), nothing(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.weights("w0"), again.weights("w0"))
    assert not np.array_equal(first.weights("w0"), other.weights("w0"))
    assert isinstance(first.facts, PlantedLesionFacts)


def plant_with(broken: Callable[[Lesion], Lesion]) -> Sequence[Expected]:
    """Return the bands of the plant where every lesion reaches the model as something else."""
    seen = PlantedTwoNets().spoil(Asked(), nothing())
    assert isinstance(seen, InMemoryEvidence)
    inner = seen.lesioned
    own = InMemoryEvidence(
        facts=seen.facts,
        check=seen.check,
        seed=seen.seed,
        weights=seen._weights,
        rows=seen._rows,
        lesioned=lambda lesions: inner([broken(one) for one in lesions]),
        unit_sd=seen._unit_sd,
    )
    measured = planted_lesions(Asked(), own)
    assert measured is not None
    return PlantedTwoNets().bands(Asked(), measured)


def test_the_plant_fails_where_lesions_do_nothing_or_hit_other_units() -> None:
    assert held(plant_with(lambda one: one))
    assert not held(plant_with(lambda one: {}))
    # Units one place further: half of a module's lesion hits the other module.
    assert not held(plant_with(lambda one: {site: (units + 1) % 128 for site, units in one.items()}))


def test_the_plant_fails_where_the_gap_is_taken_to_the_wrong_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def least_first(drops: np.ndarray) -> np.ndarray:
        least, tasks = drops.min(axis=-1), drops.shape[-1]
        return np.asarray(least - (drops.sum(axis=-1) - least) / (tasks - 1))

    monkeypatch.setattr(lesion_tests, "gap_of", least_first)
    missed = {one.metric for one in bands_of(PlantedTwoNets(), nothing()) if not one.low <= one.value <= one.high}
    assert missed == {"p_specialisation"}


def test_the_plant_fails_where_the_null_is_the_cluster_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(cluster: np.ndarray, _strata: np.ndarray, n: int, _rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (cluster,) * n

    monkeypatch.setattr(lesion_tests, "random_sets", same)
    missed = {one.metric for one in bands_of(PlantedTwoNets(), nothing()) if not one.low <= one.value <= one.high}
    assert missed == {"p_importance", "p_specialisation"}


def test_a_plant_without_numbers_misses_every_band() -> None:
    control = PlantedTwoNets()
    measured = planted_lesions(Asked(), control.spoil(Asked(), nothing()))
    assert measured is not None
    empty = measured.model_copy(update={"metrics": ()})
    assert not any(one.low <= one.value <= one.high for one in control.bands(Asked(), empty))
    assert not held(ShuffledPartition().bands(Asked(), empty))


def test_the_shuffle_fails_where_random_sets_are_not_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    # The 32 largest units of the first layer carry task 0 in equal parts; cluster 0 has 24 of them.
    case, _ = planted_two_nets(np.random.default_rng(44))
    carries = np.arange(128) < 32

    def score(lesions: Sequence[Lesion]) -> TrialScores:
        lost = [carries[one.get("layer.0", np.zeros(0, dtype=np.int64))].sum() / 32 for one in lesions]
        wrong = (case.rows.task == 0) & (np.arange(400) % 100 < 100 * np.array(lost)[:, None])
        return TrialScores(correct=~wrong, loss=wrong.astype(float))

    plant = evidence_of_case(case)
    sizes = {site: np.arange(128, 0, -1.0) * 1e3 ** (np.arange(128) < 32) for site in ("layer.0", "layer.2")}
    seen = InMemoryEvidence(
        facts=plant.facts,
        check="clusterability",
        weights=plant._weights,
        rows=plant._rows,
        unit_sd=sizes,
        lesioned=score,
    )
    labels = np.concatenate([(np.arange(128) >= 24).astype(np.int64), np.arange(128) % 2])
    lesion_measured(Asked(lesion_nulls=99), seen, [network_of(case, labels)])
    assert held(bands_of(ShuffledPartition(), seen))

    def of_any_size(
        cluster: np.ndarray, strata: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        return random_sets(cluster, np.where(strata < 0, -1, 0), n, rng)

    def too_few(cluster: np.ndarray, strata: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return tuple(one[: len(one) // 4] for one in random_sets(cluster, strata, n, rng))

    for broken in (of_any_size, too_few):
        monkeypatch.setattr(lesion_controls, "random_sets", broken)
        assert not held(bands_of(ShuffledPartition(), seen)), broken.__name__


def test_the_shuffle_fails_where_p_counts_the_wrong_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def most(drops: np.ndarray) -> np.ndarray:
        return np.asarray(-drops.max(axis=-1)) if drops.ndim > 1 else np.asarray(drops.max(axis=-1))

    monkeypatch.setattr(lesion_tests, "gap_of", most)
    case = class_tasks(small_nets.load("d3").net, small_nets.held_out())
    assert not held(bands_of(ShuffledPartition(), lesioned_case(case, 4, lesion_nulls=99)))


def test_budget_leaves_room_for_the_shuffle() -> None:
    assert DRAWS + SHUFFLED_CLUSTERS * SHUFFLED_SETS <= lesioning.CONTROL_LESIONS
