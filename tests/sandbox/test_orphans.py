"""A launcher killed while bubblewrap starts leaves no process that waits for ever."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox import orphans

OURS, THEIRS = "pid:[1]", "pid:[2]"


def process(proc: Path, pid: int, *, name: str, parent: int, namespace: str, inner: str, uid: int = 65533) -> None:
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns" / "pid").symlink_to(namespace)
    uids = "\t".join([str(uid)] * 4)
    (folder / "status").write_text(f"Name:\t{name}\nPPid:\t{parent}\nUid:\t{uids}\nNSpid:\t{pid}\t{inner}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").symlink_to(OURS)
    process(tmp_path, 1, name="init", parent=0, namespace=OURS, inner="", uid=0)
    process(tmp_path, 10, name="bwrap", parent=1, namespace=OURS, inner="")  # an outer one
    process(tmp_path, 11, name="bwrap", parent=10, namespace=THEIRS, inner="1")  # a living cell's first
    process(tmp_path, 12, name="python3.11", parent=11, namespace=THEIRS, inner="2")
    return tmp_path


def test_living_cells_and_strangers_are_left_alone(proc: Path) -> None:
    process(proc, 30, name="systemd", parent=1, namespace="pid:[3]", inner="1")  # somebody's container
    process(proc, 31, name="bwrap", parent=1, namespace="pid:[4]", inner="1", uid=1000)  # another user's bubblewrap
    assert orphans.orphans(frozenset({65533}), proc) == []


def test_a_first_process_without_its_launcher_is_found(proc: Path) -> None:
    process(proc, 20, name="bwrap", parent=1, namespace="pid:[5]", inner="1")
    process(proc, 21, name="bwrap", parent=999, namespace="pid:[6]", inner="1")  # its parent is gone altogether
    assert orphans.orphans(frozenset({65533}), proc) == [20, 21]


def test_a_waiting_first_process_is_ended() -> None:
    """bubblewrap is stopped before it has told its child to go on, and killed: what waits then is swept."""
    if not Path("/usr/bin/bwrap").exists():
        pytest.skip("bubblewrap is not installed")
    blocked, writer = os.pipe()
    # --block-fd holds the child where a launcher's death would leave it.
    command = ["/usr/bin/bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--block-fd", str(blocked)]
    outer = subprocess.Popen([*command, "true"], pass_fds=(blocked,), stderr=subprocess.DEVNULL)
    uids = frozenset({os.geteuid()})
    try:
        inner: list[int] = []
        while not inner and outer.poll() is None:
            inner = [int(one) for one in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()]
        assert inner, "bubblewrap ended before it had a child"
        assert inner[0] not in orphans.orphans(uids)
        outer.kill()
        outer.wait()
        assert orphans.end_orphans(uids) >= 1
        assert inner[0] not in orphans.orphans(uids)
    finally:
        outer.kill()
        outer.wait()
        os.close(blocked)
        os.close(writer)
