"""Per-item results that are signed and not there: an unsigned file is gone, and nothing may follow from that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from assay.compare.compare import Comparison, compare
from assay.compare.sides import load
from assay.gate import annotations as console
from assay.gate import outputs
from assay.gate.gate import GateResult
from assay.testing import forged_entry

from tests.client.gate.bundles import Bundles, items, rules


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    return Bundles(tmp_path)


def compared(told: Any) -> tuple[int, str]:
    """Return the exit code, and why the entry of `compare` was decided so."""
    return told.exit_code, next(one.reason for one in told.decisions if one.kind == "compare")


def test_deleting_the_candidate_s_items_does_not_turn_a_fall_into_a_pass(bundles: Bundles) -> None:
    older, report = bundles.report("0.8", items(0.80)), bundles.report("0.79", items(0.75), rules())
    assert compared(bundles.decide(report, older, rules())) == (1, "interval_below_limit")
    bundles.items_file(report).unlink()
    told = bundles.decide(report, older, rules())
    assert compared(told) == (2, "items_absent")
    assert any("is absent" in one for one in told.warnings)


@pytest.mark.parametrize("side", ["candidate", "baseline"])
def test_deleting_the_items_of_few_clusters_answers_nothing(bundles: Bundles, side: str) -> None:
    older = bundles.report("0.8", items(0.80, clusters=4))
    report = bundles.report("0.79", items(0.75, clusters=4), rules())
    told = bundles.decide(report, older, rules())
    assert compared(told) == (2, "difference_missing")
    assert told.decisions[1].instances[0].detail == "few_clusters"
    bundles.items_file({"candidate": report, "baseline": older}[side]).unlink()
    told = bundles.decide(report, older, rules())
    assert compared(told) == (2, "items_absent")
    assert told.decisions[1].instances[0].detail == f"they are signed, and absent from the {side}"


def test_what_is_absent_from_the_baseline_is_told(bundles: Bundles) -> None:
    older, report = bundles.report("0.8", items(0.80)), bundles.report("0.8", items(0.80), rules())
    told = bundles.decide(report, older, rules())
    assert told.exit_code == 0
    assert not any("absent" in one for one in told.warnings)
    gone = bundles.items_file(older)
    gone.unlink()
    told = bundles.decide(report, older, rules())
    assert compared(told) == (2, "items_absent")
    assert any(one.startswith("baseline: not checked: artefact " + gone.name[:16]) for one in told.warnings)


def test_no_waiver_accepts_that_items_are_absent(bundles: Bundles) -> None:
    from assay.policy.verdict import WAIVABLE

    assert "items_absent" not in WAIVABLE


def test_absent_items_of_another_number_make_no_interval_shorter(bundles: Bundles) -> None:
    """All numbers share one level: a number that is no longer tested must not give its share to the others."""
    a, b = bundles.report("0.8", items(0.80)), bundles.report("0.79", items(0.75), rules())

    def made() -> Comparison:
        first, second = (load(one, bundles.look(one).verification) for one in (a, b))
        return compare(first, second)

    assert made().compared == 1
    bundles.items_file(b).unlink()
    assert made().compared == 1
    (row,) = made().rows
    assert (row.word, row.interval, row.difference.reason) == ("cannot_tell", None, "items_absent")


def test_numbers_that_never_had_items_are_still_compared_by_their_intervals(bundles: Bundles) -> None:
    older, report = bundles.report("0.8", items(0.80)), bundles.report("0.799", None, rules())
    told = bundles.decide(report, older, rules())
    assert compared(told) == (0, "holds")
    seen = told.decisions[1].instances[0]
    assert (seen.method, seen.unpaired_because) == ("unpaired", "no_items")
    assert (seen.value, seen.low, seen.high) == ("-0.001", "-0.00382843", "0.00182843")
    for name, text in rendered(told).items():
        assert "unpaired" in text, name
        assert "no_items" in text, name
        assert not re.search(r"[0-9]\.[0-9]{19}", text), name


def test_a_paired_difference_says_how_it_was_judged(bundles: Bundles) -> None:
    older, report = bundles.report("0.8", items(0.80)), bundles.report("0.79", items(0.75), rules())
    for name, text in rendered(bundles.decide(report, older, rules())).items():
        assert "bonett_price" in text, name
        assert not re.search(r"[0-9]\.[0-9]{19}", text), name


def test_a_difference_of_exact_numbers_is_exact(bundles: Bundles) -> None:
    """As floats, 0.78 - 0.80 lies below -0.02."""
    certain = {"determinism": "exact", "interval": None}
    metrics = [{**bundles.forge.entry.raw["metrics"][0], "determinism": "exact", "interval": False}]
    bundles.forge.entry = forged_entry(metrics=metrics)
    older, report = bundles.report("0.8", None, change=certain), bundles.report("0.78", None, rules(), change=certain)
    told = bundles.decide(report, older, rules())
    assert compared(told) == (0, "holds")
    seen = told.decisions[1].instances[0]
    assert (seen.value, seen.low, seen.high, seen.method) == ("-0.02", "-0.02", "-0.02", "exact")


def rendered(told: GateResult) -> dict[str, str]:
    """Return every output, and what the console says."""
    found = {name: render(told).decode() for name, render in outputs.FORMATS.items()}
    return {**found, "console": "\n".join(console.lines(told))}
