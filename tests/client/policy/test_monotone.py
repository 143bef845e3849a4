"""Properties of the decision: less evidence is never a yes, and order is nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest
from assay.policy import fingerprint
from assay.policy.decide import decide
from assay.policy.language import Policy
from assay.policy.waivers import Waiver

from tests.client.policy.planted import (
    SHA,
    answer,
    cell,
    differences,
    finding,
    given,
    metric,
    policy,
    predicate,
    verdict,
)

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
    if told["measured"]:
        told["power"] = [power(rng) for _ in range(int(rng.integers(1, 4)))]
        told["findings"] += [finding(word="odd") for _ in range(int(rng.integers(0, 2))) if rng.random() < 0.2]
        skip(told, rng)
    cells = [cell(str(rng.choice(["bubblewrap", "process"], p=[0.9, 0.1])))]
    seed = {"seed_mode": str(rng.choice(["derived", "fixed"], p=[0.9, 0.1]))}
    report = predicate(told, sandbox={"cells": cells}, registration=seed)
    if rng.random() < 0.1:
        report["attempts"].insert(1, {"job": "whole", "n": 2, "result_sha256": None})
        report["attempts"][2]["n"] = 3
    low = "-0.5" if rng.random() < 0.1 else "-0.05"
    return report, {"differences": differences(low, "0.1", layers), "waivers": tuple(waivers(rng, layers))}


def power(rng: np.random.Generator) -> dict[str, Any]:
    low = str(rng.choice(["0.806", "0.3"], p=[0.93, 0.07]))
    return {"metric": "accuracy", "effect": "e", "value": "1", "low": low, "high": "1", "n_planted": 16, "fpr": "0"}


def skip(told: dict[str, Any], rng: np.random.Generator) -> None:
    """Leave layers out: named whole, in part, under another name that is no instance, or by the bare value."""
    for layer in ("7", "8"):
        if rng.random() < 0.15:
            item = str(rng.choice([f"layer:{layer}", f"layer:{layer}:pair-7", layer]))
            told["measured"]["coverage"]["layer"].append(layer)
            place = told if rng.random() < 0.5 else told["measured"]
            place["skipped"].append({"item": item, "reason": "too_few_items"})
    if rng.random() < 0.3:
        told["skipped"].append({"item": "line:3", "reason": "bad_json"})


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


BLIND_SPOTS = ("finding", "power", "cell", "bare_value")
"""What one deletion may hide, as `assay.policy.decide` states."""


def blind_spot(report: dict[str, Any], at: Path) -> str | None:
    """Return which of the stated blind spots the deletion of a part is, if it is one."""
    match at:
        case ("answers", n, "findings", _) if len(report["answers"][n]["findings"]) > 1:
            return "finding"
        case ("answers", n, "power", _) if len(report["answers"][n]["power"]) > 1:
            return "power"
        case ("sandbox", "cells", _) if len(report["sandbox"]["cells"]) > 1:
            return "cell"
        case ("answers", n, "measured", "coverage", key, which):
            told = report["answers"][n]
            bare = told["measured"]["coverage"][key][which]
            return (
                "bare_value"
                if bare in {one["item"] for one in (*told["skipped"], *told["measured"]["skipped"])}
                else None
            )
    return None


def rich(**change: Any) -> dict[str, Any]:
    """Return a report with more than one of everything, which passes as it is."""
    told = answer(**change)
    told["measured"]["coverage"]["set"] = ["a", "b"]
    told["measured"]["metrics"] = [
        {**one, "labels": {**one["labels"], "set": name}} for one in told["measured"]["metrics"] for name in "ab"
    ]
    told["findings"] = [finding(), finding(code="other")]
    told["power"] = [{**told["power"][0], "effect": effect, "fpr": "0"} for effect in ("small", "large")]
    told["skipped"] = [{"item": "line:3", "reason": "bad_json"}]
    cells = [cell(stage=stage) for stage in ("ingest", "check")]
    return predicate(told, sandbox={"cells": cells})


def skipped_layer(told: dict[str, Any], item: str = "layer:9") -> None:
    told["measured"]["coverage"]["layer"].append("9")
    told["skipped"].append({"item": item, "reason": "too_few_items"})


def _metric(**change: Any) -> Callable[[dict[str, Any]], object]:
    return lambda told: told["measured"]["metrics"][0].update(change)


RICH: dict[str, Callable[[dict[str, Any]], object]] = {
    "layer_skipped": skipped_layer,
    "layer_skipped_in_the_numbers": lambda told: (
        told["measured"]["coverage"]["layer"].append("9"),
        told["measured"]["skipped"].append({"item": "layer:9", "reason": "too_few_items"}),
    ),
    "part_of_a_layer_skipped": lambda told: skipped_layer(told, "layer:9:set:a"),
    "layer_skipped_by_bare_value": lambda told: skipped_layer(told, "9"),
    "instance_missing": lambda told: told["measured"].update(metrics=told["measured"]["metrics"][:-1]),
    "power_too_low": lambda told: told["power"][0].update(low="0.1", value="0.3"),
    "control_missed": lambda told: (told["controls"][0].update(held=False, value="0.7"), told.update(valid=False)),
    "control_missed_and_called_valid": lambda told: told["controls"][0].update(held=False, value="0.7"),
    "control_missed_at_one_layer": lambda told: (
        told["controls"].append({**told["controls"][0], "held": False, "value": "0.7"}),
        told.update(valid=False),
    ),
    "control_could_not_run": lambda told: (
        told["controls"].pop(),
        told["skipped"].append({"item": "control:PlantedTruth", "reason": "x"}),
        told.update(valid=False),
    ),
    "severe_finding": lambda told: told["findings"][0].update(severity="concern"),
    "unknown_word": lambda told: told["findings"][0].update(word="splendid"),
    "too_high": _metric(interval={"low": "0.7", "high": "0.8", "level": "0.95"}, value="0.75"),
    "straddles": _metric(interval={"low": "0.5", "high": "0.65", "level": "0.95"}, value="0.55"),
    "too_few_items": _metric(n=7),
    "no_interval": _metric(interval=None),
    "interval_of_a_low_level": _metric(interval={"low": "0.4", "high": "0.5", "level": "0.1"}),
    "value_outside_its_interval": _metric(value="0.95"),
    "refused": lambda told: told.update(outcome="refused", valid=False, reason="x", measured=None),
}
EXPECTED_BLIND = {
    "layer_skipped_by_bare_value": {"bare_value"},
    "power_too_low": {"power"},
    "severe_finding": {"finding"},
    "unknown_word": {"finding"},
}
RICH_POLICY = policy(TEXT.split("compare:")[0])


@pytest.mark.parametrize("name", ["", *RICH])
def test_removing_any_one_part_of_a_rich_report_is_seen_or_a_stated_blind_spot(name: str) -> None:
    report = rich()
    if not name:
        assert verdict(report, RICH_POLICY).outcome == "pass"
        return
    RICH[name](report["answers"][0])
    assert verdict(report, RICH_POLICY).outcome != "pass"
    hidden = [at for at in parts(report) if verdict(remove(report, at), RICH_POLICY).outcome == "pass"]
    spots = {at: blind_spot(report, at) for at in hidden}
    assert None not in spots.values(), spots
    assert set(spots.values()) == EXPECTED_BLIND.get(name, set())


def unnamed(report: dict[str, Any], at: Path) -> bool:
    """Tell whether a deletion takes away cells of an attempt that left no result, or whose cells stand elsewhere."""
    match at:
        case ("attempts", n, "cells", *_):
            told = report["attempts"][n]
            return told["result_sha256"] is None or told["job"] == "combine"
    return False


def divided() -> dict[str, Any]:
    """Return a report of an audit in shards, which passes as it is; a shard needed two attempts."""
    report = rich()

    def attempt(job: str, n: int = 1, **change: Any) -> dict[str, Any]:
        return {"job": job, "n": n, "exit_class": "OK", "result_sha256": SHA, "cells": [cell()], **change}

    shards = [attempt("shard:0"), attempt("shard:1", result_sha256=None), attempt("shard:1", 2)]
    return {**report, "attempts": [attempt("whole"), *shards, attempt("combine", cells=[cell()])]}


@pytest.mark.parametrize("n", range(5))
def test_a_job_or_a_cell_that_is_left_out_hides_no_open_cell_but_a_stated_one(n: int) -> None:
    report = divided()
    assert verdict(report, RICH_POLICY).outcome == "pass"
    report["attempts"][n]["cells"] = [cell("process")]
    assert verdict(report, RICH_POLICY).outcome == "inconclusive"
    hidden = [at for at in parts(report) if verdict(remove(report, at), RICH_POLICY).outcome == "pass"]
    assert all(unnamed(report, at) for at in hidden), hidden
    assert bool(hidden) == (n in (2, 4))


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_a_power_row_is_of_another_number_even_if_its_name_is_deleted(metric: str) -> None:
    report = rich()
    report["answers"][0]["power"] = [{**report["answers"][0]["power"][0], "metric": metric}]
    assert verdict(report, RICH_POLICY).outcome == ("pass" if metric == "accuracy" else "inconclusive")
    del report["answers"][0]["power"][0]["metric"]
    assert verdict(report, RICH_POLICY).outcome == "inconclusive"


@pytest.mark.parametrize("where", ["{}", '{layer: "1"}'])
def test_an_answer_s_numbers_do_not_go_unseen_beside_another_answer_s(where: str) -> None:
    """A check that is asked twice has two answers, and each owes its instances."""
    bad = answer(measured={"coverage": {"layer": ["1"]}, "skipped": [], "metrics": [metric("1", "0.7", "0.75", "0.8")]})
    report, asked = predicate(answer(), bad), policy(where=where)

    def said(told: dict[str, Any]) -> str:
        return decide(asked, given(told, asked={"forged_probe": 2})).outcome

    assert said(report) == "fail"
    assert [at for at in parts(report) if said(remove(report, at)) == "pass"] == []


def test_an_answer_that_does_not_cover_what_is_asked_owes_nothing() -> None:
    other = answer(
        measured={"coverage": {"layer": ["0"]}, "skipped": [], "metrics": [metric("0", "0.7", "0.75", "0.8")]}
    )
    told = predicate(answer(), other)
    assert decide(policy(where='{layer: "1"}'), given(told, asked={"forged_probe": 2})).outcome == "pass"


def test_a_cell_that_isolates_nothing_hides_behind_another_only_if_it_is_deleted() -> None:
    report = rich()
    report["sandbox"]["cells"][0] = cell("process")
    hidden = [at for at in parts(report) if verdict(remove(report, at), RICH_POLICY).outcome == "pass"]
    assert hidden == [("sandbox", "cells", 0)]


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
            if verdict(remove(report, at), POLICY, **more).outcome == "pass":
                assert blind_spot(report, at) in BLIND_SPOTS, (before, at)
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
            places = [at for at in parts(report) if "coverage" not in at and not blind_spot(report, at)]
            report = remove(report, places[int(rng.integers(len(places)))])
            assert verdict(report, POLICY, **more).outcome != "pass"


def test_what_stands_beside_the_report_may_be_missing_too() -> None:
    changes: tuple[dict[str, Any], ...] = ({"age_s": None}, {"entries": {}}, {"asked": {}}, {"differences": None})
    for change in changes:
        told = differences("0", "0.1")
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
    told = differences("0", "0.1")
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
