"""What the gate looks at in a warm cell beyond the rows of every cell: it has run code already, if only the release's.

Each thread of it must be filtered and unprivileged, not the first alone; it must have no child; and the folder of its
inputs must hold the order's and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from sandbox import procfs
from sandbox.errors import CellRefused
from sandbox.supervise import Running

_ALIKE = ("Uid", "Gid", "NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def look(run: Running, names: Collection[str], folder: Path) -> None:
    """Look at threads, children and inputs of a spare that was told its order.

    Args:
        run: the cell.
        names: what /in must hold.
        folder: what is mounted there.

    Raises:
        CellRefused: not_armed, naming what was seen.
    """
    pids = procfs.tree(run.pid)
    if len(pids) != _PROCESSES:
        raise CellRefused("not_armed", f"tasks: {len(pids)} processes before the start")
    problem = _threads(pids[-1])
    if problem:
        raise CellRefused("not_armed", f"tasks: {problem}")
    held = set(os.listdir(folder))
    if held != set(names):
        raise CellRefused("not_armed", f"mounts: /in differs by {sorted(held ^ set(names))}")


_PROCESSES = 3
"""bubblewrap's monitor, its process 1, and the shim beneath it."""


def _threads(shim: int) -> str | None:
    first = procfs.fields(shim)
    for task in os.listdir(f"/proc/{shim}/task"):
        one = procfs.fields(shim, task)
        unlike = [name for name in _ALIKE if one.get(name) != first.get(name)]
        if unlike:
            return f"a thread differs from the first in {unlike}"
    return None
