"""What the client remembers between runs, a small file for each operator and each log: they may never go back.

Kept in a folder of the user's. Who can write there can make this client forget, and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import CouldNotTell
from assay.tlog.watch import STATE_MAX

_LOCK = ".lock"


class Memory:
    """A folder of small files, each replaced whole.

    Args:
        folder: where they lie; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, kind: str, name: str) -> bytes | None:
        """Return what is remembered, or None.

        Args:
            kind: "root" or "log".
            name: the operator's or the log's.

        Raises:
            CouldNotTell: the file is there and cannot be read.
        """
        path = self._path(kind, name)
        with _told(path):
            try:
                with path.open("rb") as file:
                    return file.read(STATE_MAX + 1)
            except FileNotFoundError:
                return None

    def update(self, kind: str, name: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace what is remembered, with no other process of this client in between.

        Args:
            kind: "root" or "log".
            name: the operator's or the log's.
            change: from what is remembered to what shall be; what it raises leaves the file as it is.

        Raises:
            CouldNotTell: the file cannot be read or written.
        """
        path = self._path(kind, name)
        with _told(path):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _told(path):
                fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.read(kind, name)
            after = change(before)
            if after != before:
                with _told(path):
                    _replace(path, after)
        finally:
            os.close(lock)

    def _path(self, kind: str, name: str) -> Path:
        # Names hold slashes and colons: their digest is a file name everywhere.
        return self._folder / f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_suffix(".new")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CouldNotTell(f"the remembered state {path} cannot be used: {error.strerror or error}") from error
