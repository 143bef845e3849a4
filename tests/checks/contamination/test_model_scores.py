"""Transfer and inflation tell nothing where too little is scored, and find what was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assay.result import Finding

from checks.check import Refusal
from checks.contamination.items import read_benchmark, read_scores
from checks.contamination.model_measure import measure
from checks.contamination.model_scores import inflation_finding, inflation_metrics
from checks.contamination.model_texts import ModelAsked
from checks.memory import InMemoryEvidence, model_facts

ASKED = ModelAsked(tests=("transfer",))
ITEMS = 150


def benchmark(count: int = ITEMS) -> list[dict[str, Any]]:
    return [
        {"benchmark": "demo", "item": f"i{at}", "kind": "prose", "question": f"what is {at}"} for at in range(count)
    ]


def scores(models: int, gain: float, reference: str = "other", flagged: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """Return answers; the target gains on the audited benchmark, or on its flagged items alone."""
    rng = np.random.default_rng(seed)
    told = []
    for name, base in [("target", 0.5), *((f"m{at}", 0.25 + 0.6 * at / max(1, models)) for at in range(models))]:
        for where in ("demo", reference):
            for at in range(ITEMS):
                helped = name == "target" and where == "demo" and (at < flagged or not flagged)
                told.append({"model": name, "benchmark": where, "item": f"i{at}",
                             "correct": int(rng.random() < min(0.98, base + gain * helped))})  # fmt: skip
    return told


def measured(rows: list[dict[str, Any]] | None) -> Any:
    given: dict[str, Any] = {"benchmark": benchmark()}
    if rows is not None:
        given["scores"] = rows
    return measure(ASKED, InMemoryEvidence(facts=model_facts(), rows=given))


def test_scores_that_are_wrong_are_refused() -> None:
    with pytest.raises(Refusal, match="scores:"):
        measured([{"model": "target", "benchmark": "demo", "item": "i0", "correct": 2}])


def test_transfer_without_role_or_models_is_not_asked() -> None:
    assert [(one.item, one.reason) for one in measured(None).skipped] == [("transfer:demo", "role")]
    assert [(one.item, one.reason) for one in measured(scores(5, 0.3)).skipped] == [("transfer:demo", "too_few")]


def test_transfer_finds_a_planted_gain_and_no_other() -> None:
    labels = {"benchmark": "demo", "reference": "other"}
    found, none = measured(scores(8, 0.3)), measured(scores(8, 0.0))
    assert float(found.find("transfer.p", **labels).value) <= 0.01
    assert 15 < float(found.find("transfer.delta", **labels).value) < 45
    assert float(none.find("transfer.p", **labels).value) > 0.05
    assert found.find("transfer.p", **labels).multiplicity.corrected == "holm"


def inflated(gain: float, models: int = 6, flagged: int = 50) -> Any:
    items = read_benchmark(benchmark())
    told = read_scores(scores(models, gain, flagged=flagged))
    return inflation_metrics("demo", {f"demo/i{at}" for at in range(flagged)}, items, told, np.random.default_rng(0))


@pytest.mark.parametrize(("models", "flagged"), [(3, 50), (6, 19), (6, 140), (6, 0)])
def test_inflation_of_too_few_is_not_asked(models: int, flagged: int) -> None:
    told = inflated(0.3, models, flagged)
    assert told == []
    finding = inflation_finding("demo", told, role=True, leak=leak())
    assert (finding.word, finding.labels["reason"], finding.rests_on) == ("not_asked", "too_few", ())
    assert inflation_finding("demo", told, role=False, leak=leak()).labels["reason"] == "role"


def leak(word: str = "detected", **labels: str) -> Finding:
    return Finding(code="leak", word=word, severity="note", claim="-.", labels={"benchmark": "demo"} | labels,
                   rests_on=())  # fmt: skip


@pytest.mark.parametrize("gain", [0.45, 0.0])
def test_inflation_claims_nothing_of_a_leak_that_is_not_detected(gain: float) -> None:
    """Items flagged by a test that is not valid are no leaks: what they gained is no inflation, nor its absence."""
    told = inflated(gain)
    for word, why in (("invalid", "placebo_mismatch"), ("inconclusive", "coverage"), ("not_asked", "parameter")):
        finding = inflation_finding("demo", told, role=True, leak=leak(word, reason=why))
        assert (finding.word, finding.labels["reason"], finding.severity) == (word, why, "note")
    for absent in (None, leak("not_detected")):
        finding = inflation_finding("demo", told, role=True, leak=absent)
        assert (finding.word, finding.labels["reason"]) == ("inconclusive", "not_measured")


def test_inflation_is_a_lower_bound_on_flagged_items() -> None:
    told = inflated(0.45)
    finding = inflation_finding("demo", told, role=True, leak=leak())
    assert finding.word == "detected"
    assert {one.unit for one in told} == {"points"}
    assert "at least" in finding.claim
    assert inflation_finding("demo", inflated(0.0), role=True, leak=leak()).word == "not_detected"
    assert inflation_finding("demo", told[:1], role=True, leak=leak()).word == "not_asked"


def test_items_that_a_model_was_not_asked_are_left_out() -> None:
    rows = [one for one in scores(6, 0.45, flagged=50) if not (one["model"] == "m3" and one["item"] in ("i7", "i90"))]
    told = inflation_metrics(
        "demo", {f"i{at}" for at in range(50)}, read_benchmark(benchmark()), read_scores(rows), np.random.default_rng(0)
    )
    assert {one.n for one in told} == {ITEMS - 2}
