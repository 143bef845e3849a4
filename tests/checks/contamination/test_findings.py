"""Words never get stronger, and never pass, where something was not measured."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import product

import pytest
from assay.result import ControlResult, Finding, Measured, Metric
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.conclude_controls import (
    HARD_NEGATIVES,
    KNOWN_ANSWER,
    KNOWN_ENCODER,
    PLACEBO_AS_ITEM,
    PLANTED_FAMILIES,
    PLANTED_REWRITES,
    _result,
)
from checks.contamination.findings import Gates, findings
from checks.contamination.metric_specs import NAMES, SPECS
from checks.contamination.shares_estimate import counted, scored
from checks.contamination.words import BANNED, CLAIMS, DETECTED, INCONCLUSIVE, INVALID, NOT_ASKED, NOT_DETECTED, WORDS
from checks.quantise import metric

DEMO = {"benchmark": "demo"}
STRENGTH = {DETECTED: 2, NOT_DETECTED: 1, INVALID: 0, INCONCLUSIVE: 0, NOT_ASKED: 0}


def _count(name: str, value: int, labels: dict[str, str] | None = None) -> Metric:
    return metric(name, value, n=1, unit="count", determinism="exact", labels=DEMO if labels is None else labels)


def _recall(depth: int, hits: int, n: int, source: str) -> Metric:
    told = scored(hits, n)
    labels = DEMO | {"depth": str(depth), "placement": "all", "source": source}
    return metric(
        "recall", told.value, n=n, unit="fraction", determinism="exact", labels=labels,
        interval=(told.low, told.high), method="wilson",
    )  # fmt: skip


def _pooled(depths: str, hits: int, n: int, source: str, least: float | None = None) -> list[Metric]:
    """Return what a silence rests on, found by words and by anything alike, and how many were planted."""
    told = scored(hits, n)
    metrics = [_count("planted", n, DEMO | {"depth": depths, "source": source})]
    for searched in ("words", "all"):
        labels = DEMO | {"depth": depths, "source": source, "searched": searched}
        value = scored(0, n) if depths == "5" and searched == "words" else told
        alone = value.value if least is None else min(least, value.value)
        metrics += [
            metric("recall.pooled", value.value, n=n, unit="fraction", determinism="exact", labels=labels,
                   interval=(value.low, value.high), method="wilson"),
            metric("recall.least", alone, n=n, unit="fraction", determinism="exact", labels=labels),
        ]  # fmt: skip
    return metrics


def world(
    flagged: dict[str, int] | None = None,
    recall: int = 40,
    bulk: float = 0.4,
    missing: int = 0,
    uncalibrated: int = 0,
    families: int = 0,
    embedded: int = 9000,
    near: int = 0,
    items: int = 400,
    closed: int = 0,
    code: int = 0,
    other: int = 0,
    near_found: int = 40,
    near_least: float | None = None,
    own: bool = True,
    unflaggable: int = 0,
) -> Measured:
    """Return the numbers of an audit of one benchmark."""
    told = {"exact": 0, "near": 0, "semantic": 0, "template": 0} | (flagged or {})
    told["all"] = sum(told[tier] for tier in ("exact", "near", "semantic"))
    metrics = [
        _count("items", items), _count("uncalibrated", uncalibrated), _count("min_flaggable", 1),
        _count("placebos", 0), _count("placebo_kind_items", closed), _count("code_items", code),
        _count("other_language_items", other),
        _count("placebo_check_items", 300), _count("unflaggable", unflaggable),
        metric("p_bulk", bulk, n=300, unit="1", determinism="statistical", labels=DEMO),
        _count("families", families, {}), _count("words", 10_000, {}), _count("words_embedded", embedded, {}),
        _count("shards_missing", missing, {}),
        _recall(0, 20, 20, "automatic"), _recall(1, 20, 20, "automatic"),
        _recall(5, 40, 40, "authored"),
        *_pooled("0-1", 40, 40, "automatic"), *_pooled("2-4", near_found, 40, "automatic", near_least),
        *(_count("planted", 0, DEMO | {"depth": depth, "source": "rewrites"}) for depth in ("0-1", "2-4")),
    ]  # fmt: skip
    if own:
        metrics += [_recall(5, recall, 40, "rewrites"), *_pooled("5", recall, 40, "rewrites")]
    else:
        metrics.append(_count("planted", 0, DEMO | {"depth": "5", "source": "rewrites"}))
    if code:
        metrics += [
            _count("planted", 0, DEMO | {"depth": depth, "source": f"{source}_code"})
            for depth in ("0-1", "2-4", "5")
            for source in ("automatic", "rewrites")
        ]
    for tier, count in told.items():
        labels = DEMO | {"tier": tier}
        share = counted(count, items)
        metrics += [_count("flagged", count, labels), _count("answer_near", near if count else 0, labels)]
        metrics.append(
            metric("share.raw", share.value, n=items, unit="fraction", determinism="exact", labels=labels,
                   interval=(share.low, share.high), method="clopper-pearson")
        )  # fmt: skip
    return Measured(coverage={"benchmark": ("demo",)}, metrics=tuple(metrics))


def controls(**values: float) -> tuple[ControlResult, ...]:
    told = {"placebo": 0, "planted": 1, "families": 0.9, "negatives": 0, "known": 0, "encoder": 0} | values
    return (
        _result(PLACEBO_AS_ITEM, "null", "sets_flagged", DEMO, told["placebo"], 0, 2),
        _result(PLANTED_REWRITES, "positive", "recall", DEMO, told["planted"], 0.95, 1),
        _result(PLANTED_FAMILIES, "positive", "recall", DEMO, told["families"], 0.6, 1),
        _result(HARD_NEGATIVES, "negative", "passed_as_same", {}, told["negatives"], 0, 0.05),
        _result(KNOWN_ANSWER, "positive", "pairs_missed", {}, told["known"], 0, 0),
        _result(KNOWN_ENCODER, "positive", "largest_difference", {}, told["encoder"], 0, 0.0005),
    )


def said(found: Iterable[Finding]) -> dict[str, tuple[str, str | None]]:
    return {one.code: (one.word, one.labels.get("reason")) for one in found}


def _said(real: Measured, held: tuple[ControlResult, ...] | None = None, gates: Gates | None = None):  # type: ignore[no-untyped-def]
    return said(findings(real, controls() if held is None else held, (), gates))


def test_every_row_of_the_table() -> None:
    assert _said(world())["leak"] == (NOT_DETECTED, None)
    assert _said(world({"semantic": 3}))["leak"] == (DETECTED, None)
    assert _said(world({"semantic": 3}))["leak.near"] == (NOT_DETECTED, None)
    assert _said(world({"semantic": 3}))["leak.template"] == (NOT_ASKED, "parameter")
    assert _said(world({"exact": 3}, bulk=1e-6))["leak"] == (INVALID, "placebo_mismatch")
    assert _said(world(recall=10))["leak.semantic"] == (INCONCLUSIVE, "underpowered")
    assert _said(world(recall=10))["leak"] == (INCONCLUSIVE, "underpowered")
    assert _said(world(embedded=5000))["leak.semantic"] == (INCONCLUSIVE, "coverage")
    assert _said(world(missing=1, flagged={"exact": 3}))["leak.exact"] == (INCONCLUSIVE, "coverage")
    assert _said(world(uncalibrated=81))["leak.near"] == (INCONCLUSIVE, "no_placebo")
    assert _said(world(uncalibrated=80))["leak.near"] == (NOT_DETECTED, None)
    assert _said(world(other=400, uncalibrated=400))["leak"] == (NOT_ASKED, "language")
    assert _said(world(other=60, uncalibrated=60))["leak"] == (NOT_DETECTED, None)
    assert _said(world(closed=400, uncalibrated=400))["leak.exact"] == (INCONCLUSIVE, "no_placebo")
    assert _said(world(closed=1))["leak"] == (INCONCLUSIVE, "no_placebo")
    assert _said(world({"exact": 1}, closed=1))["leak"] == (DETECTED, None)
    # What is found of prose does not speak for code.
    assert _said(world(code=30))["leak"] == (INCONCLUSIVE, "no_recall")
    off = Gates(embedded=False)
    assert _said(world(), gates=off)["leak.semantic"] == (NOT_ASKED, "parameter")
    assert _said(world(), gates=off)["leak"] == (INCONCLUSIVE, "coverage")
    assert _said(world({"exact": 1}), gates=off)["leak"] == (DETECTED, None)


def test_exact_matches_of_code_are_out_of_reach_where_no_p_is_small_enough() -> None:
    """Identity needs no p-value and so is never out of reach; but code has none."""
    for code, told in ((0, (NOT_DETECTED, None)), (400, (INCONCLUSIVE, "underpowered"))):
        real = world(code=code)
        metrics = tuple(_count("min_flaggable", 401) if one.name == "min_flaggable" else one for one in real.metrics)
        assert _said(real.model_copy(update={"metrics": metrics}))["leak.exact"] == told


def test_silence_at_near_is_not_bought_by_another_depth() -> None:
    """Twenty of twenty verbatim copies and forty of forty of depth 5 say nothing of what depths 2-4 would show."""
    assert _said(world(near_found=30))["leak.near"] == (INCONCLUSIVE, "underpowered")
    assert _said(world(near_found=30))["leak.exact"] == (NOT_DETECTED, None)
    assert _said(world(near_least=0.6))["leak.near"] == (INCONCLUSIVE, "underpowered")
    assert _said(world(near_found=30))["leak"] == (INCONCLUSIVE, "underpowered")


def test_without_the_auditors_rewordings_semantic_is_no_silence() -> None:
    told = {one.code: one for one in findings(world(own=False), controls(), ())}
    assert (told["leak.semantic"].word, told["leak.semantic"].labels["reason"]) == (INCONCLUSIVE, "no_recall")
    assert "measured on authored items, not on yours" in told["leak.semantic"].claim
    assert (told["leak"].word, told["leak"].labels["reason"]) == (INCONCLUSIVE, "no_recall")
    assert told["leak.near"].word == NOT_DETECTED
    assert "depth 2-4 (made by rule)" in told["leak.near"].claim


def test_items_that_no_scan_looked_for_are_not_absent() -> None:
    for tier in ("exact", "near", "semantic"):
        told = _said(world(unflaggable=81), gates=Gates(gating_tiers=(tier,)))
        assert told["leak"] == told[f"leak.{tier}"] == (INCONCLUSIVE, "coverage")
    (claim,) = (one.claim for one in findings(world(unflaggable=80), controls(), ()) if one.code == "leak.exact")
    assert "nothing is said of 80 items" in claim
    assert _said(world({"exact": 1}, unflaggable=81))["leak.exact"] == (DETECTED, None)


@pytest.mark.parametrize(
    ("spoiled", "codes"),
    [
        ({"placebo": 3}, {"leak", "leak.exact", "leak.near", "leak.semantic"}),
        ({"planted": 0.94}, {"leak", "leak.exact", "leak.near", "leak.semantic"}),
        ({"known": 1}, {"leak", "leak.exact", "leak.near", "leak.semantic"}),
        ({"encoder": 0.001}, {"leak", "leak.exact", "leak.near", "leak.semantic"}),
        ({"negatives": 0.06}, {"leak.semantic"}),
        ({"families": 0.5}, {"leak.semantic"}),
    ],
)
def test_a_missed_control_gates_its_claims(spoiled: dict[str, float], codes: set[str]) -> None:
    real = world({"exact": 2, "near": 2, "semantic": 2}, families=80)
    assert {code for code, (word, _) in _said(real).items() if word == DETECTED} == {
        "leak", "leak.exact", "leak.near", "leak.semantic"
    }  # fmt: skip
    told = _said(real, controls(**spoiled))
    assert {code for code, one in told.items() if one == (INCONCLUSIVE, "control_missed")} == codes


def test_a_control_that_said_nothing_is_missed() -> None:
    for left_out in range(6):
        held = tuple(one for at, one in enumerate(controls()) if at != left_out)
        word, why = _said(world(families=80), held)["leak"]
        assert (word, why) == (INCONCLUSIVE, "control_missed")
    # Also where none were planted: leaving them out must not pass what they would have held down.
    bare = _said(world(families=0), controls()[:2] + controls()[4:])
    assert bare["leak.semantic"] == (INCONCLUSIVE, "control_missed")
    assert bare["leak.near"] == (NOT_DETECTED, None)


def test_nothing_planted_says_nothing() -> None:
    """plant_share 0 gives `inconclusive (no_recall)`, also where items are flagged."""
    real = world({"exact": 5})
    bare = Measured(coverage=real.coverage, metrics=tuple(one for one in real.metrics if one.name != "recall"))
    assert _said(bare)["leak"] == (INCONCLUSIVE, "no_recall")


def test_a_benchmark_without_numbers_is_told() -> None:
    told = _said(Measured(coverage={"benchmark": ("demo",)}, metrics=()))
    assert set(told) == {"leak", "leak.exact", "leak.near", "leak.semantic", "leak.template"}
    assert not {word for word, _ in told.values()} & CLAIMS


def test_severity() -> None:
    def severity(real: Measured) -> str:
        return next(one.severity for one in findings(real, controls(), ()) if one.code == "leak")

    assert severity(world()) == "note"
    assert severity(world({"near": 1})) == "concern"
    assert severity(world({"near": 1}, near=1)) == "breach"
    assert severity(world({"near": 12})) == "breach"  # 12 of 400: at least 1.6 %


@cache
def worlds() -> tuple[tuple[Measured, tuple[ControlResult, ...]], ...]:
    flags: tuple[dict[str, int], ...] = ({}, {"exact": 2}, {"semantic": 3}, {"near": 1, "semantic": 1})
    told = [
        (world(flagged, recall=recall, bulk=bulk, families=families, uncalibrated=without), controls(planted=planted))
        for flagged, recall, bulk, families, without, planted in product(
            flags, (40, 10), (0.4, 1e-6), (0, 80), (0, 200), (1, 0.5)
        )
    ]
    return tuple(told)


def _weaker(less: Iterable[Finding], full: Iterable[Finding]) -> None:
    before = {one.code: one for one in full}
    order = ("note", "concern", "breach")
    for one in less:
        was = before[one.code]
        assert one.word == was.word or STRENGTH[one.word] == 0, (one.code, was.word, one.word)
        assert order.index(one.severity) <= order.index(was.severity)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_taking_numbers_or_controls_away_never_makes_a_stronger_or_a_passing_word(data: st.DataObject) -> None:
    real, held = data.draw(st.sampled_from(worlds()))
    full = findings(real, held, ())
    share = data.draw(st.sampled_from((0.03, 0.2, 0.6)))
    kept = tuple(one for one in real.metrics if data.draw(st.floats(0, 1)) > share)
    left = tuple(one for one in held if data.draw(st.floats(0, 1)) > share / 2)
    _weaker(findings(Measured(coverage=real.coverage, metrics=kept), left, ()), full)
    missed = data.draw(st.lists(st.sampled_from([one.name for one in held]), unique=True))
    _weaker(findings(real, held, missed), full)


def test_no_single_number_holds_a_word_down() -> None:
    for real, held in worlds()[::5]:
        full = findings(real, held, ())
        for place in range(len(real.metrics)):
            metrics = real.metrics[:place] + real.metrics[place + 1 :]
            _weaker(findings(Measured(coverage=real.coverage, metrics=metrics), held, ()), full)


def test_words_claims_and_names_are_those_of_the_catalogue() -> None:
    for real, held in worlds()[::7]:
        for one in findings(real, held, ()):
            assert one.word in WORDS
            assert not any(banned in one.claim.lower() for banned in BANNED)
            assert "fewer than 1 leaked" in one.claim or one.word not in CLAIMS
            assert {ref.name for ref in one.rests_on} <= NAMES
    assert len(NAMES) == len(SPECS)
