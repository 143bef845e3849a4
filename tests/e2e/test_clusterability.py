"""An MLP, a CNN and a transformer through the whole service: structure, lesions, a signed report, judged again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Server
from tests.e2e.test_truth_probe import payload, rejudge

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def organisms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nets side by side (d1) and a small CNN, written from committed weights."""
    folder = tmp_path_factory.mktemp("organisms")
    for name in ("d1", "cnn"):
        command = [sys.executable, "-m", "checks.organisms", name, "--out", str(folder / name)]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return folder


def audited(server: Server, model: Path, folder: Path, *more: object) -> dict[str, Any]:
    """Return the answer of an audit that ends well, its report lying in a folder."""
    ran = server.assay("submit", model, "--check", "clusterability", *more, "--wait", "--report", folder)
    assert ran.status == 0, ran.text + server.logs()
    (answer,) = payload(folder)["predicate"]["answers"]
    told: dict[str, Any] = answer
    assert told["outcome"] == "measured", told["reason"]
    return told


def words(answer: dict[str, Any], code: str) -> list[str]:
    return [one["word"] for one in answer["findings"] if one["code"] == code]


def test_two_nets_side_by_side_are_modules_that_matter_each_to_its_own_task(
    server: Server, organisms: Path, tmp_path: Path
) -> None:
    model, folder = organisms / "d1" / "model", tmp_path / "report"
    rows = organisms / "d1" / "lesion.jsonl"
    answer = audited(
        server, model, folder, "--param", "clusterability.k=[2]", "--param", "clusterability.nulls=99",
        "--data", f"lesion={rows}",
    )  # fmt: skip
    assert answer["valid"], [one for one in answer["controls"] if not one["held"]]
    assert words(answer, "importance") == words(answer, "specialisation") == ["detected", "detected"]
    assert words(answer, "specialisation_of_model") == ["detected"]
    verified = server.assay("verify", folder, "--model", model, "--key", server.public_key)
    assert verified.status == 0, verified.text
    again = rejudge(folder)
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.slow  # small: tests/checks/clusterability, the same net without a server
def test_a_cnn_is_audited_and_what_is_too_small_is_named(server: Server, organisms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    answer = audited(server, organisms / "cnn" / "model", folder, "--param", "clusterability.nulls=99")
    assert {(one["item"], one["reason"]) for one in answer["skipped"]} == {
        ("0.weight", "too_small"),
        ("10.weight", "too_small"),
    }
    assert words(answer, "specialisation_of_model") == ["not-asked"]
    assert "detected" not in words(answer, "structure")


def test_a_declaration_that_does_not_fit_its_tensors_is_refused_by_layer(
    server: Server, organisms: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    source = organisms / "d1" / "model"
    (model / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    declared = json.loads((source / "architecture.json").read_text())
    declared["layers"][0]["weight"] = "nobody.weight"
    (model / "architecture.json").write_text(json.dumps(declared))
    folder = tmp_path / "report"
    server.assay("submit", model, "--check", "clusterability", "--wait", "--report", folder)
    predicate = payload(folder)["predicate"]
    (answer,) = predicate["answers"]
    assert (answer["outcome"], answer["reason"]) == ("refused", "ingest:load_missing_key")
    refused = [one for one in predicate["model"]["ingest"]["decisions"] if one["decision"] == "refused"]
    assert {"key": "layers.0.weight"} in [one["at"] for one in refused]
