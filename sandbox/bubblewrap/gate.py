"""Looks at a cell from outside, while its shim waits, and says go only when every mandatory layer is seen armed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sandbox import inside, procfs
from sandbox.bubblewrap.profile import DEVICES, Mount
from sandbox.errors import CellRefused
from sandbox.limits import number_of, rlimits

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_PROC_LIMITS = {
    "NPROC": "Max processes",
    "NOFILE": "Max open files",
    "FSIZE": "Max file size",
    "CPU": "Max cpu time",
    "CORE": "Max core file size",
    "MEMLOCK": "Max locked memory",
    "AS": "Max address space",
}


@dataclass(frozen=True, kw_only=True)
class Armed:
    """What the gate compares a process with."""

    pid: int
    """The shim, in the host's numbering."""
    mounts: tuple[Mount, ...]
    limits: Mapping[str, int]
    inodes: Mapping[str, int]
    """Pipe inode by channel."""


def check(armed: Armed) -> Mapping[str, Any]:
    """Check every row; return the layers for the seal.

    Raises:
        CellRefused: not_armed, naming the first layer that was not seen.
    """
    rows: dict[str, Callable[[Armed], str | None]] = {
        "namespaces": _namespaces,
        "network": _network,
        "uid": _uid,
        "capabilities": _capabilities,
        "mounts": _mounts,
        "descriptors": _descriptors,
        "rlimits": _rlimits,
    }
    for layer, row in rows.items():
        try:
            problem = row(armed)
        except (OSError, ValueError, IndexError) as error:
            problem = f"cannot be read: {error}"
        if problem:
            raise CellRefused("not_armed", f"{layer}: {problem}")
    return MappingProxyType(
        {
            "namespaces": NAMESPACES,
            "no_new_privs": True,
            "cell_uid_is_root": False,
            "cgroup": "none",
            "seccomp": "absent",
            "landlock": "absent",
        }
    )


def _namespaces(armed: Armed) -> str | None:
    for name in NAMESPACES:
        if os.readlink(f"/proc/{armed.pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}"):
            return f"{name} is the host's"
    return None


def _network(armed: Armed) -> str | None:
    names = [line.partition(":")[0].strip() for line in procfs.text(armed.pid, "net/dev").splitlines()[2:]]
    return None if names == ["lo"] else f"interfaces {names}"


def _uid(armed: Armed) -> str | None:
    status = procfs.fields(armed.pid)
    ids = {*status["Uid"].split(), *status["Gid"].split()} if "Uid" in status else {"0"}
    return "host root" if "0" in ids else None


def _capabilities(armed: Armed) -> str | None:
    status = procfs.fields(armed.pid)
    held = [name for name in _CAPABILITIES if int(status.get(name, "1"), 16)]
    if held:
        return f"{held} not empty"
    return None if status.get("NoNewPrivs") == "1" else "no_new_privs is off"


def _mounts(armed: Armed) -> str | None:
    """Compare the mount table entry by entry: nothing unplanned, nothing missing, nothing writable but as planned."""
    planned = {one.target: one.sort for one in armed.mounts if one.sort not in ("symlink", "remount")}
    devices = {f"/dev/{name}" for name in DEVICES if os.path.exists(f"/dev/{name}")} | {"/dev/pts"}
    seen: set[str] = set()
    for line in procfs.text(armed.pid, "mountinfo").splitlines():
        parts = line.split()
        point, options = _unescaped(parts[4]), set(parts[5].split(","))
        if point in seen or (point != "/" and point not in planned and point not in devices):
            return f"unplanned {point}"
        seen.add(point)
        sort = planned.get(point)
        writable = sort in ("rw", "tmpfs", "proc") or point in devices
        if "ro" not in options and not writable:
            return f"{point} is writable"
        if "nosuid" not in options or (point not in devices and "nodev" not in options and point != "/dev"):
            return f"{point} lacks nosuid or nodev"
    missing = ({"/"} | planned.keys() | devices) - seen
    return f"missing {sorted(missing)}" if missing else None


def _descriptors(armed: Armed) -> str | None:
    expected = {
        1: "stdout", 2: "stderr", inside.RESULT: "result", inside.PROGRESS: "progress",
        inside.STATUS: "status", inside.GO: "go",
    }  # fmt: skip
    seen = {int(name): os.readlink(f"/proc/{armed.pid}/fd/{name}") for name in os.listdir(f"/proc/{armed.pid}/fd")}
    if seen.pop(0, None) != "/dev/null":
        return "0 is not /dev/null"
    wanted = {number: f"pipe:[{armed.inodes[name]}]" for number, name in expected.items()}
    return None if seen == wanted else f"{sorted(seen.items() ^ wanted.items())}"


def _rlimits(armed: Armed) -> str | None:
    table = procfs.text(armed.pid, "limits").splitlines()
    for name, (soft, hard) in rlimits(armed.limits).items():
        assert number_of(name) >= 0
        row = next(line for line in table if line.startswith(_PROC_LIMITS[name]))
        got = row.removeprefix(_PROC_LIMITS[name]).split()[:2]
        if got != [str(soft), str(hard)]:
            return f"{name} is {got}, planned {[soft, hard]}"
    return None


def _unescaped(point: str) -> str:
    return point.encode().decode("unicode_escape") if "\\" in point else point
