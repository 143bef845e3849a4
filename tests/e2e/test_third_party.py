"""A check of somebody else through the whole service: asked where it is listed, imported in cells alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from assay import AuditClient
from assay.client_errors import ServerRefused

from tests.e2e.conftest import BIN, ROOT, Server
from tests.e2e.test_one_audit import statement
from tests.service.worker.third_party import CHECK, FILES, Toy, listed

pytestmark = pytest.mark.e2e

WORLD = """import os


def _leave(path):
    try:
        with open(path, "a") as file:
            file.write("x")
    except OSError:
        pass


_leave({outside!r})
_leave("/scratch/imported")
"""
"""On import: a file outside, which the wall forbids, and one in the cell's own scratch."""

SEES = 'float(os.path.exists("/scratch/imported")) + 2 * os.path.exists({outside!r})'


@dataclass(frozen=True)
class Strange:
    """A server with one listed check, and another that is installed beside it and not listed."""

    server: Server
    toy: Toy
    outside: Path


@pytest.fixture(scope="module")
def strange(start_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Strange:
    root = tmp_path_factory.mktemp("third-party")
    outside = root / "imported-outside"
    largest = "float(evidence.weights(min(evidence.facts.tensors)).max())"
    text = CHECK.format(name="Toy", check="toy").replace(largest, SEES.format(outside=str(outside)))
    assert "/scratch/imported" in text, "else the check measures something else"
    toy = Toy(root, files={**FILES, "toy_audit/check.py": WORLD.format(outside=str(outside)) + text}).install()
    other = Toy(root, name="other-audit", check="other", entry="other_audit:Other", files={"other_audit.py": text})
    other.install()
    server = start_server("--third-party", listed(root, toy.line()), "--no-redis")
    return Strange(server, toy, outside)


@pytest.mark.slow
def test_a_listed_check_is_asked_and_was_imported_in_cells_alone(strange: Strange, model: Path, tmp_path: Path) -> None:
    server, toy = strange.server, strange.toy
    assert not strange.outside.exists(), "API, signer, scheduler and worker have started"
    report = tmp_path / "report"
    ran = server.assay("submit", model, "--check", "toy", "--wait", "--report", report)
    assert ran.status == 0, ran.text + server.logs()
    predicate = statement(report)["predicate"]
    assert isinstance(predicate, dict)
    (answer,) = predicate["answers"]
    assert answer["measured"]["metrics"][0]["value"] == "1", (
        "imported in the cell's own world, and nothing outside seen"
    )
    entry = json.loads((report / "artefacts" / answer["catalogue_sha256"]).read_bytes())
    assert entry["distribution"] == {"name": "toy-audit", "version": "2.5", "sha256": toy.sha256}
    assert entry["code_sha256"] == answer["code_sha256"]
    seen = server.assay("verify", report, "--key", server.public_key)
    assert seen.status == 0, seen.text
    assert "toy" in seen.text
    assert not strange.outside.exists()
    # Control: any process outside of a cell that imports it leaves the file.
    folders = os.pathsep.join(map(str, (toy.folder, ROOT, ROOT / "client")))
    program = [sys.executable, "-B", "-c", "import toy_audit.check"]
    subprocess.run(program, env={**os.environ, "PYTHONPATH": folders}, check=True, capture_output=True)
    assert strange.outside.exists()
    strange.outside.unlink()


@pytest.mark.slow
def test_a_check_that_is_installed_and_not_listed_is_refused_and_the_list_is_named(
    strange: Strange, model: Path
) -> None:
    ran = strange.server.assay("submit", model, "--check", "other")
    assert ran.status == 3, ran.text
    assert "check other" in ran.text
    assert "third_party" in ran.text
    with AuditClient.from_config(strange.server.config) as client:
        uploaded = client.upload_model(model)
        with pytest.raises(ServerRefused) as caught:
            client.submit(uploaded.manifest_sha256, [("other", {})])
    assert caught.value.reason == "UNKNOWN_CHECK"
    assert "third_party" in str(caught.value)
    assert not strange.outside.exists()


def test_a_list_that_cannot_be_used_stops_the_server_and_is_named(tmp_path: Path) -> None:
    toy = Toy(tmp_path, check="truth_probe").install()
    path = listed(tmp_path, toy.line())
    command = [
        str(BIN / "assay-server"),
        "dev",
        "--data",
        str(tmp_path / "data"),
        "--no-redis",
        "--third-party",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "built-in 'truth_probe'" in done.stderr
    assert "Traceback" not in done.stderr
