"""The control group of one cell, where the operator named a parent for it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sandbox.cell import Order
from sandbox.errors import CellRefused


class Group(Protocol):
    """A group that was made, limited and read back."""

    @property
    def version(self) -> str:
        """Return "v1", "v2" or "hybrid"."""
        ...

    @property
    def procs(self) -> tuple[Path, ...]:
        """Return the files into which whatever starts the cell writes itself before it executes anything."""
        ...

    def kill(self) -> bool:
        """Kill all that is in the group; False where this kernel has no such call."""
        ...

    def peak_bytes(self) -> int:
        """Return the most memory that the group held."""
        ...

    def close(self) -> None:
        """Remove the group; CellFailed cgroup_busy when something is still in it."""
        ...


@contextmanager
def grouped(parent: str | None, order: Order, caps: Mapping[str, int]) -> Iterator[Group | None]:
    """Make the group of one cell beneath the operator's, and remove it at the end.

    Raises:
        CellRefused: cgroup_unusable; cgroup_required_for_gpu when a GPU cell would have no group.
        CellFailed: cgroup_busy.
    """
    if parent is None:
        if order.kind == "check_gpu":
            raise CellRefused("cgroup_required_for_gpu")
        yield None
        return
    cgroups = importlib.import_module("sandbox.cgroups")
    group: Group = cgroups.make(cgroups.open_parent(parent), order.nonce, caps)
    try:
        yield group
    finally:
        group.close()
