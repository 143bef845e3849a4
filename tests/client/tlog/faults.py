"""A disk that dies at a chosen step, and logs to let it die on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from assay.tlog import notes
from assay.tlog.disk import Disk
from assay.tlog.log import Log
from assay.tlog.notes import Checkpoint

from tests.client.tlog.planted import ORIGIN, PRIVATE, request


class Killed(BaseException):
    """The process died here."""


class Dying(Disk):
    """Dies before its n-th operation, or in the middle of it where that is a write; syncs nothing, for speed.

    With `cut`, the power fails with the process: names that no sync made durable are as they were.
    """

    def __init__(self, root: Path, dies_at: int = -1, *, torn: bool = False, cut: bool = False) -> None:
        super().__init__(root)
        self.steps = 0
        self._dies_at, self._torn, self._cut = dies_at, torn, cut
        self._undo: list[tuple[Path, Callable[[], object]]] = []

    def _step(self, path: Path, data: bytes = b"") -> None:
        if self.steps == self._dies_at:
            if self._torn and data:
                path.write_bytes(data[: len(data) // 2])
            if self._cut:
                for _, undo in reversed(self._undo):
                    undo()
            raise Killed
        self.steps += 1

    def write(self, path: Path, data: bytes) -> None:
        self._step(path, data)
        path.write_bytes(data)

    def rename(self, source: Path, target: Path) -> None:
        self._step(target)
        before = target.read_bytes() if target.exists() else None
        source.replace(target)
        undo = target.unlink if before is None else lambda: target.write_bytes(before)
        self._undo.append((target.parent, undo))

    def make(self, place: Path) -> None:
        self._step(place)
        if not place.exists():
            place.mkdir()
            self._undo.append((place.parent, lambda: shutil.rmtree(place, ignore_errors=True)))

    def sync(self, place: Path) -> None:
        self._step(place)
        self._undo = [(where, undo) for where, undo in self._undo if where != place]

    def unlink(self, path: Path) -> None:
        self._step(path)
        super().unlink(path)

    def rmdir(self, place: Path) -> None:
        self._step(place)
        super().rmdir(place)


def grown(folder: Path, count: int) -> list[bytes]:
    """Write a log of some size and return its entries."""
    with Log(folder, ORIGIN, PRIVATE, disk=Dying(folder)) as log:
        for first in range(0, count, 200):
            log.append_all([request(f"request {index}") for index in range(first, min(count, first + 200))])
    return requests_raw(count)


def requests_raw(count: int) -> list[bytes]:
    return [request(f"request {index}").data for index in range(count)]


def head(folder: Path) -> Checkpoint | None:
    file = folder / "checkpoint"
    return notes.open_checkpoint(file.read_bytes(), [notes.vkey_of(PRIVATE, ORIGIN)]) if file.exists() else None


def note_root(seen: dict[int, bytes], folder: Path) -> None:
    """Remember what any reader could have seen; two roots of one size are a fork."""
    found = head(folder)
    if found is not None:
        assert seen.setdefault(found.size, found.root) == found.root, f"two roots of size {found.size}"


class Seeing(Dying):
    """Also lets a reader look after every operation."""

    def __init__(self, root: Path, seen: dict[int, bytes], dies_at: int, *, torn: bool, cut: bool) -> None:
        super().__init__(root, dies_at, torn=torn, cut=cut)
        self._seen = seen

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        note_root(self._seen, self.root)
