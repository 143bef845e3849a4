from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from service.main.children import ChildFailed, Children, Recipe

READY_THEN_SLEEP = "import os, sys, time; os.write(int(sys.argv[1]), b'ready'); time.sleep(60)"


def recipe(tmp_path: Path, program: str) -> Recipe:
    return Recipe("role", (sys.executable, "-c", program, "{ready_fd}"), tmp_path / "role.log")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


@pytest.fixture
def children() -> Children:
    return Children(note=lambda _: None, environment=dict(os.environ))


def test_a_killed_role_is_started_again(tmp_path: Path, children: Children) -> None:
    children.start(recipe(tmp_path, READY_THEN_SLEEP))
    children.await_ready(("role",))
    first = children.pids()["role"]
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while children.pids().get("role", first) == first and time.monotonic() < deadline:
        children.tend()
        time.sleep(0.05)
    assert children.pids()["role"] != first
    children.stop(5)
    assert children.pids() == {}


def test_a_role_that_ends_before_it_is_ready_is_named_with_its_log(tmp_path: Path, children: Children) -> None:
    children.start(recipe(tmp_path, "raise SystemExit(7)"))
    with pytest.raises(ChildFailed, match=r"role ended with status 7; see .*role\.log"):
        children.await_ready(("role",))
    children.stop(1)


def test_a_role_with_a_final_status_is_not_started_again(tmp_path: Path, children: Children) -> None:
    """A worker without isolation would otherwise be tried for ever."""
    program = "import os, sys; os.write(int(sys.argv[1]), b'ready'); sys.exit(2)"
    children.start(replace(recipe(tmp_path, program), final=frozenset({2})))
    children.await_ready(("role",))
    os.waitid(os.P_PID, children.pids()["role"], os.WEXITED | os.WNOWAIT)
    with pytest.raises(ChildFailed, match="status 2") as caught:
        children.tend()
    assert caught.value.status == 2
    assert children.pids() == {}


def test_stop_kills_what_ignores_the_polite_signal(tmp_path: Path, children: Children) -> None:
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY_THEN_SLEEP
    children.start(recipe(tmp_path, program))
    children.await_ready(("role",))
    pid = children.pids()["role"]
    children.stop(0.3)
    assert not alive(pid)


def test_children_die_with_a_sigkilled_parent(tmp_path: Path) -> None:
    parent = f"""
import os, time
from pathlib import Path
from service.main.children import Children, Recipe
import sys
children = Children(note=print, environment=dict(os.environ))
arguments = (sys.executable, "-c", {READY_THEN_SLEEP!r}, "{{ready_fd}}")
children.start(Recipe("role", arguments, Path({str(tmp_path / "log")!r})))
children.await_ready(("role",))
print(children.pids()["role"], flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)
