"""Reports that were issued once: verified for ever, with the verdict and the code that they had."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay import bundle, statement
from assay.cli.run import run

ISSUED = Path(__file__).parents[1] / "data" / "issued"
FOLDERS = sorted(place for place in ISSUED.iterdir() if place.is_dir())
BYTES_MAX = 64 * 1024
"""Of all files of one format: they are kept for ever, in every checkout."""

Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(params=FOLDERS, ids=lambda place: str(place.name))
def issued(request: pytest.FixtureRequest) -> Path:
    place: Path = request.param
    return place


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = run([str(one) for one in (*arguments, "--json")])
        return code, json.loads(capsys.readouterr().out)

    return call


def expected(issued: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((issued / "expected.json").read_text())
    return told


def known(issued: Path, now: str) -> tuple[object, ...]:
    return "--trust-root", issued / "root.1.dsse.json", "--catalogue", issued / "catalogue.json", "--now", now


def test_every_format_that_is_issued_today_has_a_report_here() -> None:
    assert statement.SCHEMA_VERSION in {expected(place)["schema_version"] for place in FOLDERS}
    for place in FOLDERS:
        told = json.loads(bundle.read((place / "report" / bundle.FILE_NAME).read_bytes()).payload)
        assert told["predicate"]["schema_version"] == expected(place)["schema_version"]
        assert sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) <= BYTES_MAX


def test_a_report_that_was_issued_verifies_for_ever(issued: Path, command: Command, tmp_path: Path) -> None:
    told = expected(issued)
    model = tmp_path / "model"
    model.mkdir()
    for name, data in told["model"].items():
        (model / name).write_bytes(base64.b64decode(data))
    options = ("--model", model, "--log", issued / "log", "--receipt", issued / "report")
    code, seen = command("verify", issued / "report", *known(issued, told["now"]), *options)
    assert (code, seen["outcome"], seen["verdict"]) == (0, "verified", "pass"), seen
    assert [step["step"] for step in seen["steps"] if step["status"] != "ok"] == []
    manifest = (issued / "report" / "assay-manifest.json").read_bytes()
    assert seen["model_sha256"] == hashlib.sha256(manifest).hexdigest()


def test_a_report_that_was_issued_gates_as_it_did(issued: Path, command: Command, tmp_path: Path) -> None:
    told, rules = expected(issued), (issued / "policy.yaml").read_text()
    for value, code in told["gate"].items():
        (tmp_path / "policy.yaml").write_text(rules.replace("value: 0.9", f"value: {value}"))
        loose = () if value == "0.9" else ("--unregistered-policy",)
        asked = ("gate", issued / "report", "--policy", "policy.yaml", *loose)
        assert command(*asked, *known(issued, told["now"]))[0] == code, value
    late = known(issued, told["too_late"])
    code, seen = command("gate", issued / "report", "--policy", issued / "policy.yaml", *late)
    assert (code, seen["outcome"]) == (2, "inconclusive")
