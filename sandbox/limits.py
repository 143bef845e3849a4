"""Limits of a cell: names, ranges and defaults, and the rlimits that follow from them."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from types import MappingProxyType

from sandbox.cell import Kind, Limit, Order
from sandbox.errors import CellRefused

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "wall_s": (1, 86_400),
        "cpu_s": (1, 10**6),
        "memory_bytes": (256 * MIB, 4 * TIB),
        "processes": (4, 4096),
        "open_files": (16, 65_536),
        "scratch_bytes": (0, 64 * GIB),
        "shm_bytes": (0, 64 * GIB),
        "result_bytes": (KIB, MIB),
        "log_bytes": (KIB, MIB),
    }
)
"""What an order may ask for, lowest and highest."""

DEFAULTS: Mapping[Kind, Mapping[str, int]] = MappingProxyType(
    {
        "ingest": MappingProxyType(
            {
                "wall_s": 120,
                "cpu_s": 60,
                "memory_bytes": 2 * GIB,
                "processes": 4,
                "open_files": 64,
                "scratch_bytes": 0,
                "shm_bytes": 0,
                "result_bytes": 256 * KIB,
                "log_bytes": 64 * KIB,
            }
        ),
        "check": MappingProxyType(
            {
                "wall_s": 3600,
                "memory_bytes": 16 * GIB,
                "processes": 256,
                "open_files": 1024,
                "scratch_bytes": GIB,
                "shm_bytes": 256 * MIB,
                "result_bytes": MIB,
                "log_bytes": 64 * KIB,
            }
        ),
        "check_gpu": MappingProxyType(
            {
                "wall_s": 3600,
                "memory_bytes": 64 * GIB,
                "processes": 512,
                "open_files": 4096,
                "scratch_bytes": 4 * GIB,
                "shm_bytes": GIB,
                "result_bytes": MIB,
                "log_bytes": 64 * KIB,
            }
        ),
    }
)
"""By kind; `cpu_s` is `wall_s` x cpus, `file_bytes` the larger of scratch and the largest slot."""

ADDRESS_SLACK = 4 * GIB
"""Address space beyond memory and inputs: libraries and thread stacks are mapped far more than they are touched."""

FLOOD_FACTOR = 256
"""A stream that wrote this many times its kept ring is a flood."""

ENFORCED_BY: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "wall_s": ("host", True),
        "cpu_s": ("rlimit", False),
        "memory_bytes": ("watchdog", True),
        "address_bytes": ("rlimit", False),
        "processes": ("rlimit", True),
        "open_files": ("rlimit", False),
        "file_bytes": ("rlimit", False),
        "scratch_bytes": ("tmpfs", True),
        "shm_bytes": ("tmpfs", True),
        "result_bytes": ("host", True),
        "log_bytes": ("host", True),
    }
)
"""What enforces each limit, and whether it holds for the cell as a whole."""

BY_GROUP: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {"memory_bytes": ("cgroup", True), "processes": ("cgroup", True), "cpu_s": ("cgroup", True)}
)
"""What a control group takes over."""


def resolve(order: Order, cpus: int) -> dict[str, int]:
    """Return every limit of this order.

    Raises:
        CellRefused: profile_invalid (a kind without a profile), limit_invalid (unknown name or value out of range).
    """
    if order.kind not in DEFAULTS:
        raise CellRefused("profile_invalid", f"kind {order.kind}")
    limits = dict(DEFAULTS[order.kind])
    for name, value in order.limits.items():
        low, high = RANGES.get(name, (1, 0))
        if type(value) is not int or not low <= value <= high:
            raise CellRefused("limit_invalid", f"{name}={value!r}, allowed {low}..{high}" if high else f"{name!r}")
        limits[name] = value
    limits.setdefault("cpu_s", min(limits["wall_s"] * cpus, RANGES["cpu_s"][1]))
    limits["file_bytes"] = max([limits["scratch_bytes"], *(slot.max_bytes for slot in order.slots)])
    if order.kind == "ingest":
        limits["address_bytes"] = limits["memory_bytes"]
    elif order.kind == "check":
        limits["address_bytes"] = limits["memory_bytes"] + sum(one.size for one in order.inputs) + ADDRESS_SLACK
    return limits  # a GPU's driver reserves terabytes of addresses: only a cgroup can limit what is used


def rlimits(limits: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return (soft, hard) by the kernel's name, as set by the shim inside the cell.

    Limits without `address_bytes` are a GPU cell's, whose driver also locks memory.
    """
    made = {
        "NPROC": (limits["processes"], limits["processes"]),
        "NOFILE": (limits["open_files"], limits["open_files"]),
        "FSIZE": (limits["file_bytes"], limits["file_bytes"]),
        # SIGXCPU at the limit can be caught; SIGKILL one second later cannot.
        "CPU": (limits["cpu_s"], limits["cpu_s"] + 1),
        # One byte stops a dump to a file and, unlike zero, also one piped to a handler.
        "CORE": (1, 1),
    }
    if "address_bytes" in limits:
        made |= {"MEMLOCK": (0, 0), "AS": (limits["address_bytes"], limits["address_bytes"])}
    return made


def sealed(
    limits: Mapping[str, int], *, unenforced: frozenset[str] = frozenset(), grouped: bool = False
) -> tuple[Limit, ...]:
    """Return the limits as they stand in a seal; those that nothing enforced are left out.

    Args:
        limits: what held.
        unenforced: names that nothing enforced.
        grouped: whether the cell ran in a control group of its own.
    """
    by = {**ENFORCED_BY, **BY_GROUP} if grouped else ENFORCED_BY
    return tuple(
        Limit(name=name, value=value, by=by[name][0], aggregate=by[name][1])
        for name, value in sorted(limits.items())
        if name not in unenforced
    )


def number_of(name: str) -> int:
    """Return the kernel's number of an rlimit."""
    return int(getattr(resource, f"RLIMIT_{name}"))
