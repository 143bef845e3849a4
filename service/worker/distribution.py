"""A third party's distribution as it lies on disk: found by name and version, its files held against one digest.

The host reads bytes only; nothing of a distribution is imported here, now or later.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import stat
from collections.abc import Mapping
from email.parser import HeaderParser
from io import StringIO
from pathlib import Path, PurePosixPath

from service.worker.code import digest_of
from service.worker.errors import WorkerError

_INSTALLERS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Written by the installer, not by the author: they differ from host to host and are neither counted nor mounted."""
_LONGEST = 255


class ThirdPartyRefused(WorkerError):
    """The operator's list of third-party checks cannot be used; a worker does not start with it.

    Attributes:
        code: which rule it breaks.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def files_of(folder: Path, name: str, version: str) -> Mapping[str, Path]:
    """Return the files that a distribution brought, by their paths in it.

    Args:
        folder: where it was installed, by itself: `pip install --no-deps --target FOLDER NAME==VERSION`.
        name: of the distribution.
        version: of the distribution.

    Raises:
        ThirdPartyRefused: distribution_missing, record_invalid, link_refused, digest_mismatch (a file is not the one
            that RECORD names).
    """
    home = _metadata_folder(folder, name, version)
    try:
        rows = list(csv.reader(StringIO((home / "RECORD").read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ThirdPartyRefused("record_invalid", f"{home / 'RECORD'} cannot be read: {error}") from None
    found: dict[str, Path] = {}
    for row in rows:
        if len(row) != 3 or not _is_plain(row[0]) or row[0] in found:
            raise ThirdPartyRefused("record_invalid", f"{home / 'RECORD'}: {row[:1]!r} is no path of the distribution")
        path = PurePosixPath(row[0])
        if path.suffix == ".pyc" or (path.parts[0] == home.name and path.name in _INSTALLERS):
            continue
        found[row[0]] = _regular(folder, path)
        _check_row(found[row[0]], row[1], row[2])
    if not found:
        raise ThirdPartyRefused("record_invalid", f"{home / 'RECORD'} names no file")
    return found


def copy(files: Mapping[str, Path], target: Path) -> str:
    """Copy a distribution's files, readable to any cell and to be written by nobody; return the digest of the copies.

    What is hashed is what is mounted: a file that changes between two looks changes the digest.

    Raises:
        OSError: the disk failed.
    """
    for name, source in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.read_bytes())
        place.chmod(0o444)
    for folder in (target, *(one for one in target.rglob("*") if one.is_dir())):
        folder.chmod(0o755)
    return digest_of({name: target / name for name in files})


def top_level(files: Mapping[str, Path]) -> set[str]:
    """Return the modules that a distribution puts at the top of the import path."""
    first = {PurePosixPath(name).parts[0] for name in files}
    return {one.partition(".")[0] for one in first if not one.endswith(".dist-info")}


def normalised(name: str) -> str:
    """Return a distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata_folder(folder: Path, name: str, version: str) -> Path:
    for home in sorted(folder.glob("*.dist-info")):
        try:
            told = HeaderParser().parsestr((home / "METADATA").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if (normalised(str(told["Name"])), told["Version"]) == (normalised(name), version):
            return home
    raise ThirdPartyRefused(
        "distribution_missing",
        f"{folder} holds no {name} {version}: run `pip install --no-deps --target {folder} {name}=={version}`",
    )


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and name == "/".join(parts)
        and not name.startswith("/")
        and all(part not in ("..", ".") and len(part) <= _LONGEST and part.isprintable() for part in parts)
        and "\\" not in name
    )


def _regular(folder: Path, path: PurePosixPath) -> Path:
    """Return a file's place; no part of its path may be a link, and the file must be one."""
    place = folder
    for part in path.parts:
        place = place / part
        try:
            mode = place.lstat().st_mode
        except OSError as error:
            raise ThirdPartyRefused(
                "record_invalid", f"{place} is in RECORD and cannot be read: {error.strerror}"
            ) from None
        if stat.S_ISLNK(mode):
            raise ThirdPartyRefused("link_refused", f"{place} is a link: install the distribution's own files")
    if not stat.S_ISREG(mode):
        raise ThirdPartyRefused("link_refused", f"{place} is no regular file")
    return place


def _check_row(place: Path, told: str, size: str) -> None:
    try:
        content = place.read_bytes()
    except OSError as error:
        raise ThirdPartyRefused("record_invalid", f"{place} cannot be read: {error.strerror}") from None
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    if told != f"sha256={digest}" or (size and size != str(len(content))):
        raise ThirdPartyRefused("digest_mismatch", f"{place} is not the file that its RECORD names: install it again")
