"""The command line: bad input first, then the whole flow on two halves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checks.__main__ import main as checks_main
from checks.contamination.cli import main
from checks.contamination.planning_file import read_prepared
from tests.checks.contamination.audited import CANARY, benchmark_rows, corpus, docstrings, inside, leaked

ROWS, REWORDINGS = benchmark_rows(20)


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "benchmark": str(_jsonl(tmp_path / "b.jsonl", ROWS)),
        "corpus": str(corpus(tmp_path, leaked(ROWS, REWORDINGS, 4, 0), 2500)),
        "plan": str(tmp_path / "plan.json"),
        "folder": str(tmp_path),
    }


def _plan(files: dict[str, str], *more: str) -> int:
    told = ["plan", "--benchmark", files["benchmark"], "--corpus", files["corpus"], "--out", files["plan"]]
    return main([*told, "--embed", "off", "--seed", "3", "--siblings", "5", *more])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["plan"],
        ["nonsense"],
        ["scan", "--plan", "p", "--corpus", "c", "--out", "o", "--rows", "1:2", "--bytes", "3:4"],
    ],
)
def test_a_wrong_command_line_is_3(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 3
    assert "error:" in capsys.readouterr().err


def test_parameters_out_of_range_are_3(files: dict[str, str]) -> None:
    assert _plan(files, "--q", "0.5") == 3
    assert _plan(files, "--plant-share", "0.3") == 3
    assert not Path(files["plan"]).exists()


def test_bad_input_is_2_and_named(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    broken = _jsonl(Path(files["folder"]) / "broken.jsonl", [*ROWS[:2], {"benchmark": "demo", "item": "x y"}])
    assert _plan(files | {"benchmark": str(broken)}) == 2
    assert "benchmark:line:3:kind:missing" in capsys.readouterr().err
    (Path(files["folder"]) / "text.jsonl").write_text("{not json\n")
    assert _plan(files | {"benchmark": str(Path(files["folder"]) / "text.jsonl")}) == 2
    assert "line:1" in capsys.readouterr().err
    assert _plan(files | {"corpus": str(Path(files["folder"]) / "none.jsonl")}) == 2
    assert "unreadable at none.jsonl" in capsys.readouterr().err
    assert main(["conclude", "--plan", files["benchmark"], "--sketch", files["benchmark"]]) == 2
    assert "plan_invalid" in capsys.readouterr().err


def test_a_broken_shard_fails_by_name_and_writes_nothing(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(files["corpus"])
    path.write_text(path.read_text() + f'{{"text": "{CANARY}\n' * 5)
    assert _plan(files) == 0
    out = Path(files["folder"]) / "s"
    assert main(["scan", "--plan", files["plan"], "--corpus", files["corpus"], "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "shard_failed: bad_records at corpus.jsonl:record:" in told
    assert CANARY not in told
    assert not out.exists()


def test_two_halves_give_the_same_as_the_whole(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    size = Path(files["corpus"]).stat().st_size
    half = -(-size // 2)
    assert _plan(files, "--shard-bytes", str(half)) == 0
    scan = ["scan", "--plan", files["plan"], "--corpus", files["corpus"], "--out"]
    names = [str(Path(files["folder"]) / name) for name in ("whole", "a", "b", "ab", "ba")]
    assert main([*scan, names[0]]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "words/s" in told.err
    assert "s left" in told.err
    assert main([*scan, names[1], "--bytes", f"0:{half}"]) == 0
    assert main([*scan, names[2], "--bytes", f"{half}:{size}"]) == 0
    assert main([*scan, names[2], "--bytes", f"7:{size}"]) == 3
    assert main([*scan, names[2], "--rows", f"0:{half}"]) == 3
    assert main(["merge", "--out", names[3], names[1], names[2]]) == 0
    assert main(["merge", "--out", names[4], names[2], names[1], names[2], names[0]]) == 0
    whole, merged, other = (Path(names[at]).read_bytes() for at in (0, 3, 4))
    assert whole == merged == other
    assert CANARY.encode() not in whole

    capsys.readouterr()
    conclude = ["conclude", "--plan", files["plan"], "--sketch", names[3]]
    assert main([*conclude, "--json"]) == 0
    told_json = json.loads(capsys.readouterr().out)
    words = {one["code"]: one["word"] for one in told_json["findings"]}
    assert words["leak.exact"] == "detected"
    assert {row["item"] for row in told_json["flagged"]} == {f"demo/q{at}" for at in range(4)}
    assert all(row["commitment"] is None for row in told_json["flagged"])
    assert "unsigned" in told_json["note"]
    assert CANARY not in json.dumps(told_json)

    key = Path(files["folder"]) / "key"
    key.write_bytes(b"k" * 32)
    assert main([*conclude, "--commitment-key", str(key), "--corpus", files["corpus"]]) == 0
    table = capsys.readouterr().out
    assert "unsigned" in table
    assert "4 spans committed" in table
    assert CANARY not in table
    assert main([*conclude]) == 0
    assert "counts only" in capsys.readouterr().out


def test_a_file_of_no_shard_and_sketches_of_two_plans_are_refused(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _plan(files) == 0
    stranger = corpus(Path(files["folder"]), [inside(docstrings(2500)[0], "other")], 2500).rename(
        Path(files["folder"]) / "other.jsonl"
    )
    out = str(Path(files["folder"]) / "s")
    assert main(["scan", "--plan", files["plan"], "--corpus", str(stranger), "--out", out]) == 2
    assert "shard_unknown: corpus:other.jsonl" in capsys.readouterr().err


def test_it_hangs_below_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks_main(["contamination", "merge"]) == 3
    assert "python -m checks contamination merge" in capsys.readouterr().err


def test_every_parameter_has_a_name_and_a_range(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        "--param",
        "keep=8",
        "--param",
        "windows=[32,64]",
        "--param",
        "near_power=0.7",
        "--evidence",
        "none",
    ]
    told += ["--param", 'gating_tiers=["exact","near"]', "--param", "cosine_floor=0.6", "--reveal-chars", "10"]
    assert _plan(files, *told) == 0
    made = read_prepared(Path(files["plan"]).read_bytes())
    scan, asked = made.plan.parameters, made.asked
    assert (scan.keep, scan.windows, scan.cosine_floor) == (8, (32, 64), 6000)
    assert (asked.near_power, asked.semantic_power, asked.gating_tiers) == (7000, 6000, ("exact", "near"))
    assert (asked.evidence, asked.reveal_chars) == ("none", 10)
    capsys.readouterr()
    for wrong, said in (
        ("keep", "has no value"), ("keep=", "no JSON"), ("keep=3", "keep is outside 4..64"), ("keep=true", "keep is"),
        ("sideways=1", "no parameter"), ("q=0.1e9", "q is outside"), ("windows=[4]", "windows are no list"),
        ('gating_tiers=["related"]', "gating_tiers"), ("siblings=3", "given twice"), ("near_power=2", "near_power"),
        ('text_field="a..b"', "text_field"), ("max_items=0", "max_items is outside"),
        ('coarse="fp8"', "coarse is none"),
        ("sample_fraction=NaN", "sample_fraction is outside"), ("always_embed=[1]", "always_embed"),
    ):  # fmt: skip
        assert _plan(files, "--param", wrong) == 3
        assert said in capsys.readouterr().err
    assert _plan(files, "--param", "max_items=19") == 2


def test_evidence_is_what_the_plan_was_asked_with(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    key = Path(files["folder"]) / "key"
    key.write_bytes(b"k" * 32)
    sketch = str(Path(files["folder"]) / "s")
    told = {}
    for evidence in ("none", "commit", "reveal"):
        assert _plan(files, "--evidence", evidence, "--reveal-chars", "40") == 0
        assert main(["scan", "--plan", files["plan"], "--corpus", files["corpus"], "--out", sketch]) == 0
        capsys.readouterr()
        asked = ["conclude", "--plan", files["plan"], "--sketch", sketch, "--json"]
        assert main([*asked, "--commitment-key", str(key), "--corpus", files["corpus"]]) == 0
        told[evidence] = json.loads(capsys.readouterr().out)
    assert told["none"]["evidence"]["rows"] == told["none"]["flagged"] == []
    assert told["none"]["evidence"]["flagged"] == [{"benchmark": "demo", "tier": "exact", "items": 4}]
    rows = told["commit"]["evidence"]["rows"]
    assert len(rows) == 4
    assert all(len(row["commitment"]) == 64 and row["highlights"] and "revealed" not in row for row in rows)
    assert told["commit"]["evidence"]["sources"] == [{"source": "no_source", "matches": 4, "copies": 4}]
    shown = {row["item"]: row["revealed"] for row in told["reveal"]["evidence"]["rows"]}
    assert shown["demo/q0"] == ROWS[0]["question"][:40]
    assert len(told["commit"]["measured"]["plots"]) == 3
    assert told["commit"]["not_searched"]
