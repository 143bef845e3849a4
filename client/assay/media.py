"""What data of a role is made of: its media type, how large it may be, and what a file's own bytes say.

A role is rows (JSON Lines) or bytes. Of bytes the check in its cell is the judge, by strict readers; what is told here
is only what a sender or a service can see without reading them: a pickle, which nobody here ever reads, or a container
that this role cannot be.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal

ROWS = "application/jsonl"
"""One JSON object a line; every other media type is bytes to all but the check that asked for it."""

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"
NPZ = "application/vnd.numpy.npz"
BYTES = "application/octet-stream"
CORPUS = "application/vnd.assay.corpus"
"""A text corpus as JSON Lines, plain or compressed, Parquet or Arrow: bytes to all but the check that reads it."""

JSON_MAX = 10**6
"""Bytes of one JSON document, as the reader in the cell has it (specification of `sae_features`, section 3)."""

BYTES_MAX = 4 * 2**30 - 1
"""Bytes of tensors: what a zip can say without its 64-bit tables, which the reader in the cell refuses."""

CORPUS_MAX = 64 * 2**30 - 1
"""Bytes of one file of a corpus: 256 shards of the 256 MB that one scan reads."""

CAPS: Mapping[str, int] = MappingProxyType(
    {JSON: JSON_MAX, SAFETENSORS: BYTES_MAX, NPZ: BYTES_MAX, BYTES: BYTES_MAX, CORPUS: CORPUS_MAX}
)
"""Most bytes by media type; rows are limited line by line."""

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
"""File names that mean a pickle."""

PICKLE_FORMAT = "is a pickle, which runs code when it is read (pickle_format): export the tensors as safetensors"

Container = Literal["pickle", "safetensors", "npz", "zip", "npy", "parquet"]

_PROTOCOLS = frozenset({2, 3, 4, 5})
_HEAD = 16
_HEADER_MAX = 100 * 2**20


def cap_of(media_type: str) -> int | None:
    """Return the most bytes that data of a media type may have; None where only its lines are limited."""
    return None if media_type == ROWS else CAPS.get(media_type, BYTES_MAX)


def container_of(path: Path) -> Container | None:
    """Return what container a file is by its own bytes; None for text and for what has no mark.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = file.seek(0, 2)
        # The length of a safetensors header may begin with the bytes of a pickle, so it is looked at first.
        length = int.from_bytes(head[:8], "little")
        if head[8:9] == b"{" and 2 <= length <= min(_HEADER_MAX, size - 8):
            return "safetensors"
        if head[:1] == b"\x80" and head[1:2] and head[1] in _PROTOCOLS:
            return "pickle"
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return _zipped(file)
    marks: tuple[tuple[bytes, Container], ...] = ((b"\x93NUMPY", "npy"), (b"PAR1", "parquet"))
    return next((kind for mark, kind in marks if head.startswith(mark)), None)


def _zipped(file: BinaryIO) -> Container:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError):
        return "zip"
    if any(name.endswith((".pkl", ".pickle")) for name in names):
        return "pickle"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"
