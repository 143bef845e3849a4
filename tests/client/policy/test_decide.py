"""The decision: every reason it can give, and the waivers that act before it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from assay.policy import fingerprint
from assay.policy.decide import decide
from assay.policy.evidence import asked_counts
from assay.policy.verdict import WAIVABLE
from assay.policy.waivers import Waiver

from tests.client.policy.planted import (
    SHA,
    T8,
    TODAY,
    answer,
    cell,
    differences,
    entry,
    finding,
    first,
    given,
    instances,
    metric,
    policy,
    predicate,
    verdict,
)

Change = Callable[[dict[str, Any]], object]


def test_the_fingerprint_of_vector_t8() -> None:
    told = json.loads(T8["value"])
    named = (told["check"], told["assertion"], told["metric"], tuple(told["labels"].items()))
    assert fingerprint.of_metric(*named) == T8["fingerprint"]
    assert hashlib.sha256(T8["value"].encode()).hexdigest()[: fingerprint.DIGITS] == T8["fingerprint"]
    assert fingerprint.of_finding(*named) != T8["fingerprint"]


def test_a_report_that_holds_passes() -> None:
    told = verdict(predicate())
    assert first(told) == ("pass", "pass", "holds")
    assert told.decisions[0].selected == 2
    assert told.counts == {"fail": 0, "inconclusive": 0, "waived": 0, "pass": 1}


# interval of layer 1 is [0.45, 0.55], its value 0.5
BOUNDS = {
    ("<=", "0.55"): ("pass", "holds"),
    ("<=", "0.549"): ("inconclusive", "interval_straddles_limit"),
    ("<=", "0.45"): ("inconclusive", "interval_straddles_limit"),
    ("<=", "0.449"): ("fail", "interval_above_limit"),
    ("<", "0.551"): ("pass", "holds"),
    ("<", "0.55"): ("inconclusive", "interval_straddles_limit"),
    ("<", "0.45"): ("fail", "interval_above_limit"),
    (">=", "0.4"): ("pass", "holds"),
    (">=", "0.551"): ("fail", "interval_below_limit"),
    (">=", "0.5"): ("inconclusive", "interval_straddles_limit"),
    (">", "0.399"): ("pass", "holds"),
    (">", "0.55"): ("fail", "interval_below_limit"),
    ("within", "[0.4, 0.55]"): ("pass", "holds"),
    ("within", "[0.41, 0.55]"): ("inconclusive", "interval_straddles_limit"),
    ("within", "[0.551, 1]"): ("fail", "interval_outside_range"),
    ("within", "[0, 0.449]"): ("fail", "interval_outside_range"),
}


@pytest.mark.parametrize(("op", "value"), BOUNDS)
def test_the_worst_bound_decides(op: str, value: str) -> None:
    told = verdict(predicate(), policy(op=f'"{op}"', value=value))
    assert first(told)[1:] == BOUNDS[op, value]


def test_the_estimate_decides_alone_only_where_asked_and_is_told() -> None:
    told = verdict(predicate(), policy(value="0.5", bound="estimate"))
    assert first(told) == ("pass", "pass", "holds")
    assert told.decisions[0].estimate_only
    assert first(verdict(predicate(), policy(value="0.49", bound="estimate")))[1:] == ("fail", "value_above_limit")
    assert first(verdict(predicate(), policy(op='">"', value="0.5", bound="estimate")))[2] == "value_below_limit"
    told = verdict(predicate(), policy(op="within", value="[0, 0.1]", bound="estimate"))
    assert first(told)[1:] == ("fail", "value_outside_range")


def test_decimals_are_compared_exactly() -> None:
    sharp = answer()
    sharp["measured"]["metrics"][1]["interval"]["high"] = "0.600000000000000001"
    assert first(verdict(predicate(sharp), policy(value="0.6")))[2] == "interval_straddles_limit"


def _answer(**change: Any) -> dict[str, Any]:
    return predicate(answer(**change))


def _metric(**change: Any) -> dict[str, Any]:
    told = answer()
    told["measured"]["metrics"][1].update(change)
    return predicate(told)


def _without(layer: str, **change: Any) -> dict[str, Any]:
    told = answer(**change)
    told["measured"]["metrics"] = [one for one in told["measured"]["metrics"] if one["labels"]["layer"] != layer]
    return predicate(told)


def _measured(change: Change) -> dict[str, Any]:
    told = answer()
    change(told["measured"])
    return predicate(told)


def _control(**change: Any) -> dict[str, Any]:
    told = answer()
    told["controls"][0].update(change)
    return predicate(told)


INCONCLUSIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "no answer": ("answer_missing", {**predicate(), "answers": []}),
    "an answer too many": ("answer_not_asked", predicate(answer(), answer())),
    "refused": ("answer_refused", _answer(outcome="refused", valid=False, reason="too_few_items", measured=None)),
    "failed": ("answer_failed", _answer(outcome="failed", valid=False, reason="TIME_LIMIT", measured=None)),
    "outcome of the future": ("outcome_unknown", _answer(outcome="estimated")),
    "entry unknown": ("catalogue_unknown", _answer(catalogue_sha256=SHA)),
    "not valid": ("answer_not_valid", _answer(valid=False)),
    "valid is a text": ("answer_not_valid", _answer(valid="true")),
    "a control missed": ("answer_not_valid", _control(held=False)),
    "held, but outside its band": ("answer_not_valid", _control(value="0.7")),
    "a control without band": ("answer_not_valid", _control(band=None)),
    "a promised control is absent": ("answer_not_valid", _answer(controls=answer()["controls"][:1])),
    "no numbers": ("answer_not_valid", _answer(measured=None)),
    "an owed layer is absent": ("instance_missing", _without("1")),
    "an owed layer is skipped": ("instance_skipped", _without("1", skipped=[{"item": "layer:1", "reason": "nan"}])),
    "a part of a layer is skipped": ("instance_missing", _without("1", skipped=[{"item": "layer:1:x", "reason": "n"}])),
    "no coverage": ("label_not_covered", _measured(lambda told: told.pop("coverage"))),
    "a layer outside coverage": ("label_not_covered", _measured(lambda told: told.update(coverage={"layer": ["0"]}))),
    "coverage of millions": (
        "instance_missing",
        _measured(lambda told: told.update(coverage={"layer": [str(n) for n in range(30_000)]})),
    ),
    "labels of two kinds": ("labels_differ", _metric(labels={"layer": "1", "set": "a"})),
    "labels unreadable": ("metric_unreadable", _metric(labels=["layer"])),
    "no instance at all": ("too_few_instances", _measured(lambda told: told.update(metrics=[]))),
    "value unreadable": ("metric_unreadable", _metric(value="1e3")),
    "value a number": ("metric_unreadable", _metric(value=1)),
    "interval upside down": ("metric_unreadable", _metric(interval={"low": "0.5", "high": "0.4"})),
    "interval unreadable": ("metric_unreadable", _metric(interval={"low": "0.5"})),
    "no interval": ("interval_missing", _metric(interval=None)),
}


@pytest.mark.parametrize("case", INCONCLUSIVE)
def test_what_cannot_be_told_is_inconclusive(case: str) -> None:
    reason, told = INCONCLUSIVE[case]
    seen = verdict(told)
    assert (seen.outcome, seen.decisions[0].outcome) == ("inconclusive", "inconclusive")
    assert reason in {one.reason for one in instances(seen)}
    assert first(verdict(told, policy(on_inconclusive="fail")))[:2] == ("fail", "fail")


def test_an_exact_number_needs_no_interval_but_a_deleted_interval_is_none() -> None:
    assert first(verdict(_metric(interval=None, determinism="exact")))[:2] == ("pass", "pass")
    told = _metric(determinism="exact")
    del told["answers"][0]["measured"]["metrics"][1]["interval"]
    assert first(verdict(told))[1:] == ("inconclusive", "metric_unreadable")


def test_a_label_outside_coverage_can_be_pinned() -> None:
    told = answer()
    for one in told["measured"]["metrics"]:
        one["labels"]["method"] = "ccs"
    assert first(verdict(predicate(told)))[2] == "label_not_covered"
    assert first(verdict(predicate(told), policy(where="{method: ccs}")))[0] == "pass"
    assert first(verdict(predicate(told), policy(where="{method: lr}")))[2] == "too_few_instances"


def test_every_combination_of_covered_labels_is_owed() -> None:
    told = answer()
    sets = [metric(layer, "0.4", "0.45", "0.5") for layer in "0011"]
    for one, name in zip(sets, "abab", strict=True):
        one["labels"]["set"] = name
    told["measured"].update(coverage={"layer": ["0", "1"], "set": ["a", "b"]}, metrics=sets)
    assert first(verdict(predicate(told)))[0] == "pass"
    told["measured"]["metrics"] = sets[:3]
    (missing,) = [one for one in instances(verdict(predicate(told))) if one.outcome != "pass"]
    assert (missing.reason, missing.labels) == ("instance_missing", (("layer", "1"), ("set", "b")))


def test_would_be_passes_need_items_and_power_but_failures_stand_without() -> None:
    for asked, reason in (
        ({"min_n": "801"}, "too_few_items"),
        ({"min_power": "0.807"}, "power_too_low"),
        ({"min_instances": "3"}, "too_few_instances"),
    ):
        assert first(verdict(predicate(), policy(**asked)))[1:] == ("inconclusive", reason)
        assert first(verdict(predicate(), policy(value="0.1", **asked)))[1:] == ("fail", "interval_above_limit")
    assert first(verdict(_answer(power=[]), policy(min_power="0.8")))[2] == "power_missing"
    assert first(verdict(_answer(power=[{"metric": "accuracy"}]), policy(min_power="0")))[2] == "power_missing"
    assert first(verdict(predicate(), policy(min_n="800", min_power="0.8", min_instances="2")))[0] == "pass"


def wilson_low(hits: int, n: int) -> float:
    """Return the lower Wilson bound at 95 % (Wilson 1927), independently of our own statistics."""
    z, share = 1.959963984540054, hits / n
    half: float = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (share + z * z / (2 * n) - half) / (1 + z * z / n)


@pytest.mark.parametrize(
    ("hits", "n", "low", "enough"),
    [
        (16, 16, "0.806", True),
        (15, 15, "0.796", False),
        (20, 20, "0.839", True),
        (19, 20, "0.764", False),
        (38, 40, "0.835", True),
    ],
)
def test_power_is_compared_by_its_lower_wilson_bound(hits: int, n: int, low: str, enough: bool) -> None:
    assert format(wilson_low(hits, n), ".3f") == low
    power = {"metric": "accuracy", "value": str(Decimal(hits) / n), "low": low, "high": "1", "n_planted": n}
    outcome = first(verdict(_answer(power=[power]), policy(min_power="0.80")))[0]
    assert outcome == ("pass" if enough else "inconclusive")


def test_the_weakest_power_counts() -> None:
    strong, weak = ({"metric": "accuracy", "low": low} for low in ("0.9", "0.2"))
    assert first(verdict(_answer(power=[strong, weak]), policy(min_power="0.8")))[2] == "power_too_low"


def test_some_needs_a_correction_for_the_many_looks() -> None:
    some = policy(quantifier="some", value="0.5")
    assert first(verdict(predicate(), some))[1:] == ("inconclusive", "multiplicity_uncorrected")
    told = answer()
    for one in told["measured"]["metrics"]:
        one["multiplicity"]["corrected"] = "holm"
    assert first(verdict(predicate(told), some))[1:] == ("pass", "holds")
    assert first(verdict(predicate(told), policy(quantifier="some", value="0.3")))[1:] == (
        "fail",
        "interval_above_limit",
    )
    assert first(verdict(predicate(told), policy(quantifier="some", value="0.5", min_instances="3")))[1] == (
        "inconclusive"
    )
    told["measured"]["metrics"][0]["multiplicity"]["corrected"] = "of the future"
    assert first(verdict(predicate(told), some))[1] == "inconclusive"


def test_advisory_entries_are_told_and_never_change_the_verdict() -> None:
    text = """assertions:
  - {id: a, check: forged_probe, metric: accuracy, op: "<=", value: 0.1, level: advisory}
  - {id: b, check: forged_probe, metric: accuracy, op: "<=", value: 0.6}"""
    told = verdict(predicate(), policy(text))
    assert told.outcome == "pass"
    assert [one.outcome for one in told.decisions] == ["fail", "pass"]
    assert told.counts["fail"] == 0


def test_fail_outranks_inconclusive() -> None:
    told = verdict(_without("0"), policy(value="0.1"))
    assert first(told) == ("fail", "fail", "interval_above_limit")
    text = """assertions:
  - {id: a, check: forged_probe, metric: accuracy, op: "<=", value: 0.1}
  - {id: b, check: absent, metric: accuracy, op: "<=", value: 0.6}"""
    assert verdict(predicate(), policy(text)).outcome == "fail"


FINDINGS = "findings: [{id: f, check: forged_probe, max_severity: note}]"
FOUND: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a note": ("pass", "holds", _answer()),
    "a concern": ("fail", "finding_above_severity", _answer(findings=[finding(), finding("concern")])),
    "a severity of the future": ("fail", "severity_unknown", _answer(findings=[finding("mild")])),
    "no severity": ("fail", "severity_unknown", _answer(findings=[finding(severity=None)])),  # type: ignore[arg-type]
    "a word of the future": ("inconclusive", "word_unknown", _answer(findings=[finding(word="clean")])),
    "no code": ("inconclusive", "finding_unreadable", _answer(findings=[finding(code=None)])),
    "a code no name": ("inconclusive", "finding_unreadable", _answer(findings=[finding(code="a\x00\ud800")])),
    "labels unreadable": ("inconclusive", "finding_unreadable", _answer(findings=[finding(labels={"a b": "c"})])),
    "silence": ("inconclusive", "no_finding", _answer(findings=[])),
    "not valid": ("inconclusive", "answer_not_valid", _answer(valid=False, findings=[finding("breach")])),
    "no answer": ("inconclusive", "answer_missing", {**predicate(), "answers": []}),
}


@pytest.mark.parametrize("case", FOUND)
def test_findings_are_held_to_a_severity(case: str) -> None:
    outcome, reason, told = FOUND[case]
    seen = verdict(told, policy(FINDINGS))
    assert (seen.outcome, seen.decisions[0].reason) == (outcome, reason)


def sharded(**cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a plan, its shards and what combines them; in sealed cells unless told otherwise."""
    done = {"n": 1, "exit_class": "OK", "result_sha256": SHA}
    return [
        {"job": "whole", **done, "cells": cells.get("whole", [cell()])},
        {"job": "shard:0", **done, "cells": cells.get("shard", [cell()])},
        {"job": "shard:1", **done, "cells": [cell()]},
        {"job": "combine", **done},
    ]


CONDITIONS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "young": ("report: {max_age_days: 30}", "holds", {}, {"age_s": 30 * 86_400}),
    "old": ("report: {max_age_days: 30}", "too_old", {}, {"age_s": 30 * 86_400 + 1}),
    "of unknown age": ("report: {max_age_days: 30}", "age_unknown", {}, {"age_s": None}),
    "of tomorrow": ("report: {max_age_days: 30}", "report_from_the_future", {}, {"age_s": -301}),
    "deep": ("report: {access: [weights]}", "holds", {}, {}),
    "shallow": ("report: {access: [weights, gradients]}", "access_missing", {}, {}),
    "access deleted": ("report: {access: [weights]}", "access_missing", {"access": None}, {}),
    "sealed": ("report: {sandbox: [bubblewrap, container]}", "holds", {}, {}),
    "in a process": (
        "report: {sandbox: [bubblewrap]}",
        "sandbox_not_allowed",
        {"sandbox": {"cells": [cell(), cell("process")]}},
        {},
    ),
    "in a process that the policy names": (
        "report: {sandbox: [bubblewrap, process]}",
        "holds",
        {"sandbox": {"cells": [cell(), cell("process")]}},
        {},
    ),
    "sealed by name only": (
        "report: {sandbox: [bubblewrap]}",
        "sandbox_not_allowed",
        {"sandbox": {"cells": [cell(statements=["nothing_isolated"])]}},
        {},
    ),
    "sealed with a network": (
        "report: {sandbox: [bubblewrap, process]}",
        "sandbox_not_allowed",
        {"sandbox": {"cells": [cell(network="host")]}},
        {},
    ),
    "silent about itself": (
        "report: {sandbox: [bubblewrap]}",
        "sandbox_not_allowed",
        {"sandbox": {"cells": [{"backend": "bubblewrap"}]}},
        {},
    ),
    "shards sealed": ("report: {sandbox: [bubblewrap]}", "holds", {"attempts": sharded()}, {}),
    "a plan in a process": (
        "report: {sandbox: [bubblewrap]}",
        "sandbox_not_allowed",
        {"attempts": sharded(whole=[cell("process")])},
        {},
    ),
    "a shard in a process": (
        "report: {sandbox: [bubblewrap]}",
        "sandbox_not_allowed",
        {"attempts": sharded(shard=[cell(), cell("process")])},
        {},
    ),
    "a shard in no cell": (
        "report: {sandbox: [bubblewrap]}",
        "sandbox_not_allowed",
        {"attempts": sharded(shard=[])},
        {},
    ),
    "in no cell": ("report: {sandbox: [bubblewrap]}", "sandbox_not_allowed", {"sandbox": {"cells": []}}, {}),
    "seed drawn": ("report: {seed: derived}", "holds", {}, {}),
    "seed chosen": ("report: {seed: derived}", "seed_not_derived", {"registration": {"seed_mode": "fixed"}}, {}),
    "two attempts": ("report: {attempts_max: 2}", "holds", {}, {}),
    "too many attempts": ("report: {attempts_max: 1}", "attempts_exceeded", {}, {}),
    "a failed attempt dropped": (
        "report: {attempts_max: 1}",
        "attempts_unreadable",
        {"attempts": predicate()["attempts"][1:]},
        {},
    ),
    "the last attempt dropped": (
        "report: {attempts_max: 1}",
        "attempts_unreadable",
        {"attempts": predicate()["attempts"][:1]},
        {},
    ),
    "no attempts": ("report: {attempts_max: 1}", "attempts_unreadable", {"attempts": []}, {}),
    "asked and measured": ("require: [{check: forged_probe, version: 1}]", "holds", {}, {}),
    "the minor version": ("require: [{check: forged_probe, version: 1.0}]", "holds", {}, {}),
    "another version": ("require: [{check: forged_probe, version: 1.1}]", "version_differs", {}, {}),
    "another major": ("require: [{check: forged_probe, version: 10}]", "version_differs", {}, {}),
    "never asked": ("require: [{check: other}]", "answer_missing", {}, {}),
    "refused": (
        "require: [{check: forged_probe}]",
        "answer_refused",
        {"answers": [answer(outcome="refused", valid=False)]},
        {},
    ),
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_conditions_on_the_report_are_met_or_inconclusive(case: str) -> None:
    line, reason, change, arguments = CONDITIONS[case]
    text = 'assertions: [{id: a, check: forged_probe, metric: accuracy, op: "<=", value: 0.6}]\n' + line
    told = verdict(predicate(**change), policy(text), **arguments)
    assert told.decisions[-1].reason == reason
    assert told.outcome == ("pass" if reason == "holds" else "inconclusive")


def test_any_answer_counts_where_a_refusal_is_enough() -> None:
    told = predicate(answer(outcome="refused", valid=False))
    asked = policy(f"{FINDINGS}\nrequire: [{{check: forged_probe, answered: any}}]")
    assert verdict(told, asked).decisions[-1].outcome == "pass"


COMPARE = 'compare: [{id: d, check: forged_probe, metric: accuracy, op: ">=", value: -0.02}]'


def test_differences_are_decided_by_the_same_rule() -> None:
    asked = policy(COMPARE)
    assert first(verdict(predicate(), asked))[2] == "baseline_missing"
    assert first(verdict(predicate(), asked, differences={}))[2] == "difference_missing"
    for told, outcome, reason in (
        (("-0.02", "0.1"), "pass", "holds"),
        ((-0.01, 0.1), "pass", "holds"),
        (("-0.03", "0.1"), "inconclusive", "interval_straddles_limit"),
        ((Decimal("-0.5"), Decimal("-0.3")), "fail", "interval_below_limit"),
        ((float("nan"), 0.1), "inconclusive", "difference_unreadable"),
        ((0.2, 0.1), "inconclusive", "difference_unreadable"),
    ):
        assert first(verdict(predicate(), asked, differences=differences(*told))) == (outcome, outcome, reason)


def test_requests_are_counted() -> None:
    assert asked_counts({"checks": [{"name": "a"}, {"name": "a"}, {"name": "b"}]}) == {"a": 2, "b": 1}
    told = predicate(answer())
    assert first(decide(policy(), given(told, asked={"forged_probe": 2})))[1:] == ("inconclusive", "answer_missing")


def waiver(outcome: str = "fail", **change: Any) -> Waiver:
    told: dict[str, Any] = {
        "fingerprint": fingerprint.of_metric("forged_probe", "low", "accuracy", (("layer", "1"),)),
        "outcome": outcome,
        "reason": "known",
        "approver": "a",
        "created": date(2026, 2, 1),
        "expires": TODAY,
        "model": None,
    }
    return Waiver(**{**told, **change})


LOW = policy(value="0.449")  # layer 1 is above it, layer 0 straddles it


def test_a_waiver_turns_exactly_its_outcome() -> None:
    only = predicate(answer(measured={"coverage": {"layer": ["1"]}, "metrics": [metric("1", "0.45", "0.5", "0.55")]}))
    told = verdict(only, LOW, waivers=(waiver(),))
    assert first(told) == ("pass", "waived", "waived")
    assert [(use.state, use.count) for use in told.waivers] == [("used", 1)]
    assert "waived until 2026-03-01: interval_above_limit" in instances(told)[0].detail
    told = verdict(only, LOW, waivers=(waiver("inconclusive"),))
    assert first(told)[:2] == ("fail", "fail")
    assert [use.state for use in told.waivers] == ["unused"]
    assert verdict(predicate(), LOW, waivers=(waiver(),)).outcome == "inconclusive"  # layer 0 is still there


def test_an_expired_waiver_leaves_the_outcome_and_says_when() -> None:
    told = verdict(predicate(), LOW, waivers=(waiver(expires=date(2026, 2, 28)),))
    assert first(told) == ("fail", "fail", "waiver_expired")
    assert instances(told)[0].detail == "waiver expired on 2026-02-28: interval_above_limit"
    assert told.waivers[0].state == "expired"
    told = verdict(predicate(), LOW, waivers=(waiver(created=date(2026, 3, 2), expires=date(2026, 3, 3)),))
    assert (told.outcome, told.waivers[0].state) == ("fail", "not_yet")


def test_an_unused_waiver_is_told() -> None:
    told = verdict(predicate(), waivers=(waiver(fingerprint="0" * 32),))
    assert (told.outcome, told.waivers[0].state) == ("pass", "unused")


@pytest.mark.parametrize("level", ["0", "0.5", "0.79", "1.01", "-1", "high", None])
def test_an_interval_that_covers_too_little_decides_nothing(level: Any) -> None:
    told = predicate()
    told["answers"][0]["measured"]["metrics"][0]["interval"]["level"] = level
    assert first(verdict(told)) == ("inconclusive", "inconclusive", "metric_unreadable")


@pytest.mark.parametrize("value", ["0.39", "0.51", "0.95"])
def test_a_value_outside_its_interval_decides_nothing(value: str) -> None:
    told = predicate()
    told["answers"][0]["measured"]["metrics"][0]["value"] = value
    assert first(verdict(told)) == ("inconclusive", "inconclusive", "metric_unreadable")


def test_a_layer_that_was_skipped_and_taken_off_coverage_is_seen() -> None:
    told = predicate()
    told["answers"][0]["skipped"] = [{"item": "layer:9", "reason": "too_few_items"}]
    decided = verdict(told)
    assert first(decided) == ("inconclusive", "inconclusive", "label_not_covered")
    assert "layer:9" in instances(decided)[0].detail
    pinned = policy(where='{layer: "1"}')
    assert verdict(told, pinned).outcome == "pass"  # nobody asked about layer 9


def test_a_waivers_fingerprint_outlives_a_rebuild() -> None:
    rebuilt = predicate(answer(), model={"manifest_sha256": "cd" * 32})
    rebuilt["answers"][0]["measured"]["metrics"][1].update(
        value="0.52", interval={"low": "0.47", "high": "0.57", "level": "0.95"}
    )
    for told in (predicate(), rebuilt):
        assert verdict(told, LOW, waivers=(waiver(),)).waivers[0].state == "used"
    bound = waiver(model=SHA)
    assert verdict(predicate(), LOW, waivers=(bound,)).waivers[0].state == "used"
    other = verdict(rebuilt, LOW, waivers=(bound,))
    assert (other.outcome, other.waivers[0].state) == ("fail", "other_model")


def test_who_accepts_a_number_near_the_limit_has_not_accepted_that_there_is_none() -> None:
    """The metric without labels, and the answer that is none, are two things that a person accepts one by one."""
    bare = metric("", "0.55", "0.6", "0.65", labels={})
    straddling = _answer(measured={"coverage": {}, "metrics": [bare], "skipped": []}, findings=[])
    near = verdict(straddling).decisions[0].instances[0]
    accepted = waiver("inconclusive", fingerprint=near.fingerprint)
    assert (near.reason, verdict(straddling, waivers=(accepted,)).outcome) == ("interval_straddles_limit", "pass")
    for name in ("refused", "failed"):
        _, told = INCONCLUSIVE[name]
        seen = verdict(told, waivers=(accepted,))
        assert (seen.outcome, seen.waivers[0].state) == ("inconclusive", "unused"), name
        mark = seen.decisions[0].instances[0].fingerprint
        assert mark == fingerprint.of_answer("forged_probe", "low", "accuracy") != near.fingerprint
        assert verdict(told, waivers=(waiver("inconclusive", fingerprint=mark),)).outcome == "pass"


def test_invalid_controls_and_missing_parts_cannot_be_waived() -> None:
    whole = fingerprint.of_answer("forged_probe", "low", "accuracy")
    for case, (reason, told) in INCONCLUSIVE.items():
        asked = (waiver("inconclusive"), waiver("inconclusive", fingerprint=whole))
        seen = verdict(told, waivers=asked)
        assert seen.outcome == ("pass" if reason in WAIVABLE else "inconclusive"), case
    seen = verdict(INCONCLUSIVE["not valid"][1], waivers=(waiver("inconclusive", fingerprint=whole),))
    assert seen.waivers[0].state == "not_waivable"


def test_a_finding_can_be_waived_by_its_own_fingerprint() -> None:
    mark = fingerprint.of_finding("forged_probe", "f", "readable", (("layer", "1"),))
    told = _answer(findings=[finding("concern")])
    assert first(verdict(told, policy(FINDINGS), waivers=(waiver(fingerprint=mark),)))[:2] == ("pass", "waived")
    told = _answer(findings=[finding("unheard-of")])
    assert first(verdict(told, policy(FINDINGS), waivers=(waiver(fingerprint=mark),)))[:2] == ("fail", "fail")


def test_a_signed_report_carries_the_short_form() -> None:
    told = verdict(predicate(), LOW).to_json()
    assert told["outcome"] == "fail"
    assert set(told["assertions"][0]) == {"id", "outcome", "reason", "selected", "deciding"}
    assert told["assertions"][0]["deciding"]["labels"] == {"layer": "1"}


def test_entries_of_other_checks_prove_nothing() -> None:
    other = entry(name="other_probe")
    told = predicate(answer(catalogue_sha256=other.sha256))
    assert first(verdict(told, entries={other.sha256: other}))[2] == "catalogue_unknown"


def test_words_that_the_language_does_not_have_never_pass() -> None:
    (known,) = policy().assertions
    strange: Any = "of the future"
    for change in ({"op": strange}, {"bound": strange}, {"quantifier": strange, "value": (Decimal("0.1"),)}):
        asked = replace(policy(), assertions=(replace(known, **change),))
        assert verdict(predicate(), asked).outcome != "pass"
    asked = replace(policy(), assertions=(replace(known, level=strange, value=(Decimal("0.1"),)),))
    assert verdict(predicate(), asked).outcome == "fail"
    assert verdict(predicate(), replace(policy(), assertions=())).outcome == "inconclusive"
    (told,) = verdict(predicate(), replace(policy(), assertions=(replace(known, op=strange),))).decisions
    assert told.reason == "operator_unknown"


def test_every_reason_has_a_test() -> None:
    """Reasons are words of the report's format: one that no test knows could change or vanish in silence."""
    root = Path(__file__).parents[3]
    package = [*root.glob("client/assay/policy/*.py"), root / "client/assay/gate/gate.py"]
    prefixes = "answer|outcome|catalogue|instance|label|labels|metric|interval|value|operator|difference|baseline|too"
    prefixes += "|power|multiplicity|finding|severity|word|no|age|access|sandbox|seed|attempts|version|waiver|step"
    pattern = re.compile(f'"((?:{prefixes}|statement|request|profile|policy_not|report_from)_[a-z_]+)"')
    used = {word for file in package for word in pattern.findall(file.read_text())}
    tests = "".join(file.read_text() for file in root.glob("tests/client/[pg]*/test_*.py"))
    no_reasons = {"power_low"}  # a field of the JSON form
    assert {word for word in used if word not in tests} - no_reasons == set()
    assert len(used) > 35
