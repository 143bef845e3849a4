"""Strict reader of flat npz files: a zip of named `.npy` members, or one refusal.

An npz file is an archive, which this house reads nowhere else (specification of `sae_features`, section 4, Readers).
So nothing is left to a lenient library: the zip's own tables are held against each other until every byte of the file
has one owner, sizes are believed only where they agree and stay below their limits, inflating stops at the declared
size, and the `.npy` header is matched by one fixed pattern and never evaluated. Objects and pickles have no pattern.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Any

from sandbox.reader.error import ReaderError, shown

MEMBERS_MAX = 16
"""Arrays of one file; the known dictionaries have five."""

TOTAL_MAX = 4 * 2**30 - 1
"""Bytes of all members once inflated; also what a zip can say without its 64-bit tables, which are refused."""

RATIO_MAX = 100
"""Inflated bytes for each byte of the file. Trained weights shrink to no less than a half, zeros a thousandfold."""

RATIO_FLOOR = 2**20
"""A file may inflate to this much whatever its size: biases of zeros are honest."""

HEADER_MAX = 4096
"""Bytes of a `.npy` header with its magic."""

ITEM_BYTES = {"<f2": 2, "<f4": 4, "<f8": 8}
"""Bytes per element of each accepted dtype."""

_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _STREAMED, _UTF8 = 0x1, 0x8, 0x800
_IN_EXTRA = 0xFFFFFFFF
"""Stands in a local header for a size that its 64-bit extra field tells."""

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_EXTRA64 = struct.Struct("<2H2Q")
_DESCRIPTORS = (struct.Struct("<4s3L"), struct.Struct("<4sL2Q"))
"""What follows a member that was written without going back: as 32-bit or as 64-bit sizes."""

_COUNT = rb"(0|[1-9][0-9]{0,9})"
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[A-Za-z][0-9]{0,3})', 'fortran_order': (False|True), "
    rb"'shape': \((?:(?:" + _COUNT + rb",|" + _COUNT + rb", " + _COUNT + rb"))?\), \} *\n"
)


@dataclass(frozen=True, kw_only=True)
class NpyArray:
    """One array of a file: its bytes in C order, little-endian."""

    dtype: str
    """<f2, <f4 or <f8."""
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One line of the central directory."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int

    @property
    def at(self) -> str:
        return f"tensor:{shown(self.name)}"


def read_npz(content: bytes, names: Collection[str]) -> dict[str, NpyArray]:
    """Return the arrays of a file by name, in the order of their bytes.

    Args:
        content: the whole file.
        names: every array name that may stand in it, without ".npy".

    Raises:
        ReaderError: an npz_* code, the first problem found; `at` names the member where there is one.
    """
    whole = memoryview(content)
    members, directory = _directory(whole, names)
    _check_sizes(members, len(content))
    arrays, place = {}, 0
    for member in sorted(members, key=lambda one: one.offset):
        if member.offset != place:
            raise ReaderError("npz_prefix" if place == 0 else "npz_gap", member.at)
        start = _data_start(whole, member, directory)
        place = start + member.packed + _descriptor(whole, member, start + member.packed, directory)
        arrays[member.name] = _array(_inflate(whole[start : start + member.packed], member), member)
    if place != directory:
        raise ReaderError("npz_gap", f"offset:{place}")
    return arrays


def _directory(whole: memoryview, names: Collection[str]) -> tuple[list[_Member], int]:
    """Return the central directory's lines and its offset; it ends where the end record begins, which ends the file."""
    end = len(whole) - _END.size
    if end < 0:
        raise ReaderError("npz_short", f"offset:{len(whole)}")
    magic, disk, first_disk, here, count, size, place, comment = _END.unpack_from(whole, end)
    if magic != b"PK\x05\x06" or comment:  # a comment would let bytes follow that no table owns
        raise ReaderError("npz_end", f"offset:{end}")
    if disk or first_disk or here != count or place + size != end:
        raise ReaderError("npz_end", f"offset:{end}")
    if not 1 <= count <= MEMBERS_MAX:
        raise ReaderError("npz_members", f"offset:{end}")
    members: list[_Member] = []
    at = place
    for _ in range(count):
        member, at = _line(whole, at, end, names)
        if member.name.casefold() in {one.name.casefold() for one in members}:
            raise ReaderError("npz_duplicate", member.at)
        members.append(member)
    if at != end:
        raise ReaderError("npz_end", f"offset:{at}")
    return members, place


def _line(whole: memoryview, at: int, end: int, names: Collection[str]) -> tuple[_Member, int]:
    """Return one line of the central directory and where the next begins."""
    if end - at < _CENTRAL.size:
        raise ReaderError("npz_end", f"offset:{at}")
    magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra, comment, disk, _, _, offset = (
        _CENTRAL.unpack_from(whole, at)
    )
    after = at + _CENTRAL.size + name_length
    if magic != b"PK\x01\x02" or after > end:
        raise ReaderError("npz_end", f"offset:{at}")
    stored_name = bytes(whole[at + _CENTRAL.size : after]).decode("latin-1")
    name = stored_name.removesuffix(".npy")
    where = f"tensor:{shown(stored_name)}"
    if name == stored_name or name not in names:  # directories and paths are on no list
        raise ReaderError("npz_name", where)
    if flags & _ENCRYPTED:
        raise ReaderError("npz_encrypted", where)
    if flags & ~(_STREAMED | _UTF8):
        raise ReaderError("npz_flags", where)
    if method not in (_STORED, _DEFLATED):
        raise ReaderError("npz_method", where)
    if extra or comment or disk:
        raise ReaderError("npz_extra", where)
    return _Member(name=name, flags=flags, method=method, crc=crc, packed=packed, size=size, offset=offset), after


def _check_sizes(members: list[_Member], length: int) -> None:
    """Refuse a bomb from what the directory says, before anything is inflated."""
    total = sum(member.size for member in members)
    if total > TOTAL_MAX:
        raise ReaderError("npz_total", f"offset:{length}")
    if total > max(RATIO_FLOOR, RATIO_MAX * length):
        raise ReaderError("npz_ratio", f"offset:{length}")
    for member in members:
        if member.method == _STORED and member.packed != member.size:
            raise ReaderError("npz_size", member.at)


def _data_start(whole: memoryview, member: _Member, directory: int) -> int:
    """Return where a member's bytes begin; its local header says what the directory says, or is refused."""
    if directory - member.offset < _LOCAL.size:
        raise ReaderError("npz_local", member.at)
    local: tuple[Any, ...] = _LOCAL.unpack_from(whole, member.offset)
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = local
    name_at = member.offset + _LOCAL.size
    start: int = name_at + name_length + extra_length
    if magic != b"PK\x03\x04" or start + member.packed > directory:
        raise ReaderError("npz_local", member.at)
    same_name = bytes(whole[name_at : name_at + name_length]) == f"{member.name}.npy".encode()
    if not same_name or (flags, method) != (member.flags, member.method):
        raise ReaderError("npz_local", member.at)
    said = {(crc, size, packed)}
    if extra_length:
        if extra_length != _EXTRA64.size:
            raise ReaderError("npz_extra", member.at)
        kind, length, size64, packed64 = _EXTRA64.unpack_from(whole, name_at + name_length)
        if (kind, length) != (1, 16):
            raise ReaderError("npz_extra", member.at)
        if (size, packed) == (_IN_EXTRA, _IN_EXTRA):
            said = set()
        said.add((crc, size64, packed64))
    allowed = {(member.crc, member.size, member.packed)} | ({(0, 0, 0)} if flags & _STREAMED else set())
    if not said <= allowed:
        raise ReaderError("npz_local", member.at)
    return start


def _descriptor(whole: memoryview, member: _Member, at: int, directory: int) -> int:
    """Return how many bytes the record behind a streamed member takes: 0, or those that say what the directory says."""
    if not member.flags & _STREAMED:
        return 0
    for record in _DESCRIPTORS:
        if at + record.size <= directory:
            magic, crc, packed, size = record.unpack_from(whole, at)
            if (magic, crc, packed, size) == (b"PK\x07\x08", member.crc, member.packed, member.size):
                return record.size
    raise ReaderError("npz_local", member.at)


def _inflate(packed: memoryview, member: _Member) -> memoryview:
    """Return a member's bytes: exactly as many as were declared, with the declared checksum."""
    data: memoryview | bytes = packed
    if member.method == _DEFLATED:
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            data = inflater.decompress(packed, member.size + 1)
        except zlib.error:
            raise ReaderError("npz_inflate", member.at) from None
        if not inflater.eof or inflater.unused_data or len(data) != member.size:
            raise ReaderError("npz_inflate", member.at)
    if zlib.crc32(data) != member.crc:
        raise ReaderError("npz_crc", member.at)
    return memoryview(data)


def _array(data: memoryview, member: _Member) -> NpyArray:
    """Return a member's array; its header is matched, never evaluated."""
    prefix = bytes(data[:12])
    if prefix[:6] != b"\x93NUMPY" or prefix[6:8] not in (b"\x01\x00", b"\x02\x00") or len(prefix) < 12:
        raise ReaderError("npz_header", member.at)
    begin = 10 if prefix[6] == 1 else 12
    start = begin + int.from_bytes(prefix[8:begin], "little")
    if start > min(HEADER_MAX, len(data)):
        raise ReaderError("npz_header_cap", member.at)
    matched = _HEADER.fullmatch(bytes(data[begin:start]))
    if matched is None:
        raise ReaderError("npz_header", member.at)
    dtype = matched[1].decode()
    if dtype not in ITEM_BYTES:
        raise ReaderError("npz_dtype", member.at)
    if matched[2] != b"False":
        raise ReaderError("npz_order", member.at)
    shape = tuple(int(one) for one in matched.groups()[2:] if one is not None)
    if prod(shape) * ITEM_BYTES[dtype] != len(data) - start:
        raise ReaderError("npz_size", member.at)
    return NpyArray(dtype=dtype, shape=shape, data=data[start:])
