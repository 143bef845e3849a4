"""Two reports of one service held against each other: the same model has not changed, and a planted change is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Server

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

LEAN: dict[str, Any] = {
    "datasets": [], "layers": [2], "causal_layers": [2], "causal_items": 16, "causal_random": 5, "bootstrap": 200,
    "permutations": 1000, "restarts": 3, "power_draws": 10, "methods": ["md", "lr"],
}  # fmt: skip

Reports = dict[str, Path]


@pytest.fixture(scope="module")
def organism() -> Path:
    """The organism that tells the truth unless asked for the opposite; trained once and kept under `var/cache`."""
    cache = os.environ.get("CACHE", str(ROOT / "var" / "cache"))
    command = [sys.executable, "-m", "checks.organisms", "honest", "--cache", cache]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    return Path(done.stdout.strip())


def twin(organism: Path, folder: Path) -> Path:
    """A copy of the model whose blocks 1 and 2 write nothing: what is read after block 2 is what block 0 left."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(organism / "model", folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for block in (1, 2):
        for part in ("attn", "mlp"):
            for kind in ("weight", "bias"):
                tensors[f"transformer.h.{block}.{part}.c_proj.{kind}"][...] = 0.0
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def reports(server: Server, organism: Path, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Signed reports of one question: of the model, of the model again, and of the twin that lost something."""
    folder = tmp_path_factory.mktemp("compared")
    params = {**json.loads((organism / "params-instructed.json").read_text()), **LEAN}
    options = [word for key, value in params.items() for word in ("--param", f"truth_probe.{key}={_text(value)}")]
    data = ["--data", f"pairs={organism / 'pairs-instructed.jsonl'}"]
    shutil.copytree(organism / "model", folder / "copied-model")
    models = {
        "first": organism / "model",
        "again": folder / "copied-model",
        "twin": twin(organism, folder / "twin-model"),
    }
    made: Reports = {}
    for name, model in models.items():
        made[name] = folder / name
        ran = server.assay("submit", model, "--check", "truth_probe", *options, *data, "--wait", "--report", made[name])
        assert ran.status == 0, ran.text + server.logs()
    return made


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def compared(server: Server, a: Path, b: Path) -> Any:
    ran = server.assay("compare", a, b, "--key", server.public_key, "--json")
    assert ran.status == 0, ran.text
    return ran.json()


def row(told: Any, metric: str, method: str) -> Any:
    wanted = {"set": "instructed", "layer": "2", "method": method}
    (found,) = [one for one in told["metrics"] if (one["metric"], one["labels"]) == (metric, wanted)]
    return found


def test_a_model_against_itself_has_not_changed(server: Server, reports: Reports) -> None:
    told = compared(server, reports["first"], reports["again"])
    assert told["a"]["model_sha256"] == told["b"]["model_sha256"]
    assert told["a"]["statement_sha256"] != told["b"]["statement_sha256"]
    changed = [one for one in told["metrics"] if one["word"] in ("regressed", "improved", "changed")]
    assert changed == []
    assert told["not_compared"] == []
    paired = [one for one in told["metrics"] if one["method"] in ("paired_t", "bonett_price")]
    assert {(one["metric"], one["labels"]["method"]) for one in paired} == {
        (metric, method) for metric in ("accuracy", "auroc") for method in ("md", "lr")
    }


def test_a_planted_loss_is_found_paired_with_interval_and_correction(server: Server, reports: Reports) -> None:
    told = compared(server, reports["first"], reports["twin"])
    for metric in ("accuracy", "auroc"):
        lost = row(told, metric, "md")
        assert (lost["word"], lost["method"], lost["unpaired_because"]) == ("regressed", "paired_t", None), lost
        assert float(lost["low"]) < float(lost["d"]) < float(lost["high"]) < 0
        assert float(lost["d"]) == pytest.approx(float(lost["b"]) - float(lost["a"]), abs=0.01)
        assert float(lost["p"]) <= float(lost["p_holm"]) < 0.05
    assert told["compared"] > 4
    assert float(told["level"]) == pytest.approx(1 - 0.05 / told["compared"], abs=1e-6)
    back = compared(server, reports["twin"], reports["first"])
    assert row(back, "accuracy", "md")["word"] == "improved"


def test_a_release_is_stopped_by_what_it_lost(server: Server, reports: Reports, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "schema: assay-policy/v1\nname: no-drop\n"
        "compare: [{id: no-drop, check: truth_probe, metric: accuracy, where: {method: md}, op: '>=', value: -0.1}]\n"
    )
    for name, status in (("twin", 1), ("again", 0)):
        ran = server.assay(
            "gate", reports[name], "--policy", policy, "--unregistered-policy", "--baseline", reports["first"],
        )  # fmt: skip
        assert ran.status == status, ran.text
