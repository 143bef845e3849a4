"""Folders of dead workers: found by a lock that ends with its process, however it ends, and taken away.

A worker that is killed cannot remove the private folders of its cells, which hold weights. All of them lie in one
folder of this worker, which it locks for as long as it lives; a folder that nobody locks is nobody's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.errors import CellFailed
from sandbox.inputs import FOLDER_PREFIX

WORKPLACE_PREFIX = "assay-worker-"
_TRIES = 5


@contextmanager
def workplace(cells: Path) -> Iterator[Path]:
    """Make a folder for the cells of this process, and take it away at the end.

    Args:
        cells: where workers have theirs; made where it is missing. Any number of workers may share it.

    Raises:
        CellFailed: no_space or host_lost, when it cannot be made.
    """
    folder, lock = _claimed(cells)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(cells: Path) -> int:
    """Take away what belongs to no living process; return how many folders there were.

    Folders of single cells directly in `cells` were made by releases that had no workplaces, so by no living worker.
    """
    count = 0
    for pattern in (WORKPLACE_PREFIX, FOLDER_PREFIX):
        for folder in sorted(cells.glob(f"{pattern}*")):
            lock = _locked(folder)
            if lock is None:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            count += 1
    return count


def _claimed(cells: Path) -> tuple[Path, int]:
    try:
        cells.mkdir(mode=0o700, exist_ok=True)
        for _ in range(_TRIES):
            folder = Path(tempfile.mkdtemp(prefix=WORKPLACE_PREFIX, dir=cells))
            lock = _locked(folder)
            if lock is not None:  # else a sweep was faster than the lock
                return folder, lock
    except OSError as error:
        raise CellFailed("host_lost", str(error)) from None
    raise CellFailed("host_lost", f"{cells} is swept again and again")


def _locked(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, None when it is another's or gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone, a link, or not ours to open
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here, there = os.fstat(descriptor), folder.lstat()
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return descriptor
    except OSError:  # held by a living worker, or gone
        pass
    os.close(descriptor)
    return None
