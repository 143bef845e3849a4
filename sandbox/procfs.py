"""What the host reads about a cell's processes under /proc. A process that is gone reads as nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


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
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        found += (int(one) for one in text(pid, f"task/{task}/children").split())
    return found


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
    shared_bytes: int
    tasks: int
    cpu_s: float


def sample(pids: Iterable[int]) -> Sample:
    """Add up memory, tasks and CPU time of the processes."""
    anonymous = shared = tasks = 0
    ticks = 0
    for pid in pids:
        status = fields(pid)
        anonymous += _kib(status.get("RssAnon", ""))
        shared += _kib(status.get("RssShmem", ""))
        tasks += int(status.get("Threads", "0"))
        # Fields 14 to 17 after the name, which may itself hold spaces: own and waited-for children's user and system.
        after = text(pid, "stat").rpartition(")")[2].split()
        ticks += sum(int(one) for one in after[11:15])
    return Sample(anonymous_bytes=anonymous, shared_bytes=shared, tasks=tasks, cpu_s=ticks / TICKS)


def _kib(value: str) -> int:
    return int(value.split(maxsplit=1)[0]) * 1024 if value else 0


def used_bytes(path: str) -> int:
    """Return the bytes used on the file system at `path`, 0 where it cannot be read."""
    try:
        status = os.statvfs(path)
    except OSError:
        return 0
    return (status.f_blocks - status.f_bfree) * status.f_frsize
