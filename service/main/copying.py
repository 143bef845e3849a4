"""Copies of what a living server writes: blobs, small files, and a log that may grow under the copying hand."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.blobs import BlobStore

ROUNDS = 50
"""Times that the log is looked at again until nobody wrote to it meanwhile; a round copies what changed."""

PIECE = 1 << 20
"""Bytes hashed at a time."""


class BackupFailed(Exception):
    """The backup or the restore is not whole; the message says what is wrong and what to do."""


def copy_blobs(blobs: BlobStore, out: Path, link: bool) -> tuple[int, set[str]]:
    """Copy every blob, hashed again; return how many, and the digests of those that are corrupt."""
    from service.blobs import BlobDamaged, BlobMissing

    copied, wrong = 0, set[str]()
    for digest in blobs.digests():
        target = blob_path(out, digest)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if link:
                os.link(blobs.path(digest), target)
            else:
                with blobs.open(digest) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, PIECE)
        except BlobDamaged:
            wrong.add(digest)
            continue
        except (FileNotFoundError, BlobMissing):
            continue  # collected meanwhile; whether the copied database needs it is asked afterwards
        if sha256_of(target) != digest:
            target.unlink()
            wrong.add(digest)
        else:
            copied += 1
    return copied, wrong


def blob_path(folder: Path, digest: str) -> Path:
    """Return where a blob lies in a backup's folder of blobs."""
    return folder / digest[:2] / digest[2:4] / digest


def copy_log(log: Path, out: Path) -> None:
    """Copy the log until a round finds that nobody wrote to it meanwhile."""
    seen: dict[Path, tuple[int, int]] = {}
    for _ in range(ROUNDS):
        now = _looks(log)
        if now == seen:
            return
        for path in now.keys() - seen.keys() | {path for path in now if now[path] != seen.get(path)}:
            try:
                copy_file(path, out / path.relative_to(log))
            except FileNotFoundError:
                continue  # a tile that grew has another name; the next round sees it
        for path in seen.keys() - now.keys():
            (out / path.relative_to(log)).unlink(missing_ok=True)
        seen = now
    raise BackupFailed(f"the log was written to during {ROUNDS} rounds of copying: try again when less is signed")


def _looks(folder: Path) -> dict[Path, tuple[int, int]]:
    found = {}
    for path in files_of(folder):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path] = (status.st_size, status.st_mtime_ns)
    return found


def files_of(folder: Path, apart: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the plain files of a folder but of some of its own folders, in order.

    Raises:
        BackupFailed: something in it is a link or no plain file.
    """
    if not folder.exists():
        return
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).parts[0] in apart or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise BackupFailed(f"{path} is no plain file: a server makes none such, look at it and remove it")
        yield path


def copy_file(path: Path, target: Path) -> None:
    """Copy one file, private to this user and synced."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("rb") as source, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Return a file's digest."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()
