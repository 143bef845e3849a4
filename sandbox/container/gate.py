"""Looks at a container before anything untrusted begins: first at what the engine made, then at what the kernel holds.

Where the host's kernel runs the container, namespaces, user, capabilities, filters and limits are read from /proc and
the control group, as for bubblewrap. Where a sentry does, the host cannot see them: they are listed as the sentry's.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sandbox.container.profile import Created
from sandbox.container.settings import ContainerSettings
from sandbox.errors import CellRefused

NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
"""Those that an engine always makes; a user namespace only where it is rootless."""
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
SENTRY_ROWS = ("namespaces", "seccomp", "capabilities", "no_new_privs", "filesystem")


def check_created(settings: ContainerSettings, made: Created, told: Mapping[str, Any]) -> None:
    """Refuse a container that is not what was asked for; it has not started yet.

    Raises:
        CellRefused: not_armed, naming the first difference.
    """
    host, config = told["HostConfig"], told["Config"]
    options = [str(one) for one in host.get("SecurityOpt") or ()]
    owed = {(source, target, writable) for source, target, writable in made.mounts}
    mounts = {(str(one["Source"]), str(one["Destination"]), bool(one["RW"])) for one in told["Mounts"]}
    mounts = {one for one in mounts if one[1] != "/scratch"}  # podman lists memory file systems, too
    rows = {
        "network": host["NetworkMode"] == "none",
        "read_only": host["ReadonlyRootfs"] is True,
        "privileged": host["Privileged"] is False,
        "user": config["User"] == made.user,
        "capabilities": _dropped(settings, host, told),
        "no_new_privs": any(one.startswith("no-new-privileges") for one in options),
        "seccomp": any(one.startswith("seccomp=") for one in options) and "seccomp=unconfined" not in options,
        "memory": host["Memory"] == made.limits["memory_bytes"] == host["MemorySwap"],
        "processes": host["PidsLimit"] == made.limits["processes"],
        "cpus": host["NanoCpus"] == settings.cpus * 10**9,
        "mounts": mounts == owed,
        "pid": host["PidMode"] in ("", "private"),
        "ipc": host["IpcMode"] in ("none", "private"),
        "uts": host["UTSMode"] in ("", "private"),
        "devices": not host.get("Devices"),
        "image": settings.image.partition("@")[2]
        in json.dumps([told.get("Image"), config.get("Image"), told.get("ImageDigest")]),
    }
    for layer, held in rows.items():
        if not held:
            raise CellRefused("not_armed", f"{layer}: the engine made another container than was asked for")


def _dropped(settings: ContainerSettings, host: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    if host.get("CapAdd"):
        return False
    if settings.engine == "docker":
        return list(host.get("CapDrop") or ()) == ["ALL"]
    return not told.get("EffectiveCaps") and not told.get("BoundingCaps")


def check_shim(line: bytes, abi: int) -> None:
    """Refuse unless the shim says that it is armed, and that its canary was in reach before and is not any more.

    Raises:
        CellRefused: not_armed, or the code of a layer that the shim could not put on.
    """
    try:
        said = json.loads(line)
        armed = said["armed"] is True
        denied = (0, errno.EACCES) if abi else (0, 0)
        canary = (said["canary_before"], said["canary_errno"]) == denied if armed else False
    except (ValueError, LookupError, TypeError):
        raise CellRefused("not_armed", "the shim's line is malformed") from None
    if not armed:
        code = said.get("code") if said.get("code") in ("landlock_partial", "seccomp_unsupported") else "not_armed"
        raise CellRefused(str(code), str(said.get("item", ""))[:300])
    if said["landlock_abi"] != abi or not canary:
        raise CellRefused("not_armed", "landlock: the canary is not as it must be")


def check_kernel(
    container: str, pid: int, made: Created, *, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> Mapping[str, Any]:
    """Read the layers of a container that the host's kernel runs; return them for the seal.

    Args:
        container: its id, which must stand in the name of its control group.
        pid: its first process, in this host's numbering.
        made: what was asked for.
        proc: where the kernel tells of processes.
        cgroup: where the control groups are.

    Raises:
        CellRefused: not_armed, naming the first layer that was not seen.
    """
    try:
        status = _status(proc / str(pid) / "status")
        found = _group(proc, pid, container, cgroup)
        alike = [one for one in NAMESPACES if _namespace(proc, str(pid), one) == _namespace(proc, "self", one)]
        interfaces = (proc / str(pid) / "net" / "dev").read_text().splitlines()[2:]
        rows = {
            f"namespaces {alike}": not alike,
            "network": [line.partition(":")[0].strip() for line in interfaces] == ["lo"],
            "uid": "0" not in {*status["Uid"].split(), *status["Gid"].split()},
            "capabilities": not any(int(status[name], 16) for name in _CAPABILITIES),
            "no_new_privs": status["NoNewPrivs"] == "1",
            # One of the engine, one of the shim.
            "seccomp": status["Seccomp"] == "2" and int(status["Seccomp_filters"]) >= 2,
            "memory": found["memory"] == made.limits["memory_bytes"],
            "processes": found["pids"] == made.limits["processes"],
        }
    except (OSError, LookupError, ValueError) as error:
        raise CellRefused("not_armed", f"the container is not seen from here: {error!r}"[:300]) from None
    for layer, held in rows.items():
        if not held:
            raise CellRefused("not_armed", layer)
    return MappingProxyType(
        {
            "namespaces": NAMESPACES,
            "no_new_privs": True,
            "cell_uid_is_root": False,
            "cgroup": found["version"],
            "by": "kernel",
        }
    )


def sentry_layers() -> Mapping[str, Any]:
    """Return what a cell behind gVisor's sentry has: nothing of it was seen from outside.

    What the engine was told, and says that it made, is true of the container; the rest is listed as the sentry's.
    """
    return MappingProxyType(
        {
            "namespaces": (),
            "no_new_privs": True,
            "cell_uid_is_root": False,
            "cgroup": "engine",
            "by": "gvisor",
            "by_sentry": SENTRY_ROWS,
        }
    )


def _status(path: Path) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in path.read_text().splitlines())}


def _namespace(proc: Path, pid: str, name: str) -> str:
    return os.readlink(proc / pid / "ns" / name)


def _group(proc: Path, pid: int, container: str, root: Path) -> Mapping[str, Any]:
    """Read the limits of memory and processes back from the group that the process is in."""
    found: dict[str, Any] = {}
    for line in (proc / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if container not in path:
            continue
        place = path.lstrip("/")
        v1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
        for name in ("memory", "pids"):
            if not controllers and (file := root / place / f"{name}.max").exists():
                found |= {name: int(file.read_text()), "version": "v2"}
            elif name in controllers.split(","):
                found |= {name: int((root / name / place / v1[name]).read_text()), "version": "v1"}
    return found
