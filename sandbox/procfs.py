"""What the host reads about a cell's processes under /proc. A process that is gone reads as nothing."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
_LOOKS = 5
"""How often a living thread is looked for in a process whose leader has ended: threads come and go meanwhile."""
_MAPPINGS = 16 * 2**20
"""How much of what processes tell about their mappings is read at once: about 20,000 mappings in all."""


def text(pid: int, name: str) -> str:
    """Return the content of `/proc/<pid>/<name>`, empty when it cannot be read."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def fields(pid: int, task: str = "") -> dict[str, str]:
    """Return `/proc/<pid>/status` as a table, or that of one of its threads."""
    name = f"task/{task}/status" if task else "status"
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text(pid, name).splitlines())}


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, of all its threads."""
    return [int(one) for task in _tasks(pid) for one in text(pid, f"task/{task}/children").split()]


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _holding(pid: int) -> tuple[dict[str, str], str]:
    """Return the status of a process as one of its threads tells it that still has memory, and which thread.

    A leader that has ended (states Z and X) has none, though its threads go on with all of it.
    """
    status = fields(pid)
    for _ in range(_LOOKS):
        if not status or "RssAnon" in status or int(status.get("Threads", "0")) < 2:
            break
        for task in _tasks(pid):
            if "RssAnon" in (one := fields(pid, task)):
                return one, task
        status = fields(pid)
    return status, str(pid)


def tree(root: int) -> list[int]:
    """Return the pids of a process and of all that descend from it.

    In a pid namespace orphans become children of its pid 1, so from there nothing is missed.
    """
    found: list[int] = []
    pending = [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children(pid)
    return found


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A cell's processes at one moment."""

    anonymous_bytes: int
    """Of no file, in memory or swapped out."""
    shared_bytes: int
    """Mapped pages of files in memory, of memory that processes share, of memory files."""
    tasks: int
    cpu_s: float


def sample(pids: Iterable[int]) -> Sample:
    """Add up memory, tasks and CPU time of the processes."""
    anonymous = shared = tasks = 0
    ticks = 0
    for pid in pids:
        status, _task = _holding(pid)
        anonymous += _kib(status.get("RssAnon", "")) + _kib(status.get("VmSwap", ""))
        shared += _kib(status.get("RssShmem", ""))
        tasks += int(status.get("Threads", "0"))
        # Fields 14 to 17 after the name, which may itself hold spaces: own and waited-for children's user and system.
        after = text(pid, "stat").rpartition(")")[2].split()
        ticks += sum(int(one) for one in after[11:15])
    return Sample(anonymous_bytes=anonymous, shared_bytes=shared, tasks=tasks, cpu_s=ticks / TICKS)


def unnamed_bytes(pids: Iterable[int]) -> int:
    """Return how much mapped shared memory is of no file system that has a path, so that it is in no `used_bytes`.

    Reads the mappings of the processes, which takes milliseconds. Of a process that does not tell them, or when they
    are more than a program needs, all shared memory is taken for such.
    """
    total, left = 0, _MAPPINGS
    for pid in pids:
        status, task = _holding(pid)
        shared = _kib(status.get("RssShmem", ""))
        told = _start(f"/proc/{pid}/task/{task}/smaps", left) if shared else ""
        left -= len(told)
        total += _unnamed(told.splitlines(), _kernels_device()) if told and left else shared
    return total


def _start(path: str, limit: int) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(limit)
    except OSError:
        return ""


def _unnamed(lines: Iterable[str], device: str) -> int:
    total, counted = 0, False
    for line in lines:
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):  # "from-to rwxp offset device inode name" opens a mapping
            counted = words[3] == device
        elif counted and words[0] == "Rss:":
            total += int(words[1]) * 1024
        elif counted and words[0] == "Anonymous:":  # copies of its own, which are in RssAnon
            total -= int(words[1]) * 1024
    return total


@cache
def _kernels_device() -> str:
    """Return the device number of the kernel's own mount, as `smaps` writes it: shared and memory files live there."""
    with mmap.mmap(-1, mmap.PAGESIZE):
        lines = [line.split() for line in text(os.getpid(), "maps").splitlines() if "/dev/zero (deleted)" in line]
    return lines[0][3] if lines else "00:01"


def _kib(value: str) -> int:
    return int(value.split(maxsplit=1)[0]) * 1024 if value else 0


def used_bytes(path: str) -> int:
    """Return the bytes used on the file system at `path`, 0 where it cannot be read."""
    try:
        status = os.statvfs(path)
    except OSError:
        return 0
    return (status.f_blocks - status.f_bfree) * status.f_frsize
