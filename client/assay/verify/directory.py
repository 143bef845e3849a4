"""The files of a report, read with a cap and without trusting their names or kinds."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from assay import bundle
from assay.errors import CouldNotTell, Malformed, Wrong, shown

ARTEFACTS = "artefacts"

ARTEFACT_MAX = 16 * 1024 * 1024
"""A catalogue entry has about 5 KB; per-item results of later checks may have megabytes."""

ARTEFACTS_MAX = 1000
"""Files in the folder; a report of 64 checks has 64."""

_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class ReportFiles:
    """Where a report lies: a directory, or a bundle alone."""

    place: Path

    def bundle(self) -> bytes:
        """Return the bundle's bytes.

        Raises:
            CouldNotTell: it is absent or unreadable.
            Malformed: it is over its cap.
        """
        path = self.place / bundle.FILE_NAME if os.path.isdir(self.place) else self.place
        return read_file(path, bundle.BYTES_MAX)

    def read(self, name: str, cap: int) -> bytes:
        """Return a file beside the bundle.

        Raises:
            CouldNotTell: it is absent or unreadable.
            Malformed: it is over its cap.
        """
        return read_file(self.place / name, cap)

    def artefact(self, digest: str) -> bytes | None:
        """Return an artefact's bytes; None where the report does not carry it.

        Raises:
            Wrong: it does not have the digest in its name.
            Malformed: it is over its cap.
        """
        try:
            data = self.read(f"{ARTEFACTS}/{digest}", ARTEFACT_MAX)
        except CouldNotTell:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            raise Wrong(f"{ARTEFACTS}/{digest[:16]}… does not have the digest in its name")
        return data

    def artefacts(self) -> Iterator[str]:
        """Yield the names in the artefact folder, sorted; nothing if there is no such folder.

        Raises:
            Wrong: a name that is no digest, or too many.
            CouldNotTell: the folder is unreadable.
        """
        folder = self.place / ARTEFACTS
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError) as error:
            raise CouldNotTell(f"cannot read {ARTEFACTS}/: {_why(error)}") from None
        if len(names) > ARTEFACTS_MAX:
            raise Wrong(f"{ARTEFACTS}/ holds {len(names)} files, the limit is {ARTEFACTS_MAX}")
        for name in names:
            if not _NAME.fullmatch(name):
                raise Wrong(f"{ARTEFACTS}/{shown(name)}: an artefact is named by its SHA-256")
            yield name


def read_file(path: Path, cap: int) -> bytes:
    """Return a regular file's bytes.

    Raises:
        CouldNotTell: absent, unreadable, or no regular file.
        Malformed: more than `cap` bytes.
    """
    try:
        # O_NONBLOCK: a named pipe in a report must not make the reader wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CouldNotTell(f"{shown(path.name)} is no regular file")
            data = file.read(cap + 1)
    except FileNotFoundError:
        raise CouldNotTell(f"{shown(path.name)} is absent") from None
    except (OSError, ValueError) as error:
        raise CouldNotTell(f"cannot read {shown(path.name)}: {_why(error)}") from None
    if len(data) > cap:
        raise Malformed("size_cap", shown(path.name), f"{shown(path.name)} is larger than {cap} bytes")
    return data


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
