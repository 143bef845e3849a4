"""After many cells, one in four hostile, there is no process, mount, group, file or descriptor more than before."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, Outcome, cgroups

from .conftest import MakeOrder
from .test_cgroups import here

__all__ = ["here"]

HONEST = ("os.write(3, b'[1]')", ("exited", 0, None))
HOSTILE = (
    ("os.abort()", ("signalled", 6, None)),
    ("os.write(3, b'x' * 2000)\nimport time; time.sleep(60)", ("killed", 9, "output_cap")),
    (
        "import signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "    os._exit(0)\n"
        "os.wait()",
        ("exited", 0, None),
    ),
    ("os.mkdir('/scratch/d'); open('/scratch/d/x', 'wb').write(b'x' * 2**20); sys.exit(3)", ("exited", 3, None)),
)


@dataclass
class Bench:
    """A cell, where its folders and groups are made, and what of it is there."""

    cell: BubblewrapCell
    work: Path
    parent: cgroups.Parent | None
    order: MakeOrder
    marker: str = field(default_factory=lambda: f"left-{secrets.token_hex(8)}")

    def run(self, index: int) -> None:
        program, expected = HOSTILE[index // 4 % len(HOSTILE)] if index % 4 == 3 else HONEST
        limits = {"result_bytes": 1024, "processes": 8, "shm_bytes": 0}
        outcome: Outcome = self.cell.run(self.order(program, limits=limits, arguments=(self.marker,)))
        got = (outcome.ended, outcome.status, outcome.why)
        assert got == expected, (program, outcome.log_tail)
        if program == HONEST[0]:
            assert outcome.result == b"[1]"

    def state(self) -> dict[str, Any]:
        tasks = [path / "children" for path in Path("/proc/self/task").iterdir()]
        return {
            "children": sorted(pid for path in tasks for pid in path.read_text().split()),
            "marked": [str(path) for path in Path("/proc").glob("[0-9]*/cmdline") if self.marker.encode() in _of(path)],
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "groups": [str(one) for path in self._paths() for one in path.iterdir() if one.is_dir()],
            "files": sorted(os.listdir(self.work)),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
        }

    def _paths(self) -> tuple[Path, ...]:
        return self.parent.paths if self.parent else ()


def _of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(params=["rlimits", "groups"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, order: MakeOrder) -> Iterator[Bench]:
    parent: cgroups.Parent | None = request.getfixturevalue("here") if request.param == "groups" else None
    work = tmp_path / "work"
    work.mkdir()
    settings = BubblewrapSettings(site_packages=(), work_dir=work, cgroup_parent=parent.name if parent else None)
    made = BubblewrapCell(settings)
    yield Bench(made, work, parent, order)
    made.close()


def in_a_row(bench: Bench, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run cells one after the other; return what was there before and after."""
    bench.run(0)
    before = bench.state()
    for index in range(count):
        bench.run(index)
    assert (before["groups"], before["files"], before["marked"]) == ([], [], [])
    return before, bench.state()


def in_pairs(bench: Bench, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run cells two at a time; return what was there before and after."""
    bench.run(0)
    before = bench.state()
    failed: list[BaseException] = []

    def run(index: int) -> None:
        try:
            bench.run(index)
        except BaseException as error:  # told to the test's own thread
            failed.append(error)

    for pair in range(count):
        threads = [threading.Thread(target=run, args=(4 * pair + offset,)) for offset in (0, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    return before, bench.state()


def test_cells_leave_nothing_behind(bench: Bench) -> None:
    before, after = in_a_row(bench, 8)
    assert after == before


def test_cells_side_by_side_leave_nothing_behind(bench: Bench) -> None:
    before, after = in_pairs(bench, 2)
    assert after == before


@pytest.mark.slow
def test_500_cells_leave_nothing_behind(bench: Bench) -> None:
    before, after = in_a_row(bench, 500)
    assert after == before


@pytest.mark.slow
def test_50_pairs_leave_nothing_behind(bench: Bench) -> None:
    before, after = in_pairs(bench, 50)
    assert after == before
