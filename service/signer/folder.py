"""The signer's own folder: small files that are written once, whole, and synced before anyone hears of them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.signer.refusal import Refused

ASIDE = "aside"
"""Where files are written before they get their name."""


class Folder:
    """Files under one root, created exclusively.

    Args:
        root: the signer's home; made if absent, mode 0700.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        with _storage():
            shutil.rmtree(root / ASIDE, ignore_errors=True)  # what a killed signer left behind
            for part in ("registered", "salts", "sealed", "voided", ASIDE):
                (root / part).mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """Where the transparency log lies; operators publish a copy of it."""
        return self._root / "log"

    def registered(self, audit: str) -> Path:
        """Return where an audit's registration lies."""
        return self._root / "registered" / f"{audit}.json"

    def receipt(self, audit: str) -> Path:
        """Return where the proof that an audit's request is in the log lies."""
        return self._root / "registered" / f"{audit}.tlog-proof"

    def salt(self, model: str) -> Path:
        """Return where the salt of a model's tag lies."""
        return self._root / "salts" / model

    def logged(self, audit: str) -> Path:
        """Return where the proofs of an audit's report lie, both in one file: they belong to one checkpoint."""
        return self._root / "sealed" / audit / "logged.json"

    def ended(self, audit: str) -> Path:
        """Return where the proof that an audit's end without a report is in the log lies."""
        return self._root / "voided" / f"{audit}.tlog-proof"

    def voided(self, audit: str) -> Path:
        """Return where the note of an audit that ended without a report lies."""
        return self._root / "voided" / f"{audit}.json"

    def withdrawn(self, audit: str) -> Path:
        """Return where the note that an audit's report was taken back lies."""
        return self._root / "sealed" / audit / "withdrawn.json"

    def taken_back(self, audit: str) -> Path:
        """Return where the proof that an audit's report was taken back is in the log lies."""
        return self._root / "sealed" / audit / "withdrawn.tlog-proof"

    def statement(self, audit: str) -> Path:
        """Return where an audit's composed statement lies."""
        return self._root / "sealed" / audit / "statement"

    def replication(self, audit: str) -> Path:
        """Return where the composed statement of an audit's replication lies."""
        return self._root / "sealed" / audit / "replication"

    def replicated(self, audit: str) -> Path:
        """Return where the proof that an audit's replication is in the log lies."""
        return self._root / "sealed" / audit / "replication.tlog-proof"

    def report(self, audit: str) -> Path:
        """Return an audit's report directory."""
        return self._root / "sealed" / audit / "report"

    def read(self, path: Path) -> bytes | None:
        """Return a file's bytes, or None if it was never written.

        Raises:
            Refused: STORAGE_FAILED.
        """
        with _storage():
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def write_once(self, path: Path, content: bytes) -> bytes:
        """Write a file unless it exists, and return what it holds now: the first writer's bytes count for ever.

        Raises:
            Refused: STORAGE_FAILED; nothing was written.
        """
        with _storage(), self._aside(path, content) as aside:
            try:
                os.link(aside, path)
            except FileExistsError:
                content = path.read_bytes()
            _sync(path.parent)
        return content

    def write(self, path: Path, content: bytes) -> None:
        """Write a file that may be written again with the same bytes: a part of a report directory.

        Raises:
            Refused: STORAGE_FAILED.
        """
        with _storage(), self._aside(path, content) as aside:
            aside.replace(path)
            _sync(path.parent)

    @contextmanager
    def _aside(self, path: Path, content: bytes) -> Iterator[Path]:
        """Write and sync the bytes where nobody looks for them; a kill leaves them there and nowhere else."""
        _make_directory(path.parent)
        aside = self._root / ASIDE / secrets.token_hex(16)
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield aside
        finally:
            aside.unlink(missing_ok=True)


def _make_directory(path: Path) -> None:
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        _sync(path.parent)


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
