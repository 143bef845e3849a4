"""The six gates against the table of section 7, one line of it a test."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from assay.result import Metric

from checks.truth_probe.gates import BATTERY, GATES, Gate, gates
from tests.checks.truth_probe.reported import LIMITS, answer, of_set, read, spoilt, whole, without

BY: dict[str, Any] = {"set": "world", "layer": "0", "method": "md"}
AT: dict[str, Any] = {"set": "world", "layer": "0"}


def ruled(*changed: Metric, drop: tuple[str, ...] = (), method: str = "md") -> dict[str, Gate]:
    metrics = without(spoilt([*whole(method=method), *of_set()], *changed), *drop)
    return gates(answer(metrics), "world", "0", method, LIMITS)


@pytest.mark.parametrize("method", ["md", "tpc", "vinc", "ccs", "lr", "mass_mean", "ttpd"])
def test_all_six_hold_on_a_whole_cell(method: str) -> None:
    assert ruled(method=method) == dict.fromkeys(GATES, "holds")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (read("auroc", 0.62, 0.03, p=0.001, **BY), "fails"),  # bound under the floor of .60
        (read("random_auroc_best_of_sign", 0.8, p95="0.93", **AT, null="whitened"), "fails"),  # any direction reads it
        (read("auroc", 0.95, 0.03, p=0.2, **BY), "fails"),  # not significant after Holm
        (read("orientation_margin", 0.1, n=32, p=0.3, **BY), "open"),  # the sign abstains
    ],
)
def test_gate_1_detected(changed: Metric, expected: Gate) -> None:
    held = ruled(changed)
    assert held["detected"] == expected
    # On noise the later ones would fail at one half.
    assert {held[name] for name in ("negation", "causal", "output")} == {"open"}


@pytest.mark.parametrize("name", ["auroc", "random_auroc_best_of_sign", "orientation_margin"])
def test_gate_1_is_open_where_a_number_is_missing(name: str) -> None:
    assert ruled(drop=(name,))["detected"] == "open"


def test_a_supervised_method_must_beat_shuffled_labels_and_needs_no_anchor() -> None:
    shuffled = read("shuffled_auroc", 0.7, p95="0.93", **AT, method="lr")
    assert ruled(shuffled, method="lr")["detected"] == "fails"
    assert ruled(shuffled, method="mass_mean")["detected"] == "fails"
    assert ruled(drop=("shuffled_auroc",), method="ttpd")["detected"] == "open"
    assert ruled(shuffled)["detected"] == "holds"


@pytest.mark.parametrize(
    ("method", "name", "cos", "expected"),
    [
        ("md", "stability", 0.5, "holds"),
        ("tpc", "stability", 0.49, "open"),
        ("vinc", "stability", 0.2, "open"),
        ("md", "stability", 0.19, "fails"),
        ("ccs", "restart_cos", 0.8, "holds"),
        ("ccs", "restart_cos", 0.5, "open"),
        ("ccs", "restart_cos", 0.49, "fails"),
    ],
)
def test_gate_2_stable(method: str, name: str, cos: float, expected: Gate) -> None:
    found = read(name, cos, set="world", layer="0", method=method)
    assert ruled(found, method=method)["stable"] == expected
    assert ruled(drop=(name,), method=method)["stable"] == "open"


@pytest.mark.parametrize("value", [0.95, 0.05])
def test_gate_3_fails_on_a_feature_read_either_way_up(value: float) -> None:
    assert ruled(read("frozen_auroc", value, 0.03, **BY, h="topic"))["distractors"] == "fails"


@pytest.mark.parametrize(("h", "expected"), [("topic", "fails"), ("battery/opinion", "open")])
def test_where_nothing_was_found_gate_3_fails_by_a_declared_feature_alone(h: str, expected: Gate) -> None:
    """Every direction of an untrained network reads some prefix; a declared feature is in the rows that were fitted."""
    held = ruled(read("auroc", 0.53, 0.05, p=0.5, **BY), read("frozen_auroc", 1.0, (0.98, 1.0), **BY, h=h))
    assert (held["detected"], held["distractors"]) == ("fails", expected)


def test_gate_3_is_open_while_a_bound_straddles_the_margin() -> None:
    assert ruled(read("frozen_auroc", 0.6, 0.08, **BY, h="topic"))["distractors"] == "open"


def test_a_margin_of_seven_hundredths_is_not_blurred_by_binary_fractions() -> None:
    limits = dataclasses.replace(LIMITS, distractor_margin=0.07)
    touching = spoilt([*whole(), *of_set()], read("frozen_auroc", 0.54, (0.51, 0.57), **BY, h="topic"))
    # .5 + .07 is .5700000000000001: the bound .57 would count as below it.
    assert gates(answer(touching), "world", "0", "md", limits)["distractors"] == "open"


def test_gate_3_wants_the_battery_and_a_declared_feature() -> None:
    metrics = [*whole(), *of_set()]
    for h in BATTERY:
        less = [one for one in metrics if one.labels.get("h") != h]
        assert gates(answer(less), "world", "0", "md", LIMITS)["distractors"] == "open"
    undeclared = [one for one in metrics if one.labels.get("h") not in ("topic", "longer")]
    assert gates(answer(undeclared), "world", "0", "md", LIMITS)["distractors"] == "open"


def test_a_feature_read_elsewhere_in_the_set_is_owed_here() -> None:
    other = read("frozen_auroc", 0.5, 0.05, set="world", layer="1", method="lr", h="opinion")
    assert ruled(other)["distractors"] == "open"
    foreign = read("frozen_auroc", 0.5, 0.05, set="arithmetic", layer="0", method="md", h="opinion")
    assert ruled(foreign)["distractors"] == "holds"


@pytest.mark.parametrize(("name", "expected"), [("world", "open"), ("other", "holds")])
def test_a_declared_feature_that_nobody_could_read_keeps_its_sets_gate_open(name: str, expected: Gate) -> None:
    measured = answer([*whole(), *of_set(), read("feature_items", 0, n=0, set=name, h="constant")])
    assert gates(measured, "world", "0", "md", LIMITS)["distractors"] == expected


@pytest.mark.parametrize(
    ("reach", "expected"),
    [((0.76, 0.9), "holds"), ((0.7, 0.8), "open"), ((0.5, 0.74), "fails"), ((0.1, 0.3), "fails")],
)
def test_gate_4_negation(reach: tuple[float, float], expected: Gate) -> None:
    assert ruled(read("negation_auroc", sum(reach) / 2, reach, **BY))["negation"] == expected


@pytest.mark.parametrize("name", ["nie_f2t", "nie_t2f"])
def test_gate_5_fails_on_either_way(name: str) -> None:
    assert ruled(read(name, 0.1, 0.05, **BY))["causal"] == "fails"  # below the floor
    inside = read("nie_random_max", 0.99, **AT)
    assert ruled(read(name, 0.9, 0.05, **BY), inside)["causal"] == "fails"  # inside the band of random directions
    assert ruled(read(name, 0.2, 0.05, **BY))["causal"] == "open"
    assert ruled(drop=(name,))["causal"] == "open"


def test_gate_5_does_not_hold_without_its_random_band() -> None:
    assert ruled(drop=("nie_random_max",))["causal"] == "open"


def test_gate_6_by_persona_alone() -> None:
    assert ruled(drop=("disagreement_auroc",))["output"] == "holds"
    turned = read("persona_auroc", 0.02, 0.02, **BY)
    assert ruled(turned, drop=("disagreement_auroc",))["output"] == "fails"
    assert ruled(turned)["output"] == "fails"  # whatever else holds
    weak = read("persona_auroc", 0.76, 0.05, **BY)
    assert ruled(weak, drop=("disagreement_auroc",))["output"] == "open"


def test_gate_6_is_open_for_a_persona_whose_output_reads_truth() -> None:
    agreeing = read("output_auroc", 0.9, 0.03, set="world", persona="B")
    assert ruled(agreeing, drop=("disagreement_auroc",))["output"] == "open"
    unreadable = read("output_auroc", 0.6, 0.03, set="world", persona="A")
    assert ruled(unreadable, drop=("disagreement_auroc",))["output"] == "open"


def test_gate_6_knows_personas_by_the_names_in_its_limits() -> None:
    limits = dataclasses.replace(LIMITS, fit_persona="B", test_persona="A")
    measured = answer(without([*whole(), *of_set()], "disagreement_auroc"))
    assert gates(measured, "world", "0", "md", limits)["output"] == "open"


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [(0.8, 50, "holds"), (0.8, 49, "open"), (0.52, 200, "open"), (0.2, 50, "fails"), (0.2, 49, "open")],
)
def test_gate_6_by_items_whose_output_contradicts_the_label(value: float, n: int, expected: Gate) -> None:
    metrics = [one for one in whole() if one.name not in ("persona_auroc", "pgr")]
    metrics.append(read("output_auroc", 0.7, 0.05, set="world", persona="all"))
    metrics = spoilt(metrics, read("disagreement_auroc", value, 0.1, n=n, **BY))
    assert gates(answer(metrics), "world", "0", "md", LIMITS)["output"] == expected
