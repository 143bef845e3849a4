"""Orders and mount tables: fields of odd values and odd types, and what an accepted one must be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from sandbox import CodeMount, Input, Order, SandboxError, Slot
from sandbox.bubblewrap import plan
from sandbox.bubblewrap.profile import Mount
from sandbox.limits import RANGES, resolve
from sandbox.orders import check_order

from .mutations import VALUES

_ORDER = Order(
    kind="check", module="checks", code=(CodeMount(name="checks", source=Path("/x")),),
    inputs=(Input(name="model", source=Path("/y"), sha256="ab" * 32, size=4),),
    slots=(Slot(name="plot", max_bytes=9, released=True),), request=b"{}", nonce="5a" * 32,
    limits={"wall_s": 9}, steps=("a", "b"),
)  # fmt: skip
_NAMES = ("", ".", "..", "a/b", "a\0", "a\n", "\u0430", "x" * 129, ".hidden", "order.json", "model", "plot", "checks")


def orders(chance: Random, _folder: Path) -> bool:
    changes: dict[str, Any] = {}
    for _ in range(chance.choice((1, 1, 2, 3))):
        changes.update(_change(chance))
    order = replace(_ORDER, **changes)
    try:
        check_order(order)
        caps = resolve(order, 2)
    except SandboxError:
        return False
    flat = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
    for group in (order.code, order.inputs, order.slots):
        named = [one.name for one in group]
        assert all(flat.fullmatch(name) for name in named)
        assert len(set(named)) == len(named)
    assert order.code
    assert order.kind in ("ingest", "check", "check_gpu")
    assert bool(order.gpus) == (order.kind == "check_gpu")
    for name, (low, high) in RANGES.items():
        if name in order.limits:
            assert low <= order.limits[name] <= high
            assert caps[name] == order.limits[name]
    assert set(order.limits) <= set(RANGES)
    return True


def _change(chance: Random) -> dict[str, Any]:
    """Return a change of one field: of its value, or now and then of its type."""
    name = chance.choice(_NAMES)
    texts = ("", "checks", "checks.a", "a b", "a;b", "../a", "__main__", "\0", "x" * 300)
    typed: dict[str, Any] = {
        "kind": chance.choice(("check", "ingest", "check_gpu", "", "CHECK")),
        "module": chance.choice(texts),
        "arguments": (chance.choice(texts),),
        "code": chance.choice(((), (CodeMount(name=name, source=Path("/x")),) * chance.choice((1, 2)))),
        "inputs": (
            *_ORDER.inputs[: chance.randrange(2)],
            replace(_ORDER.inputs[0], name=name, size=chance.choice((-1, 0, 4)), sha256=chance.choice(("", "ab" * 32))),
        ),
        "slots": (Slot(name=name, max_bytes=chance.choice((-1, 0, 1, 2**70)), released=False),),
        "request": b"x" * chance.choice((0, 2**20, 2**20 + 1)),
        "nonce": chance.choice(("", "5a" * 32, "5A" * 32, "5a" * 33, "5a" * 32 + "\n")),
        "limits": {chance.choice((*RANGES, "", "file_bytes", "nproc")): chance.choice((-1, 0, 1, 16, 2**30, 2**70))},
        "steps": ("a",) * chance.choice((0, 64, 65)),
        "gpus": chance.choice(((), (0,), (0, 0), (-1,), (64,), (True,), (2**70,))),
    }
    field = chance.choice(list(typed))
    return {field: chance.choice(VALUES) if not chance.randrange(4) else typed[field]}


def plans(chance: Random, _folder: Path) -> bool:
    parts = ("in", "out", "scratch", "proc", "dev", "shm", "usr", "lib", "..", ".", "a")
    sorts: tuple[Any, ...] = ("ro", "rw", "tmpfs", "proc", "dev", "remount")
    mounts = [
        Mount(
            sort=chance.choice(sorts),
            target=chance.choice(("/", "/", "/", "")) + "/".join(chance.choices(parts, k=chance.choice((1, 1, 2, 3)))),
        )
        for _ in range(chance.choice((1, 2, 3, 6)))
    ]
    try:
        plan.check_table(mounts)
    except SandboxError:
        return False
    placed = [one for one in mounts if one.sort != "remount"]
    for number, later in enumerate(placed):
        assert later.target.startswith("/")
        assert ".." not in later.target.split("/")
        for earlier in placed[:number]:
            beneath = (later.target + "/").startswith(earlier.target.rstrip("/") + "/")
            covers = (earlier.target + "/").startswith(later.target.rstrip("/") + "/")
            assert not (beneath and earlier.sort in ("rw", "tmpfs")), (earlier, later)
            assert not covers, (earlier, later)
    return True
