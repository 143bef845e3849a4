"""Landlock: which parts of the mount table a cell may open, and for what; everything else is refused by the kernel.

The rules follow from the mount table by role. They are put on by the shim (`sandbox.inside`), which is given the
kernel's bits and knows no table. Numbers are those of `linux/landlock.h`.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from sandbox.cell import Kind
from sandbox.errors import CellRefused

if TYPE_CHECKING:
    from sandbox.bubblewrap.profile import Mount

Right = Literal["execute", "read", "slot", "scratch", "proc", "device"]

_CREATE_RULESET = 444
_VERSION = 1
_ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP)
"""Built without, and switched off at boot; any other error may be somebody else's word."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 12
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15

_FS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights over files each ABI offers, lowest bits first; later ones added none that is known here."""
_NEWEST_FS = 5
_TCP_SINCE, _TCP = 4, 0b11
_SCOPES_SINCE, _SCOPES = 6, 0b11
"""bind and connect; abstract sockets and signals."""

_ALL_FS = (1 << 16) - 1
RIGHTS: Mapping[Right, int] = MappingProxyType(
    {
        "execute": EXECUTE | READ_FILE | READ_DIR,
        "read": READ_FILE | READ_DIR,
        # Without TRUNCATE, ftruncate is EACCES.
        "slot": READ_FILE | WRITE_FILE | TRUNCATE,
        "scratch": _ALL_FS & ~(EXECUTE | MAKE_SYM | MAKE_CHAR | MAKE_BLOCK | MAKE_FIFO | MAKE_SOCK),
        "proc": READ_FILE | READ_DIR | WRITE_FILE,
        "device": READ_FILE | WRITE_FILE | IOCTL_DEV,
    }
)
"""The kernel's bits by role."""


@dataclass(frozen=True)
class Rule:
    """What may be done at a path and beneath it."""

    path: str
    right: Right


def abi() -> int:
    """Return the version of Landlock that this kernel offers, 0 when it has none.

    Raises:
        CellRefused: landlock_partial, when the kernel says neither a version nor that it has none.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION)))
    if version > 0:
        return version
    number = ctypes.get_errno()
    if number in _ABSENT:
        return 0
    raise CellRefused("landlock_partial", f"asked for its version: {errno.errorcode.get(number, number)}")


def rules(kind: Kind, mounts: Sequence[Mount]) -> tuple[Rule, ...]:
    """Return the rules of a mount table, in the order of the table and each once.

    Args:
        kind: ingest cells have no process file system, scratch or devices beyond their table's.
        mounts: what the cell will see. The canary is among them and gets no rule.
    """
    found: dict[Rule, None] = {}
    for mount in mounts:
        for rule in _rules_of(mount):
            found[rule] = None
    assert kind != "ingest" or not {"proc", "scratch"} & {rule.right for rule in found}
    return tuple(found)


def _rules_of(mount: Mount) -> list[Rule]:
    from sandbox.bubblewrap.profile import CANARY, OPENED_DEVICES, SHIM

    for folder in ("/code", "/in"):  # one rule for all of each, whether it is mounted as one or file by file
        if mount.target == folder or mount.target.startswith(folder + "/"):
            return [Rule(folder, "read")]
    if mount.sort == "ro":
        if mount.target == CANARY or mount.target.startswith("/proc/"):  # covered by the rule for /proc
            return []
        return [Rule(mount.target, "read" if mount.target in (SHIM, "/sys") else "execute")]
    if mount.sort == "dev":
        return [Rule(f"{mount.target}/{name}", "device") for name in OPENED_DEVICES]
    simple: dict[str, Right] = {"rw": "slot", "tmpfs": "scratch", "proc": "proc", "device": "device"}
    return [Rule(mount.target, simple[mount.sort])] if mount.sort in simple else []


def handled(version: int) -> tuple[int, int, int]:
    """Return every right over files, TCP and scopes that this version of Landlock can take away."""
    files = (1 << _FS_BY_ABI[min(version, _NEWEST_FS)]) - 1
    return files, _TCP if version >= _TCP_SINCE else 0, _SCOPES if version >= _SCOPES_SINCE else 0


def planned(version: int, made: Sequence[Rule]) -> dict[str, Any] | None:
    """Return what the shim is told, None when the kernel has no Landlock."""
    if version == 0:
        return None
    fs, net, scoped = handled(version)
    return {
        "abi": version,
        "handled": [fs, net, scoped],
        "rules": [[rule.path, RIGHTS[rule.right] & fs] for rule in made],
    }
