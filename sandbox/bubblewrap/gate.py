"""Looks at a cell from outside, while its shim waits, and says go only when every mandatory layer is seen armed.

All but one row are read from the kernel. Landlock alone cannot be seen from outside; there the shim is believed. It may
be: it is our own code, mounted read-only, and the first that runs in the cell. When it tries the canary nothing of the
order has been imported, no descriptor of the order is open, and no other process is in the cell, which the other rows
show. Whoever could make it lie would have to change trusted code on the host.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sandbox import inside, procfs
from sandbox.bubblewrap.profile import DEVICES, Mount
from sandbox.cell import Kind
from sandbox.cgroups import Group
from sandbox.errors import CellRefused
from sandbox.limits import number_of, rlimits

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
FILTERED = "2"
"""SECCOMP_MODE_FILTER in `/proc/<pid>/status`."""
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_TYPES = {"proc": "proc", "tmpfs": "tmpfs", "dev": "tmpfs"}
"""Of the file system by sort; what is bound is known by its own device and inode."""
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
    init: int
    """bubblewrap's own process 1 of the cell, likewise."""
    kind: Kind
    mounts: tuple[Mount, ...]
    limits: Mapping[str, int]
    inodes: Mapping[str, int]
    """Pipe inode by channel."""
    uid: int
    """Who the cell must be on the host."""
    gid: int
    """Its group."""
    groups: tuple[int, ...]
    """Its supplementary groups: none where the worker is root, else those that the worker cannot give up."""
    filters: tuple[str, str]
    """Digests of the outer and the inner filter."""
    landlock_abi: int
    """What the kernel offers; 0 for none."""
    status: bytes
    """The shim's own line."""
    group: Group | None = None


def check(armed: Armed) -> Mapping[str, Any]:
    """Check every row; return the layers for the seal.

    Raises:
        CellRefused: not_armed, naming the first layer that was not seen.
    """
    for layer, row in ROWS.items():
        try:
            problem = row(armed)
        except (OSError, ValueError, LookupError, TypeError) as error:
            problem = f"cannot be read: {error}"
        if problem:
            raise CellRefused("not_armed", f"{layer}: {problem}")
    return MappingProxyType(
        {
            "namespaces": NAMESPACES,
            "seccomp_sha256": armed.filters,
            "landlock_abi": armed.landlock_abi,
            "no_new_privs": True,
            "cell_uid_is_root": False,
            "cgroup": armed.group.version if armed.group else "none",
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
    ids = {*status["Uid"].split(), *status["Gid"].split()}
    if "0" in ids:
        return "host root"
    if set(status["Uid"].split()) != {str(armed.uid)}:
        return f"{status['Uid'].split()}, planned {armed.uid}"
    if set(status["Gid"].split()) != {str(armed.gid)}:
        return f"group {status['Gid'].split()}, planned {armed.gid}"
    groups = sorted({int(one) for one in status["Groups"].split()})
    if groups != sorted(set(armed.groups)):
        return f"supplementary groups {groups}, planned {sorted(armed.groups)}"
    return None


def _capabilities(armed: Armed) -> str | None:
    status = procfs.fields(armed.pid)
    held = [name for name in _CAPABILITIES if int(status[name], 16)]
    if held:
        return f"{held} not empty"
    return None if status["NoNewPrivs"] == "1" else "no_new_privs is off"


def _seccomp(armed: Armed) -> str | None:
    """Both filters hold the shim; process 1, which bubblewrap keeps, has the outer one; each has the worker's own."""
    own = int(procfs.fields(os.getpid())["Seccomp_filters"])
    for pid, count, who in ((armed.pid, own + 2, "the shim"), (armed.init, own + 1, "process 1")):
        status = procfs.fields(pid)
        if status["Seccomp"] != FILTERED:
            return f"{who} is not filtered"
        if status["Seccomp_filters"] != str(count):
            return f"{who} has {status['Seccomp_filters']} filters, planned {count}"
    return None


def _landlock(armed: Armed) -> str | None:
    said = json.loads(armed.status)
    if said["landlock_abi"] != armed.landlock_abi:
        return f"version {said['landlock_abi']}, the kernel offers {armed.landlock_abi}"
    if armed.landlock_abi == 0:
        return None  # stated in the report
    if said["canary_before"] != 0:
        return f"the canary was out of reach before: {said['canary_before']}"
    return None if said["canary_errno"] == errno.EACCES else f"the canary gave {said['canary_errno']}"


def _mounts(armed: Armed) -> str | None:
    """Compare the mount table entry by entry: nothing unplanned, nothing missing, nothing writable but as planned."""
    planned = {one.target: one.sort for one in armed.mounts if one.sort not in ("symlink", "remount")}
    devices = {target for target, sort in planned.items() if sort == "device"}
    if "dev" in planned.values():
        devices |= {f"/dev/{name}" for name in DEVICES} | {"/dev/pts"}
    seen: dict[str, str] = {}
    for line in procfs.text(armed.pid, "mountinfo").splitlines():
        parts = line.split()
        point, options = _unescaped(parts[4]), set(parts[5].split(","))
        below_sys = armed.kind == "check_gpu" and point.startswith("/sys/")
        if point in seen and not below_sys:
            return f"unplanned {point}"
        if point != "/" and point not in planned and point not in devices and not below_sys:
            return f"unplanned {point}"
        seen[point] = parts[parts.index("-", 6) + 1]
        sort = planned.get(point)
        writable = sort in ("rw", "tmpfs", "proc") or point in devices
        if "ro" not in options and not writable:
            return f"{point} is writable"
        if "nosuid" not in options or (point not in devices and "nodev" not in options and point != "/dev"):
            return f"{point} lacks nosuid or nodev"
    missing = ({"/"} | planned.keys() | devices) - seen.keys()
    return f"missing {sorted(missing)}" if missing else _placed(armed, seen)


def _placed(armed: Armed, types: Mapping[str, str]) -> str | None:
    """Compare what lies at each mount point with what was to lie there: its type, its size, or the very file."""
    wanted = {"/": "tmpfs", **{one.target: _TYPES[one.sort] for one in armed.mounts if one.sort in _TYPES}}
    for point, wants in wanted.items():
        if types[point] != wants:
            return f"{point} is of type {types[point]}, planned {wants}"
    for mount in armed.mounts:
        there = f"/proc/{armed.pid}/root{mount.target}"
        if mount.sort == "tmpfs":
            has, size = os.statvfs(there), int(mount.size)
            if not size <= has.f_blocks * has.f_frsize < size + has.f_frsize:  # in whole pages
                return f"{mount.target} has {has.f_blocks * has.f_frsize} bytes, planned {size}"
        elif mount.sort in ("ro", "rw", "device") and not os.path.samefile(there, mount.source):
            return f"{mount.target} is not what lies at {mount.source}"
    return None


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


def _cgroup(armed: Armed) -> str | None:
    """The group read its limits back when it was made; here the processes must be in it."""
    if armed.group is None:
        return None
    for path in armed.group.procs:
        listed = set(path.read_text().split())
        if not {str(armed.pid), str(armed.init)} <= listed:
            return f"{path} does not list the cell"
    return None


ROWS: Mapping[str, Callable[[Armed], str | None]] = MappingProxyType(
    {
        "namespaces": _namespaces,
        "network": _network,
        "uid": _uid,
        "capabilities": _capabilities,
        "seccomp": _seccomp,
        "landlock": _landlock,
        "mounts": _mounts,
        "descriptors": _descriptors,
        "rlimits": _rlimits,
        "cgroup": _cgroup,
    }
)
"""Every mandatory layer, in the order in which it is looked at."""


def _unescaped(point: str) -> str:
    return point.encode().decode("unicode_escape") if "\\" in point else point
