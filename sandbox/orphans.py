"""Processes that no worker minds any more: bubblewrap's own, left waiting where their launcher was killed.

bubblewrap's pid 1 of a cell waits for a word of the process that started it before it asks to die with that process.
A launcher that is killed in between leaves it waiting for ever: nothing of an order runs in it, and it holds the cell's
mounts. It is seen by what it is: bubblewrap, first in a pid namespace that is not ours, and no bubblewrap its parent.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from sandbox.cell import KILL_BOUND_S

PROC = Path("/proc")
COMMAND = "bwrap"
GONE_S = KILL_BOUND_S
"""How long a killed process may take to go before the next one is looked at."""


def orphans(uids: frozenset[int], proc: Path = PROC) -> list[int]:
    """Return the pids of bubblewrap's first processes that have lost their launcher.

    Args:
        uids: whose processes are looked at: those that cells of this host run as.
        proc: where the kernel tells of processes.
    """
    try:
        ours = os.readlink(proc / "self" / "ns" / "pid")
        pids = [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return []
    return [pid for pid in sorted(pids) if _is_orphan(pid, uids, ours, proc)]


def end_orphans(uids: frozenset[int]) -> int:
    """Kill them; return how many there were. Each takes its pid namespace with it."""
    count = 0
    for pid in orphans(uids):
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # gone meanwhile
            continue
        try:
            # The number may have become another's since it was looked at: look again, now that it is held.
            if pid in orphans(uids):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], GONE_S)
                count += 1
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return count


def _is_orphan(pid: int, uids: frozenset[int], ours: str, proc: Path) -> bool:
    status = _status(proc / str(pid))
    dead = status.get("State", "")[:1] in ("Z", "X")  # killed, and not yet fetched by whoever adopted it
    if dead or status.get("Name") != COMMAND or not {int(one) for one in status.get("Uid", "-1").split()} <= uids:
        return False
    try:
        if os.readlink(proc / str(pid) / "ns" / "pid") == ours:
            return False  # bubblewrap's outer process: it dies with its launcher
    except OSError:
        return False
    first = status.get("NSpid", "").split()[-1:] == ["1"]
    parent = _status(proc / status.get("PPid", "0"))
    return first and parent.get("Name") != COMMAND


def _status(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / "status").read_text("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
