"""What goes into a cell: verified copies or links in a private folder; and the slots that come out of it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sandbox.cell import Filled, Input, Order, Slot
from sandbox.errors import CellFailed, CellRefused
from sandbox.slots import Opened, left_in

FLAT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
REQUEST_NAME = "order.json"
FOLDER_PREFIX = "assay-cell-"
"""Every private folder of a run begins so: what a dead worker left is found by it."""

_FICLONE = 0x40049409
_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One run's private folder, and the slots' descriptors."""

    root: Path
    inputs: tuple[str, ...]
    """Names under `root/in`, the request included."""
    slots: tuple[tuple[Slot, int], ...]
    """Each slot with the host's own descriptor: after the end no path is resolved."""
    opened: tuple[Opened, ...] = ()
    """The same with (device, inode) as the host made it."""
    late: bool = False
    """True: `put_in` fills `root/in` while the cell waits."""

    def fill(self) -> tuple[Filled, ...]:
        """Return what the slots hold, read through the host's descriptors.

        Raises:
            CellFailed: no_space or host_lost, when a slot cannot be read back.
        """
        try:
            return left_in(self.opened)
        except OSError as error:
            raise CellFailed("host_lost", f"slot: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Held:
    """Inputs that were verified once and serve several cells: hashed when they were placed, never written since."""

    root: Path
    inputs: Mapping[str, Input]
    """By name; each lies at `root/<name>`, a regular file of mode 0444."""

    def path(self, one: Input) -> Path | None:
        """Return where an input lies that was held as exactly this; None when it was not."""
        kept = self.inputs.get(one.name)
        same = kept is not None and (kept.sha256, kept.size) == (one.sha256, one.size)
        return self.root / one.name if same else None


@contextmanager
def held(inputs: Sequence[Input], work_dir: Path | None, cell_uid: int | None) -> Iterator[Held]:
    """Verify inputs once, for all cells that run inside this context, and take them away at its end.

    Args:
        inputs: what several cells will be given, with flat and distinct names.
        work_dir: where the private folder is made; None means the system's temporary folder.
        cell_uid: who must be able to read them, None for this process's own user.

    Raises:
        CellRefused: input_digest, profile_invalid.
        CellFailed: no_space, host_lost.
    """
    names = [one.name for one in inputs]
    wrong = [name for name in names if not FLAT.fullmatch(name)]
    if wrong or len(set(names)) != len(names):
        raise CellRefused("profile_invalid", f"input name {wrong[0]!r}" if wrong else "input names repeat")
    root: Path | None = None
    try:
        try:
            root = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=work_dir))
            for one in inputs:
                _place(one, root / one.name, cell_uid)
        except OSError as error:
            raise _lost(error) from None
        yield Held(root=root, inputs=MappingProxyType({one.name: one for one in inputs}))
    finally:
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)


@contextmanager
def prepared(
    order: Order, work_dir: Path | None, cell_uid: int | None, held: Held | None = None, *, late: bool = False
) -> Iterator[Prepared]:
    """Make the private folder of one run and take it away again.

    Args:
        order: names the inputs and slots.
        work_dir: where private folders are made; None means the system's temporary folder.
        cell_uid: who must be able to read the inputs, None for this process's own user.
        held: inputs that were verified already; those of the order that are among them are not hashed again.
        late: place neither inputs nor request yet; see `put_in`.

    Raises:
        CellRefused: input_digest, profile_invalid.
        CellFailed: no_space, host_lost.
    """
    opened: list[int] = []
    root: Path | None = None
    try:
        try:
            root = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=work_dir))
            slots = _make_folder(order, root, cell_uid, opened)
            (root / "in").chmod(0o755)  # mounted itself; what is above it stays this user's alone
            if not late:
                _fill_folder(order, root, cell_uid, held)
        except OSError as error:
            raise _lost(error) from None
        yield Prepared(
            root=root,
            inputs=() if late else (*(one.name for one in order.inputs), REQUEST_NAME),
            slots=tuple((slot, descriptor) for slot, descriptor, _ in slots),
            opened=slots,
            late=late,
        )
    finally:
        for descriptor in opened:
            os.close(descriptor)
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)


def put_in(order: Order, ready: Prepared, cell_uid: int | None, held: Held | None = None) -> None:
    """Place an order's inputs and its request in a folder that was made without them.

    Raises:
        CellRefused: input_digest.
        CellFailed: no_space, host_lost.
    """
    try:
        _fill_folder(order, ready.root, cell_uid, held)
    except OSError as error:
        raise _lost(error) from None


def _lost(error: OSError) -> CellFailed:
    return CellFailed("no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "host_lost", str(error))


def _fill_folder(order: Order, root: Path, cell_uid: int | None, held: Held | None) -> None:
    for one in order.inputs:
        kept = held.path(one) if held else None
        if kept is None or not _same_file(kept, root / "in" / one.name):
            _place(one, root / "in" / one.name, cell_uid)
    _write(root / "in" / REQUEST_NAME, order.request)


def _make_folder(order: Order, root: Path, cell_uid: int | None, opened: list[int]) -> tuple[Opened, ...]:
    for name in ("in", "out", "scratch"):
        (root / name).mkdir(mode=0o700)
    slots = []
    for slot in order.slots:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(root / "out" / slot.name, flags, 0o600)
        opened.append(descriptor)
        if cell_uid is not None:
            os.fchown(descriptor, cell_uid, cell_uid)
        made = os.fstat(descriptor)
        slots.append((slot, descriptor, (made.st_dev, made.st_ino)))
    return tuple(slots)


def _same_file(kept: Path, target: Path) -> bool:
    """Link the very file that was hashed: one inode, which nobody but this process's user could write."""
    try:
        os.link(kept, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK):  # another file system, or links forbidden
            return False
        raise
    return True


def _place(one: Input, target: Path, cell_uid: int | None) -> None:
    """Link the file when nobody may write it and the cell may read it; copy it otherwise; hash it either way."""
    try:
        source = os.open(one.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CellRefused("input_digest", f"{one.name}: {error.strerror}") from None
    with open(source, "rb"):
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_size != one.size:
            raise CellRefused("input_digest", f"{one.name}: {status.st_size} bytes, the order says {one.size}")
        if not _linked(one, target, status, cell_uid):
            _copy(source, target)
    with target.open("rb") as placed:
        digest = hashlib.file_digest(placed, "sha256").hexdigest()
        if digest != one.sha256 or os.fstat(placed.fileno()).st_size != one.size:
            raise CellRefused("input_digest", one.name)


def _linked(one: Input, target: Path, status: os.stat_result, cell_uid: int | None) -> bool:
    readable = stat.S_IROTH if cell_uid is not None else stat.S_IRUSR
    if status.st_mode & 0o222 or not status.st_mode & readable:
        return False
    try:
        os.link(one.source, target, follow_symlinks=False)
    except OSError:  # another file system, or links forbidden: the copy below serves
        return False
    placed = target.lstat()
    return (placed.st_dev, placed.st_ino) == (status.st_dev, status.st_ino)


def _copy(source: int, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
    with open(descriptor, "wb") as sink:
        try:
            fcntl.ioctl(descriptor, _FICLONE, source)  # free where the file system shares blocks
        except OSError:
            os.lseek(source, 0, os.SEEK_SET)
            while piece := os.read(source, _CHUNK):
                sink.write(piece)
        os.fchmod(descriptor, 0o444)


def _write(target: Path, content: bytes) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    with open(descriptor, "wb") as sink:
        sink.write(content)
        os.fchmod(descriptor, 0o444)
