"""Hostile safetensors headers, each with its one code; and never more lenient than the reference reader."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors import deserialize

from sandbox.reader import ReaderError
from sandbox.reader.safetensors import read_table


def pack(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(body) if length is None else length) + body + data


def tensor(begin: int, end: int, shape: list[Any] | None = None, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


TWO = {"a": tensor(0, 4), "b": tensor(4, 8)}

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "st_short"),
    "length 2^63": (pack(TWO, b"\0" * 8, 2**63), "st_header_cap"),
    "length 16 MiB + 1": (pack(TWO, b"\0" * 8, 2**24 + 1), "st_header_cap"),
    "length past the end": (pack(TWO, b"\0" * 8, 5000), "st_short"),
    "length 0": (pack(TWO, b"\0" * 8, 0), "st_header_type"),
    "starts with a space": (pack(b" " + json.dumps(TWO).encode(), b"\0" * 8), "st_header_type"),
    "a list": (pack(b"[]", b"\0" * 8), "st_header_type"),
    "no tensors": (pack({}), "st_empty"),
    "metadata alone": (pack({"__metadata__": {"a": "b"}}), "st_empty"),
    "metadata a list": (pack({"__metadata__": ["a"], **TWO}, b"\0" * 8), "st_metadata"),
    "metadata of numbers": (pack({"__metadata__": {"a": 1}, **TWO}, b"\0" * 8), "st_metadata"),
    "metadata over 64 KiB": (pack({"__metadata__": {"a": "b" * 65536}, **TWO}, b"\0" * 8), "st_metadata"),
    "overlap": (pack({"a": tensor(0, 4), "b": tensor(2, 8)}, b"\0" * 8), "st_overlap"),
    "same bytes twice": (pack({"a": tensor(0, 8), "b": tensor(0, 8)}, b"\0" * 8), "st_overlap"),
    "hole": (pack({"a": tensor(0, 4), "b": tensor(5, 8)}, b"\0" * 8), "st_hole"),
    "hole at the start": (pack({"a": tensor(1, 8)}, b"\0" * 8), "st_hole"),
    "one byte more": (pack(TWO, b"\0" * 9), "st_tail"),
    "one byte less": (pack(TWO, b"\0" * 7), "st_tail"),
    "reversed offsets": (pack({"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 0]}}, b"\0" * 4), "st_shape"),
    "offset 2^64": (pack({"a": tensor(0, 2**64, [1])}, b"\0"), "json_number"),
    "shape product 2^64": (pack({"a": tensor(0, 4, [2**32, 2**32])}, b"\0" * 4), "st_shape"),
    "negative shape": (pack({"a": tensor(0, 4, [-2, -2])}, b"\0" * 4), "st_shape"),
    "boolean shape": (pack({"a": tensor(0, 1, [True])}, b"\0"), "st_shape"),
    "rank 9": (pack({"a": tensor(0, 1, [1] * 9)}, b"\0"), "st_shape"),
    "dtype F31": (pack({"a": tensor(0, 4, dtype="F31")}, b"\0" * 4), "st_dtype"),
    "dtype a list": (pack({"a": tensor(0, 4, dtype=["F32"])}, b"\0" * 4), "st_dtype"),
    "three offsets": (pack({"a": {**tensor(0, 4), "data_offsets": [0, 4, 4]}}, b"\0" * 4), "st_header_type"),
    "extra key": (pack({"a": {**tensor(0, 4), "x": 1}}, b"\0" * 4), "st_header_type"),
    "entry a number": (pack({"a": 7}, b"\0" * 4), "st_header_type"),
    "name __class__": (pack({"__class__": tensor(0, 4)}, b"\0" * 4), "st_name"),
    "name with a slash": (pack({"../a": tensor(0, 4)}, b"\0" * 4), "st_name"),
    "empty name": (pack({"": tensor(0, 4)}, b"\0" * 4), "st_name"),
    "duplicate key": (
        pack(b'{"a":%s,"a":%s}' % ((json.dumps(tensor(0, 4)).encode(),) * 2), b"\0" * 4),
        "json_duplicate_key",
    ),
    "fraction in a shape": (pack({"a": tensor(0, 4, [4.0])}, b"\0" * 4), "json_number"),
    "not JSON": (pack(b"{" * 3, b"\0" * 4), "json_invalid"),
    "deep": (pack(b'{"a":' * 40 + b"1" + b"}" * 40), "json_too_deep"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "st_header_cap"),
    "pickle": (b"\x80\x04\x95" + b"\0" * 60, "st_header_cap"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_header_has_its_code(name: str, tmp_path: Path) -> None:
    data, code = HOSTILE[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ReaderError) as caught:
        read_table(path, "model.safetensors")
    assert caught.value.code == code


def test_twin_is_accepted_in_the_order_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "b": tensor(4, 12, [2, 1], "F32"),
        "a": tensor(0, 4),
        "e": tensor(4, 4, [0]),
    }
    path.write_bytes(pack(json.dumps(header).encode() + b"    ", b"\0" * 12))
    table = read_table(path, "x.safetensors")
    assert [(one.name, one.dtype, one.shape, one.begin, one.end) for one in table] == [
        ("a", "U8", (4,), 0, 4),
        ("e", "U8", (0,), 4, 4),
        ("b", "F32", (2, 1), 4, 12),
    ]
    assert {one.file for one in table} == {"x.safetensors"}


def test_header_share_of_a_large_file_is_capped(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    body = json.dumps({"a": tensor(0, 50_000_000)}).encode()
    for padding, accepted in ((100_000, True), (600_000, False)):
        length = len(body) + padding
        with path.open("wb") as stream:  # sparse: no 50 MB are written
            stream.write(struct.pack("<Q", length) + body + b" " * padding)
            stream.truncate(8 + length + 50_000_000)
        if accepted:
            assert len(read_table(path, "big.safetensors")) == 1
            continue
        with pytest.raises(ReaderError) as caught:
            read_table(path, "big.safetensors")
        assert caught.value.code == "st_header_cap"


@pytest.mark.timeout(60)  # seconds of linear work; a search among all names for each would take an hour
def test_100_001_tensors_are_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    body = json.dumps({f"t{index}": tensor(0, 0) for index in range(100_001)}, separators=(",", ":")).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(body)) + body)
        stream.truncate(100 * len(body) + 10**6)
    with pytest.raises(ReaderError) as caught:
        read_table(path, "many.safetensors")
    assert caught.value.code == "st_too_many_tensors"


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    import os

    real = tmp_path / "real.safetensors"
    real.write_bytes(pack(TWO, b"\0" * 8))
    link, pipe = tmp_path / "link.safetensors", tmp_path / "pipe.safetensors"
    link.symlink_to(real)
    os.mkfifo(pipe)
    for path, code in ((link, "not_regular"), (pipe, "not_regular"), (tmp_path / "absent", "file_unreadable")):
        with pytest.raises(ReaderError) as caught:
            read_table(path, path.name)
        assert caught.value.code == code


def _mutated(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                data[place] = chance.choice(b'0123456789{}[]",: ')
            case 2:
                del data[place]
            case _:
                data.insert(place, chance.choice(b'0123456789{}[]",: '))
    return bytes(data)


def reference(data: bytes) -> list[tuple[str, Any]]:
    read: Any = deserialize
    return list(read(data))


def test_accepts_a_subset_of_the_reference_reader(tmp_path: Path) -> None:
    path = tmp_path / "mutant.safetensors"
    header = {"a": tensor(0, 4), "bb": tensor(4, 12, [1, 2], "F32"), "__metadata__": {"k": "v"}}
    seed = pack(header, b"\0" * 12)
    chance = random.Random(20260101)
    accepted = refused = 0
    for _ in range(4000):
        data = _mutated(seed, chance)
        path.write_bytes(data)
        try:
            ours = {one.name: (one.dtype, one.shape) for one in read_table(path, "m")}
        except ReaderError:
            refused += 1
            continue
        accepted += 1
        theirs = reference(data)  # raises where it is stricter than ours
        assert ours == {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in theirs}
    assert accepted > 100
    assert refused > 1000
