"""Cases that take more than one launch: two cells at once, a launcher that is killed, a program that breaks off.

They are part of the matrix and not of the self-check.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from sandbox.cell import Cell, CodeMount, Order, Outcome, Slot
from sandbox.ground import Ground, leaked, marked
from sandbox.suite.attacks.words import THROUGH, Found
from sandbox.suite.case import Case, Row, judge

PAIRS, TRIES = 5, 20
"""Of two cells at once, and of launchers killed while they start; the tests marked slow and the report run more."""
GONE_S = 1.0
TOGETHER_S = 0.1
"""For so long at least both cells of a pair must have looked for one another, which each does every 10 ms."""
_MEETINGS = 8
"""A pair that missed one another, on a busy host, is tried again so often; then the case is void."""
_PLACES = ("/dev/shm", "/scratch", "/out")  # noqa: S108 - in the cell
WAITING = "waiting, before any program"
_PEER = Path(__file__).with_name("peer.py")

SHARED = Case(
    id="S45", attack="two cells at once: files, slots, processes, abstract names of the other",
    shown="bare sees the other", expected="denied; no crossing", denied=frozenset({"alone"}), kinds=("check",),
)  # fmt: skip
KILLED = Case(
    id="S43", attack="the launcher is killed while the cell runs", shown="bare: the program runs on",
    expected="gone within a second", denied=frozenset({"gone"}), good="contained", kinds=("check",),
)  # fmt: skip
STARTING = Case(
    id="S26", attack="the launcher is killed while the cell starts", shown="bare: the program runs on",
    expected="no program runs a second later", denied=frozenset({"gone"}), good="contained", kinds=("check",),
)  # fmt: skip
TEXT = Case(
    id="S39", attack="the canary in an exception's text", shown="bare: the traceback shows it",
    expected="no result; the text is the operator's only", denied=frozenset({"no result"}), good="contained",
    kinds=("check",),
)  # fmt: skip


def rows(cell: Cell, ground: Ground, *, pairs: int = PAIRS, tries: int = TRIES) -> list[Row]:
    """Run them all."""
    return [
        two_cells(cell, ground, pairs),
        launcher_killed(ground),
        killed_while_starting(ground, tries),
        exception_text(cell, ground),
    ]


def _order(program: Path, arguments: Sequence[str], slot: str = "") -> Order:
    return Order(
        kind="check",
        module="program",
        arguments=tuple(arguments),
        code=(CodeMount(name="program.py", source=program),),
        slots=(Slot(name=slot, max_bytes=1024, released=False),) if slot else (),
        request=b"{}",
        nonce=secrets.token_hex(32),
        limits={"wall_s": 20, "scratch_bytes": 2**20, "shm_bytes": 2**20},
    )


def two_cells(cell: Cell, ground: Ground, pairs: int) -> Row:
    """Run pairs of cells that each leave traces everywhere and look for the other's, at the same time."""
    found: Found = {"together": "alone"}
    shortest = float("inf")
    with ThreadPoolExecutor(2) as pool:
        for _ in range(pairs):
            for _meeting in range(_MEETINGS):
                together = _pair(pool, cell, found)
                if together >= TOGETHER_S:
                    break
            shortest = min(shortest, together)
    met = {"together": THROUGH if shortest >= TOGETHER_S else "not at the same time"}
    row = judge(SHARED, "check", found, [_bare_pair(ground), met], [])
    return _counted(row, f"0 crossings in {pairs} pairs" if row.word == "denied" else "")


def _pair(pool: ThreadPoolExecutor, cell: Cell, found: Found) -> float:
    """Run one pair, note what each saw, and return for how many seconds both looked at the same time."""
    names = [secrets.token_hex(8) for _ in range(2)]
    jobs = [
        pool.submit(cell.run, _order(_PEER, [f"mine:{mine}", other, "inside", *_PLACES], slot=mine))
        for mine, other in (names, names[::-1])
    ]
    looked = []
    for job in jobs:
        told = json.loads(job.result().result or b'{"seen": {"all": true}, "looked": [0, 0]}')
        for place, seen in told["seen"].items():
            found[place] = THROUGH if seen else found.get(place, "alone")
        looked.append(told["looked"])
    return float(min(end for _, end in looked) - max(began for began, _ in looked))


def _bare_pair(ground: Ground) -> Found:
    folders = [ground.root / "pair" / name for name in ("shm", "scratch", "out")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    names = [secrets.token_hex(8) for _ in range(2)]
    running = [
        subprocess.Popen(
            [str(ground.host.interpreter), "-I", "-S", "-B", str(_PEER), f"mine:{mine}", other, "", *map(str, folders)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env={},
        )
        for mine, other in (names, names[::-1])
    ]  # fmt: skip
    found: Found = {}
    for one in running:
        said = one.communicate(timeout=30)[0]
        for place, seen in json.loads(said or b'{"seen": {}}')["seen"].items():
            found[place] = THROUGH if seen else found.get(place, "alone")
    return found


def _counted(row: Row, more: str) -> Row:
    return replace(row, observed=f"{row.observed}; {more}") if more else row


def launcher_killed(ground: Ground, prelude: str = "") -> Row:
    """Kill the process that owns a running cell; a test's prelude takes a layer away first."""
    # The owner, bubblewrap, its process 1 and the shim all carry the marker; what follows the gate takes moments.
    word = _kill(ground, _after(4, 0.15), prelude)
    return judge(KILLED, "check", {"program": word}, [_bare_survivor(ground)], [])


def killed_while_starting(ground: Ground, tries: int) -> Row:
    """Kill the process that owns a cell after a time that grows from try to try."""
    words = [_kill(ground, _after(2, 0.12 * index / tries)) for index in range(tries)]
    found = {"program": THROUGH if THROUGH in words else "gone"}
    row = judge(STARTING, "check", found, [_bare_survivor(ground)], [])
    waiting = words.count(WAITING)
    more = f"; {waiting} left bubblewrap's own first process {WAITING}" if waiting else ""
    return _counted(row, f"{tries} launchers killed{more}" if row.word == "contained" else "")


def _after(count: int, seconds: float) -> Callable[[str], bool]:
    """Return a moment: so long after so many processes carry the marker."""
    deadline: list[float] = []

    def due(marker: str) -> bool:
        if not deadline and len(marked(marker)) >= count:
            deadline.append(time.monotonic() + seconds)
        return bool(deadline) and time.monotonic() > deadline[0]

    return due


def _kill(ground: Ground, when: Callable[[str], bool], prelude: str = "") -> str:
    """Start a launcher, kill it at a moment, and tell whether anything of its cell is there a second later."""
    marker = secrets.token_hex(8)
    program = ground.root / "sleeper.py"
    program.write_text("import time\ntime.sleep(120)\n")
    program.chmod(0o644)
    owner = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from sandbox.bubblewrap import BubblewrapCell, BubblewrapSettings\n"
        "from sandbox.suite.launches import _order\n"
        + prelude
        + "settings = BubblewrapSettings(site_packages=(), work_dir=Path(sys.argv[3]))\n"
        "BubblewrapCell(settings).run(_order(Path(sys.argv[2]), [sys.argv[4]]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", owner, str(Path(__file__).parents[2]), str(program),
         str(ground.root), marker],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        limit = time.monotonic() + 15
        while not when(marker) and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + GONE_S
    while marked(marker) and time.monotonic() < deadline:
        time.sleep(0.01)
    left = marked(marker)
    word = "gone" if not left else WAITING if all(_waits(pid) for pid in left) else THROUGH
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return word


def _waits(pid: int) -> bool:
    """Tell whether this is bubblewrap's own first process, which was never told to go on: no program has begun.

    bubblewrap's child asks to die with its parent only after it has waited for it. A parent that is killed in between
    leaves it waiting: none of the order's code ran or will run, but the process stays until somebody ends it.
    """
    try:
        comm, task = Path(f"/proc/{pid}/comm").read_text(), Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return comm.strip() == "bwrap" and not task.strip()
    except OSError:
        return True


def _bare_survivor(ground: Ground) -> Found:
    """Kill the parent of a program that has no wall: it runs on."""
    marker = secrets.token_hex(8)
    child = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{marker}'])"
    )
    subprocess.run([str(ground.host.interpreter), "-I", "-S", "-c", child], env={}, timeout=20, check=False)
    found = marked(marker)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return {"program": THROUGH if found else "gone"}


def exception_text(cell: Cell, ground: Ground) -> Row:
    """Raise an exception whose text is the canary, and end by SIGABRT: neither makes a result."""
    program = ground.root / "raiser.py"
    said = "import contextlib, os, sys\nwith contextlib.suppress(OSError):\n    os.write(3, b'{}')\n"
    ends = {
        "traceback": said + "raise RuntimeError(sys.argv[1])\n",
        "abort": said + "os.write(2, sys.argv[1].encode())\nos.abort()\n",
    }
    found: Found = {}
    bare: Found = {}
    for name, text in ends.items():
        program.write_text(text)
        program.chmod(0o644)
        outcome = cell.run(_order(program, [ground.canary.hex()]))
        found[name] = THROUGH if outcome.result is not None or not _told(ground, outcome) else "no result"
        done = subprocess.run(
            [str(ground.host.interpreter), "-I", "-S", str(program), ground.canary.hex()],
            capture_output=True, timeout=20, check=False, env={},
        )  # fmt: skip
        bare[name] = THROUGH if ground.canary.hex().encode() in done.stderr else "silent"
    return judge(TEXT, "check", found, [bare], [])


def _told(ground: Ground, outcome: Outcome) -> bool:
    """The operator's log has the text: so it was said, and only there."""
    return leaked(ground.canary, outcome)
