"""The check as a whole: the synthetic table's words, leaks that must not happen, and bad evidence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from assay.result import Answer, Measured
from pydantic import ValidationError

from checks.ask import ask
from checks.check import Refusal
from checks.memory import InMemoryEvidence
from checks.truth_probe.check import TruthProbe
from checks.truth_probe.findings import Limits, Numbers, could_tell, gates, word_of
from tests.checks.truth_probe.planting import planted_evidence

BANNED = ("knows", "believes", "lies", "honest", "clean")


@pytest.fixture(scope="module")
def answer() -> Answer:
    return ask(TruthProbe(), planted_evidence((4.0, 2.0, 0.0)))


def word_at(answer: Answer, layer: int) -> str:
    return next(finding.word for finding in answer.findings if finding.labels.get("layer") == str(layer))


def test_planted_truth_is_provisional_and_nothing_is_not_detected(answer: Answer) -> None:
    assert answer.valid
    assert [word_at(answer, layer) for layer in range(3)] == ["PROVISIONAL", "PROVISIONAL", "NOT-DETECTED"]


def test_no_claim_outruns_the_gates(answer: Answer) -> None:
    claims = [finding.claim for finding in answer.findings]
    assert "SUPPORTED" not in TruthProbe.words
    assert all("Open gates" in claim for claim in claims if claim.startswith("a linear feature"))
    assert not any(word in claim.lower() for claim in claims for word in BANNED)


def test_the_answer_tells_runs_of_layers_and_no_best_one(answer: Answer) -> None:
    last = answer.findings[-1]
    assert last.code == "truth_feature_by_layer"
    assert last.claim.startswith("PROVISIONAL at layers 0-1; NOT-DETECTED at layer 2")


def test_scores_are_those_of_the_table(answer: Answer) -> None:
    # Section 10 gives md 1.00 / .937 / .52 and lr 1.00 / .93 / .50 at width 256; 64 is easier for a = 2.
    measured = answer.measured
    assert measured is not None
    at = {"set": "planted"}
    for layer, low, high in ((0, 0.98, 1.0), (1, 0.90, 0.99), (2, 0.40, 0.60)):
        for method in ("md", "lr"):
            found = measured.find("auroc", **at, layer=str(layer), method=method)
            assert found is not None
            assert low <= float(found.value) <= high


@pytest.mark.slow
def test_the_synthetic_table_at_its_own_width() -> None:
    check = TruthProbe()
    for amplitude, low, high in ((4.0, 0.99, 1.0), (2.0, 0.90, 0.98), (0.0, 0.42, 0.58)):
        areas: dict[str, list[float]] = {"md": [], "lr": []}
        for seed in range(5):
            real = check.measure(planted_evidence((amplitude,), d=256, seed=seed))
            for method, found in areas.items():
                metric = real.find("auroc", set="planted", layer="0", method=method)
                assert metric is not None
                found.append(float(metric.value))
        assert all(low <= np.mean(found) <= high for found in areas.values())


def test_every_number_says_how_sure_it_is(answer: Answer) -> None:
    measured = answer.measured
    assert measured is not None
    declared = {spec.name: spec for spec in TruthProbe.metrics}
    for metric in measured.metrics:
        no_interval = metric.determinism == "exact" or "interval" in declared[metric.name].summary
        assert metric.interval is not None or no_interval, metric.name
    found = measured.find("auroc", set="planted", layer="0", method="md")
    assert found is not None
    assert found.multiplicity is not None
    assert (found.multiplicity.m, found.multiplicity.corrected) == (3, "holm")
    assert found.interval is not None
    assert float(found.interval.level) == pytest.approx(1 - 0.05 / 3, abs=1e-5)


def test_the_answer_is_small(answer: Answer) -> None:
    assert len(json.dumps(answer.to_json())) < 10_000 * 3


def test_the_verdict_can_be_recomputed_from_the_document(answer: Answer) -> None:
    assert answer.measured is not None
    check = TruthProbe()
    stored = Measured.model_validate_json(answer.measured.model_dump_json())
    assert check.judge(stored, answer.controls) == answer.findings
    assert {finding.word for finding in check.judge(stored, ())} == {"INCONCLUSIVE"}


def relabelled(seen: InMemoryEvidence, split: str) -> InMemoryEvidence:
    """Return the evidence with the labels of one split permuted."""
    rows = [dict(row) for row in seen.data("pairs")]
    at = [number for number, row in enumerate(rows) if row["split"] == split]
    labels = np.random.default_rng(0).permutation([rows[number]["label"] for number in at])
    for number, label in zip(at, labels, strict=True):
        rows[number]["label"] = int(label)
    return seen.replacing(rows={"pairs": rows})


def numbers_of(real: Measured, name: str) -> list[str]:
    return [metric.value for metric in real.named(name) if metric.labels.get("method", "md") == "md"]


def test_sign_never_from_test_labels() -> None:
    check, seen = TruthProbe(), planted_evidence((4.0,))
    plain, moved = check.measure(seen), check.measure(relabelled(seen, "test"))
    for name in ("orientation_margin", "lambda", "stability"):
        assert numbers_of(plain, name) == numbers_of(moved, name)
    assert float(numbers_of(plain, "auroc")[0]) > 0.95
    assert float(numbers_of(moved, "auroc")[0]) < 0.7


def test_wrong_anchors_turn_the_sign_and_the_score() -> None:
    seen = planted_evidence((4.0,))
    rows = [{**row, "label": 1 - row["label"]} if row["split"] == "anchor" else row for row in seen.data("pairs")]
    real = TruthProbe().measure(seen.replacing(rows={"pairs": rows}))
    assert float(numbers_of(real, "auroc")[0]) < 0.05


def test_train_labels_change_no_label_free_number() -> None:
    check, seen = TruthProbe(), planted_evidence((3.0,))
    plain, moved = check.measure(seen), check.measure(relabelled(seen, "train"))
    for name in ("auroc", "lambda", "stability", "orientation_margin"):
        assert numbers_of(plain, name) == numbers_of(moved, name)
    other = moved.find("auroc", set="planted", layer="0", method="lr")
    assert other is not None
    assert float(other.value) < 0.9


def test_threshold_at_base_rate_20_percent() -> None:
    # A cut at the base rate's quantile gave .40 where .97 is right.
    seen = planted_evidence((6.0,), n=600)
    drop, kept = 0, []
    for row in seen.data("pairs"):
        if row["split"] == "test" and row["label"] == 1 and drop < 220:
            drop += 1
            continue
        kept.append(row)
    ids = {row["id"] for row in kept}
    mask = np.repeat([row["id"] in ids for row in seen.data("pairs")], 2)
    thinned = seen.replacing(rows={"pairs": kept}, activations={"resid.0": seen.activations("resid.0")[mask]})
    found = TruthProbe(max_items=2000).measure(thinned).find("accuracy", set="planted", layer="0", method="md")
    assert found is not None
    assert float(found.value) > 0.95


def test_controls_land_in_their_bands_without_any_truth() -> None:
    answer = ask(TruthProbe(), planted_evidence((0.0, 0.0), d=48, seed=5))
    assert {control.name for control in answer.controls} == {"shuffled-labels", "planted-truth"}
    assert all(control.held for control in answer.controls)


def test_width_above_pairs_is_measured() -> None:
    real = TruthProbe(lambda_rule="lambda0").measure(planted_evidence((8.0,), n=110, d=260))
    assert float(numbers_of(real, "auroc")[0]) > 0.9


def test_a_broken_layer_is_skipped_by_name_and_the_others_go_on() -> None:
    seen = planted_evidence((4.0, 4.0, 4.0))
    broken = seen.activations("resid.1").copy()
    broken[40] = np.nan
    still = np.repeat(seen.activations("resid.2")[::2], 2, axis=0)
    real = TruthProbe().measure(seen.replacing(activations={"resid.1": broken, "resid.2": still}))
    assert {(one.item, one.reason) for one in real.skipped} == {
        ("layer:1:p20", "non_finite"),
        ("layer:2", "degenerate_layer"),
    }
    assert [metric.labels["layer"] for metric in real.named("stability")] == ["0"]
    assert real.coverage["layer"] == ("0", "1", "2")


def test_a_skipped_layer_never_reads_as_not_detected() -> None:
    seen = planted_evidence((0.0, 0.0))
    answer = ask(TruthProbe(), seen.replacing(activations={"resid.1": np.full((1664, 64), np.inf)}))
    assert answer.findings[-1].word == "INCONCLUSIVE"
    assert "not measured at layer 1" in answer.findings[-1].claim


def test_lost_texts_leave_their_item_out_by_name() -> None:
    seen = planted_evidence((4.0,))
    broken = seen.activations("resid.0").copy()
    broken[7] = np.nan  # row 7 is the - text of pair 3
    real = TruthProbe().measure(seen.replacing(activations={"resid.0": broken}, lost={"p3/neg": "text_too_long"}))
    assert [(one.item, one.reason) for one in real.skipped] == [("item:i3", "text_lost")]
    assert real.named("auroc")


def test_many_lost_texts_are_refused() -> None:
    seen = planted_evidence((4.0,))
    with pytest.raises(Refusal, match="items_lost") as told:
        TruthProbe().measure(seen.replacing(lost={f"p{number}/pos": "text_too_long" for number in range(30)}))
    assert told.value.items[-1] == "total:30"


def test_needs_name_sites_and_texts_in_row_order() -> None:
    check, seen = TruthProbe(layers=(1,)), planted_evidence((0.0, 0.0), n=120)
    needs = check.needs(seen.facts, {"pairs": seen.data("pairs")})
    assert needs.sites == ("resid.1",)
    assert needs.access() == ("activations",)
    assert [text.id for text in needs.texts[:4]] == ["p0/pos", "p0/neg", "p1/pos", "p1/neg"]
    with pytest.raises(Refusal, match="layer_out_of_range: layer:9"):
        TruthProbe(layers=(9,)).needs(seen.facts, {"pairs": seen.data("pairs")})


def test_states_that_do_not_match_the_plan_are_never_paired_with_labels() -> None:
    with pytest.raises(ValueError, match="2464 states for 2000 texts"):
        TruthProbe(max_items=1000).measure(planted_evidence((4.0,), n=600))


def test_too_few_anchors_are_refused() -> None:
    with pytest.raises(Refusal, match="too_few_anchors: anchors:10"):
        TruthProbe().measure(planted_evidence((4.0,), anchors=10))


@pytest.mark.parametrize(
    "params",
    [
        {"anchors_k": 17},
        {"lambda_rule": "1"},
        {"lambda_rule": "best"},
        {"alpha": "1"},
        {"normaliser": "zscore"},
        {"seed": 1},
    ],
)
def test_wrong_parameters_are_rejected(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TruthProbe.model_validate(params)


LIMITS = Limits(alpha=0.05, detect_floor=0.6, stable_floor=0.5, unstable_below=0.2)


def numbers(**changed: Any) -> Numbers:
    base: dict[str, Any] = {
        "set": "s",
        "layer": 0,
        "auroc": 0.9,
        "low": 0.85,
        "high": 0.95,
        "level": 0.99,
        "p": 0.001,
        "items": 400,
        "stability": 0.8,
        "sign_p": 0.0001,
        "random_p95": 0.7,
        "predicted": 0.99,
        "ceiling": 0.95,
    }
    return Numbers(**(base | changed))


@pytest.mark.parametrize(
    ("changed", "word", "reason"),
    [
        ({}, "PROVISIONAL", "gates_open"),
        ({"stability": 0.3}, "PROVISIONAL", "gates_open"),
        ({"stability": 0.1}, "UNSTABLE", "unstable"),
        ({"low": 0.7}, "NOT-DETECTED", "no_separation"),
        ({"p": 0.06}, "NOT-DETECTED", "no_separation"),
        ({"low": 0.55, "random_p95": 0.5}, "NOT-DETECTED", "no_separation"),
        ({"sign_p": 0.06}, "NOT-DETECTED", "sign_abstained"),
        ({"sign_p": 0.06, "stability": 0.1}, "NOT-DETECTED", "unstable"),
        ({"low": 0.5, "predicted": 0.6}, "INCONCLUSIVE", "could_not_tell"),
        ({"random_p95": 0.97}, "INCONCLUSIVE", "could_not_tell"),
    ],
)
def test_each_gate_has_its_word(changed: dict[str, Any], word: str, reason: str) -> None:
    assert word_of(numbers(**changed), LIMITS, ()) == (word, reason)


def test_gates_not_built_are_open() -> None:
    held = gates(numbers(), LIMITS)
    assert [name for name, gate in held.items() if gate == "open"] == ["distractors", "negation", "causal", "output"]
    assert gates(numbers(stability=0.3), LIMITS)["stable"] == "open"


def test_small_or_saturated_sets_could_not_tell() -> None:
    assert could_tell(numbers(), LIMITS)
    assert not could_tell(numbers(items=20), LIMITS)
    assert not could_tell(numbers(predicted=0.7), LIMITS)
    assert not could_tell(numbers(random_p95=0.95), LIMITS)
