"""Through real cells: a dictionary trained in the audit, a base model, a supplied file, and cards beside the report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import ROOT, Server
from tests.e2e.test_truth_probe import payload

pytestmark = pytest.mark.e2e

FEW = (
    "train_tokens=100000,width=64,k=4,bootstrap=200,permutations=50,power_draws=20,matched_controls=19,edit_rows=32,"
    "cards=6"
)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def corpus(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random tokens of the tiny model's vocabulary: enough for a hundred training steps."""
    config = json.loads((model / "config.json").read_text())
    length = min(64, int(config["n_positions"]))
    rng = np.random.default_rng(0)
    count = 140_000 // length
    rows = [
        {"id": f"c{n}", "group": f"g{n // 8}", "tokens": rng.integers(3, config["vocab_size"], length).tolist()}
        for n in range(count)
    ]
    return lines(tmp_path_factory.mktemp("sae") / "corpus.jsonl", rows)


def test_a_dictionary_is_trained_in_the_cell_and_cards_come_with_the_report(
    server: Server, model: Path, corpus: Path, tmp_path: Path
) -> None:
    base, report = tmp_path / "base", tmp_path / "report"
    shutil.copytree(model, base)
    with next(base.glob("*.safetensors")).open("r+b") as weights:
        weights.seek(-4, os.SEEK_END)
        weights.write(bytes(4))  # another last number: another model
    ran = server.assay(
        "submit", model, "--base", base, "--check", f"sae_features:site=resid.0,{FEW}",
        "--data", f"corpus={corpus}", "--wait", "--report", report,
    )  # fmt: skip
    assert ran.status in (0, 2), ran.text + server.logs()  # an untrained model says nothing: its controls may miss
    (answer,) = payload(report)["predicate"]["answers"]
    assert answer["outcome"] == "measured", answer["reason"]
    assert {one["code"] for one in answer["findings"]} >= {"dictionary"}
    assert "handed out cards.json" in ran.out
    verified = server.assay("verify", report, "--model", model, "--key", server.public_key)
    assert verified.status == 0, verified.text
    assert "held against base" in verified.out


def test_a_pickled_dictionary_is_refused_by_name_before_anything_is_sent(
    server: Server, model: Path, corpus: Path, tmp_path: Path
) -> None:
    pickled = tmp_path / "ae.pt"
    pickled.write_bytes(b"\x80\x04]\x94K\x01a.")
    config = tmp_path / "sae_config.json"
    config.write_text("{}")
    ran = server.assay(
        "submit", model, "--check", "sae_features:site=resid.0,dictionary=both", "--data", f"corpus={corpus}",
        "--data", f"sae={pickled}", "--data", f"sae_config={config}",
    )  # fmt: skip
    assert ran.status == 3
    assert "pickle_format" in ran.text
    assert "safetensors" in ran.text


@pytest.mark.slow
def test_the_planted_trigger_is_found_acts_and_differs_from_the_base(server: Server, tmp_path: Path) -> None:
    made = tmp_path / "trigger"
    subprocess.run(
        [sys.executable, "-m", "checks.organisms", "trigger_lm", "--cache", "var/cache", "--out", str(made)],
        check=True,
        cwd=ROOT,
    )
    report = tmp_path / "report"
    data = [f"{role}={made / role}.jsonl" for role in ("corpus", "concepts", "contrast", "neutral")]
    ran = server.assay(
        "submit", made / "model", "--base", made / "base", "--check", "sae_features:site=resid.1",
        *(part for one in data for part in ("--data", one)), "--wait", "--report", report, timeout=900,
    )  # fmt: skip
    assert ran.status == 0, ran.text + server.logs()
    (answer,) = payload(report)["predicate"]["answers"]
    words = {one["code"]: one["word"] for one in answer["findings"]}
    assert words == {
        "dictionary": "usable",
        "concept": "dense_carries",
        "causal": "through_latents",
        "attribution": "validated",
        "diff": "changed",
    }
