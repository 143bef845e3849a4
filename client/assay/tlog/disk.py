"""Files that a crash cannot tear: written aside, synced, renamed, and the folder synced where the name must stay."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from assay.errors import MachineFailed

ASIDE = ".aside"
"""Where a file is written before it gets its name; one writer needs only one."""

LOCK = ".lock"
"""Locked as long as a writer lives; the lock dies with its process."""


class Locked(MachineFailed):
    """Another writer holds the folder."""


class Disk:
    """The few operations a writer needs, each one a step at which a crash may come.

    Args:
        root: the folder; made if absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._synced: set[Path] = set()

    def put(self, files: Sequence[tuple[str, bytes]], head: tuple[str, bytes], *, sure: int) -> None:
        """Write files whole, then the one that makes them count.

        Every content is synced before it gets its name. The names of the first `sure` files outlive a power cut when
        the head gets its own; the other names, and the head's, may be lost, and the caller can make those files again
        from the sure ones. Syncing a folder costs as much as syncing a file, and this is most of what an append costs.

        Args:
            files: names and bytes.
            head: name and bytes of a file directly in the root.
            sure: how many of the files nothing else could replace.

        Raises:
            MachineFailed: the disk refused; some of the files may be there.
        """
        aside = self.root / ASIDE
        with storage(self.root):
            folders: dict[Path, None] = {}
            for number, (name, data) in enumerate(files):
                path = self.root / name
                made = self._prepare(path.parent)
                self.write(aside, data)
                self.rename(aside, path)
                folders |= dict.fromkeys(one.parent for one in made)
                if number < sure:
                    folders[path.parent] = None
            self.write(aside, head[1])
            for place in folders:
                self.sync(place)
            self.rename(aside, self.root / head[0])

    def drop(self, name: str) -> None:
        """Remove a folder of plain files, if it is there."""
        with storage(self.root):
            place = self.root / name
            self._synced.discard(place)
            try:
                inside = list(place.iterdir())
            except FileNotFoundError:
                return
            for path in inside:
                self.unlink(path)
            self.rmdir(place)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file's bytes and sync them."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name."""
        os.replace(source, target)

    def make(self, place: Path) -> None:
        """Make one folder."""
        place.mkdir(mode=0o755, exist_ok=True)

    def sync(self, place: Path) -> None:
        """Make the names in a folder durable."""
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        """Remove one file."""
        path.unlink()

    def rmdir(self, place: Path) -> None:
        """Remove one empty folder."""
        place.rmdir()

    def _prepare(self, place: Path) -> list[Path]:
        """Make a folder and its parents; return those whose names are not durable yet."""
        made: list[Path] = []
        while place != self.root and place not in self._synced:
            made.append(place)
            self._synced.add(place)
            place = place.parent
        for one in reversed(made):
            self.make(one)
        return made


@contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        Locked: another writer has it.
        MachineFailed: the folder cannot be used.
    """
    with storage(root):
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(f"another process writes to {root}; a log has one writer") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def storage(root: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise MachineFailed(f"{root}: {error.strerror or error}") from error
