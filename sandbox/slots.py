"""Takes back what a cell left in its slots, when every process of it is gone.

A slot is one regular file that the host made and keeps open. What the program may do to it from inside is write,
truncate, chmod and set attributes; so its mode, owner and attributes are never looked at, its size is asked of the
host's own descriptor, and no path is resolved. Holes read as zeros. A slot is handed on whole or not at all.

A backend that cannot mount single files gives its cell a folder instead; `copy_slots` takes the files out of it by
openat2, so that a link, a pipe or a mount put in a file's place is refused and never followed.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from sandbox.cell import Filled, Slot
from sandbox.errors import ResultRejected

Opened = tuple[Slot, int, tuple[int, int]]
"""A slot, the host's descriptor of it, and (device, inode) as they were when the host made it."""

_CHUNK = 2**20
_BLOCK = 512
"""Bytes of one of `st_blocks` (stat(2))."""
_SLACK = 2**20
"""File systems reserve ahead of what is written, and keep tables of their own with it."""
_OPENAT2 = 437
"""The same number on every architecture (Linux, include/uapi/asm-generic/unistd.h)."""
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
"""RESOLVE_* of include/uapi/linux/openat2.h."""


@dataclass(frozen=True, kw_only=True)
class Withheld(Filled):
    """A slot that is not acceptable: it has no content, and whoever opens it is told why."""

    code: str = field(default="slot_not_regular")

    def open(self) -> BinaryIO:
        """Refuse.

        Raises:
            ResultRejected: slot_too_large or slot_not_regular.
        """
        raise ResultRejected(self.code, self.name)


def overfull(opened: Sequence[Opened]) -> bool:
    """Tell whether a slot takes more of the disk than it may ever hand on; asked while the cell runs.

    Only what is stored counts: a sparse file costs nothing, and is refused for its size when it is taken.

    Raises:
        OSError: the disk failed.
    """
    return any(_BLOCK * os.fstat(descriptor).st_blocks > slot.max_bytes + _SLACK for slot, descriptor, _ in opened)


def take_slots(opened: Sequence[Opened]) -> tuple[Filled, ...]:
    """Return what the slots hold; call it when every process of the cell is gone.

    Args:
        opened: each slot with the host's own descriptor.

    Raises:
        ResultRejected: slot_not_regular or slot_too_large, naming the slot; then none of them is handed on.
        OSError: the disk failed.
    """
    return tuple(_take(slot, descriptor, identity) for slot, descriptor, identity in opened)


def left_in(opened: Sequence[Opened]) -> tuple[Filled, ...]:
    """Return what the slots hold, each unacceptable one as `Withheld`: a run never raises for what its program did.

    Raises:
        OSError: the disk failed.
    """
    found: list[Filled] = []
    for slot, descriptor, identity in opened:
        try:
            found.append(_take(slot, descriptor, identity))
        except ResultRejected as error:
            size = os.fstat(descriptor).st_size
            nothing = hashlib.sha256(b"").hexdigest()
            found.append(Withheld(name=slot.name, size=size, sha256=nothing, content=b"", code=error.code))
    return tuple(found)


def _take(slot: Slot, descriptor: int, identity: tuple[int, int]) -> Filled:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or (status.st_dev, status.st_ino) != identity:
        raise ResultRejected("slot_not_regular", slot.name)
    os.fchmod(descriptor, 0o400)  # whatever the program made of it, 04777 included
    if status.st_size > slot.max_bytes:
        raise ResultRejected("slot_too_large", slot.name)
    content = _content(descriptor, status.st_size)
    if os.fstat(descriptor).st_size != status.st_size or len(content) != status.st_size:
        raise ResultRejected("slot_not_regular", slot.name)  # somebody writes still: it is not the file it was
    return Filled(name=slot.name, size=len(content), sha256=hashlib.sha256(content).hexdigest(), content=content)


def _content(descriptor: int, size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        piece = os.pread(descriptor, min(_CHUNK, size - len(pieces)), len(pieces))
        if not piece:
            break
        pieces += piece
    return bytes(pieces)


def copy_slots(folder: int, slots: Sequence[Slot]) -> tuple[Filled, ...]:
    """Return what a cell left in a folder of its own, once it is gone; a file that is absent is an empty slot.

    Args:
        folder: descriptor of the folder.
        slots: what the order declared.

    Raises:
        ResultRejected: unknown_slot, a name that the order does not declare; slot_not_regular, slot_too_large.
        OSError: the disk failed, or the kernel has no openat2.
    """
    declared = {slot.name for slot in slots}
    if not declared.issuperset(os.listdir(folder)):
        raise ResultRejected("unknown_slot")  # the name is the program's and is not repeated
    found = []
    for slot in slots:
        try:
            descriptor = _open_beneath(folder, slot.name)
        except FileNotFoundError:
            found.append(Filled(name=slot.name, size=0, sha256=hashlib.sha256(b"").hexdigest(), content=b""))
            continue
        try:
            status = os.fstat(descriptor)
            found.append(_take(slot, descriptor, (status.st_dev, status.st_ino)))
        finally:
            os.close(descriptor)
    return tuple(found)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _open_beneath(folder: int, name: str) -> int:
    """Open without following anything, and without waiting for a pipe's other end."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    how = _How(flags=flags, mode=0, resolve=_NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    size = ctypes.c_size_t(ctypes.sizeof(how))
    made = call(ctypes.c_long(_OPENAT2), ctypes.c_int(folder), name.encode(), ctypes.byref(how), size)
    if made >= 0:
        return int(made)
    code = ctypes.get_errno()
    if code in (errno.ELOOP, errno.EXDEV, errno.ENXIO, errno.ENODEV):  # a link, a mount, a socket, a device
        raise ResultRejected("slot_not_regular", name)
    raise OSError(code, os.strerror(code), name)
