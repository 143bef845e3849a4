"""Lesions within the check: what is asked, what is told of what did not run, and the verdicts of known nets."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from assay.result import Measured

from checks.check import Lesion, ModelFacts, Needs, Refusal, TrialScores, VectorTrial
from checks.clusterability import lesioning
from checks.clusterability.check import Clusterability
from checks.clusterability.layers import Partitioned
from checks.clusterability.layouts import LAYOUTS
from checks.clusterability.lesion import Rows
from checks.clusterability.lesion_cases import lesioned_by, rows_of, tensors_of
from checks.clusterability.lesion_controls import ShuffledPartition, planted_lesions
from checks.clusterability.lesion_metrics import LESION_METRICS
from checks.clusterability.lesion_plants import LesionCase, planted_two_nets
from checks.clusterability.lesion_reasons import LESION_REASONS
from checks.clusterability.lesion_units import outgoing_norms, prepared
from checks.clusterability.lesioning import (
    CONTROL_LESIONS,
    lesion_measured,
    lesion_needs,
    remembered,
)
from checks.feedforward import FeedForward, FeedForwardHead, FeedForwardLayer
from checks.memory import InMemoryEvidence, model_facts
from checks.organisms import small_nets
from checks.organisms.nets import class_tasks, head_tasks
from checks.runtime.feedforward import FeedForwardLesions
from checks.runtime.plan import check_needs
from sandbox.budget import charge_bytes
from tests.checks.clusterability.lesioned import (
    Asked,
    evidence_of_case,
    found_in,
    judged,
    measured_of,
    network_of,
    words_of,
)
from tests.checks.clusterability.test_lesion_rows import token_rows


@pytest.fixture(scope="module")
def plant() -> tuple[LesionCase, np.ndarray]:
    return planted_two_nets(np.random.default_rng(21))


def transformer(**more: Any) -> ModelFacts:
    blocks = range(3)
    names = {"mlp_in": "mlp.c_fc.weight", "mlp_out": "mlp.c_proj.weight"}
    layout = LAYOUTS["gpt2"]
    parts = (*layout.reads, layout.writes, layout.attention_norm, layout.mlp_norm)
    tensors = {f"h.{block}.{part}": (16, 16) for block in blocks for part in parts}
    tensors |= {f"h.{block}.mlp.c_fc.weight": (64, 16) for block in blocks}
    tensors |= {f"h.{block}.mlp.c_proj.weight": (16, 64) for block in blocks}
    told = {side: tuple(f"h.{block}.{name}" for block in blocks) for side, name in names.items()}
    return model_facts(layers=3, width=16, heads=8, tensors=tensors, **(told | more))


def test_nothing_is_asked_or_measured_without_the_role(plant: tuple[LesionCase, np.ndarray]) -> None:
    case, owner = plant
    bare = InMemoryEvidence(facts=evidence_of_case(case).facts)
    assert lesion_needs(Asked(), bare.facts, None) == lesioning.LesionNeeds()
    assert lesion_measured(Asked(), bare, [network_of(case, owner)]) == lesioning.LesionMeasured()


def test_wrong_rows_refuse_the_role_alone_and_name_their_lines(plant: tuple[LesionCase, np.ndarray]) -> None:
    case, owner = plant
    rows = rows_of(case)
    rows[4] = {**rows[4], "label": 99}
    seen = evidence_of_case(case, rows=rows)
    needs = lesion_needs(Asked(), seen.facts, rows)
    assert (needs.trials, needs.lesions) == ((), 0)
    told = lesion_measured(Asked(), seen, [network_of(case, owner)])
    assert [(one.item, one.reason) for one in told.skipped] == [
        ("role:lesion", "lesion_row_invalid"),
        ("role:lesion:line:5:label_out_of_range", "lesion_row_invalid"),
    ]
    assert told.skipped == needs.skipped
    assert {finding.word for finding in judged(told)} == {"inconclusive"}


def test_a_model_without_an_output_head_is_told(plant: tuple[LesionCase, np.ndarray]) -> None:
    facts = transformer(causal=False)
    needs = lesion_needs(Asked(), facts, token_rows())
    assert [(one.item, one.reason) for one in needs.skipped] == [("role:lesion", "no_head")]
    assert Needs(trials=needs.trials, units=needs.units, lesions=needs.lesions) == Needs()
    # One that is causal and has no head loses every trial instead.
    case, owner = plant
    lost = {f"lesion:{row}": "no_head" for row in range(400)}
    seen = evidence_of_case(case)
    seen._lost = lost  # type: ignore[assignment]
    told = lesion_measured(Asked(), seen, [network_of(case, owner)])
    assert (told.skipped[0].item, told.skipped[0].reason) == ("role:lesion", "no_head")
    assert {finding.labels["reason"] for finding in judged(told)} == {"no_head"}


def test_every_site_that_a_partition_may_use_is_asked() -> None:
    needs = lesion_needs(Asked(), transformer(), token_rows())
    assert needs.units == ("mlp.0", "mlp.1", "mlp.2", "heads.0", "heads.1", "heads.2")
    assert set(needs.weights) == {
        f"h.{block}.{name}" for block in range(3) for name in ("mlp.c_proj.weight", "attn.c_proj.weight")
    }
    assert len(needs.trials) == 100
    # 16 / 8 = 2 clusters of neurons, 24 heads / 8 = 3 clusters of heads: 5 tests in one family.
    assert needs.lesions == 3 * 2 + 5 * (2 + 199) + CONTROL_LESIONS
    # A caller's k reaches the graph of heads, too: 6 clusters of heads in a budget of their own.
    heads = lesion_needs(Asked(k=(6,), families=("head_graph",)), transformer(), token_rows())
    assert heads.lesions == 3 * 1 + 6 * (2 + 239) + CONTROL_LESIONS
    some = lesion_needs(Asked(lesion_layers=(1,), families=("mlp_in",)), transformer(), token_rows())
    assert (some.units, some.weights) == (("mlp.1",), ("h.1.mlp.c_proj.weight",))
    none = lesion_needs(Asked(lesion_layers="none", families=("mlp_in", "mlp_out")), transformer(), token_rows())
    assert [(one.item, one.reason) for one in none.skipped] == [("role:lesion", "no_partition")]
    with pytest.raises(Refusal, match="layer_out_of_range: layer:3"):
        lesion_needs(Asked(lesion_layers=(3,)), transformer(), token_rows())


def test_more_clusters_than_an_answer_has_room_for_are_refused_before_the_run() -> None:
    wide = {f"h.{at}.mlp.c_fc.weight": (512, 128) for at in range(3)}
    facts = replace(transformer(), tensors={**transformer().tensors, **wide})
    # Three layers of up to 16 clusters and a graph of 3: 51 of 32.
    with pytest.raises(Refusal) as why:
        Clusterability(lesion_layers=(0, 1, 2)).needs(facts, {"lesion": token_rows()})
    assert why.value.reason == "lesion_cells_too_many"
    assert why.value.items == ("partitions:4", "clusters:51", "tasks:2", "limit:clusters:32")
    assert Clusterability(lesion_layers=(0, 1, 2)).needs(facts, {}).lesions == 0
    assert Clusterability(lesion_layers=(0, 1, 2), k=(2, 4)).needs(facts, {"lesion": token_rows()}).lesions > 0
    assert Clusterability().needs(facts, {"lesion": token_rows()}).lesions > 0


def test_the_budget_is_kept_and_bounded_by_rows(plant: tuple[LesionCase, np.ndarray]) -> None:
    case, owner = plant
    seen = evidence_of_case(case)
    asked: list[int] = []
    inner = lesioned_by(case)

    def counted(lesions: Sequence[Lesion]) -> TrialScores:
        asked.append(len(lesions))
        return inner(lesions)

    seen._lesioned = counted
    told = lesion_measured(Asked(lesion_nulls=99), seen, [network_of(case, owner)])
    assert sum(asked) == 3 + 2 * (2 + 99)
    assert sum(asked) <= lesion_needs(Asked(lesion_nulls=99), seen.facts, rows_of(case)).lesions
    assert {test.n for one in told.partitions for test in one.tests} == {99}
    # Many rows leave less room: fewer random sets, and in the end none.
    many = token_rows(2, 2000)
    assert lesion_needs(Asked(), transformer(), many).lesions == 4_000_000 // 4000
    assert lesion_needs(Asked(lesion_nulls=9999), transformer(), token_rows()).lesions == 40_000


def test_too_small_a_budget_is_told(plant: tuple[LesionCase, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    case, owner = plant
    monkeypatch.setattr(lesioning, "TRIALS_MOST", {"feedforward": 400 * (CONTROL_LESIONS + 7 + 2 * 25)})
    few = lesion_measured(Asked(), evidence_of_case(case), [network_of(case, owner)])
    assert {test.n for one in few.partitions for test in one.tests} == {25}
    assert {finding.labels.get("reason") for finding in judged(few)} == {"p_resolution", None}
    monkeypatch.setattr(lesioning, "TRIALS_MOST", {"feedforward": 400 * CONTROL_LESIONS})
    none = lesion_measured(Asked(), evidence_of_case(case), [network_of(case, owner)])
    assert [(one.item, one.reason) for one in none.skipped] == [("role:lesion", "lesion_budget")]


def test_random_sets_can_reach_alpha_after_holm() -> None:
    # With 199 random sets each, 24 clusters could never pass Holm at .05.
    for tests in (1, 4, 24, 40):
        assert tests / (lesioning.random_sets_wanted(Asked(), tests) + 1) <= 0.05
    assert lesioning.random_sets_wanted(Asked(lesion_nulls=99), 24) == 99


def test_all_partitions_are_corrected_together(plant: tuple[LesionCase, np.ndarray]) -> None:
    case, owner = plant
    again = replace(network_of(case, owner), name="again")
    told = lesion_measured(Asked(), evidence_of_case(case), [network_of(case, owner), again])
    held = [metric for metric in told.metrics if metric.name.endswith("_holm")]
    assert {metric.multiplicity.m for metric in held if metric.multiplicity} == {4}
    assert {test.p_importance_holm for one in told.partitions for test in one.tests} == {0.02}
    assert told.coverage["partition"] == ("network", "again")


def test_lost_trials_leave_the_rows_and_lost_tasks_are_told() -> None:
    rng = np.random.default_rng(22)
    case, owner = planted_two_nets(rng)
    thirds = np.where(case.rows.task == 0, np.arange(400) % 2, 2)
    three = LesionCase(case.net, case.inputs, case.labels, case.head, Rows(thirds, (0.125,) * 3))
    seen = evidence_of_case(three)
    lost = [*np.flatnonzero(thirds == 1)[:51], *np.flatnonzero(thirds == 2)[:10]]
    seen._lost = {f"lesion:{row}": "too_long" for row in lost}  # type: ignore[assignment]
    inner = lesioned_by(three)

    def score(lesions: Sequence[Lesion]) -> TrialScores:
        found = inner(lesions)
        loss = found.loss.copy()
        loss[:, lost] = np.nan  # as the runtime tells it
        correct = found.correct.copy()
        correct[:, lost] = False
        return TrialScores(correct=correct, loss=loss)

    seen._lesioned = score
    told = lesion_measured(Asked(), seen, [network_of(three, owner)])
    assert {(one.item, one.reason) for one in told.skipped} == {
        ("task:t1", "lesion_task_lost"),
        ("task:t2:lost:10", "lesion_trials_lost"),
    }
    part = told.partitions[0]
    assert part.tasks == ("t0", "t2")
    assert list(part.counts) == [100, 190]
    assert part.lesions.baseline.min() > 0.95  # a lost row is not a wrong one
    assert told.coverage["task"] == ("t0", "t1", "t2")
    # A task that was owed is missing: no claim is made of the rest.
    assert {finding.word for finding in judged(told)} == {"inconclusive"}


@pytest.mark.parametrize(("lost", "words"), [(10, {"detected"}), (11, {"inconclusive"}), (99, {"inconclusive"})])
def test_a_task_that_lost_more_than_a_twentieth_of_its_rows_is_absent(
    plant: tuple[LesionCase, np.ndarray], lost: int, words: set[str]
) -> None:
    case, owner = plant
    seen = evidence_of_case(case)
    seen._lost = {f"lesion:{row}": "too_long" for row in range(lost)}  # type: ignore[assignment]
    told = lesion_measured(Asked(lesion_nulls=99), seen, [network_of(case, owner)])
    assert {one.word for one in judged(told)} == words
    assert any(one.item.startswith("task:t0") for one in told.skipped)


def test_units_are_read_through_norms_and_channels() -> None:
    # Two channels of 2x2 positions, pooled to one, scaled by a batch norm and read by one linear layer.
    layers = (
        FeedForwardLayer(op="conv2d", weight="c", stride=1, padding=0),
        FeedForwardLayer(op="relu"),
        FeedForwardLayer(op="flatten"),
        FeedForwardLayer(op="linear", weight="w"),
    )
    model = FeedForward(
        input=(1, 3, 3),
        layers=layers,
        shapes=((2, 2, 2), (2, 2, 2), (8,), (3,)),
        heads=(FeedForwardHead(name="out", start=0, stop=3),),
    )
    rng = np.random.default_rng(23)
    weights = {"c": rng.standard_normal((2, 1, 2, 2)), "w": rng.standard_normal((3, 8))}
    facts = model_facts(architecture="feedforward", feedforward=model)
    got = outgoing_norms(["layer.0"], facts, weights.__getitem__)["layer.0"]
    direct = np.array([np.linalg.norm(weights["w"][:, :4]), np.linalg.norm(weights["w"][:, 4:])])
    assert got / got[0] == pytest.approx(direct / direct[0])


def test_units_of_blocks_are_read_by_their_writers() -> None:
    rng = np.random.default_rng(24)
    weights = {"h.1.mlp.c_proj.weight": rng.standard_normal((16, 64)), "h.2.attn.c_proj.weight": rng.random((16, 16))}
    facts = transformer()
    got = outgoing_norms(["mlp.1", "heads.2"], facts, weights.__getitem__)
    assert got["mlp.1"] == pytest.approx(np.sqrt((weights["h.1.mlp.c_proj.weight"] ** 2).sum(axis=0)))
    by_hand = [np.linalg.norm(weights["h.2.attn.c_proj.weight"][:, 2 * head : 2 * head + 2]) for head in range(8)]
    assert got["heads.2"] == pytest.approx(by_hand)
    seen = InMemoryEvidence(
        facts=facts, weights=weights, unit_sd={"heads.2": np.arange(8.0), "mlp.1": np.full(64, np.inf)}
    )
    one = prepared(Partitioned("head_graph", (("heads.2", np.arange(8) % 2),)), seen)
    assert one.units.size == pytest.approx(np.arange(8) * by_hand)
    assert np.isfinite(prepared(Partitioned("mlp.1", (("mlp.1", np.zeros(64)),)), seen).units.size).all()
    with pytest.raises(ValueError, match=r"heads\.2 has 8 units, its partition labels 7"):
        prepared(Partitioned("head_graph", (("heads.2", np.zeros(7)),)), seen)


def test_an_ablation_reaches_the_sites_of_its_units(plant: tuple[LesionCase, np.ndarray]) -> None:
    case, owner = plant
    one = prepared(network_of(case, owner), evidence_of_case(case))
    assert dict(one.sites) == {"layer.0": 128, "layer.2": 128}
    held = one.lesion(np.array([3, 127, 128, 130]))
    assert {site: list(units) for site, units in held.items()} == {"layer.0": [3, 127], "layer.2": [0, 2]}
    assert one.lesion(np.zeros(0, dtype=np.int64)) == {}
    assert one.units.size == pytest.approx(case.units.size)


def test_what_was_measured_is_forgotten_with_its_evidence(plant: tuple[LesionCase, np.ndarray]) -> None:
    case, owner = plant
    seen = evidence_of_case(case)
    assert remembered(seen) is None
    lesion_measured(Asked(lesion_nulls=99), seen, [network_of(case, owner)])
    held = remembered(seen)
    assert held is not None
    assert np.array_equal(held.partitions[0][0].labels, owner)
    before = len(lesioning._REMEMBERED)
    del seen
    gc.collect()
    assert len(lesioning._REMEMBERED) == before - 1


def test_identical_seeds_give_identical_numbers(plant: tuple[LesionCase, np.ndarray]) -> None:
    case, owner = plant
    first, second = (
        lesion_measured(Asked(lesion_nulls=99), evidence_of_case(case), [network_of(case, owner)]) for _ in range(2)
    )
    assert first.metrics == second.metrics


def test_reasons_and_metrics_are_declared(plant: tuple[LesionCase, np.ndarray]) -> None:
    promised = {spec.name: spec for spec in LESION_METRICS}
    assert len(promised) == len(LESION_METRICS)
    case, owner = plant
    told = lesion_measured(Asked(lesion_nulls=99), evidence_of_case(case), [network_of(case, 2 * owner)])
    assert {one.reason for one in told.skipped} == {"no_units"} <= set(LESION_REASONS)
    for metric in told.metrics:
        spec = promised[metric.name]
        assert tuple(metric.labels) == spec.labels
        assert (metric.unit, metric.better, metric.determinism) == (spec.unit, spec.better, spec.determinism)
        if metric.determinism != "exact" and metric.interval is None:
            assert "No interval" in spec.summary or "its interval is" in spec.summary


def test_the_runtime_answers_what_was_asked_for() -> None:
    # Organism D1 as an audit sees it: rows become trials, trials become lesions, within the budget that was declared.
    case = head_tasks(small_nets.load("d1").net, small_nets.held_out_pairs())
    by_hand = evidence_of_case(case)
    facts, rows = by_hand.facts, rows_of(case)
    needs = lesion_needs(Asked(lesion_nulls=99), facts, rows)
    check_needs(Needs(trials=needs.trials, units=needs.units, lesions=needs.lesions, weights=needs.weights), facts)
    assert facts.feedforward is not None
    trials = [trial for trial in needs.trials if isinstance(trial, VectorTrial)]
    answers = FeedForwardLesions(facts.feedforward, by_hand.weights, trials, needs.units, needs.lesions)
    seen = InMemoryEvidence(
        facts=facts,
        check="clusterability",
        seed=by_hand.seed,
        weights={name: by_hand.weights(name) for name in needs.weights},
        rows={"lesion": rows},
        lesioned=answers,
        unit_sd=answers.unit_sd,
        lost=answers.lost,
    )
    partition = found_in(case, 2)
    told = lesion_measured(Asked(lesion_nulls=99), seen, [partition])
    assert told.metrics == lesion_measured(Asked(lesion_nulls=99), by_hand, [partition]).metrics
    shuffled = ShuffledPartition()
    measured = planted_lesions(Asked(), shuffled.spoil(Asked(), seen))
    assert measured is not None
    assert shuffled.bands(Asked(), measured)[0].value <= 5


def strings_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(strings_of(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(strings_of(one) for one in value))
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize(("clusters", "tables"), [(6, 3), (16, 1)])
def test_many_clusters_of_many_tasks_stay_small(clusters: int, tables: int) -> None:
    # What the audit's budget of 64 KiB is charged; lesions get a quarter of it.
    case, _ = planted_two_nets(np.random.default_rng(25))
    rows = Rows(np.arange(600) % 12, (0.125,) * 12)
    every = np.arange(600) % 400
    many = LesionCase(case.net, case.inputs[every], case.labels[every], case.head[every], rows)
    labels = np.arange(256) % clusters
    told = lesion_measured(Asked(lesion_nulls=19), evidence_of_case(many), [network_of(many, labels)])
    cells = [one for one in told.metrics if "task" in one.labels and "cluster" in one.labels]
    assert len(cells) == tables * 12 * clusters
    known = strings_of(Measured.model_json_schema())
    known |= {word for spec in LESION_METRICS for word in (spec.name, spec.unit, spec.determinism, *spec.labels)}
    document = Measured(metrics=told.metrics, plots=told.plots, skipped=told.skipped, coverage=dict(told.coverage))
    assert 4_000 < charge_bytes(document.to_json(), known) < 16_384
    left = [one.item for one in told.skipped if one.reason == "lesion_cells_too_many"]
    assert left == ([] if tables == 3 else ["partition:network:loss_rise", "partition:network:on_accuracy"])


def test_two_nets_in_one_are_important_and_specialised() -> None:
    told = measured_of(head_tasks(small_nets.load("d1").net, small_nets.held_out_pairs()), 2)
    for test in told.partitions[0].tests:
        assert 0.83 <= test.max_drop <= 0.92
        assert (test.p_importance, test.p_specialisation, test.s) == (0.005, 0.005, 1.0)
    for code in ("importance", "specialisation"):
        assert words_of(judged(told), code) == ["detected"] * 2
        assert words_of(judged(told), f"{code}_of_model") == ["detected"]


def test_a_joint_net_is_neither() -> None:
    told = measured_of(head_tasks(small_nets.load("d2").net, small_nets.held_out_pairs()), 2)
    for code in ("importance", "specialisation"):
        assert words_of(judged(told), code) == ["not-detected"] * 2
        assert words_of(judged(told), f"{code}_of_model") == ["not-detected"]


def test_two_of_four_clusters_of_a_monolith_are_specialised() -> None:
    told = measured_of(class_tasks(small_nets.load("d3").net, small_nets.held_out()), 4)
    assert sorted(words_of(judged(told), "specialisation")) == ["detected"] * 2 + ["not-detected"] * 2


def test_structure_that_was_trained_in_does_not_vouch_for_function() -> None:
    told = judged(measured_of(class_tasks(small_nets.load("e1").net, small_nets.held_out()), 4))
    assert words_of(told, "specialisation") == ["not-detected"] * 4
    assert words_of(told, "importance") == ["not-detected"] * 4


def test_a_cluster_may_be_specialised_and_not_important() -> None:
    told = judged(measured_of(class_tasks(small_nets.load("e2").net, small_nets.held_out()), 4))
    assert words_of(told, "specialisation") == ["detected"] * 4
    assert words_of(told, "importance") == ["not-detected"] * 4


def seen_by_the_runtime(
    case: LesionCase, rows: Sequence[dict[str, Any]], weights: dict[str, np.ndarray]
) -> InMemoryEvidence:
    """Return evidence whose lesions the production pass answers."""
    facts = evidence_of_case(case).facts
    needs = lesion_needs(Asked(lesion_nulls=99), facts, rows)
    assert facts.feedforward is not None
    trials = [trial for trial in needs.trials if isinstance(trial, VectorTrial)]
    answers = FeedForwardLesions(facts.feedforward, weights, trials, needs.units, needs.lesions)
    return InMemoryEvidence(
        facts=facts,
        check="clusterability",
        weights=weights,
        rows={"lesion": rows},
        lesioned=answers,
        unit_sd=answers.unit_sd,
        lost=answers.lost,
    )


def d1() -> LesionCase:
    return head_tasks(small_nets.load("d1").net, small_nets.held_out_pairs())


def test_a_row_of_huge_inputs_costs_its_numbers_and_nothing_else() -> None:
    case = d1()
    rows = rows_of(case)
    rows[0] = {**rows[0], "input": [1e20 * value for value in rows[0]["input"]]}
    check = Clusterability(k=(2,), nulls=99, lesion_nulls=99, families=("network",))
    measured = check.measure(seen_by_the_runtime(case, rows, tensors_of(case.net)))
    assert ("partition:network:loss_rise", "number_out_of_range") in {
        (one.item, one.reason) for one in measured.skipped
    }
    assert 0 < len(measured.named("loss_rise")) < 4
    words = {one.code: one.word for one in check.judge(measured, ()) if one.code.endswith("_of_model")}
    assert len(words) == 3
    assert measured.find("p_holm", matrix="network") is not None
    rise = next(plot for plot in measured.plots if "loss risen" in plot.title)
    assert 0 < sum(len(row.x) for row in rise.series) < 4


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_huge_weight_leaves_lesions_answered() -> None:
    case = d1()
    for size in (1e300, 1e308):
        weights = tensors_of(case.net)
        weights["w0"] = weights["w0"].copy()
        weights["w0"][3, 5] = size
        told = lesion_measured(
            Asked(lesion_nulls=99), seen_by_the_runtime(case, rows_of(case), weights), [found_in(case, 2)]
        )
        reasons = {one.reason for one in told.skipped}
        assert reasons & {"number_out_of_range", "lesion_trials_lost"}
        assert not any("inf" in metric.value or "nan" in metric.value for metric in told.metrics)
