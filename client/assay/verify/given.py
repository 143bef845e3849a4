"""What the caller hands over beside the report: a trust root, log keys, a receipt. A fault in these is his to mend."""

from __future__ import annotations

import os
import re
from pathlib import Path

from assay import catalogue as catalogues
from assay import request
from assay.catalogue import Catalogue
from assay.errors import CouldNotTell, Malformed, Misused, shown
from assay.tlog import notes, proofs
from assay.tlog.notes import Vkey
from assay.trust import envelope
from assay.verify.directory import read_file

ROOTS_MAX = 1000
"""Versions of a trust root in one folder; one a week for twenty years."""

_ROOT = re.compile(r"root\.[1-9][0-9]{0,8}\.dsse\.json", re.ASCII)


def log_vkey(text: str) -> Vkey:
    """Read a log key.

    Raises:
        Misused: not of the form name+id+key.
    """
    try:
        return notes.parse_vkey(text)
    except Malformed as error:
        raise Misused(f"--log-vkey {shown(text)}: {error.message}") from None


def pinned_root(place: Path) -> bytes:
    """Read the trust root that the caller chose.

    Raises:
        Misused: it cannot be read, or is too large for one.
    """
    return _bytes(place, "trust root", envelope.ENVELOPE_MAX)


def later_roots(place: Path) -> tuple[bytes, ...]:
    """Read every trust root that lies beside the chosen one under the name of a version.

    Raises:
        Misused: one cannot be read, or there are more than 1000.
    """
    try:
        names = sorted(name for name in os.listdir(place.absolute().parent) if _ROOT.fullmatch(name))
    except OSError as error:
        raise Misused(f"cannot read the folder of the trust root: {error.strerror}") from None
    if len(names) > ROOTS_MAX:
        raise Misused(f"{len(names)} trust roots lie beside the chosen one; at most {ROOTS_MAX} are read")
    beside = place.absolute().parent
    return tuple(_bytes(beside / name, "trust root", envelope.ENVELOPE_MAX) for name in names if name != place.name)


def receipt(folder: Path) -> tuple[bytes, bytes]:
    """Read a receipt: request.json and its proof, in a folder.

    Raises:
        Misused: one of them cannot be read.
    """
    return (
        _bytes(folder / request.FILE_NAME, "receipt", request.BYTES_MAX),
        _bytes(folder / proofs.REQUEST_PROOF, "receipt", proofs.PROOF_MAX),
    )


def catalogue(place: Path) -> Catalogue:
    """Read a catalogue of the reader's own, and put this client's behind it: of one check and version his comes first.

    Raises:
        Misused: it cannot be read, or is none.
        MachineFailed: this client's own is broken.
    """
    try:
        own = catalogues.parse(_bytes(place, "catalogue", catalogues.BYTES_MAX))
    except Malformed as error:
        raise Misused(f"the catalogue {shown(str(place), 200)} cannot be used: {error}") from None
    shipped = catalogues.load()
    return Catalogue((*own.checks, *shipped.checks), own.sha256)


def _bytes(place: Path, what: str, cap: int) -> bytes:
    try:
        return read_file(place, cap)
    except (CouldNotTell, Malformed) as error:
        raise Misused(f"the {what} {shown(str(place), 200)} cannot be used: {error}") from None
