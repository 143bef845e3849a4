"""Words of lesions, and what may never become an answer: absence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from assay.result import Measured, Metric, Skipped

from checks.clusterability.findings import RESIDUAL, Limits, findings
from checks.clusterability.lesion_findings import (
    LESION_CONTROLS,
    LESION_WORDS,
    LesionLimits,
    lesion_findings,
)
from checks.clusterability.lesion_plants import planted_two_nets
from checks.clusterability.lesion_reasons import LESION_REASONS
from checks.clusterability.lesioning import lesion_measured
from checks.organisms import small_nets
from checks.organisms.nets import class_tasks
from checks.quantise import metric
from checks.runtime.architectures import ARCHITECTURES
from tests.checks.clusterability.lesioned import (
    LIMITS,
    STRUCTURED,
    Asked,
    document_of,
    evidence_of_case,
    measured_of,
    network_of,
)

STRUCTURE = Limits(alpha=0.05, min_excess_q=0.02, min_stability=0.7, min_cluster_share=0.01)
PASSES = ("detected", "not-detected")
"""Either word may be what a policy asks for."""


@cache
def monolith() -> Measured:
    """Two of four clusters specialised: every word but one occurs."""
    return document_of(measured_of(class_tasks(small_nets.load("d3").net, small_nets.held_out()), 4))


def without(real: Measured, left_out: Callable[[Metric], bool]) -> Measured:
    return real.model_copy(update={"metrics": tuple(one for one in real.metrics if not left_out(one))})


def changed(real: Measured, name: str, value: str, **labels: str) -> Measured:
    told = tuple(
        one.model_copy(update={"value": value}) if one.name == name and one.labels == labels else one
        for one in real.metrics
    )
    return real.model_copy(update={"metrics": told})


def word(real: Measured, code: str, cluster: str, missed: tuple[str, ...] = ()) -> tuple[str, str]:
    found = next(
        one
        for one in lesion_findings(real, LIMITS, missed, STRUCTURED)
        if one.code == code and one.labels.get("cluster") == cluster
    )
    return found.word, found.labels["reason"]


def model_words(real: Measured) -> dict[str, str]:
    told = lesion_findings(real, LIMITS, (), STRUCTURED)
    return {one.code: one.word for one in told if one.code.endswith("_of_model")}


def test_each_rule_has_its_word() -> None:
    real, at = monolith(), {"partition": "network", "cluster": "1"}
    assert word(real, "specialisation", "1") == ("detected", "all_hold")
    assert word(changed(real, "p_specialisation_holm", "0.051", **at), "specialisation", "1") == (
        "not-detected",
        "p_above_alpha",
    )
    assert word(changed(real, "gap", "0.099", **at), "specialisation", "1") == ("not-detected", "effect_below_floor")
    assert word(changed(real, "max_drop", "0.049", **at), "importance", "1") == ("not-detected", "effect_below_floor")
    assert word(changed(real, "max_drop", "0.05", **at), "importance", "1") == ("detected", "all_hold")
    for name in LESION_CONTROLS:
        assert word(real, "importance", "1", (name,)) == ("inconclusive", "control_missed")
    few = lesion_findings(real, LesionLimits(alpha=0.019, min_drop=0.05, min_gap=0.1), (), STRUCTURED)
    assert {one.labels.get("reason") for one in few} == {"p_resolution", None}  # 4 / 200 is the least


def test_a_missed_structure_control_gates_structure_alone() -> None:
    for name in ("planted-blocks", "iid-noise", "heavy-noise", "random-weights"):
        assert word(monolith(), "specialisation", "1", (name,)) == ("detected", "all_hold")


def test_reasons_why_a_cluster_was_not_tested_reach_its_word() -> None:
    case, owner = planted_two_nets(np.random.default_rng(31))
    labels = 2 * owner
    labels[:128][owner[:128] == 0] = 0
    spanning = np.where(np.arange(256) < 128, 0, 2 + owner)
    for partition, reason in ((labels, "no_units"), (spanning, "layer_spanning_cluster")):
        told = lesion_measured(Asked(lesion_nulls=99), evidence_of_case(case), [network_of(case, partition)])
        found = {
            one.labels["cluster"]: (one.word, one.labels["reason"])
            for one in lesion_findings(document_of(told), LIMITS, (), STRUCTURED)
            if one.code == "importance"
        }
        assert ("inconclusive", reason) in found.values()
        assert reason in LESION_REASONS


def test_tasks_at_chance_leave_nothing_to_test() -> None:
    case, owner = planted_two_nets(np.random.default_rng(32))
    rng = np.random.default_rng(33)

    def guessing(*tasks: int) -> Measured:
        wrong = np.isin(case.rows.task, tasks)
        labels = np.where(wrong, rng.integers(0, 8, len(case.labels)), case.labels)
        guessed = type(case)(case.net, case.inputs, labels, case.head, case.rows)
        return document_of(
            lesion_measured(Asked(lesion_nulls=99), evidence_of_case(guessed), [network_of(case, owner)])
        )

    both, one = guessing(0, 1), guessing(1)
    assert {one.word for one in lesion_findings(both, LIMITS, (), STRUCTURED)} == {"inconclusive"}
    assert word(both, "importance", "0") == ("inconclusive", "baseline_at_chance")
    assert both.find("baseline_accuracy", partition="network", task="t1") is not None  # it stays in the tables
    assert both.find("drop", partition="network", cluster="0", task="t1") is not None
    # One task is left: it can be important, and has no other to be more special than.
    owner_of_first = next(c for c in "01" if word(one, "importance", c)[0] == "detected")
    assert word(one, "specialisation", owner_of_first) == ("inconclusive", "baseline_at_chance")


def test_no_role_is_not_asked_and_a_bad_one_is_inconclusive() -> None:
    for skipped, expected, reason in (
        ((), "not-asked", "no_lesion_data"),
        ((Skipped(item="role:lesion", reason="lesion_row_invalid"),), "inconclusive", "lesion_row_invalid"),
    ):
        told = lesion_findings(Measured(coverage={"matrix": ("w",)}, skipped=skipped), LIMITS, (), STRUCTURED)
        assert [(one.code, one.word, one.labels["reason"]) for one in told] == [
            ("importance_of_model", expected, reason),
            ("specialisation_of_model", expected, reason),
        ]
        assert not any("access used" in one.claim for one in told)
    assert "not asked (no lesion data)" in lesion_findings(Measured(), LIMITS, (), STRUCTURED)[0].claim


def removals() -> dict[str, Measured]:
    """Return the numbers of the monolith, each without something."""
    real = monolith()
    found = {"role": Measured(coverage={"matrix": ("w",)}), "all metrics": without(real, lambda one: True)}
    for cluster in "0123":
        found[f"cluster {cluster}"] = without(real, lambda one, c=cluster: one.labels.get("cluster") == c)  # type: ignore[misc]
        found[f"tests of {cluster}"] = without(
            real,
            lambda one, c=cluster: one.labels.get("cluster") == c and one.name.startswith("p_"),  # type: ignore[misc]
        )
    for name in sorted({one.name for one in real.metrics}):
        found[f"metric {name}"] = without(real, lambda one, n=name: one.name == n)  # type: ignore[misc]
    for task in real.coverage["task"]:
        found[f"task {task}"] = without(real, lambda one, t=task: one.labels.get("task") == t)  # type: ignore[misc]
    coverage = {**real.coverage, "partition": ("network", "head_graph")}
    found["partition"] = real.model_copy(update={"coverage": coverage})
    return found


def test_absence_is_never_an_answer() -> None:
    full = model_words(monolith())
    assert full == {"importance_of_model": "detected", "specialisation_of_model": "detected"}
    # Tables that no rule reads may go; of what a rule reads nothing may.
    unread = {f"metric {name}" for name in ("drop", "loss_rise", "on_accuracy", "baseline_loss", "specialisation_s")}
    unread |= {"metric p_importance", "metric p_specialisation"}
    for name, real in removals().items():
        for code, told in model_words(real).items():
            if name in unread:
                assert told == full[code], name
            elif told in PASSES:
                # One claim's own tests say nothing of the other claim.
                own = "specialisation" if "specialisation" in name or name == "metric gap" else "importance"
                assert not code.startswith(own), (name, code)
                assert told == full[code], (name, code)


def test_no_removal_turns_a_cluster_from_fail_to_pass() -> None:
    full = {
        (one.code, one.labels["cluster"]): one.word
        for one in lesion_findings(monolith(), LIMITS, (), STRUCTURED)
        if "cluster" in one.labels
    }
    for name, real in removals().items():
        for one in lesion_findings(real, LIMITS, (), STRUCTURED):
            before = full.get((one.code, one.labels.get("cluster", "")))
            assert one.word in (before, "inconclusive", "not-asked") or before is None, (name, one)


def test_a_refused_partition_or_lost_task_leaves_no_claim() -> None:
    real = monolith()
    coverage = {**real.coverage, "partition": ("network", "head_graph")}
    told = lesion_findings(real.model_copy(update={"coverage": coverage}), LIMITS, (), STRUCTURED)
    assert {one.word for one in told} == {"inconclusive"}
    assert "1 refused" in told[-1].claim
    assert "partition:head_graph" in told[-1].claim


def test_claims_tell_interval_rows_random_sets_and_what_was_held() -> None:
    told = lesion_findings(monolith(), LIMITS, (), STRUCTURED)
    special = next(one for one in told if one.code == "specialisation" and one.word == "detected")
    gap = monolith().find("gap", partition="network", cluster="1")
    assert gap is not None
    assert gap.interval is not None
    for part in (
        f"{gap.value} [{gap.interval.low}, {gap.interval.high}]",
        "539 rows",
        "199 random sets of like units",
        "Holm over 4 clusters",
        "units held at their mean",
        "task t",
    ):
        assert part in special.claim
    for one in told:
        assert len(one.claim) <= 512
        assert one.word in LESION_WORDS
        assert "not specialised" not in one.claim
        assert all(monolith().find(ref.name, **ref.labels) is not None for ref in one.rests_on)
    assert told[-1].claim.endswith(
        "Structure is not function; a high C can be trained in and no claim rests on it; "
        "access used: weights, activations."
    )
    assert "detected in 2 of 4 tested, 0 inconclusive, 0 refused" in told[-1].claim


def structure(*matrices: tuple[str, float], owed: tuple[str, ...] = ()) -> Measured:
    """Return numbers of matrices that pass every floor, with their p; what is owed beside them was refused."""
    names = tuple(name for name, _ in matrices)
    order = sorted(range(len(matrices)), key=lambda index: matrices[index][1])
    held: dict[int, float] = {}
    for rank, index in enumerate(order):
        held[index] = max([min(1.0, (len(order) - rank) * matrices[index][1]), *held.values()])
    told: list[Metric] = []
    for index, (name, p) in enumerate(matrices):
        at = {"matrix": name}
        numbers = {"excess_q": 0.1, "k": 4.0, "min_cluster_share": 0.2, "stability": 0.9, "confirm_excess_q": 0.1}
        told += [metric(key, value, n=99, unit="1", determinism="exact", labels=at) for key, value in numbers.items()]
        told.append(metric("p", p, n=999, unit="1", determinism="exact", labels=at))
        family = {"family": "matrices", "m": len(matrices), "corrected": "holm"}
        corrected = metric("p_holm", held[index], n=999, unit="1", determinism="exact", labels=at)
        told.append(Metric.model_validate({**corrected.to_json(), "multiplicity": family}))
    return Measured(coverage={"matrix": (*names, *owed)}, metrics=tuple(told))


def structure_words(real: Measured, missed: tuple[str, ...] = ()) -> dict[str, str]:
    return {one.labels.get("matrix", "model"): one.word for one in findings(real, STRUCTURE, missed)}


def test_a_missed_lesion_control_leaves_structure_alone() -> None:
    real = structure(("a", 0.001), ("b", 0.9))
    assert structure_words(real, LESION_CONTROLS) == {"a": "detected", "b": "not-detected", "model": "detected"}
    assert set(structure_words(real, ("random-weights",)).values()) == {"inconclusive"}


@pytest.mark.parametrize("p", [0.001, 0.02, 0.03, 0.04, 0.2])
@pytest.mark.parametrize("other", [0.001, 0.02, 0.03, 0.9])
def test_a_matrix_left_out_makes_no_other_pass(p: float, other: float) -> None:
    # Three tests at .03 are .09 after Holm; with one of them refused the others must not come down to .06.
    whole = structure(("a", p), ("b", other), ("c", 0.03))
    before = structure_words(whole)
    after = structure_words(structure(("a", p), ("b", other), owed=("c",)))
    for name in ("a", "b", "model"):
        if after[name] == "detected":
            assert before[name] == "detected", name
    assert after["model"] != "not-detected"


def test_untested_matrices_that_were_counted_are_told() -> None:
    told = findings(structure(("a", 0.01), ("b", 0.9), owed=("c",)), STRUCTURE, ())
    assert "p 0.03 after Holm, 1 untested counted" in told[0].claim
    assert "counted" not in findings(structure(("a", 0.01), ("b", 0.9)), STRUCTURE, ())[0].claim


def test_only_transformers_have_a_residual_basis() -> None:
    def bases(*names: str) -> dict[str, bool]:
        told = findings(structure(*((name, 0.001) for name in names)), STRUCTURE, ())
        return {one.labels["matrix"]: "Basis: residual." in one.claim for one in told if one.labels}

    for one in ARCHITECTURES.values():
        name = {side: getattr(one, side).format(l=3) for side in ("mlp_in", "mlp_out")}
        assert bases(*name.values()) == dict.fromkeys(name.values(), True)
        assert all(told.endswith(RESIDUAL) for told in name.values())
    assert not any(bases("virtual_mlp.0", "head_graph", "fc1.weight", "net.0.weight").values())
    # A net whose author names layers as GPT-2 does is still no transformer.
    assert not any(bases("mlp.c_fc.weight", "network").values())


def test_a_partition_that_noise_could_give_makes_no_model_specialised() -> None:
    """Some units of any net serve one task more: they are told, and without structure the model is not called so."""
    real = monolith()
    told = lesion_findings(real, LIMITS, (), ())
    assert [one.word for one in told if "cluster" in one.labels] == [
        one.word for one in lesion_findings(real, LIMITS, (), STRUCTURED) if "cluster" in one.labels
    ]
    words = {one.code: one for one in told if one.code.endswith("_of_model")}
    assert {one.word for one in words.values()} == {"inconclusive"}
    assert "no modules" in words["specialisation_of_model"].claim
    assert {one.word for one in lesion_findings(real, LIMITS, (), STRUCTURED) if one.code.endswith("_of_model")} == {
        "detected"
    }


def test_the_structure_of_another_matrix_does_not_vouch_for_a_partition() -> None:
    told = {one.code: one.word for one in lesion_findings(monolith(), LIMITS, (), ("layers.0.weight", "head_graph"))}
    assert told["specialisation_of_model"] == "inconclusive"
