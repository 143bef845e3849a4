"""The self-check: probes inside real cells, each beside a control outside that must get through.

A probe that gets through is `open`. A control that does not is `void`: then the probe's failure proves nothing. Either
refuses the worker. What is claimed afterwards is no more than "denied in these cases, on this host, with this profile".
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sandbox.bubblewrap import BubblewrapCell, profile
from sandbox.cell import Case, Outcome, Proof, Word
from sandbox.errors import CellRefused
from sandbox.ground import (
    MEMORY_MIB,
    MIB,
    PROBES,
    PROCESSES,
    SCRATCH_MIB,
    Ground,
    in_cell,
    leaked,
    marked,
    outside,
    parsed,
    planted,
)

DENIED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "network": ("connects to the test's listeners on the host", "denied; the listeners saw nobody"),
        "namespaces": ("shares every namespace with the host", "all seven differ; loopback only"),
        "canary": ("reads the file", "denied on five ways; its bytes are in no result and no log"),
        "environment": ("sees a planted variable", "equals the table"),
        "readonly": ("changes a copy", "denied; digest unchanged"),
        "descriptors": ("sees a stray descriptor", "exactly 0 to 4"),
        "processes_seen": ("sees the launcher", "denied; only the cell's own"),
        "host_root": ("as root opens core_pattern for writing", "denied; the cell's user is not host root"),
        "core_dump": ("raises its core limit", "the limit is final"),
    }
)
CONTAINED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "file_size": ("writes twice the scratch space", "EFBIG or ENOSPC"),
        "process_limit": ("forks twice the limit", "EAGAIN below the limit"),
        "orphan": ("outlives its parent", "gone when the run is over"),
    }
)
KILLED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"sleep": ("outlasts 1.5 s", "killed for wall"), "memory": ("holds 320 MiB", "killed for memory")}
)
WALL_SLACK_S = 1.0
"""A killed cell is gone this long after its limit at the latest; start and gate come on top."""
START_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case with everything that a reader of the matrix wants to see."""

    id: str
    word: Word
    control: str
    expected: str
    observed: str


def prove(cell: BubblewrapCell) -> Proof:
    """Run all cases and return the proof.

    Raises:
        CellRefused: selfcheck_open or selfcheck_void with the case's id; or a layer that could not be armed.
    """
    return proof(cell, run_cases(cell))


def proof(cell: BubblewrapCell, rows: list[Row]) -> Proof:
    """Return the proof that the rows give.

    Raises:
        CellRefused: selfcheck_open or selfcheck_void with the case's id.
    """
    for word, code in (("open", "selfcheck_open"), ("void", "selfcheck_void")):
        for row in rows:
            if row.word == word:
                raise CellRefused(code, f"{row.id}: {row.observed}")
    sources = b"".join(path.read_bytes() for path in (PROBES, PROBES.with_name("ground.py"), Path(__file__)))
    return Proof(
        backend="bubblewrap",
        version=cell.version(),
        profile_sha256=profile.digest("check"),
        kernel=platform.release(),
        probes_sha256=hashlib.sha256(sources).hexdigest(),
        cases=tuple(Case(id=row.id, word=row.word, got=row.observed) for row in rows),
    )


def run_cases(cell: BubblewrapCell) -> list[Row]:
    """Run all cases beside their controls; about two seconds.

    Raises:
        CellRefused: a layer could not be armed.
        CellFailed: the machine failed.
    """
    bare = BubblewrapCell(replace(cell.settings, site_packages=()))
    try:
        with planted(bare) as ground, ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(job, bare, ground) for job in (_denied, _orphan, _sleep, _memory)]
            return [row for job in jobs for row in job.result()]
    finally:
        bare.close()


def _denied(cell: BubblewrapCell, ground: Ground) -> list[Row]:
    """All probes that end by themselves: together in one cell, then together outside."""
    names = [*DENIED, "file_size", "process_limit"]
    limits = {"processes": PROCESSES, "scratch_bytes": SCRATCH_MIB * MIB, "memory_bytes": MEMORY_MIB * MIB}
    stray = os.open(ground.root / "canary", os.O_RDONLY)
    try:
        os.set_inheritable(stray, True)
        outcome = in_cell(cell, ground, names, limits)
    finally:
        os.close(stray)
    inside = parsed(outcome.result)
    inside |= {name: (True, effect) for name, effect in _effects(ground, outcome).items()}
    control = outside(cell, ground, names)
    rows = []
    for name in names:
        silent = (True, f"no answer: {outcome.ended} {outcome.why or outcome.status}")
        row = _row(name, inside.get(name, silent), control.get(name, (False, "no answer")))
        if name == "host_root" and os.geteuid() != 0 and row.word == "void":
            row = replace(row, word="not_applicable", observed="the launcher is not root")
        rows.append(row)
    return rows


def _effects(ground: Ground, outcome: Outcome) -> dict[str, str]:
    """Return what the host itself saw of the probes' success, whatever they say."""
    effects: dict[str, str] = {}
    if ground.callers:
        effects["network"] = "a listener was reached"
    if leaked(ground.canary, outcome):
        effects["canary"] = "its bytes came out"
    if hashlib.sha256((ground.root / "input").read_bytes()).hexdigest() != ground.input_sha256:
        effects["readonly"] = "the input changed"
    return effects


def _orphan(cell: BubblewrapCell, ground: Ground) -> list[Row]:
    inner, outer = secrets.token_hex(8), secrets.token_hex(8)
    outcome = in_cell(cell, ground, ["orphan"], {}, inner)
    started = "orphan" in parsed(outcome.result)
    alive = bool(marked(inner)) or not started
    outside(cell, ground, ["orphan"], outer)
    found = marked(outer)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return [_row("orphan", (alive, "still there" if started else "no answer"), (bool(found), "gone"), "gone")]


def _sleep(cell: BubblewrapCell, ground: Ground) -> list[Row]:
    began = time.monotonic()
    outcome = in_cell(cell, ground, ["sleep"], {"wall_s": 1})
    late = time.monotonic() - began > 1 + WALL_SLACK_S + START_S
    try:
        outside(cell, ground, ["sleep"], limit_s=1.5)
        outlasted = False
    except subprocess.TimeoutExpired:
        outlasted = True
    got = f"{outcome.ended} {outcome.why or outcome.status}"
    return [_row("sleep", (outcome.why != "wall" or late, got), (outlasted, "ended early"), got)]


def _memory(cell: BubblewrapCell, ground: Ground) -> list[Row]:
    outcome = in_cell(cell, ground, ["memory"], {"memory_bytes": MEMORY_MIB * MIB, "wall_s": 10})
    control = outside(cell, ground, ["memory"]).get("memory", (False, "no answer"))
    got = f"{outcome.ended} {outcome.why or outcome.status}"
    return [_row("memory", (outcome.why != "memory", got), control, got)]


def _row(name: str, inside: tuple[bool, str], control: tuple[bool, str], observed: str | None = None) -> Row:
    """Judge one case: what was tried inside, and whether the same got through outside."""
    good: Word = "denied" if name in DENIED else "contained" if name in CONTAINED else "killed"
    shown, expected = {**DENIED, **CONTAINED, **KILLED}[name]
    word, got = good, observed or inside[1]
    if inside[0]:
        word, got = "open", inside[1]
    elif not control[0]:
        word, got = "void", f"the control got {control[1]}"
    return Row(id=name, word=word, control=shown, expected=expected, observed=got)
