"""The check as a whole: planted evidence in, words out, and every bad input named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from assay.result import Answer, Finding, Measured
from pydantic import ValidationError

from checks.ask import ask
from checks.check import Refusal
from checks.clusterability.check import Clusterability
from checks.clusterability.controls import IidNoise, PlantedBlocks, planted
from checks.clusterability.findings import Limits, Numbers, matrices_of, word_of
from checks.clusterability.mask_controls import MASK, MASKED
from checks.clusterability.metric_specs import METRICS
from checks.clusterability.testing import replicates
from checks.memory import model_facts
from sandbox.budget import charge_bytes
from tests.checks.clusterability.evidence import evidence_of
from tests.checks.clusterability.nets import relu_chain
from tests.checks.promised import hold_to_promise, unreached

LIMITS = Limits(alpha=0.05, min_excess_q=0.02, min_stability=0.7, min_cluster_share=0.01)


@pytest.fixture(scope="module")
def answer() -> Answer:
    rng = np.random.default_rng(30)
    weights = {"clustered": planted((96, 256), 4, 0.5, rng)[0], "noise": rng.standard_normal((256, 96))}
    return ask(Clusterability(), evidence_of(weights))


def structure_of(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of the claim that needs weights alone."""
    return [one for one in findings if one.code.startswith("structure")]


def test_planted_structure_is_detected_and_noise_is_not(answer: Answer) -> None:
    words = {finding.labels.get("matrix"): finding.word for finding in structure_of(answer.findings)}
    assert answer.valid
    assert words == {"clustered": "detected", "noise": "not-detected", None: "detected"}


def test_the_answer_never_denies_structure(answer: Answer) -> None:
    claims = " ".join(finding.claim for finding in answer.findings).lower()
    assert "not modular" not in claims
    assert "structure is not function" in claims


def test_every_matrix_owed_is_covered_and_small(answer: Answer) -> None:
    assert answer.measured is not None
    assert answer.measured.coverage["matrix"] == ("clustered", "noise")
    assert {m.labels["matrix"] for m in answer.measured.named("p_holm")} == {"clustered", "noise"}
    assert len(json.dumps(answer.to_json())) < 60_000


def strings(value: object) -> set[str]:
    """Return every string of a JSON value: what schema and catalogue give carries nothing out."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set(value).union(*map(strings, value.values()))
    return set().union(*map(strings, value)) if isinstance(value, list | tuple) else set()


KNOWN = strings(Answer.model_json_schema()) | {one.name for one in METRICS} | {"raw", "balanced", "unit_in_norm"}


def charge(measured: Measured) -> int:
    return charge_bytes(measured.to_json()["metrics"], KNOWN)


def test_details_are_told_of_the_largest_excess_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # 24 matrices with details, their plots and controls, are charged some 30 KB of an audit's 64.
    rng = np.random.default_rng(38)
    rhos = {"weak": 0.5, "strong": 0.2, "middle": 0.35}
    seen = evidence_of({name: planted((64, 64), 4, rho, rng)[0] for name, rho in rhos.items()})
    check = Clusterability(k=(2, 4), nulls=199)
    whole = check.measure(seen)
    assert {m.labels["matrix"] for m in whole.named("eigengap")} == set(rhos)
    assert charge(whole) / 3 < 1000
    monkeypatch.setattr("checks.clusterability.testing.DETAILS_MAX", 1)
    short = check.measure(seen)
    assert {m.labels["matrix"] for m in short.named("eigengap")} == {"strong"}
    assert {m.labels["matrix"] for m in short.named("stability")} == set(rhos)
    assert charge(short) < charge(whole) - 600


@pytest.mark.slow
@pytest.mark.parametrize("matrices", [24, 40])
def test_the_largest_answers_leave_room_in_an_audit(matrices: int) -> None:
    rng = np.random.default_rng(39)
    weights = {f"encoder.layer.{at}.up.weight": planted((96, 256), 8, 0.3, rng)[0] for at in range(matrices)}
    told = ask(Clusterability(), evidence_of(weights))
    assert told.measured is not None
    assert len(told.measured.named("stability")) == matrices
    assert charge_bytes(told.to_json(), KNOWN) < 48 * 1024


def test_ranges_over_draws_hold_what_they_are_ranges_of(answer: Answer) -> None:
    measured = answer.measured
    assert measured is not None
    for name, of in (("c_range", "c"), ("q_b_range", "q_b")):
        drawn, whole = measured.find(name, matrix="clustered"), measured.find(of, matrix="clustered", view="balanced")
        assert drawn is not None
        assert drawn.interval is not None
        assert whole is not None
        assert float(drawn.interval.low) <= float(drawn.value) <= float(drawn.interval.high)
        assert float(drawn.value) == pytest.approx(float(whole.value), abs=0.02)


def test_an_answer_is_what_its_catalogue_entry_promises(answer: Answer) -> None:
    hold_to_promise(answer)
    # No mask, product, graph or net was asked: `test_controls` states their bands.
    of_masks = {("planted-blocks", f"p/matrix:{MASKED}"), ("iid-noise", f"flagged/shape:{MASK}")}
    of_graphs = {"k", "excess_q", "excess_q/matrix:head_graph", "excess_q/matrix:network"}
    assert unreached(answer) == of_masks | {("planted-graphs", one) for one in of_graphs}


def test_the_verdict_can_be_recomputed_from_the_document(answer: Answer) -> None:
    assert answer.measured is not None
    stored = Measured.model_validate_json(answer.measured.model_dump_json())
    assert Clusterability().judge(stored, answer.controls) == answer.findings


def test_a_missed_control_makes_every_word_inconclusive(answer: Answer) -> None:
    assert answer.measured is not None
    words = {finding.word for finding in structure_of(Clusterability().judge(answer.measured, ()))}
    assert words == {"inconclusive"}


def test_controls_see_what_they_should() -> None:
    check = Clusterability()
    seen = evidence_of({"w": np.random.default_rng(31).standard_normal((96, 256))})
    for control in (PlantedBlocks(), IidNoise()):
        bands = control.bands(check, check.measure(control.spoil(check, seen)))
        assert bands
        assert all(one.low <= one.value <= one.high for one in bands)


def test_a_spoiled_plant_misses_its_band() -> None:
    check, control = Clusterability(), PlantedBlocks()
    noise = IidNoise().spoil(check, evidence_of({"w": np.ones((96, 256))}))
    shape = "noise.96x256.0"
    plant = control.spoil(check, evidence_of({"w": np.ones((96, 256))}))
    seen = evidence_of({"planted.96x256": noise.weights(shape)})
    seen.facts = plant.facts
    bands = control.bands(check, check.measure(seen))
    assert not all(one.low <= one.value <= one.high for one in bands)


def test_holm_can_reach_alpha() -> None:
    # 24 matrices with 199 replicates can never pass Holm at .05: the plan must not be made that way.
    check = Clusterability()
    assert 24 / (replicates(check, (24, 80), (2, 3), 24) + 1) <= 0.05 / 2 + 1e-9
    assert replicates(check, (96, 256), (2, 3), 2) == 999


def test_too_few_replicates_are_inconclusive_not_undetected() -> None:
    few = Clusterability(nulls=99)
    rng = np.random.default_rng(32)
    weights = {f"w{layer}": planted((96, 256), 4, 0.4, rng)[0] for layer in range(6)}
    told = structure_of(ask(few, evidence_of(weights)).findings)
    assert {finding.word for finding in told} == {"inconclusive"}
    assert told[0].labels["reason"] == "p_resolution"


def numbers(**changed: object) -> Numbers:
    base: dict[str, object] = {
        "matrix": "w",
        "p_holm": 0.01,
        "p_holm_least": 0.002,
        "excess_q": 0.05,
        "k": 4,
        "smallest_share": 0.1,
        "stability": 0.9,
        "confirm_excess_q": 0.04,
        "null_n": 499,
        "planned": 499,
        "masked": False,
        "power": None,
    }
    return Numbers(**(base | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "word", "reason"),
    [
        ({}, "detected", "all_hold"),
        ({"p_holm": 0.06}, "not-detected", "p_above_alpha"),
        ({"excess_q": 0.019}, "not-detected", "excess_below_floor"),
        ({"confirm_excess_q": 0.01}, "inconclusive", "low_rank_driven"),
        ({"stability": 0.69}, "inconclusive", "unstable_partition"),
        ({"stability": None}, "inconclusive", "unstable_partition"),
        ({"smallest_share": 0.009}, "inconclusive", "small_cluster"),
        ({"p_holm_least": 0.06}, "inconclusive", "p_resolution"),
    ],
)
def test_each_floor_has_its_word(changed: dict[str, object], word: str, reason: str) -> None:
    assert word_of(numbers(**changed), LIMITS) == (word, reason)


def test_bad_matrices_are_named_and_the_others_are_measured() -> None:
    rng = np.random.default_rng(33)
    bad = rng.standard_normal((96, 256))
    bad[3, 7] = np.nan
    mostly_zero = rng.standard_normal((96, 256)) * (rng.random((96, 256)) < 0.5)
    real = Clusterability(layers=(0, 1, 2, 3, 4)).measure(
        evidence_of(
            {
                "nan": bad,
                "zero": np.zeros((96, 256)),
                "small": rng.standard_normal((8, 256)),
                "sparse": mostly_zero,
                "fine": rng.standard_normal((96, 256)),
            }
        )
    )
    assert {(one.item, one.reason) for one in real.skipped} == {
        ("nan:3:7", "non_finite"),
        ("zero", "empty"),
        ("small", "too_small"),
        ("virtual_mlp", "no_mlp"),
        ("head_graph", "no_attention"),
    }
    assert [m.labels["matrix"] for m in real.named("p_holm")] == ["sparse", "fine"]
    assert [m.value for m in real.named("masked")] == ["1", "0"]


def test_a_matrix_left_out_never_reads_as_not_detected() -> None:
    rng = np.random.default_rng(34)
    weights = {"fine": rng.standard_normal((96, 256)), "zero": np.zeros((96, 256))}
    model = structure_of(ask(Clusterability(), evidence_of(weights)).findings)[-1]
    assert (model.code, model.word) == ("structure_of_model", "inconclusive")
    assert "1 refused" in model.claim


def test_dead_units_are_counted_and_left_out() -> None:
    weights = np.random.default_rng(35).standard_normal((40, 100))
    weights[4], weights[:, 9] = 0.0, 0.0
    real = Clusterability(nulls=99).measure(evidence_of({"w": weights}))
    dead = real.find("dead_nodes", matrix="w")
    assert dead is not None
    assert dead.value == "2"


def test_nothing_testable_is_a_refusal_that_names_why() -> None:
    with pytest.raises(Refusal) as told:
        Clusterability().measure(evidence_of({"w": np.zeros((96, 256))}))
    assert told.value.reason == "nothing_testable"
    assert told.value.items == ("empty:w",)


def test_too_large_k_is_skipped_by_name() -> None:
    real = Clusterability(k=(2, 16), nulls=99).measure(
        evidence_of({"w": np.random.default_rng(36).standard_normal((20, 30))})
    )
    assert [(one.item, one.reason) for one in real.skipped] == [("w:k:16", "k_too_large")]


def test_needs_name_the_matrices_or_say_why_not() -> None:
    facts = model_facts(layers=2, mlp_in=("a.in", "b.in"), mlp_out=("a.out", "b.out"))
    assert Clusterability(layers=(1,)).needs(facts, {}).weights == ("b.in", "b.out")
    assert Clusterability().needs(facts, {}).access() == ("weights",)
    with pytest.raises(Refusal, match="layer_out_of_range: layer:2"):
        Clusterability(layers=(2,)).needs(facts, {})
    with pytest.raises(Refusal, match="no_mlp"):
        Clusterability().needs(model_facts(), {})
    many = tuple(f"m{layer}" for layer in range(50))
    with pytest.raises(Refusal, match="too_many_matrices"):
        Clusterability().needs(model_facts(layers=50, mlp_in=many), {})


@pytest.mark.parametrize(
    "params",
    [
        {"alpha": "0.5"},
        {"alpha": 0.05},
        {"k": [1, 2]},
        {"k": []},
        {"k": [2, 2]},
        {"nulls": 10},
        {"layers": "some"},
        {"nul": 99},
    ],
)
def test_wrong_parameters_are_rejected(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Clusterability.model_validate(params)


def test_parameters_survive_json() -> None:
    check = Clusterability.model_validate({"layers": [2, 0], "k": [4, 2], "alpha": "0.01"})
    assert check.layers == (0, 2)
    assert Clusterability.model_validate_json(check.model_dump_json()) == check


def test_identical_seeds_give_identical_bytes() -> None:
    weights = {"w": planted((96, 256), 4, 0.6, np.random.default_rng(37))[0]}
    first, second = (Clusterability().measure(evidence_of(weights)).model_dump_json() for _ in range(2))
    assert first == second


def test_the_check_imports_without_torch() -> None:
    code = "import sys, checks.clusterability.check, checks.truth_probe.check; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_could_not_be_tested_counts_among_the_tests_that_replicates_are_planned_for() -> None:
    # The judge pads Holm with what was owed and skipped: drawn for five, words of twenty are p_resolution.
    rng = np.random.default_rng(61)
    small = {f"small.{at}": rng.standard_normal((8, 20)) for at in range(15)}
    seen = evidence_of({"planted": planted((17, 19), 2, 0.1, rng)[0], **small})
    check = Clusterability(k=(2,))
    measured = check.measure(seen)
    (numbers,) = matrices_of(measured)
    assert numbers.null_n == 639
    assert numbers.p_holm_least <= 0.05 / 2
    assert word_of(numbers, check.limits()) == ("detected", "all_hold")


def test_a_constant_matrix_is_refused_by_name() -> None:
    rng = np.random.default_rng(63)
    signed = 0.5 * np.sign(rng.standard_normal((20, 24)))
    weights = {"flat": np.full((20, 24), 0.1), "signed": signed, "noise": rng.standard_normal((20, 24))}
    check = Clusterability(k=(2,), nulls=99)
    told = check.measure(evidence_of(weights))
    assert {(one.item, one.reason) for one in told.skipped} >= {("flat", "constant"), ("signed", "constant")}
    assert {one.labels["matrix"] for one in told.named("p")} == {"noise"}
    with pytest.raises(Refusal) as refused:
        check.measure(evidence_of({"flat": weights["flat"]}))
    assert (refused.value.reason, refused.value.items) == ("nothing_testable", ("constant:flat",))


def test_a_net_of_constant_layers_is_refused_as_a_whole() -> None:
    seen = relu_chain([np.full((20, 24), 0.1), -np.ones((18, 20))])
    with pytest.raises(Refusal) as refused:
        Clusterability(k=(2,), nulls=99).measure(seen)
    assert set(refused.value.items) == {"constant:0.weight", "constant:2.weight", "constant:network"}
