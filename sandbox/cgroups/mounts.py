"""Which control group hierarchies this process sees, and where its own group lies in each (cgroups(7), proc(5)).

Both versions may be mounted at once, so the kernel's own tables are read; no single file tells it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MOUNTINFO = Path("/proc/self/mountinfo")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """One mounted hierarchy of which this process is a member."""

    version: Literal[1, 2]
    controllers: frozenset[str]
    """Of version 1, as the mount names them. Those of version 2 are told by each group."""
    top: Path
    """The mount point: no group above it can be named."""
    own: Path
    """The folder of this process's own group."""


def hierarchies(mountinfo: Path = MOUNTINFO, membership: Path = MEMBERSHIP) -> tuple[Hierarchy, ...]:
    """Return every hierarchy in which this process's own group is in view, in the order in which they are mounted.

    Args:
        mountinfo: the kernel's table of mounts.
        membership: the kernel's table of this process's groups.

    Raises:
        OSError: a table cannot be read.
    """
    members = _members(membership.read_text("utf-8", "replace"))
    found: dict[frozenset[str], Hierarchy] = {}
    for line in mountinfo.read_text("utf-8", "replace").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 3 or rest[0] not in ("cgroup", "cgroup2"):
            continue
        options = frozenset(rest[2].split(","))
        controllers = next((one for one in members if one and one <= options), None) if rest[0] == "cgroup" else _V2
        group = members.get(controllers) if controllers is not None else None
        if controllers is None or group is None or controllers in found:
            continue
        own = _beneath(_unescaped(fields[3]), group)
        if own is None:
            continue
        top = Path(_unescaped(fields[4]))
        version: Literal[1, 2] = 2 if controllers is _V2 else 1
        found[controllers] = Hierarchy(version=version, controllers=controllers, top=top, own=top / own)
    return tuple(found.values())


_V2: frozenset[str] = frozenset()
"""Version 2 has one hierarchy, whose line names no controller."""


def _members(text: str) -> dict[frozenset[str], str]:
    """Return the group's path by the controllers of its hierarchy."""
    found: dict[frozenset[str], str] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names or number == "0":
            found[frozenset(names.split(",")) if names else _V2] = path
    return found


def _beneath(root: str, group: str) -> str | None:
    """Return a group's path as seen from a mount of `root`; None where it is out of view."""
    if ".." in group.split("/"):  # above the root of this process's cgroup namespace
        return None
    base = root.rstrip("/")
    if group != root and not f"{group}/".startswith(f"{base}/"):
        return None
    return group[len(base) :].strip("/")


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
