"""What a killed worker leaves is found and taken away; what a living one uses is not."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox import cgroups, leftovers
from sandbox.inputs import FOLDER_PREFIX

from .test_cgroups import here

__all__ = ["here"]

WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandbox import leftovers
with leftovers.workplace(Path(sys.argv[2])) as folder:
    (folder / "assay-cell-x").mkdir()
    (folder / "assay-cell-x" / "weights").write_bytes(b"w" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


def worker(cells: Path) -> tuple[subprocess.Popen[str], Path]:
    root = str(Path(sandbox.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WORKER, root, str(cells)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def ended(child: subprocess.Popen[str], *, kill: bool) -> None:
    if kill:
        child.kill()
    child.communicate()


def test_weights_of_a_killed_worker_are_swept_and_of_a_living_one_are_not(tmp_path: Path) -> None:
    dead, left = worker(tmp_path / "cells")
    living, kept = worker(tmp_path / "cells")
    try:
        assert leftovers.sweep(tmp_path / "cells") == 0
        ended(dead, kill=True)
        assert (left / "assay-cell-x" / "weights").exists()
        assert leftovers.sweep(tmp_path / "cells") == 1
        assert not left.exists()
        assert (kept / "assay-cell-x" / "weights").exists()
    finally:
        ended(living, kill=False)
    assert list((tmp_path / "cells").iterdir()) == []  # a regular end leaves nothing to sweep


def test_folders_of_earlier_releases_are_swept(tmp_path: Path) -> None:
    (tmp_path / f"{FOLDER_PREFIX}old" / "in").mkdir(parents=True)
    (tmp_path / "somebody-elses").mkdir()
    assert leftovers.sweep(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["somebody-elses"]


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").touch()
    cells = tmp_path / "cells"
    cells.mkdir()
    (cells / f"{leftovers.WORKPLACE_PREFIX}x").symlink_to(target)
    assert leftovers.sweep(cells) == 0
    assert (target / "file").exists()


def test_a_workplace_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkdtemp
    raced: list[str] = []

    def mkdtemp(**where: Any) -> str:
        made: str = make(**where)
        if not raced:
            raced.append(made)
            assert leftovers.sweep(tmp_path) == 1
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with leftovers.workplace(tmp_path) as folder:
        assert folder.is_dir()
        assert str(folder) != raced[0]
        assert leftovers.sweep(tmp_path) == 0


def test_sweep_of_nothing_is_nothing(tmp_path: Path) -> None:
    assert leftovers.sweep(tmp_path / "absent") == 0
    before = len(os.listdir("/proc/self/fd"))
    with leftovers.workplace(tmp_path / "cells") as folder:
        shutil.rmtree(folder)  # an operator was faster
    assert len(os.listdir("/proc/self/fd")) == before


RUNNING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandbox import BubblewrapCell, BubblewrapSettings, CodeMount, Input, Order, leftovers
import hashlib
cells, program, parent = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] or None
weights = program.with_name("weights")
weights.write_bytes(b"w" * 1000)
digest = hashlib.sha256(weights.read_bytes()).hexdigest()
with leftovers.workplace(cells) as folder:
    BubblewrapCell(BubblewrapSettings(site_packages=(), work_dir=folder, cgroup_parent=parent)).run(
        Order(
            kind="check", module="program", arguments=(sys.argv[5],), request=b"{}", nonce="ab" * 32,
            code=(CodeMount(name="program.py", source=program),), steps=("in",),
            inputs=(Input(name="weights", source=weights, sha256=digest, size=1000),), limits={"wall_s": 60},
        ),
        on_step=lambda *_: print("in the cell", flush=True),
    )
"""
HANGING = """
import os, signal, time
os.setsid() if os.fork() else None
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(4, b"0 1 1\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("limited_by", ["rlimits", "groups"])
def test_a_worker_killed_mid_run_leaves_no_cell_and_a_sweep_takes_the_rest(
    tmp_path: Path, limited_by: str, request: pytest.FixtureRequest
) -> None:
    parent = request.getfixturevalue("here") if limited_by == "groups" else None
    program, cells = tmp_path / "program.py", tmp_path / "cells"
    program.write_text(HANGING)
    marker = f"mid-run-{secrets.token_hex(8)}"
    root = str(Path(sandbox.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", RUNNING, root, str(cells), str(program), parent.name if parent else "", marker],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "in the cell\n"
    assert len(_with(marker)) >= 3  # the worker, and what runs in the cell
    killed = time.monotonic()
    ended(child, kill=True)
    while _with(marker):
        assert time.monotonic() < killed + 1, _with(marker)
        time.sleep(0.005)
    assert list(cells.glob("*/assay-cell-*/in/weights"))
    assert leftovers.sweep(cells) == 1
    assert list(cells.iterdir()) == []
    if parent:
        assert cgroups.sweep(parent) == 1


def _with(marker: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(str(path))
        except OSError:  # gone meanwhile
            continue
    return found
