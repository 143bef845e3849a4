"""A run that hangs, eats memory or crashes ends as a clear failure within its limits, and the next audit runs.

The cell's own process is made to hang and to crash by signals from outside, so that the code which answers is the code
that the report names, and its report verifies.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e


def cell(server: Server) -> int | None:
    """Return the process id of the interpreter inside the running cell, or None."""
    parents, shims = {}, []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended while we looked
            continue
        if b"/shim/inside.py" in arguments and b"bwrap" not in arguments[0]:
            shims.append(int(entry.name))
    worker = server.pid("worker")
    for shim in shims:
        ancestor = shim
        while ancestor in parents and ancestor != worker:
            ancestor = parents[ancestor]
        if ancestor == worker:
            return shim
    return None


def submit(server: Server, model: Path, *more: object) -> str:
    ran = server.assay("submit", model, "--check", "clusterability", *more, "--json")
    assert ran.status == 0, ran.text
    return str(json.loads(ran.out)["audit"])


def signal_cells(server: Server, audit: str, number: int, attempts: int = 1) -> None:
    """Send a signal to the cell of each of the first attempts, once the program in it has started."""
    from assay.client import AuditClient

    left = attempts
    with AuditClient.from_config(server.config) as client:
        for event in client.watch(audit):
            if event.detail.get("phase") == "starting" and left:
                found = cell(server)
                assert found is not None
                os.kill(found, number)
                left -= 1
    assert left == 0, f"{left} of {attempts} attempts never started"


def check_failed(server: Server, model: Path, audit: str, exit_class: str, report: Path) -> None:
    ran = server.assay("watch", audit)
    assert ran.status == 2, ran.text + server.logs()
    assert "FAILED" in ran.text, ran.text
    assert exit_class in ran.text, ran.text
    fetched = server.assay("report", audit, "--out", report)
    assert fetched.status == 0, fetched.text
    verified = server.assay("verify", report, "--model", model, "--key", server.public_key)
    assert verified.status == 0, verified.text
    assert cell(server) is None
    after = server.assay("submit", model, "--check", "clusterability", "--wait", "--report", report.with_name("next"))
    assert after.status == 0, after.text


def test_one_that_hangs_is_killed_at_its_wall_limit(server: Server, model: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    audit = submit(server, model, "--wall-s", "10")  # a busy machine takes seconds until the program runs
    signal_cells(server, audit, signal.SIGSTOP)
    check_failed(server, model, audit, "TIME_LIMIT", tmp_path / "report")
    assert time.monotonic() - began < 60


@pytest.mark.slow  # small: tests/service/worker/test_attempt.py, a crash is tried once more
def test_one_that_crashes_the_interpreter_is_tried_once_more(server: Server, model: Path, tmp_path: Path) -> None:
    audit = submit(server, model)
    signal_cells(server, audit, signal.SIGSEGV, attempts=2)
    check_failed(server, model, audit, "CELL_CRASHED", tmp_path / "report")
    shown = json.loads(server.assay("show", audit, "--json").out)
    assert [attempt["exit_class"] for attempt in shown["attempts"]] == ["CELL_CRASHED", "CELL_CRASHED"]


@pytest.mark.slow  # small: tests/sandbox, a cell over its memory; test_attempt.py, what it is answered
def test_one_that_eats_memory_is_killed_at_its_limit(
    start_server: Callable[..., Server], model: Path, tmp_path: Path
) -> None:
    """Torch and the model loader alone need more than 256 MiB."""
    small = start_server("--memory-mib", "256")
    ran = small.assay(
        "submit", model, "--check", "truth_probe", "--data", f"pairs={model.parent / 'pairs.jsonl'}",
        "--wait", "--report", tmp_path / "report",
    )  # fmt: skip
    assert ran.status == 2, ran.text
    assert "FAILED" in ran.out, ran.text
    assert "MEMORY_LIMIT" in ran.out, ran.text
    verified = small.assay("verify", tmp_path / "report", "--key", small.public_key)
    assert verified.status == 0, verified.text
    after = small.assay("submit", model, "--check", "clusterability", "--wait")
    assert after.status == 0, after.text


def test_real_checks_within_too_little_time_say_so(server: Server, model: Path, tmp_path: Path) -> None:
    ran = server.assay(
        "submit", model, "--check", "clusterability", "--wall-s", "1", "--wait", "--report", tmp_path / "r"
    )
    assert ran.status == 2, ran.text
    assert "TIME_LIMIT" in ran.out, ran.text
