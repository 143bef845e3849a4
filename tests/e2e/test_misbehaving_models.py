"""A run that hangs, eats memory or crashes ends as a clear failure within its limits, and the next audit runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Server

pytestmark = pytest.mark.e2e

MIB = 2**20


@pytest.fixture(scope="module")
def rehearsal(start_server: Callable[..., Server]) -> Server:
    guest = ROOT / "tests" / "e2e" / "rehearsal_guest.py"
    return start_server("--guest-program", guest, "--memory-mib", "1024", "--lease-s", "6")


def rows(tmp_path: Path, act: str) -> Path:
    path = tmp_path / f"{act}.jsonl"
    path.write_text(json.dumps({"act": act}) + "\n")
    return path


@pytest.mark.parametrize(
    ("act", "wall_s", "exit_class"),
    [("sleep", 4, "TIME_LIMIT"), ("eat", 120, "MEMORY_LIMIT"), ("crash", 120, "CELL_CRASHED")],
)
def test_it_ends_as_a_clear_failure_and_the_next_audit_runs(
    rehearsal: Server, model: Path, tmp_path: Path, act: str, wall_s: int, exit_class: str
) -> None:
    began = time.monotonic()
    ran = rehearsal.assay(
        "submit", model, "--check", "truth_probe", "--data", f"pairs={rows(tmp_path, act)}",
        "--wall-s", wall_s, "--wait", "--report", tmp_path / "report",
    )  # fmt: skip
    assert ran.status == 2, ran.text
    assert "FAILED" in ran.out, ran.text
    assert exit_class in ran.out, ran.text
    assert time.monotonic() - began < 60
    verified = rehearsal.assay("verify", tmp_path / "report", "--key", rehearsal.public_key)
    assert verified.status == 0, verified.text
    after = rehearsal.assay("submit", model, "--check", "clusterability", "--wait", "--json")
    assert json.loads(after.out.splitlines()[-1])["outcome"] == "MEASURED", after.text


def test_real_checks_within_too_little_time_say_so(server: Server, model: Path, tmp_path: Path) -> None:
    ran = server.assay(
        "submit", model, "--check", "clusterability", "--wall-s", "1", "--wait", "--report", tmp_path / "r"
    )
    assert ran.status == 2, ran.text
    assert "TIME_LIMIT" in ran.out, ran.text
