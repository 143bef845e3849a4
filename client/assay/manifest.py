"""A model's manifest: its files by name, digest and size. The SHA-256 of these bytes *is* the model's digest.

    {"files":[{"path":"config.json","sha256":"…","size":22}, …],"format":"assay-manifest/v1"}

Canonical JSON, files sorted by the bytes of their path. Names count: renaming a file makes another model.
Zero-byte files are listed; links, devices and names outside the alphabet are refused, never skipped, because what
is skipped is not audited.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from assay import canonical
from assay.errors import MachineFailed, Malformed, shown
from assay.strict_json import INTEGER_MAX

FORMAT = "assay-manifest/v1"
FILE_NAME = "assay-manifest.json"

BYTES_MAX = 4 * 1024 * 1024
"""About 20,000 files: far above any real model, small enough to parse anywhere."""

HASH_THREADS = min(8, os.cpu_count() or 1)
"""Hashing releases the interpreter lock; beyond 8 threads the disk is what waits."""

_CHUNK = 1024 * 1024
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_sha256(value: object) -> bool:
    """Tell whether a value is a digest as we write it: 64 lower-case hexadecimal digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of a model."""

    path: str
    """One or two segments of letters, digits, dot, dash, underscore."""
    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Manifest:
    """A model's files, sorted by path. Build it with `build`, read it with `parse`."""

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        _check_files(self.files)

    @cached_property
    def data(self) -> bytes:
        """The canonical bytes."""
        files = [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in self.files]
        return canonical.dumps({"files": files, "format": FORMAT})

    @cached_property
    def digest(self) -> str:
        """The model's digest: hex SHA-256 of `data`."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def parse(data: bytes) -> Manifest:
    """Read a manifest; it must be canonical, complete and sorted.

    Raises:
        Malformed: it is not.
    """
    value = canonical.loads_canonical(data, BYTES_MAX)
    if not isinstance(value, dict) or set(value) != {"files", "format"} or value["format"] != FORMAT:
        raise Malformed("manifest_form", "/", f'a manifest is {{"files":[…],"format":"{FORMAT}"}}')
    if not isinstance(value["files"], list):
        raise Malformed("manifest_form", "/files", "files is a list")
    for index, item in enumerate(value["files"]):
        if not isinstance(item, dict) or set(item) != {"path", "sha256", "size"}:
            raise Malformed("manifest_form", f"/files/{index}", "a file has path, sha256 and size, nothing else")
    return Manifest(tuple(FileEntry(**item) for item in value["files"]))


def check_path(path: object) -> str | None:
    """Return None for an acceptable path, else the code of what is wrong with it."""
    if not isinstance(path, str):
        return "name_charset"
    segments = path.split("/")
    if len(segments) > 2:
        return "name_depth"
    return None if all(_SEGMENT.fullmatch(segment) for segment in segments) else "name_charset"


def _check_files(files: tuple[FileEntry, ...]) -> None:
    if not files:
        raise Malformed("manifest_empty", "/files", "a model has at least one file")
    for index, file in enumerate(files):
        at = f"/files/{index}"
        code = check_path(file.path)
        if code:
            raise Malformed(code, at, f"{shown(file.path)}: one or two segments of [A-Za-z0-9._-], no leading dot")
        if not is_sha256(file.sha256):
            raise Malformed("manifest_form", f"{at}/sha256", "a digest is 64 lower-case hexadecimal digits")
        if type(file.size) is not int or not 0 <= file.size <= INTEGER_MAX:
            raise Malformed("manifest_form", f"{at}/size", "a size is a whole number of bytes")
    paths = [file.path for file in files]
    if paths != sorted(paths):
        raise Malformed("manifest_order", "/files", "files are sorted by path")
    _check_clashes(paths)


def _check_clashes(paths: Sequence[str]) -> None:
    """Refuse names that a case-insensitive file system could not hold side by side, and a file that is a folder."""
    if len(set(paths)) != len(paths):
        raise Malformed("name_case_clash", "/files", "a path appears twice")
    taken: dict[str, str] = {}
    for path in paths:
        folder, slash, _ = path.rpartition("/")
        for name in (path, folder + slash) if slash else (path,):
            other = taken.setdefault(name.rstrip("/").casefold(), name)
            if other != name:
                raise Malformed("name_case_clash", "/files", f"{shown(name)} clashes with {shown(other)}")


def build(directory: Path, *, threads: int | None = None, on_bytes: Callable[[int], None] | None = None) -> Manifest:
    """Hash every file of a model directory.

    Args:
        directory: the model; every file in it belongs to the model, at most one folder deep.
        threads: files hashed at once, 1 to 64; the default is at most 8.
        on_bytes: called from the hashing threads with the number of bytes just read.

    Raises:
        Malformed: a link, a device, or a name outside the alphabet.
        MachineFailed: the directory or a file could not be read.
    """
    paths = list_files(directory)
    from concurrent.futures import ThreadPoolExecutor  # loads logging: nothing that a reader of formats needs

    workers = min(max(1, threads or HASH_THREADS), 64)
    with ThreadPoolExecutor(workers, thread_name_prefix="hash") as pool:
        entries = pool.map(lambda path: hash_file(directory, path, on_bytes), paths)
        return Manifest(tuple(entries))


def list_files(directory: Path) -> list[str]:
    """Return the relative paths of a model directory's files, sorted as in a manifest.

    Raises:
        Malformed: a link, a device, or a name outside the alphabet.
        MachineFailed: the directory could not be read.
    """
    try:
        found = [*_scan(directory, "")]
    except OSError as error:
        raise MachineFailed(f"cannot read the model directory: {error}") from error
    return sorted(found)


def _scan(directory: Path, prefix: str) -> Iterable[str]:
    with os.scandir(directory / prefix) as entries:
        for entry in entries:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            code = check_path(path)
            if code:
                raise Malformed(
                    code,
                    shown(path),
                    f"{shown(path)} cannot be part of a model: names are one or two segments of [A-Za-z0-9._-] "
                    "without a leading dot; move the file out of the directory",
                )
            if entry.is_symlink():
                raise Malformed("not_regular", shown(path), f"{shown(path)} is a link; put the file itself there")
            if entry.is_dir(follow_symlinks=False):
                yield from _scan(directory, path)
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                raise Malformed("not_regular", shown(path), f"{shown(path)} is no regular file")


def hash_file(directory: Path, path: str, on_bytes: Callable[[int], None] | None = None) -> FileEntry:
    """Hash one file without following a link and without holding it in memory.

    Raises:
        Malformed: it is no regular file, or its size changed while it was read.
        MachineFailed: it could not be read.
    """
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_CHUNK))
    try:
        descriptor = os.open(directory / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise Malformed("not_regular", shown(path), f"{shown(path)} is no regular file")
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                size += count
                if on_bytes:
                    on_bytes(count)
    except OSError as error:
        raise MachineFailed(f"cannot read {shown(path)}: {error.strerror}") from error
    if size != before.st_size:
        raise Malformed("file_changed", shown(path), f"{shown(path)} changed while it was read; audit a finished model")
    return FileEntry(path=path, sha256=digest.hexdigest(), size=size)
