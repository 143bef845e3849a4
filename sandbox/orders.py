"""What every backend asks of an order before anything else happens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from sandbox.cell import REQUEST_MAX, STEPS_MAX, CodeMount, Input, Kind, Order, Slot
from sandbox.errors import CellRefused
from sandbox.inputs import FLAT, REQUEST_NAME

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_NONCE = re.compile(r"[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
SLOT_MAX, SLOTS_MAX = 64 * 2**20, 16
"""Bytes and number of slots (specs: sandbox, section 7): the host holds what they are filled with in memory."""
KEPT_MAX = 512 * 2**20
"""Bytes of a slot that never leaves the service: what a plan carries to every scan (`checks.sharding`)."""
GPUS_MAX = 64
"""More than any host has; an index is part of a path."""


def check_order(order: Order) -> None:
    """Refuse an order whose names, request or steps are malformed; an empty list means nothing, never everything.

    Raises:
        CellRefused: profile_invalid, naming the item.
    """
    _check_types(order)
    problems = [
        (not _DOTTED.fullmatch(order.module), f"module {order.module!r}"),
        (not order.code, "code is empty"),
        (any("\0" in one for one in order.arguments), "an argument holds NUL"),
        (len(order.request) > REQUEST_MAX, f"request over {REQUEST_MAX} bytes"),
        (not _NONCE.fullmatch(order.nonce), "nonce is not 64 hex digits"),
        (len(order.steps) > STEPS_MAX, f"more than {STEPS_MAX} steps"),
        (any(not _SHA256.fullmatch(one.sha256) or one.size < 0 for one in order.inputs), "an input's digest or size"),
        (any(slot.max_bytes < 1 for slot in order.slots), "a slot without room"),
        (any(slot.max_bytes > _room(slot) for slot in order.slots), f"a slot of more than {SLOT_MAX} bytes"),
        (len(order.slots) > SLOTS_MAX, f"more than {SLOTS_MAX} slots"),
        (order.kind not in get_args(Kind), f"kind {order.kind!r}"),
        (order.kind != "check_gpu" and bool(order.gpus), f"gpus: a cell of kind {order.kind} has none"),
        (order.kind == "check_gpu" and not order.gpus, "gpus: a cell of kind check_gpu names the index of each"),
        (len(set(order.gpus)) != len(order.gpus), "gpus repeat"),
        (any(type(one) is not int or not 0 <= one < GPUS_MAX for one in order.gpus), "a GPU's index"),
    ]
    groups = {
        "code": [one.name for one in order.code],
        "input": [*(one.name for one in order.inputs), REQUEST_NAME],
        "slot": [one.name for one in order.slots],
    }
    for group, names in groups.items():
        problems += [(not FLAT.fullmatch(name), f"{group} name {name!r}") for name in names]
        problems.append((len(set(names)) != len(names), f"{group} names repeat"))
    for wrong, item in problems:
        if wrong:
            raise CellRefused("profile_invalid", item)


def _room(slot: Slot) -> int:
    return SLOT_MAX if slot.released else KEPT_MAX


_ITEMS: Mapping[str, type | tuple[type, ...]] = {
    "arguments": str, "code": CodeMount, "inputs": Input, "slots": Slot, "steps": str, "gpus": int,
}  # fmt: skip
_PLAIN: Mapping[str, type] = {"kind": str, "module": str, "request": bytes, "nonce": str, "limits": Mapping}
_WITHIN: Mapping[str, Mapping[str, type]] = {
    "code": {"name": str, "source": Path},
    "inputs": {"name": str, "source": Path, "sha256": str, "size": int},
    "slots": {"name": str, "max_bytes": int, "released": bool},
}


def _check_types(order: Order) -> None:
    """Refuse a field of another type, null among them: what it would mean is nobody's to guess."""
    for key, kind in _PLAIN.items():
        if not isinstance(getattr(order, key), kind):
            raise CellRefused("profile_invalid", key)
    for key, items in _ITEMS.items():
        value = getattr(order, key)
        if not isinstance(value, tuple) or not all(isinstance(one, items) for one in value):
            raise CellRefused("profile_invalid", key)
        for name, kind in _WITHIN.get(key, {}).items():
            # True is an integer to Python and none to us.
            if not all(isinstance(getattr(one, name), kind) for one in value) or (
                kind is int and any(isinstance(getattr(one, name), bool) for one in value)
            ):
                raise CellRefused("profile_invalid", f"{key}.{name}")
