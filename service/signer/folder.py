"""The signer's own folder: small files that are written once, whole, and synced before anyone hears of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.signer.refusal import Refused


class Folder:
    """Files under one root, created exclusively.

    Args:
        root: the signer's home; made if absent, mode 0700.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        with _storage():
            for part in ("registered", "sealed", "voided"):
                (root / part).mkdir(mode=0o700, parents=True, exist_ok=True)

    def registered(self, audit: str) -> Path:
        """Return where an audit's registration lies."""
        return self._root / "registered" / f"{audit}.json"

    def voided(self, audit: str) -> Path:
        """Return where the note of an audit that ended without a report lies."""
        return self._root / "voided" / f"{audit}.json"

    def statement(self, audit: str) -> Path:
        """Return where an audit's composed statement lies."""
        return self._root / "sealed" / audit / "statement"

    def report(self, audit: str) -> Path:
        """Return an audit's report directory."""
        return self._root / "sealed" / audit / "report"


def read(path: Path) -> bytes | None:
    """Return a file's bytes, or None if it was never written.

    Raises:
        Refused: STORAGE_FAILED.
    """
    with _storage():
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def write_once(path: Path, content: bytes) -> bytes:
    """Write a file unless it exists, and return what it holds now: the first writer's bytes count for ever.

    Raises:
        Refused: STORAGE_FAILED; nothing was written.
    """
    with _storage():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            _write(aside, content)
            os.link(aside, path)
        except FileExistsError:
            content = path.read_bytes()
        finally:
            aside.unlink(missing_ok=True)
        _sync(path.parent)
        _sync(path.parent.parent)
    return content


def write(path: Path, content: bytes) -> None:
    """Write a file that may be written again with the same bytes: a part of a report directory.

    Raises:
        Refused: STORAGE_FAILED.
    """
    with _storage():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            _write(aside, content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        _sync(path.parent)


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused("STORAGE_FAILED", f"the signer's folder: {error}") from error
