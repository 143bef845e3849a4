"""A report whose signature does not verify: the whole policy is listed all the same, as not decided."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from assay.gate import annotations as console
from assay.gate import junit, markdown, sarif
from assay.gate.gate import GateResult
from assay.testing import Forge

from tests.client.gate.looking import ask, look, policy
from tests.client.gate.test_outputs import check_junit, check_sarif

MORE = """  - {id: hint, check: forged_probe, metric: accuracy, op: "<", value: 0.1, level: advisory}
  - {id: hard, check: forged_probe, metric: accuracy, op: "<", value: 0.1, on_inconclusive: fail}
findings: [{id: f, check: forged_probe, max_severity: concern}]
compare: [{id: d, check: forged_probe, metric: accuracy, op: ">=", value: -0.02}]
report: {max_age_days: 1}
require: [{check: forged_probe}]"""
NAMES = ("low", "hint", "hard", "f", "d", "require/forged_probe", "report/max_age_days")


@pytest.fixture
def unsigned(forge: Forge) -> GateResult:
    place = forge.report()
    bundle: Path = place / "report.sigstore.json"
    bundle.write_bytes(bundle.read_bytes().replace(b'"sig":"M', b'"sig":"N'))
    return ask(look(forge, place), policy("0.9", MORE))


def test_a_broken_signature_drops_no_entry_of_the_policy_from_junit(unsigned: GateResult) -> None:
    assert (unsigned.exit_code, unsigned.verdict) == (1, None)
    root = check_junit(junit.render(unsigned))
    cases = {one.attrib["name"]: one for one in root.iter("testcase")}
    assert set(NAMES) <= set(cases)
    for name in set(NAMES) - {"hint"}:
        found = cases[name].find("error")
        assert found is not None, name
        assert "not decided" in found.attrib["message"]
    assert isinstance(cases["hint"].find("skipped"), ElementTree.Element)  # advisory, as in every other run


def test_a_broken_signature_drops_no_entry_of_the_policy_from_sarif(unsigned: GateResult) -> None:
    run = check_sarif(sarif.render(unsigned))
    found = {
        one["ruleId"].rpartition("assay/")[2]: one for one in run["results"] if "not decided" in one["message"]["text"]
    }
    assert len(found) == len(NAMES)
    assert {one["level"] for name, one in found.items() if "hint" not in name} == {"warning"}
    assert not run["invocations"][0]["executionSuccessful"]


def test_every_other_output_lists_them_too(unsigned: GateResult) -> None:
    for text in ("\n".join(console.lines(unsigned)), markdown.render(unsigned)):
        assert text.count("not decided") >= len(NAMES)
    told = json.loads(json.dumps(unsigned.to_json()))
    assert [one["outcome"] for one in told["assertions"]] == ["inconclusive"] * len(NAMES)
    assert told["counts"] is None


def test_what_is_not_decided_is_never_waived_or_failed(unsigned: GateResult) -> None:
    assert unsigned.waived == ()
    assert {one.outcome for one in unsigned.decisions} == {"inconclusive"}
