"""One cell's control group: made, limited, read back, killed, removed; and those that a dead worker left."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sandbox.cell import KILL_BOUND_S
from sandbox.cgroups.parent import Parent, Place, Version
from sandbox.errors import CellFailed, CellRefused

PREFIX = "assay-"
BUBBLEWRAPS_OWN = 2
"""bubblewrap's monitor and its process 1: in the group, and none of the program's."""
PERIOD_US = 100_000
GONE_S = KILL_BOUND_S
"""How long the last process may take to leave before the group counts as busy."""
_PAUSE_S = 0.002
_NONCE = re.compile(r"[A-Za-z0-9]{1,128}")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TRIES = 5

Mkdir = Callable[[Path], None]


def _mkdir(path: Path) -> None:
    path.mkdir(mode=0o755)


class Group:
    """A group that was made, limited and read back. While this object is open no other worker's sweep takes it."""

    def __init__(self, parent: Parent, name: str, lock: int) -> None:
        self.version: Version = parent.version
        self.name = name
        self.swap_limited = False
        """Whether the kernel keeps the cell out of the swap space; version 1 cannot be told to."""
        self._lock: int | None = lock
        self._folders = tuple(path / name for path in parent.paths)
        self._unified = parent.unified / name if parent.unified else None
        memory, counts = parent.places["memory"], parent.places.get("cpuacct")
        self._memory = Place(version=memory.version, path=memory.path / name)
        self._counts = counts.path / name if counts else None

    @property
    def procs(self) -> tuple[Path, ...]:
        """What starts the cell writes itself into each of these before it executes anything."""
        return tuple(folder / "cgroup.procs" for folder in self._folders)

    def kill(self) -> bool:
        """Kill all that is in the group at once; False where this kernel has no such call."""
        if self._unified is None:
            return False
        try:
            _write(self._unified / "cgroup.kill", "1")
        except OSError:
            return False
        return True

    def peak_bytes(self) -> int:
        """Return the most memory that the group held, file cache included; 0 where the kernel does not tell."""
        name = "memory.peak" if self._memory.version == 2 else "memory.max_usage_in_bytes"
        return _number(_read(self._memory.path / name))

    def out_of_memory(self) -> bool:
        """Tell whether the kernel killed a process of the group because its memory was used up."""
        name = "memory.events" if self._memory.version == 2 else "memory.oom_control"
        return _field(_read(self._memory.path / name), "oom_kill") > 0

    def cpu_s(self) -> float:
        """Return the CPU seconds of all that ever ran in the group."""
        if self._counts is not None:
            return _number(_read(self._counts / "cpuacct.usage")) / 1e9
        assert self._unified is not None
        return _field(_read(self._unified / "cpu.stat"), "usage_usec") / 1e6

    def close(self) -> None:
        """Kill what is still in the group and remove it.

        Raises:
            CellFailed: cgroup_busy.
        """
        if self._lock is None:
            return
        deadline = time.monotonic() + GONE_S
        try:
            for folder in reversed(self._folders):  # the locked one last: without it the rest is nobody's to a sweep
                while not _removed(folder):
                    if time.monotonic() > deadline:
                        raise CellFailed("cgroup_busy", str(folder))
                    if not self.kill():
                        _kill_listed(folder)
                    time.sleep(_PAUSE_S)
        finally:
            os.close(self._lock)
            self._lock = None


def make(parent: Parent, nonce: str, limits: Mapping[str, int], *, mkdir: Mkdir = _mkdir) -> Group:
    """Make the group `assay-<nonce>` in every hierarchy, write its limits, and read them back.

    Args:
        parent: from `open_parent`.
        nonce: the order's.
        limits: `memory_bytes`, `processes`, `cpu_s` and `wall_s` of the cell.
        mkdir: makes one folder.

    Raises:
        CellRefused: cgroup_unusable, naming the controller or file; profile_invalid for a nonce that is no name.
        CellFailed: cgroup_busy.
    """
    if not _NONCE.fullmatch(nonce):
        raise CellRefused("profile_invalid", "nonce")
    name = PREFIX + nonce
    group = Group(parent, name, _claimed(parent.paths[0] / name, mkdir))
    try:
        for path in parent.paths[1:]:
            mkdir(path / name)
        for controller, place in parent.places.items():
            folder = place.path / name
            for file, value in _wanted(controller, place.version, folder, limits):
                _set(controller, folder / file, value)
        group.swap_limited = _read(group._memory.path / "memory.swap.max").strip() == "0"
    except OSError as error:
        group.close()
        raise CellRefused("cgroup_unusable", str(error)) from None
    except CellRefused:
        group.close()
        raise
    return group


def sweep(parent: Parent, live: Collection[str] = ()) -> int:
    """Remove the groups that no living worker holds, and kill what is in them.

    Args:
        parent: where to look.
        live: nonces that are never taken.

    Returns:
        How many there were.
    """
    names = {child.name for path in parent.paths for child in path.glob(f"{PREFIX}*") if child.is_dir()}
    count = 0
    for name in sorted(names - {PREFIX + nonce for nonce in live}):
        lock = _locked(parent.paths[0] / name)
        if lock == -1:
            continue
        if lock is None:  # torn: its first folder is made before all others and removed after them
            for path in parent.paths[1:]:
                _removed(path / name)
            count += 1
            continue
        Group(parent, name, lock).close()
        count += 1
    return count


def _wanted(controller: str, version: int, folder: Path, limits: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return what is written where, in this order."""
    memory = str(limits["memory_bytes"] // _PAGE * _PAGE)  # the kernel counts pages
    quota = str(max(1, math.ceil(limits["cpu_s"] / limits["wall_s"])) * PERIOD_US)
    if controller == "pids":
        return [("pids.max", str(limits["processes"] + BUBBLEWRAPS_OWN))]
    if controller == "memory" and version == 2:
        swap = [("memory.swap.max", "0")] if (folder / "memory.swap.max").exists() else []
        return [("memory.max", memory), *swap, ("memory.oom.group", "1")]
    if controller == "memory":
        both = [("memory.memsw.limit_in_bytes", memory)] if (folder / "memory.memsw.limit_in_bytes").exists() else []
        return [("memory.use_hierarchy", "1"), ("memory.limit_in_bytes", memory), *both]
    if controller == "cpu" and version == 2:
        return [("cpu.max", f"{quota} {PERIOD_US}")]
    if controller == "cpu":
        return [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", quota)]
    return []


def _set(controller: str, file: Path, value: str) -> None:
    try:
        _write(file, value)
    except OSError as error:
        # Version 1 refuses a share above the one that a group further up has; without an own one that one holds.
        if error.errno != errno.EINVAL or file.name != "cpu.cfs_quota_us":
            raise CellRefused("cgroup_unusable", f"{controller}: {file}: {error.strerror}") from None
        value = "-1"
    got = " ".join(_read(file).split())
    if got != value:
        raise CellRefused("cgroup_unusable", f"{controller}: {file} is {got!r}, written {value!r}")


def _claimed(folder: Path, mkdir: Mkdir) -> int:
    """Make the first folder and hold its lock; a sweep that was faster took it away, so it is made again."""
    for _ in range(_TRIES):
        try:
            mkdir(folder)
            lock = _locked(folder)
        except OSError as error:
            raise CellRefused("cgroup_unusable", f"{folder}: {error.strerror}") from None
        if lock is not None and lock >= 0:
            return lock
    raise CellFailed("cgroup_busy", str(folder))


def _locked(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock; -1 when somebody else does, None when it is not there."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here, there = os.fstat(descriptor), folder.stat()
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except FileNotFoundError:
        os.close(descriptor)
        return None
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
        os.close(descriptor)
        return None
    return descriptor


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise CellFailed("cgroup_busy", str(error)) from None
    return True


def _kill_listed(folder: Path) -> None:
    """Kill what is listed; a number is looked up again once its process is held, so no other's can be hit."""
    for pid in _read(folder / "cgroup.procs").split():
        try:
            descriptor = os.pidfd_open(int(pid))
        except OSError:
            continue
        try:
            if pid in _read(folder / "cgroup.procs").split():
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _write(file: Path, value: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _field(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.split()[:1] == [name]), 0)
