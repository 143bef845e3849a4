"""Properties of the decision: less evidence is never a yes, and order is nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest
from assay.policy import fingerprint
from assay.policy.decide import decide
from assay.policy.language import Policy
from assay.policy.waivers import Waiver

from tests.client.policy.planted import SHA, answer, finding, given, metric, policy, predicate, verdict

TEXT = """require: [{check: forged_probe, version: 1}]
assertions:
  - {id: low, check: forged_probe, metric: accuracy, op: "<=", value: 0.6, min_n: 100, min_power: 0.5}
  - {id: guess, check: forged_probe, metric: accuracy, op: "<", value: 0.7, bound: estimate, level: advisory}
findings: [{id: f, check: forged_probe, max_severity: note}]
report: {max_age_days: 30, access: [weights], sandbox: [bubblewrap], seed: derived, attempts_max: 2}
compare: [{id: d, check: forged_probe, metric: accuracy, op: ">=", value: -0.1}]
"""
POLICY = policy(TEXT)
Path = tuple[Any, ...]


def drawn(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a well-formed report, drawn so that pass, fail and inconclusive are all common, and its evidence."""
    layers = [str(n) for n in range(int(rng.integers(1, 5)))]
    metrics = []
    for layer in layers:
        base = int(rng.choice([100, 200, 300, 580, 650], p=[0.35, 0.3, 0.25, 0.05, 0.05]))
        one = metric(
            layer, f"0.{base}", f"0.{base + 20}", f"0.{base + 40}", n=int(rng.choice([800, 50], p=[0.93, 0.07]))
        )
        if rng.random() < 0.1:
            one.update(interval=None, determinism="exact")
        metrics.append(one)
    told = answer(
        measured={"coverage": {"layer": layers}, "metrics": metrics, "skipped": []},
        findings=[finding(str(rng.choice(["note", "concern", "odd"], p=[0.85, 0.1, 0.05])))],
    )
    if rng.random() < 0.1:
        told["controls"][0].update(held=False, value="0.7")
        told["valid"] = False
    if rng.random() < 0.1:
        told.update(outcome="refused", valid=False, reason="too_few_items", measured=None, controls=[], findings=[])
    cells = [{"backend": str(rng.choice(["bubblewrap", "process"], p=[0.9, 0.1]))}]
    seed = {"seed_mode": str(rng.choice(["derived", "fixed"], p=[0.9, 0.1]))}
    report = predicate(told, sandbox={"cells": cells}, registration=seed)
    if rng.random() < 0.1:
        report["attempts"].insert(1, {"job": "whole", "n": 2, "result_sha256": None})
        report["attempts"][2]["n"] = 3
    low = "-0.5" if rng.random() < 0.1 else "-0.05"
    differences = {("forged_probe", "accuracy", (("layer", layer),)): (low, "0.1") for layer in layers}
    return report, {"differences": differences, "waivers": tuple(waivers(rng, layers))}


def waivers(rng: np.random.Generator, layers: list[str]) -> Iterator[Waiver]:
    for layer in layers:
        for outcome in ("fail", "inconclusive"):
            if rng.random() < 0.15:
                mark = fingerprint.of_metric("forged_probe", "low", "accuracy", (("layer", layer),))
                day = date(2026, 2, 1)
                yield Waiver(
                    fingerprint=mark,
                    outcome=outcome,
                    reason="r",
                    approver="a",
                    created=day,
                    expires=date(2026, 12, 31),
                    model=None,
                )


def parts(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the place of every field and list item of a report."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*at, key)
        yield from parts(child, (*at, key))


def remove(report: dict[str, Any], at: Path) -> dict[str, Any]:
    copied = copy.deepcopy(report)
    inner: Any = copied
    for part in at[:-1]:
        inner = inner[part]
    del inner[at[-1]]
    return copied


@pytest.mark.parametrize("draws", [12, pytest.param(80, marks=pytest.mark.slow)])
def test_removing_any_part_never_makes_a_pass(draws: int) -> None:
    rng = np.random.default_rng(8)
    seen: dict[str, int] = {"pass": 0, "fail": 0, "inconclusive": 0}
    tried = 0
    for _ in range(draws):
        report, more = drawn(rng)
        before = verdict(report, POLICY, **more).outcome
        seen[before] += 1
        if before == "pass":
            continue
        for at in parts(report):
            tried += 1
            assert verdict(remove(report, at), POLICY, **more).outcome != "pass", (before, at)
    assert min(seen.values()) >= 2, seen  # a property of nothing would hold too
    assert tried > 300


def test_removing_many_parts_never_makes_a_pass() -> None:
    rng = np.random.default_rng(9)
    for _ in range(60):
        report, more = drawn(rng)
        if verdict(report, POLICY, **more).outcome == "pass":
            continue
        for _ in range(int(rng.integers(2, 6))):
            # What is owed and the proof that it is there may not go together: verification (V10) guards `coverage`.
            places = [at for at in parts(report) if "coverage" not in at]
            report = remove(report, places[int(rng.integers(len(places)))])
            assert verdict(report, POLICY, **more).outcome != "pass"


def test_what_stands_beside_the_report_may_be_missing_too() -> None:
    changes: tuple[dict[str, Any], ...] = ({"age_s": None}, {"entries": {}}, {"asked": {}}, {"differences": None})
    for change in changes:
        told = {("forged_probe", "accuracy", (("layer", layer),)): ("0", "0.1") for layer in "01"}
        arguments = {"differences": told, **change}
        assert verdict(predicate(), POLICY, differences=told).outcome == "pass"
        assert decide(POLICY, given(predicate(), **arguments)).outcome == "inconclusive"


def test_adding_an_answer_or_instance_never_makes_a_pass() -> None:
    rng = np.random.default_rng(10)
    for _ in range(60):
        report, more = drawn(rng)
        if verdict(report, POLICY, **more).outcome == "pass":
            continue
        good = drawn(rng)[0]["answers"][0] if rng.random() < 0.5 else answer()
        more_answers = copy.deepcopy(report)
        more_answers["answers"].append(good)
        assert verdict(more_answers, POLICY, **more).outcome != "pass"
        measured = report["answers"][0]["measured"]
        if measured:
            layer = str(rng.integers(0, 6))
            measured["metrics"].append(metric(layer, "0.1", "0.12", "0.14"))
            measured["coverage"]["layer"] = sorted({*measured["coverage"]["layer"], layer})
            assert verdict(report, POLICY, **more).outcome != "pass"


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(child, rng)) for key, child in value.items()]
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        copied = [shuffled(child, rng) for child in value]
        rng.shuffle(copied)
        return copied
    return value


def test_order_is_nothing() -> None:
    draw, rng = np.random.default_rng(11), random.Random(11)
    for _ in range(30):
        report, more = drawn(draw)
        told = verdict(report, POLICY, **more)
        again = verdict(shuffled(report, rng), POLICY, **more)
        assert [one.to_json() for one in again.decisions] == [one.to_json() for one in told.decisions]
        turned = Policy(
            name=POLICY.name,
            require=POLICY.require[::-1],
            assertions=POLICY.assertions[::-1],
            findings=POLICY.findings,
            report=POLICY.report,
            compare=POLICY.compare,
        )
        assert verdict(report, turned, **more).outcome == told.outcome
        assert verdict(report, turned, **{**more, "waivers": more["waivers"][::-1]}).waivers == told.waivers


@pytest.mark.parametrize("word", ["PASS", "ok", "", "Measured", None, True, 1, [], {}])
def test_unknown_words_never_pass(word: Any) -> None:
    report = predicate()
    places = [
        ("answers", 0, "outcome"),
        ("answers", 0, "valid"),
        ("answers", 0, "findings", 0, "severity"),
        ("answers", 0, "findings", 0, "word"),
        ("answers", 0, "controls", 0, "held"),
        ("answers", 0, "controls", 0, "name"),
        ("answers", 0, "measured", "metrics", 0, "interval"),
        ("sandbox", "cells", 0, "backend"),
        ("registration", "seed_mode"),
    ]
    told = {("forged_probe", "accuracy", (("layer", layer),)): ("0", "0.1") for layer in "01"}
    assert verdict(report, POLICY, differences=told).outcome == "pass"
    for *path, last in places:
        altered: Any = copy.deepcopy(report)
        inner = altered
        for part in path:
            inner = inner[part]
        if inner[last] is word:
            continue
        inner[last] = word
        assert verdict(altered, POLICY, differences=told).outcome != "pass", path
    assert report["model"]["manifest_sha256"] == SHA
