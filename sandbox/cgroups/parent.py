"""The control group that an operator named for cells: found, never made, and never above the worker's own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sandbox.cgroups.mounts import MEMBERSHIP, MOUNTINFO, Hierarchy, hierarchies
from sandbox.errors import CellRefused

Version = Literal["v1", "v2", "hybrid"]

CONTROLLERS = ("memory", "pids", "cpu")
"""What limits a cell. Each must be in reach, in either version."""
_SEGMENT = re.compile(r"[A-Za-z0-9_@:-][A-Za-z0-9_.@:-]{0,254}")
_HANDED_ON = ("cgroup.controllers", "cgroup.subtree_control")
_OWN_LIMITS = ("memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one controller's groups are made."""

    version: Literal[1, 2]
    path: Path


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A group beneath which cells get theirs."""

    name: str
    """As the operator wrote it."""
    places: Mapping[str, Place]
    """By controller, `memory` first; then `cpuacct`, which only counts, where version 1 has it."""
    unified: Path | None
    """The folder in version 2's hierarchy, where there is one: it holds `cgroup.kill` even without any controller."""

    @property
    def version(self) -> Version:
        """What a seal says: "hybrid" limits by version 1 and kills by version 2."""
        if all(place.version == 2 for place in self.places.values()):
            return "v2"
        return "v1" if self.unified is None else "hybrid"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every folder beneath which a cell gets one, each once; the one that is locked comes first."""
        both = [place.path for place in self.places.values()] + ([self.unified] if self.unified else [])
        return tuple(dict.fromkeys(both))


def open_parent(name: str, *, mountinfo: Path = MOUNTINFO, membership: Path = MEMBERSHIP) -> Parent:
    """Find the group that the operator named.

    Args:
        name: beneath the worker's own group where it is relative ("assay"); as version 2 or every hierarchy of
            version 1 knows it where it begins with "/".
        mountinfo: the kernel's table of mounts.
        membership: the kernel's table of this process's groups.

    Raises:
        CellRefused: cgroup_unusable, naming the controller and what is wrong with it.
    """
    segments = name.removeprefix("/").split("/")
    if not all(_SEGMENT.fullmatch(one) for one in segments):
        raise CellRefused("cgroup_unusable", f"{name!r} is not a path of group names")
    try:
        seen = hierarchies(mountinfo, membership)
    except OSError as error:
        raise CellRefused("cgroup_unusable", f"{CONTROLLERS[0]}: {error}") from None
    unified = next((one for one in seen if one.version == 2), None)
    found: dict[str, Place] = {}
    for controller in CONTROLLERS:
        found[controller] = _place(controller, name, segments, unified, seen)
    v2 = _folder(name, segments, unified) if unified else None
    unified_path = None if v2 is None or isinstance(v2, str) else v2
    if unified_path is None:  # its cpu.stat would count what all of the cell has spent
        found["cpuacct"] = _of_version_1("cpuacct", name, segments, seen)
    return Parent(name=name, places=MappingProxyType(found), unified=unified_path)


def _place(
    controller: str, name: str, segments: list[str], unified: Hierarchy | None, seen: tuple[Hierarchy, ...]
) -> Place:
    path = _folder(name, segments, unified) if unified else "no hierarchy of version 2"
    if isinstance(path, Path):
        missing = [one for one in _HANDED_ON if controller not in _words(path, one)]
        if not missing:
            return Place(version=2, path=path)
        path = f"not in {path}/{missing[0]}"
    if any(controller in one.controllers for one in seen):
        return _of_version_1(controller, name, segments, seen)
    raise CellRefused("cgroup_unusable", f"{controller}: {path}")


def _of_version_1(controller: str, name: str, segments: list[str], seen: tuple[Hierarchy, ...]) -> Place:
    for one in seen:
        if controller in one.controllers:
            path = _folder(name, segments, one)
            if isinstance(path, str):
                raise CellRefused("cgroup_unusable", f"{controller}: {path}")
            return Place(version=1, path=path)
    raise CellRefused("cgroup_unusable", f"{controller}: not mounted here")


def _folder(name: str, segments: list[str], hierarchy: Hierarchy) -> Path | str:
    """Return the named folder in a hierarchy, or why it cannot be used."""
    base = hierarchy.top if name.startswith("/") else hierarchy.own
    path = base.joinpath(*segments)
    if not _within(path, hierarchy):
        return f"{path} is not beneath the worker's own group {hierarchy.own}: a limit on that would be left"
    if not path.is_dir():
        return f"{path} does not exist; make it and give it to the worker's user"
    if not os.access(path, os.W_OK | os.X_OK):
        return f"{path} is not writable for the worker's user"
    return path


def _within(path: Path, hierarchy: Hierarchy) -> bool:
    """Tell whether a cell in this group stays under every limit that somebody set on the worker.

    Version 2 lets no group that holds processes hand controllers on, so there the group may also lie beside the
    worker's own, as systemd's delegation makes it; then the worker's own must carry no limit.
    """
    if path != hierarchy.own and path.is_relative_to(hierarchy.own):
        return True
    above = hierarchy.own.parent
    if hierarchy.version == 1 or hierarchy.own == hierarchy.top or path == above or not path.is_relative_to(above):
        return False
    return path != hierarchy.own and all(set(_words(hierarchy.own, name)[:1]) <= {"max"} for name in _OWN_LIMITS)


def _words(path: Path, name: str) -> list[str]:
    try:
        return (path / name).read_text().split()
    except OSError:
        return []
