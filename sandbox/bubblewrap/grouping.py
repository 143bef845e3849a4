"""The control group of one cell, where the operator named a parent for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sandbox import cgroups
from sandbox.cell import Order
from sandbox.errors import CellRefused


@contextmanager
def grouped(parent: str | None, order: Order, caps: Mapping[str, int]) -> Iterator[cgroups.Group | None]:
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
    group = cgroups.make(cgroups.open_parent(parent), order.nonce, caps)
    try:
        yield group
    finally:
        group.close()
