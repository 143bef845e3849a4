"""The length that a safetensors file claims to have, from its header alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay import strict_json
from assay.errors import Malformed, shown

HEADER_MAX = 16 * 2**20
HEADER_FLOOR = 256 * 2**10
HEADER_SHARE = 100
"""As the cell's reader has it: 1/100 of the file, at least 256 KiB, never more than 16 MiB."""

_AGAIN = "download or save the file again"


def weights_problem(path: Path) -> str | None:
    """Return what is wrong with a safetensors file's header or length, or None.

    Dtypes, shapes, holes and overlaps are left to the cell; here only what a broken download or another format looks
    like.

    Raises:
        OSError: the file could not be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8 or size < 10:
            return f"has {size} bytes, too short for safetensors; {_AGAIN}"
        length = int.from_bytes(head, "little")
        # Longer than a header can ever be: another format, whose first bytes mean something else.
        if length > HEADER_MAX:
            return "does not start like safetensors: is it another format with this suffix? Convert it to safetensors"
        if 8 + length > size:
            return f"is truncated: expected at least {8 + length} bytes by its header's length, found {size}; {_AGAIN}"
        header = file.read(length)
    if not header.startswith(b"{"):
        return "has no JSON header, so it is not safetensors; convert the weights to safetensors"
    try:
        table = strict_json.loads(header.rstrip(b" "), HEADER_MAX, depth=4)
        expected = 8 + length + _data_bytes(table)
    except Malformed as error:
        return f"has a broken header: {error.message} [{error.code} at {error.at or 'the header'}]; {_AGAIN}"
    if size < expected:
        return f"is truncated: expected {expected} bytes by its header, found {size}; {_AGAIN}"
    if size > expected:
        return f"has bytes that no tensor owns: expected {expected} bytes by its header, found {size}; {_AGAIN}"
    # A header too large for its file is refused by the cell; judged last, so that a truncated file is called truncated.
    if length > max(HEADER_FLOOR, size // HEADER_SHARE):
        return f"has a header of {length} bytes, more than {max(HEADER_FLOOR, size // HEADER_SHARE)} for its size"
    return None


def _data_bytes(table: Any) -> int:
    """Return where the last tensor ends, counted from the end of the header."""
    if not isinstance(table, dict):
        raise Malformed("st_header_type", "", "the header is no JSON object")
    ends = [_end(name, entry) for name, entry in table.items() if name != "__metadata__"]
    if not ends:
        raise Malformed("st_empty", "", "the header names no tensor")
    return max(ends)


def _end(name: str, entry: Any) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(o) is int and o >= 0 for o in offsets):
        raise Malformed("st_header_type", f"tensor:{shown(name)}", "a tensor has no data_offsets [begin, end]")
    if offsets[0] > offsets[1]:
        raise Malformed("st_shape", f"tensor:{shown(name)}", "a tensor ends before it begins")
    return int(offsets[1])
