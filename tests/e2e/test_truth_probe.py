"""A model organism through the whole service: submitted, probed in a cell, signed, verified, and judged again."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def organism() -> Path:
    """The organism that tells the truth unless asked for the opposite; trained once and kept under `var/cache`."""
    cache = os.environ.get("CACHE", str(ROOT / "var" / "cache"))
    command = [sys.executable, "-m", "checks.organisms", "honest", "--cache", cache]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def report(server: Server, organism: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed report of truth_probe, from the data that can part feature and output."""
    folder = tmp_path_factory.mktemp("reports") / "honest"
    params = json.loads((organism / "params-instructed.json").read_text())
    chosen = {**params, "datasets": [], "causal_layers": [2], "layers": [0, 2], "causal_items": 32}
    options = [word for key, value in chosen.items() for word in ("--param", f"truth_probe.{key}={_text(value)}")]
    data = ["--data", f"pairs={organism / 'pairs-instructed.jsonl'}"]
    ran = server.assay(
        "submit", organism / "model", "--check", "truth_probe", *options, *data, "--wait", "--report", folder
    )
    assert ran.status == 0, ran.text + server.logs()
    return folder


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def payload(report: Path) -> dict[str, Any]:
    envelope = json.loads((report / "report.sigstore.json").read_bytes())["dsseEnvelope"]
    told: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return told


def rejudge(target: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from checks.__main__ import main; status = main(['rejudge', sys.argv[1]]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_a_feature_that_passes_every_gate_is_supported_in_a_verified_report(
    server: Server, organism: Path, report: Path
) -> None:
    verified = server.assay("verify", report, "--model", organism / "model", "--key", server.public_key)
    assert verified.status == 0, verified.text
    (answer,) = payload(report)["predicate"]["answers"]
    assert answer["valid"]
    words = {one["labels"]["layer"]: one["word"] for one in answer["findings"] if one["code"] == "truth_feature"}
    assert words["2"] == "SUPPORTED"
    assert words["0"] != "SUPPORTED"
    told = server.assay("findings", report)
    assert "SUPPORTED at layer 2" in told.out


def test_the_findings_are_formed_again_word_for_word_without_torch(report: Path, tmp_path: Path) -> None:
    again = rejudge(report)
    assert again.returncode == 0, again.stdout + again.stderr
    bundle = json.loads((report / "report.sigstore.json").read_text())
    statement = payload(report)
    finding = next(one for one in statement["predicate"]["answers"][0]["findings"] if one["word"] == "SUPPORTED")
    finding["word"] = "READABLE-ONLY"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    changed = tmp_path / "report.sigstore.json"
    changed.write_text(json.dumps(bundle))
    told = rejudge(changed)
    assert told.returncode == 1, told.stdout + told.stderr


def test_data_that_cannot_carry_the_check_is_refused_with_the_item(
    server: Server, organism: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (organism / "pairs.jsonl").read_text().splitlines()]
    one_sided = tmp_path / "pairs.jsonl"
    one_sided.write_text("".join(json.dumps({**row, "label": 1}) + "\n" for row in rows))
    folder = tmp_path / "report"
    ran = server.assay(
        "submit", organism / "model", "--check", "truth_probe", "--param", "truth_probe.datasets=[]",
        "--data", f"pairs={one_sided}", "--wait", "--report", folder,
    )  # fmt: skip
    (answer,) = payload(folder)["predicate"]["answers"]
    assert (answer["outcome"], answer["reason"]) == ("refused", "one_sided_labels"), ran.text
    assert any(one["item"].startswith("train:true:") for one in answer["skipped"]), answer["skipped"]


@pytest.mark.slow
def test_run_again_on_the_same_cpu_every_number_comes_out_within_its_tolerance(
    server: Server, organism: Path, report: Path, tmp_path: Path
) -> None:
    data = f"pairs={organism / 'pairs-instructed.jsonl'}"
    ran = server.assay("replicate", report, "--data", data, "--out", tmp_path / "again", "--json", timeout=600)
    assert ran.status == 0, ran.text + server.logs()
    told = ran.json()
    assert (told["outcome"], told["signed"]) == ("replicated", "replicated")
    assert len(told["results"]) > 100
    assert {row["word"] for row in told["results"]} == {"agrees"}
