"""What a CI reads: well formed, complete, and without power over the machine that reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from assay.gate import annotations as console
from assay.gate import companions, gate, junit, markdown, neutral, sarif
from assay.gate.gate import GateResult
from assay.policy.verdict import Decision, Instance, Verdict
from assay.testing import Forge

from tests.client.gate.looking import ask, look, policy
from tests.client.gate.test_gate import waiver

HOSTILE = {
    "backticks": "a`b``c```d",
    "pipes": "a|b|c \\| d",
    "a workflow command": "::error file=x::owned",
    "an old workflow command": "x ##[error]owned ##[set-env name=A]b",
    "a command in new lines": "x\n::set-output name=a::b\r\n::stop-commands::x",
    "percents": "100%0A::warning::x%25",
    "colons and commas": "a:b,line=1,title=x",
    "escape sequences": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "a direction override": "abc\u202egnp.exe\u2066x\u2069",
    "tags": "<script>alert(1)</script><img src=x onerror=a> <!-- --> ]]>",
    "links": "[click](javascript:x) ![i](http://x) http://example.com @someone #1",
    "a heading": "# x\n\n---\n- [ ] y",
    "illegal in XML": "\x00\x01\x0b\ufffe\uffff\ud800",
    "very long": "x" * 5000,
    "zero width": "a\u200bb\ufeffc",
    "line separators": "a\u2028b\u2029c\u0085d",
}


@pytest.fixture
def results(forge: Forge) -> dict[str, GateResult]:
    report = look(forge, forge.report())
    more = """  - {id: hint, check: forged_probe, metric: accuracy, op: "<", value: 0.1, level: advisory}
findings: [{id: f, check: forged_probe, max_severity: concern}]
report: {max_age_days: 1}
require: [{check: forged_probe}]"""
    return {
        "pass": ask(report),
        "fail": ask(report, policy("0.8")),
        "inconclusive": ask(report, policy("0.85", more)),
        "waived": ask(report, policy("0.8"), waivers=(waiver(),)),
        "wrong": ask(replace(report, verification=_wrong(report.verification))),
        "unsigned": ask(look(forge, forge.report(), keys=False)),
        "unregistered": ask(report, registered_policy_sha256=None, unregistered_policy=True),
    }


def _wrong(seen: Any) -> Any:
    return replace(seen, outcome="wrong", steps=(*seen.steps[:-1], replace(seen.steps[-1], status="wrong")))


def hostile(forge: Forge, text: str) -> GateResult:
    """Return a result in which every text of others is hostile."""
    told = ask(look(forge, forge.report()), policy("0.8"), waivers=(waiver(),))
    bad = Instance(outcome="fail", reason=text, detail=text, labels=((text, text),), value=text, low=text, high=text)
    accepted = replace(bad, outcome="waived", waiver=waiver(reason=text, approver=text))
    decision = Decision(
        id=text,
        kind="assertion",
        check=text,
        metric=text,
        level="gate",
        limit=text,
        outcome="fail",
        reason=text,
        selected=1,
        instances=(bad, accepted),
        line=3,
    )
    passing = replace(decision, outcome="pass", id=f"{text}2")
    seen = replace(
        told.verification, audit=text, steps=tuple(replace(one, detail=text) for one in told.verification.steps)
    )
    return replace(
        told,
        outcome="fail",
        verdict=Verdict(outcome="fail", decisions=(decision, passing), waivers=()),
        verification=seen,
        problems=(gate.Problem("step_unknown", text),),
        warnings=(text,),
        asked=replace(told.asked, policy_file=f"ci/{text}"),
    )


# --- JUnit ---


def check_junit(data: bytes) -> ElementTree.Element:
    """Hold a document against what JUnit readers share: elements, attributes, and totals that add up."""
    root = ElementTree.fromstring(data)
    assert root.tag == "testsuites"
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    for level in (root, *root):
        cases = list(level.iter("testcase"))
        assert int(level.attrib["tests"]) == len(cases)
        for total, kind in kinds.items():
            if level is root and total == "skipped":
                assert total not in root.attrib
                continue
            assert int(level.attrib[total]) == sum(case.find(kind) is not None for case in cases)
    for suite in root:
        assert suite.tag == "testsuite"
        assert suite.attrib["name"]
        assert next(iter(suite)).tag == "properties"
        assert {child.tag for child in suite} <= {"properties", "testcase"}
        for one in suite.iter("property"):
            assert set(one.attrib) == {"name", "value"}
        for case in suite.iter("testcase"):
            assert set(case.attrib) == {"classname", "name", "time"}
            states = [child.tag for child in case if child.tag != "system-out"]
            assert len(states) <= 1
            assert set(states) <= set(kinds.values())
    return root


def test_junit_holds_the_whole_run(results: dict[str, GateResult]) -> None:
    for name, told in results.items():
        root = check_junit(junit.render(told))
        suites = [suite.attrib["name"] for suite in root]
        assert "assay.report" in suites, name
        assert len(list(root.iter("testcase"))) >= 15 + len(told.decisions), name
        bad = int(root.attrib["failures"]) + int(root.attrib["errors"])
        assert (bad == 0) == (told.exit_code == 0), name


def test_junit_tells_fail_inconclusive_waived_and_advisory_apart(results: dict[str, GateResult]) -> None:
    def case(name: str, test: str) -> ElementTree.Element:
        root = check_junit(junit.render(results[name]))
        return next(one for one in root.iter("testcase") if one.attrib["name"] == test)

    assert case("fail", "low").find("failure") is not None
    assert case("inconclusive", "low").find("error") is not None
    assert case("inconclusive", "report/max_age_days").find("error") is not None
    skipped = case("waived", "low").find("skipped")
    assert skipped is not None
    assert "waived until 2026-01-10" in skipped.attrib["message"]
    advisory = case("inconclusive", "hint").find("skipped")
    assert advisory is not None
    assert advisory.attrib["message"].startswith("advisory, fail")
    told = case("fail", "low").findtext("system-out") or ""
    assert "0.861 [0.835, 0.883], n 800" in told


@pytest.mark.parametrize("name", HOSTILE)
def test_junit_survives_any_text(forge: Forge, name: str) -> None:
    data = junit.render(hostile(forge, HOSTILE[name]))
    check_junit(data)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\u202e\u2066]", data.decode())


# --- SARIF: what readers need beyond the OASIS schema, which `test_schemas` holds it against ---

RESULT = {
    "type": "object",
    "required": ["ruleId", "message", "level", "locations", "partialFingerprints"],
    "properties": {
        "ruleId": {"type": "string", "pattern": "^assay/"},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
        "locations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["physicalLocation"],
                "properties": {
                    "physicalLocation": {
                        "type": "object",
                        "required": ["artifactLocation", "region"],
                        "properties": {
                            "artifactLocation": {
                                "required": ["uri"],
                                "properties": {
                                    "uri": {"type": "string", "pattern": "^[A-Za-z0-9._~%!$&'()*+,;=:@/-]+$"}
                                },
                            },
                            "region": {
                                "required": ["startLine"],
                                "properties": {"startLine": {"type": "integer", "minimum": 1}},
                            },
                        },
                    }
                },
            },
        },
        "partialFingerprints": {"required": ["assay/v1"], "additionalProperties": {"type": "string", "minLength": 1}},
        "suppressions": {
            "type": "array",
            "items": {"required": ["kind"], "properties": {"kind": {"enum": ["inSource", "external"]}}},
        },
    },
    "additionalProperties": False,
}
RULE = {
    "type": "object",
    "required": ["id", "shortDescription", "properties"],
    "properties": {
        "properties": {
            "required": ["security-severity"],
            "properties": {
                "security-severity": {"pattern": "^[0-9]+\\.[0-9]$"},
                "tags": {"type": "array", "maxItems": 10, "uniqueItems": True},
            },
        }
    },
}
SARIF = {
    "type": "object",
    "required": ["version", "runs", "$schema"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["tool", "results", "invocations"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name", "version", "rules"],
                                "properties": {"rules": {"type": "array", "uniqueItems": True, "items": RULE}},
                            }
                        },
                    },
                    "results": {"type": "array", "maxItems": 5000, "items": RESULT},
                    "invocations": {
                        "items": {
                            "required": ["executionSuccessful"],
                            "properties": {
                                "executionSuccessful": {"type": "boolean"},
                                "exitCode": {"type": "integer"},
                            },
                        }
                    },
                },
            },
        },
    },
}


def check_sarif(data: bytes) -> dict[str, Any]:
    log = json.loads(data)
    jsonschema.validate(log, SARIF)
    run: dict[str, Any] = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    assert {one["ruleId"] for one in run["results"]} <= set(rules)
    return run


def test_sarif_has_what_its_readers_need(results: dict[str, GateResult]) -> None:
    for name, told in results.items():
        run = check_sarif(sarif.render(told))
        invocation = run["invocations"][0]
        assert invocation["executionSuccessful"] == (told.outcome in ("pass", "fail")), name
        assert invocation["exitCode"] == told.exit_code
        open_ones = [
            one for one in run["results"] if "suppressions" not in one and one["level"] in ("error", "warning")
        ]
        assert bool(open_ones) == (told.exit_code != 0), name
    (fail,) = check_sarif(sarif.render(results["fail"]))["results"]
    assert (fail["ruleId"], fail["level"]) == ("assay/forged_probe/low", "error")
    place = fail["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("policy.yaml", 4)
    assert fail["partialFingerprints"]["assay/v1"] == waiver().fingerprint


def test_a_waived_result_is_suppressed_not_left_out(results: dict[str, GateResult]) -> None:
    (found,) = check_sarif(sarif.render(results["waived"]))["results"]
    assert found["suppressions"][0]["kind"] == "external"
    assert "until 2026-01-10" in found["suppressions"][0]["justification"]


def test_five_thousand_results_are_the_most_and_the_rest_is_counted(results: dict[str, GateResult]) -> None:
    told = results["fail"]
    (decision,) = told.decisions
    many = tuple(replace(decision.instances[0], labels=(("layer", str(n)),)) for n in range(5_003))
    verdict = Verdict(outcome="fail", decisions=(replace(decision, instances=many),), waivers=())
    run = check_sarif(sarif.render(replace(told, verdict=verdict)))
    assert len(run["results"]) == 5_000
    assert run["results"][-1]["message"]["text"].startswith("4 more results")


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("ci/assay policy.yaml", "ci/assay%20policy.yaml"),
        ("/home/me/p.yaml", "p.yaml"),
        ("../p.yaml", "p.yaml"),
        ("a\\b.yaml", "a/b.yaml"),
        ("http://x/y", "http%3A/x/y"),
    ],
)
def test_places_are_relative_uris(path: str, uri: str) -> None:
    assert sarif.place(path) == uri


@pytest.mark.parametrize("name", HOSTILE)
def test_sarif_survives_any_text(forge: Forge, name: str) -> None:
    data = sarif.render(hostile(forge, HOSTILE[name]))
    check_sarif(data)
    data.decode("ascii")


# --- Markdown ---


def spans(line: str) -> Iterator[str]:
    yield from re.findall("`[^`]*`", line)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_keeps_text_of_others_in_code_spans(forge: Forge, name: str) -> None:
    text = markdown.render(hostile(forge, HOSTILE[name]))
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {9}
    for line in text.splitlines():
        assert line.count("`") % 2 == 0
        outside = re.sub("`[^`]*`", "", line)
        assert re.fullmatch(r"[A-Za-z0-9 #:,.()|;-]*", outside), outside
        assert not any(letter in span for span in spans(line) for letter in "<>|\x1b\u202e\n")


def test_markdown_tells_everything_and_stays_small(results: dict[str, GateResult]) -> None:
    text = markdown.render(results["waived"])
    assert text.startswith("## assay gate: PASS, 1 waived (exit 0)")
    assert "waived until 2026-01-10" in text
    assert "0.861 [0.835, 0.883]" in markdown.render(results["fail"])
    assert "not registered before the run" in markdown.render(results["unregistered"])
    told = results["fail"]
    (decision,) = told.decisions
    many = tuple(replace(decision, id=f"{'x' * 120}-{n}") for n in range(2_000))
    text = markdown.render(replace(told, verdict=Verdict(outcome="fail", decisions=many, waivers=())))
    assert len(text.encode()) <= 64 * 1024
    assert "more lines are left out" in text.splitlines()[-1]


# --- standard output and annotations ---


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_of_a_report_can_command_the_runner(forge: Forge, name: str) -> None:
    told = hostile(forge, HOSTILE[name])
    first, *rest = console.lines(told)
    assert first == "assay gate: FAIL, 2 waived (exit 1)"
    for line in rest:
        assert line.startswith("  | ")
        assert line.isprintable()
        assert "##[" not in line
    for line in console.commands(told):
        assert line.isprintable()
        assert "##[" not in line
        place, message = re.fullmatch("::(?:error|warning|notice)((?: [^:]*)?)::(.*)", line).groups()  # type: ignore[union-attr]
        assert not re.search("%(?!25|0A|0D|3A|2C)", line)
        if place:
            assert re.fullmatch(r" file=[^,]*,line=3,title=[^,]*", place), place
        assert "\n" not in message


def test_percents_of_a_report_are_no_escapes() -> None:
    assert neutral.annotation("100%0A%") == "100%250A%25"
    assert neutral.annotation_property("a:b,c%3A") == "a%3Ab%2Cc%253A"


def test_at_most_ten_annotations(results: dict[str, GateResult]) -> None:
    told = results["fail"]
    assert console.commands(results["pass"]) == []
    (line,) = console.commands(told)
    assert line.startswith("::error file=policy.yaml,line=4,title=forged_probe/low::fail: accuracy <= 0.8")
    many = tuple(replace(told.decisions[0], id=f"a{n}") for n in range(40))
    lines = console.commands(replace(told, verdict=Verdict(outcome="fail", decisions=many, waivers=())))
    assert len(lines) == 10
    assert lines[-1] == "::warning::31 more; see the job summary"
    assert all(line.startswith("::error") for line in console.commands(results["wrong"])[:1])


def test_every_rendering_tells_what_weakens_a_pass(results: dict[str, GateResult]) -> None:
    told = results["unregistered"]
    shown = (
        "\n".join(console.lines(told)),
        markdown.render(told),
        junit.render(told).decode(),
        sarif.render(told).decode(),
        json.dumps(told.to_json()),
    )
    for text in shown:
        assert "registered" in text
    waived = results["waived"]
    for text in ("\n".join(console.lines(waived)), markdown.render(waived), junit.render(waived).decode()):
        assert "waived until 2026-01-10" in text


def test_neutral_text_is_shortened() -> None:
    assert len(neutral.line("x" * 5000)) == neutral.LIMIT
    assert neutral.code("") == neutral.code("  ") == "`-`"


def test_resumed_run_writes_half_a_junit(results: dict[str, GateResult], tmp_path: Path) -> None:
    from assay.gate import outputs

    place = tmp_path / "gate.xml"
    place.write_bytes(b"<testsuites><testsuite")
    assert outputs.write(results["fail"], {"junit": place}) == ()
    check_junit(place.read_bytes())
    assert [path.name for path in tmp_path.iterdir() if "xml" in path.name] == ["gate.xml"]


# --- companions ---


@pytest.mark.parametrize(
    ("name", "slsa", "tests"),
    [
        ("pass", "PASSED", "PASSED"),
        ("waived", "PASSED", "WARNED"),
        ("fail", "FAILED", "FAILED"),
        ("inconclusive", "FAILED", "FAILED"),
    ],
)
def test_companions_agree_with_the_verdict(results: dict[str, GateResult], name: str, slsa: str, tests: str) -> None:
    told = results[name]
    verdict, asked = told.verdict, told.asked.policy
    assert verdict is not None
    model = told.verification.model_sha256 or ""
    summary = companions.vsa(
        model_sha256=model,
        bundle_uri="report.sigstore.json",
        bundle_sha256="a" * 64,
        policy=asked,
        policy_uri="policy.json",
        outcome=verdict.outcome,
        verifier_id="https://assay.example/signer",
        time_verified="2026-01-10T00:00:00Z",
    )
    assert summary["subject"] == [{"name": "assay-manifest.json", "digest": {"sha256": model}}]
    assert summary["predicateType"] == "https://slsa.dev/verification_summary/v1"
    said = summary["predicate"]
    assert said["verificationResult"] == slsa
    assert said["verifiedLevels"] == (["ASSAY_POLICY_PASS"] if slsa == "PASSED" else ["FAILED"])
    assert said["resourceUri"] == f"assay:model/sha256:{model}"
    assert said["policy"]["digest"] == {"sha256": asked.sha256}
    result = companions.results_of_tests(model_sha256=model, policy=asked, policy_uri="policy.json", verdict=verdict)
    listed = result["predicate"]
    assert listed["result"] == tests
    everything = [*listed["passedTests"], *listed["warnedTests"], *listed["failedTests"]]
    assert sorted(everything) == sorted(set(everything))
    assert len(everything) == len(verdict.decisions)
    assert "forged_probe/low" in everything
    assert ("forged_probe/hint" in listed["warnedTests"]) == (name == "inconclusive")


def test_an_unknown_outcome_is_no_pass_in_a_companion(results: dict[str, GateResult]) -> None:
    summary = companions.vsa(
        model_sha256="a" * 64,
        bundle_uri="x",
        bundle_sha256="a" * 64,
        policy=results["pass"].asked.policy,
        policy_uri="x",
        outcome="PASS",
        verifier_id="x",
        time_verified="2026-01-10T00:00:00Z",
    )
    assert summary["predicate"]["verificationResult"] == "FAILED"
