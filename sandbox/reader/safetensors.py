"""Own reader of safetensors headers: the table of tensors, or one refusal.

A safetensors file is 8 bytes N (little-endian), N bytes of JSON, then the tensors without gaps. Only the header is
read here; the weights stay bytes that are hashed.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sandbox.reader import strict_json
from sandbox.reader.error import ReaderError, shown, unopened

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
"""Bytes per element of each accepted dtype."""

HEADER_MAX = 16 * 2**20
HEADER_FLOOR = 256 * 2**10
HEADER_SHARE = 100
"""A header may take 1/100 of the file, but always 256 KiB and never more than 16 MiB."""
TENSORS_MAX = 100_000
RANK_MAX = 8
METADATA_MAX = 64 * 2**10
NAME = re.compile(r"[A-Za-z0-9._-]{1,256}")


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor's place in a file."""

    name: str
    file: str
    """Manifest path of the file that holds it."""
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from the end of the header."""
    end: int


def read_table(path: Path, file: str) -> tuple[TensorEntry, ...]:
    """Return the tensors of one file, in the order of their bytes.

    Args:
        path: where the bytes lie.
        file: manifest path, as it will stand in the entries.

    Raises:
        ReaderError: not_regular, file_unreadable, an st_* or a json_* code; the first problem found.
    """
    header, data_bytes = _header(path)
    body = header.rstrip(b" ")  # writers pad with spaces so that the data is aligned
    document = strict_json.loads(body, cap=HEADER_MAX, depth=4)
    if not isinstance(document, dict):
        raise ReaderError("st_header_type", "offset:8")
    if "__metadata__" in document:
        _check_metadata(document.pop("__metadata__"))
    if len(document) > TENSORS_MAX:
        raise ReaderError("st_too_many_tensors")
    if not document:
        raise ReaderError("st_empty")
    entries = sorted((_entry(name, value, file) for name, value in document.items()), key=_place)
    _check_tiling(entries, data_bytes)
    return tuple(entries)


def _place(entry: TensorEntry) -> tuple[int, int]:
    return entry.begin, entry.end


def _header(path: Path) -> tuple[bytes, int]:
    """Return the header's bytes and how many bytes follow it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise unopened(error) from None
    with open(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ReaderError("not_regular")
        if status.st_size < 10:
            raise ReaderError("st_short", f"offset:{status.st_size}")
        length = int.from_bytes(_exactly(descriptor, 8, 0), "little")
        if length > min(HEADER_MAX, max(HEADER_FLOOR, status.st_size // HEADER_SHARE)):
            raise ReaderError("st_header_cap", "offset:0")
        if length > status.st_size - 8:
            raise ReaderError("st_short", f"offset:{status.st_size}")
        header = _exactly(descriptor, length, 8)
        assert not stream.closed
    if not header.startswith(b"{"):
        raise ReaderError("st_header_type", "offset:8")
    return header, status.st_size - 8 - length


def _exactly(descriptor: int, count: int, offset: int) -> bytes:
    pieces = []
    while count:
        try:
            piece = os.pread(descriptor, count, offset)
        except OSError as error:
            raise ReaderError("file_unreadable", f"key:{error.__class__.__name__}") from None
        if not piece:
            raise ReaderError("st_short", f"offset:{offset}")
        pieces.append(piece)
        count -= len(piece)
        offset += len(piece)
    return b"".join(pieces)


def _check_metadata(value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ReaderError("st_metadata")
    if sum(len(key.encode()) + len(one.encode()) for key, one in value.items()) > METADATA_MAX:
        raise ReaderError("st_metadata")


def _entry(name: str, value: Any, file: str) -> TensorEntry:
    at = f"tensor:{shown(name)}"
    if not NAME.fullmatch(name) or name.startswith("__"):
        raise ReaderError("st_name", at)
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ReaderError("st_header_type", at)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ReaderError("st_dtype", at)
    if not _counts(shape) or len(shape) > RANK_MAX:
        raise ReaderError("st_shape", at)
    if not _counts(offsets) or len(offsets) != 2:
        raise ReaderError("st_header_type", at)
    begin, end = offsets
    if prod(shape) * ITEM_BYTES[dtype] != end - begin:
        raise ReaderError("st_shape", at)
    return TensorEntry(name=name, file=file, dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _counts(value: Any) -> bool:
    """Tell whether the value is a list of non-negative integers; `True` is none."""
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _check_tiling(entries: list[TensorEntry], data_bytes: int) -> None:
    """Each byte of the data belongs to exactly one tensor."""
    place = 0
    for entry in entries:
        if entry.begin != place:
            raise ReaderError("st_overlap" if entry.begin < place else "st_hole", f"tensor:{entry.name}")
        place = entry.end
    if place != data_bytes:
        raise ReaderError("st_tail", f"offset:{place}")
