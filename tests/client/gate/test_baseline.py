"""The baseline of a gate: named in every output, never the report itself, and no excuse for losing a no."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay.cli import run as running
from assay.gate import annotations as console
from assay.gate import outputs
from assay.gate.gate import Baseline
from assay.testing import Forge

from tests.client.gate.looking import ask, look

FORMATS = ("junit", "sarif", "md", "json")
POLICY = """schema: assay-policy/v1
name: release
assertions: [{id: low, check: forged_probe, metric: accuracy, op: "<=", value: %s}]
compare: [{id: no-drop, check: forged_probe, metric: accuracy, op: ">=", value: -0.2}]
"""
PASSING, FAILING = POLICY % "0.9", POLICY % "0.6"
Gate = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture
def gate(forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(report: Path, policy: str, *arguments: object) -> tuple[int, dict[str, str]]:
        """Return the code and every output; each is written anew."""
        (tmp_path / "policy.yaml").write_text(policy)
        outs = {name: tmp_path / f"gate.{name}" for name in FORMATS}
        for place in outs.values():
            place.unlink(missing_ok=True)
        known = ("--key", forge.key_file, "--log-vkey", forge.logged.log.vkey.text, "--catalogue", forge.catalogue_file)
        told = [part for name, place in outs.items() for part in ("--out", f"{name}={place}")]
        capsys.readouterr()
        code = running.run([str(one) for one in ("gate", report, "--policy", "policy.yaml", *known, *told, *arguments)])
        found = {name: place.read_text() for name, place in outs.items() if place.exists()}
        return code, {"console": capsys.readouterr().out, **found}

    return call


def problems(told: dict[str, str]) -> list[str]:
    return [one["code"] for one in json.loads(told["json"])["problems"]]


def test_every_output_names_the_baseline(forge: Forge, gate: Gate) -> None:
    older, report = forge.report(), forge.report(rules=PASSING)
    code, told = gate(report, PASSING, "--baseline", older)
    assert code == 0, told["console"]
    named = json.loads(told["json"])["baseline"]
    assert named["statement_sha256"] not in (None, json.loads(told["json"])["verify"]["statement_sha256"])
    for name, text in told.items():
        for value in (named["statement_sha256"], named["audit"], named["model_sha256"]):
            assert value in text, name


def test_a_report_is_no_baseline_of_itself(forge: Forge, gate: Gate) -> None:
    report = forge.report(rules=PASSING)
    code, told = gate(report, PASSING, "--baseline", report)
    assert (code, problems(told)) == (2, ["baseline_is_the_report"])
    assert all("the report itself" in one for one in told.values())
    failing = forge.report(rules=FAILING)
    assert gate(failing, FAILING, "--baseline", failing)[0] == 1


def test_a_no_stays_a_no_and_is_written_when_the_baseline_is_of_another_question(forge: Forge, gate: Gate) -> None:
    older = forge.report()
    other = {"data": [{"role": "pairs", "sha256": "ee" * 32}]}
    code, told = gate(forge.report(rules=FAILING, ask=other), FAILING, "--baseline", older)
    assert (code, set(told)) == (1, {"console", *FORMATS})
    assert problems(told) == ["baseline_not_comparable"]
    assert "data/pairs/sha256" in told["console"]
    code, told = gate(forge.report(rules=PASSING, ask=other), PASSING, "--baseline", older)
    assert (code, problems(told)) == (2, ["baseline_not_comparable"])


def test_what_a_comparison_notes_is_told(forge: Forge) -> None:
    noted = Baseline(statement_sha256="ab" * 32, audit="audits/x", model_sha256="cd" * 32, notes=("other code",))
    told = ask(look(forge, forge.report()), baseline=noted)
    assert told.outcome == "pass"
    for text in ("\n".join(console.lines(told)), *(render(told).decode() for render in outputs.FORMATS.values())):
        assert "baseline: other code" in text


def first_layer(told: dict[str, Any]) -> dict[str, Any]:
    measured = told["measured"]
    measured.update(
        coverage={"layer": ["0"]}, metrics=[one for one in measured["metrics"] if one["labels"]["layer"] == "0"]
    )
    return {**told, "findings": [], "controls": [{**one, "labels": {"layer": "0"}} for one in told["controls"]]}


def test_a_candidate_that_measured_less_than_the_baseline_is_no_pass(forge: Forge, gate: Gate) -> None:
    """Leaving the layer out that got worse is no way to show that none did."""
    older = forge.report()
    answer = first_layer(forge.answer({"layers": 2, "part": 0}))
    code, told = gate(forge.report(rules=PASSING, answers=[answer]), PASSING, "--baseline", older)
    assert (code, problems(told)) == (2, [])
    assert all("only the baseline has it" in told[name] for name in ("console", "junit", "sarif", "md"))
    pinned = PASSING.replace('op: ">="', 'where: {layer: "0"}, op: ">="')
    report = forge.report(rules=pinned, answers=[first_layer(forge.answer({"layers": 2, "part": 0}))])
    code, told = gate(report, pinned, "--baseline", older)
    assert code == 0, told["console"]
    code, told = gate(forge.report(rules=PASSING), PASSING, "--baseline", forge.report(answers=[answer]))
    assert code == 2
    assert "difference_missing" in told["console"]
