"""A release pipeline in miniature: a policy is registered with the audit, the report is gated on, JUnit is kept."""

from __future__ import annotations

import json
import os
import signal
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e

POLICY = """
schema: assay-policy/v1
name: release
require: [{check: clusterability}]
assertions:
  - {id: bound, check: clusterability, metric: p, op: "<=", value: VALUE}
report: {sandbox: [bubblewrap], seed: derived, attempts_max: 3}
"""

Reports = dict[str, tuple[Path, Path]]


def policy(value: str) -> str:
    """Return a policy on a p-value, the metric of this check that has an interval."""
    return POLICY.replace("VALUE", value)


@pytest.fixture(scope="module")
def reports(server: Server, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Reports whose registered policies pass, fail, and cannot be told, each with its policy file."""
    folder = tmp_path_factory.mktemp("gated")
    compared = 'compare: [{id: no-rise, check: clusterability, metric: p, op: "<=", value: 1}]'
    wanted = {"pass": policy("1"), "fail": policy("-1"), "inconclusive": policy("1") + compared}
    made: Reports = {}
    for outcome, text in wanted.items():
        file = folder / f"{outcome}.yaml"
        file.write_text(text)
        ran = server.assay(
            "submit", model, "--check", "clusterability", "--policy", file, "--wait", "--report", folder / outcome
        )
        assert ran.status == 0, ran.text + server.logs()
        made[outcome] = (folder / outcome, file)
    return made


def gate(server: Server, report: Path, file: Path, *more: object) -> tuple[int, Any]:
    # Whom to trust stands in the client's configuration: the operator's root, which names the log too.
    ran = server.assay("gate", report, "--policy", file, "--json", *more)
    return ran.status, json.loads(ran.out) if ran.out else ran.err


@pytest.mark.parametrize(
    ("outcome", "code", "kind"), [("pass", 0, None), ("fail", 1, "failure"), ("inconclusive", 2, "error")]
)
def test_the_gate_ends_with_its_code_and_keeps_junit_whatever_it_says(
    server: Server, reports: Reports, tmp_path: Path, outcome: str, code: int, kind: str | None
) -> None:
    report, file = reports[outcome]
    status, told = gate(
        server, report, file, "--out", f"junit={tmp_path / 'junit.xml'}", "--out", f"md={tmp_path / 'm.md'}"
    )
    assert (status, told["outcome"], told["policy"]["registered"]) == (code, outcome, True), told
    root = ET.parse(tmp_path / "junit.xml").getroot()
    cases = root.findall(".//testcase")
    assert len(cases) >= 2
    for name in ("failure", "error"):
        assert bool(root.findall(f".//{name}")) == (name == kind), name
    assert (tmp_path / "m.md").stat().st_size > 0


def test_the_signed_verdict_is_recomputed_and_carries_companions(server: Server, reports: Reports) -> None:
    for outcome, (report, _) in reports.items():
        ran = server.assay("verify", report, "--key", server.public_key, "--json")
        told = ran.json()
        steps = {step["step"]: step["status"] for step in told["steps"]}
        assert (ran.status, told["verdict"], steps["V13"], steps["V14"]) == (0, outcome, "ok", "ok"), ran.text
        assert (report / "vsa.sigstore.json").is_file()
        assert (report / "policy.json").is_file()


def test_a_report_of_another_policy_is_no_answer(server: Server, reports: Reports) -> None:
    assert gate(server, reports["pass"][0], reports["fail"][1])[0] == 2
    assert gate(server, reports["pass"][0], reports["fail"][1], "--unregistered-policy")[0] == 1


def test_a_key_alone_tells_nothing_of_the_log(server: Server, reports: Reports) -> None:
    report, file = reports["pass"]
    alone = ("gate", report, "--policy", file, "--key", server.public_key)
    assert server.assay(*alone).status == 2
    ran = server.assay(*alone, "--no-log")
    assert (ran.status, "--no-log" in ran.out) == (0, True), ran.text


def test_an_unsigned_report_is_no_answer(server: Server, reports: Reports, tmp_path: Path) -> None:
    report, file = reports["pass"]
    copy = tmp_path / "unsigned"
    copy.mkdir()
    (copy / "request.json").write_bytes((report / "request.json").read_bytes())
    assert gate(server, copy, file)[0] == 2


def test_usage_is_three(server: Server, reports: Reports, tmp_path: Path) -> None:
    report, file = reports["fail"]
    (tmp_path / "bad.yaml").write_text("schema: assay-policy/v1\nnmae: release\n")
    assert gate(server, report, tmp_path / "bad.yaml")[0] == 3
    assert gate(server, report, file, "--out", "pdf=x")[0] == 3
    assert server.assay("gate", report).status == 3
    assert server.assay("gate", report, "--policy", file, "--nonsense").status == 3


def test_a_service_that_is_not_there_is_four(server: Server, model: Path, reports: Reports, tmp_path: Path) -> None:
    config = json.loads(server.config.read_text()) | {"address": "127.0.0.1:1"}
    (tmp_path / "client.json").write_text(json.dumps(config))
    _, file = reports["pass"]
    arguments = ("submit", model, "--check", "clusterability", "--policy", file, "--config", tmp_path / "client.json")
    assert server.assay(*arguments).status == 4


def test_a_signal_ends_a_command_as_the_shell_expects(server: Server, reports: Reports, tmp_path: Path) -> None:
    """130 after an interrupt, 143 after SIGTERM (here: ended by the signal itself, which a shell reports so)."""
    fifo = tmp_path / "policy.yaml"
    os.mkfifo(fifo)
    for sent, codes in ((signal.SIGINT, (130,)), (signal.SIGTERM, (143, -signal.SIGTERM))):
        process = server.start_assay("gate", reports["pass"][0], "--policy", fifo, "--key", server.public_key)
        with fifo.open("wb"):  # both ends are open: the command reads, and waits
            process.send_signal(sent)
            process.communicate(timeout=30)
        assert process.returncode in codes, sent
