"""Hostile npz files, each with its one code; mutants are refused or equal, and nothing inflates past its limit."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from checks.sae_features.dictionary.npz import read_npz
from sandbox.reader import ReaderError
from tests.checks.sae_features.dictionary import written

NAMES = frozenset({"W_enc", "b_enc", "c", "d"})
ARRAYS: written.Arrays = {
    "W_enc": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b_enc": np.linspace(0, 1, 5),
    "c": np.array([1.5], dtype=np.float16),
}


def values(content: bytes) -> dict[str, np.ndarray]:
    return {n: np.frombuffer(a.data, dtype=a.dtype).reshape(a.shape) for n, a in read_npz(content, NAMES).items()}


def equal(content: bytes) -> bool:
    seen = values(content)
    return seen.keys() == ARRAYS.keys() and all(np.array_equal(seen[n], one) for n, one in ARRAYS.items())


def raw(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED, **over: int) -> bytes:
    """Return an archive whose every field can be set: directory and local headers agree unless told otherwise."""
    body, directory = b"", b""
    for name, data in members:
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(data) + packer.flush() if method == zipfile.ZIP_DEFLATED else data
        crc, size, packed_size = zlib.crc32(data), over.get("size", len(data)), over.get("packed", len(packed))
        flags, disk = over.get("flags", 0), over.get("disk", 0)
        method_said = over.get("said", method)
        offset, label = len(body) + over.get("shift", 0), name.encode()
        common = struct.pack("<3H2H3L", 20, flags, method_said, 0, 33, over.get("crc", crc), packed_size, size)
        body += b"PK\x03\x04" + common + struct.pack("<2H", len(label), 0) + label + packed
        tail = struct.pack("<5H2L", len(label), 0, 0, disk, 0, 0, offset)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + common + tail + label
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + end


def header(text: str, payload: bytes = b"\0" * 16, magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    return magic + struct.pack("<H", len(text)) + text.encode() + payload


def one(data: bytes) -> bytes:
    return raw([("c.npy", data)])


GOOD = written.npy(np.zeros(4, dtype=np.float32))
DICT = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n"

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "npz_short"),
    "no archive": (lambda: b"x" * 100, "npz_end"),
    "a comment": (lambda: one(GOOD)[:-2] + struct.pack("<H", 3) + b"abc", "npz_end"),
    "bytes behind": (lambda: one(GOOD) + b"x", "npz_end"),
    "bytes before": (lambda: raw([("c.npy", GOOD)], shift=0).replace(b"PK\x03\x04", b"xPK\x03\x04", 1), "npz_end"),
    "data before the first member": (lambda: prefixed(one(GOOD), b"#!/bin/sh\n"), "npz_prefix"),
    "a gap between members": (lambda: gapped(), "npz_gap"),
    "overlapping members": (lambda: overlapping(), "npz_gap"),
    "no members": (lambda: raw([]), "npz_members"),
    "17 members": (lambda: raw([(f"m{i}.npy", GOOD) for i in range(17)]), "npz_members"),
    "duplicate": (lambda: raw([("c.npy", GOOD), ("c.npy", GOOD)]), "npz_duplicate"),
    "a directory": (lambda: raw([("c/", b"")]), "npz_name"),
    "a path": (lambda: raw([("../c.npy", GOOD)]), "npz_name"),
    "no .npy": (lambda: raw([("c", GOOD)]), "npz_name"),
    "unknown name": (lambda: raw([("e.npy", GOOD)]), "npz_name"),
    "a pickle": (lambda: raw([("data.pkl", b"\x80\x02.")]), "npz_name"),
    "encrypted": (lambda: raw([("c.npy", GOOD)], flags=1), "npz_encrypted"),
    "patched data": (lambda: raw([("c.npy", GOOD)], flags=0x20), "npz_flags"),
    "bzip2": (lambda: raw([("c.npy", GOOD)], said=12), "npz_method"),
    "another disk": (lambda: raw([("c.npy", GOOD)], disk=1), "npz_extra"),
    "stored size differs": (lambda: raw([("c.npy", GOOD)], size=len(GOOD) - 1), "npz_size"),
    "packed past the end": (lambda: raw([("c.npy", GOOD)], size=10**6, packed=10**6), "npz_local"),
    "inflates to more": (lambda: raw([("c.npy", GOOD)], zipfile.ZIP_DEFLATED, size=len(GOOD) - 1), "npz_inflate"),
    "inflates to less": (lambda: raw([("c.npy", GOOD)], zipfile.ZIP_DEFLATED, size=len(GOOD) + 1), "npz_inflate"),
    "4 GiB said": (lambda: raw([("c.npy", GOOD), ("d.npy", GOOD)], zipfile.ZIP_DEFLATED, size=2**31), "npz_total"),
    "a bomb": (lambda: raw([("c.npy", b"\0" * 2**24)], zipfile.ZIP_DEFLATED), "npz_ratio"),
    "no deflate stream": (lambda: raw([("c.npy", b"\xff" * 64)], said=8), "npz_inflate"),
    "bytes behind the stream": (lambda: padded(), "npz_inflate"),
    "checksum": (lambda: raw([("c.npy", GOOD)], crc=7), "npz_crc"),
    "no magic": (lambda: one(b"\x93NUMPX" + GOOD[6:]), "npz_header"),
    "version 3": (lambda: one(GOOD[:6] + b"\x03\x00" + GOOD[8:]), "npz_header"),
    "cut header": (lambda: one(GOOD[:11]), "npz_header"),
    "header over 4 KiB": (
        lambda: one(header(DICT.replace("\n", " " * 4096 + "\n") % ("<f4", "False", "(4,)"))), "npz_header_cap",
    ),
    "header past the end": (lambda: one(GOOD[:8] + b"\xff\x0f" + GOOD[10:]), "npz_header_cap"),
    "code in the header": (
        lambda: one(header("{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (4,), }\n")),
        "npz_header",
    ),
    "keys in another order": (
        lambda: one(header("{'shape': (4,), 'fortran_order': False, 'descr': '<f4', }\n")), "npz_header",
    ),
    "objects": (lambda: one(header(DICT % ("|O", "False", "(4,)"))), "npz_dtype"),
    "big-endian": (lambda: one(header(DICT % (">f4", "False", "(4,)"))), "npz_dtype"),
    "integers": (lambda: one(header(DICT % ("<i8", "False", "(2,)"))), "npz_dtype"),
    "a record": (lambda: one(header(DICT.replace("'%s'", "%s") % ("[('a', '<f4')]", "False", "(4,)"))), "npz_header"),
    "Fortran order": (lambda: one(header(DICT % ("<f4", "True", "(2, 2)"))), "npz_order"),
    "rank 3": (lambda: one(header(DICT % ("<f4", "False", "(1, 2, 2)"))), "npz_header"),
    "negative shape": (lambda: one(header(DICT % ("<f4", "False", "(-4,)"))), "npz_header"),
    "huge shape": (lambda: one(header(DICT % ("<f4", "False", "(9999999999, 9999999999)"))), "npz_size"),
    "shape too small": (lambda: one(header(DICT % ("<f4", "False", "(3,)"))), "npz_size"),
}  # fmt: skip


def prefixed(archive: bytes, before: bytes) -> bytes:
    """Return an archive with bytes before its first member, every offset told as it then is."""
    end = len(archive) - 22
    size, place = struct.unpack_from("<2L", archive, end + 12)
    directory = bytearray(archive[place : place + size])
    directory[42:46] = struct.pack("<L", len(before))
    tail = archive[end : end + 16] + struct.pack("<LH", place + len(before), 0)
    return before + archive[:place] + bytes(directory) + tail


def overlapping() -> bytes:
    """Return an archive whose second line points at the first member again."""
    archive = bytearray(raw([("c.npy", GOOD), ("d.npy", GOOD)]))
    second = archive.rindex(b"PK\x01\x02")
    archive[second + 42 : second + 46] = b"\0" * 4
    return bytes(archive)


def padded() -> bytes:
    """Return a deflated member with bytes of its own behind the end of its stream."""
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(GOOD) + packer.flush() + b"hidden"
    return raw([("c.npy", packed)], said=8, size=len(GOOD), crc=zlib.crc32(GOOD))


def gapped() -> bytes:
    """Return an archive with bytes between its last member and its directory."""
    archive = one(GOOD)
    end = len(archive) - 22
    place = struct.unpack_from("<L", archive, end + 16)[0]
    tail = archive[end : end + 16] + struct.pack("<LH", place + 4, 0)
    return archive[:place] + b"hide" + archive[place:end] + tail


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_archive_has_its_code(name: str) -> None:
    make, code = HOSTILE[name]
    with pytest.raises(ReaderError) as caught:
        read_npz(make(), NAMES)
    assert caught.value.code == code


def test_local_header_must_say_what_the_directory_says() -> None:
    archive = bytearray(one(GOOD))
    for place, size in ((6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (30, 1)):  # flags, method, crc, sizes, name
        changed = bytearray(archive)
        changed[place : place + size] = (int.from_bytes(changed[place : place + size], "little") ^ 4).to_bytes(
            size, "little"
        )
        with pytest.raises(ReaderError, match="npz_local"):
            read_npz(bytes(changed), NAMES)


class Pipe(io.RawIOBase):
    """A stream that cannot go back, as when an archive is written to an object store."""

    def __init__(self) -> None:
        self.held = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self.held += piece
        return len(piece)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_what_numpy_writes_is_read_as_it_is(method: int) -> None:
    held = io.BytesIO()
    (np.savez if method == zipfile.ZIP_STORED else np.savez_compressed)(held, **ARRAYS)  # type: ignore[arg-type]
    pipe = Pipe()
    written.npz(ARRAYS, method, pipe)
    for content in (held.getvalue(), written.npz(ARRAYS, method), pipe.held):
        assert equal(content)
        assert list(values(content)) == list(ARRAYS)


def test_scalar_and_second_header_version_are_read() -> None:
    text = (DICT % ("<f4", "False", "()")).encode()
    content = one(b"\x93NUMPY\x02\x00" + struct.pack("<L", len(text)) + text + struct.pack("<f", 2.5))
    assert values(content)["c"].item() == 2.5


def test_nothing_inflates_past_what_was_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self, wbits: int) -> None:
            self.inner = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            asked.append(most)
            made = self.inner.decompress(data, most)
            assert len(made) <= most
            return made

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    monkeypatch.setattr("zlib.decompressobj", Watched)
    bomb = raw([("c.npy", b"\0" * 2**20)], zipfile.ZIP_DEFLATED, size=64)
    with pytest.raises(ReaderError, match="npz_inflate"):
        read_npz(bomb, NAMES)
    assert asked == [65]


def mutants(count: int, seed: int) -> int:
    """Return how many mutants were refused; the others read as the original, or this raises."""
    rng = np.random.default_rng(seed)
    originals = [written.npz(ARRAYS), written.npz(ARRAYS, zipfile.ZIP_DEFLATED)]
    pipe = Pipe()
    written.npz(ARRAYS, zipfile.ZIP_DEFLATED, pipe)
    originals.append(pipe.held)
    codes: list[str] = []
    for _ in range(count):
        content = bytearray(originals[int(rng.integers(3))])
        for _ in range(int(rng.integers(1, 4))):
            place, kind = int(rng.integers(len(content))), int(rng.integers(5))
            stop = min(len(content), place + int(rng.integers(1, 40)))
            if kind == 0:
                content[place] = int(rng.integers(256))
            elif kind == 1:
                content[place] ^= 1 << int(rng.integers(8))
            elif kind == 2 and stop - place < len(content):
                del content[place:stop]
            elif kind == 3:
                content[place:place] = content[place:stop]
            else:
                content[place : place + 4] = struct.pack("<L", int(rng.choice([0, 1, 2**31, 2**32 - 1])))
        try:
            assert equal(bytes(content))
        except ReaderError as error:
            codes.append(error.code)
    assert all(code.startswith("npz_") for code in codes)
    return len(codes)


def test_mutants_are_refused_or_equal() -> None:
    assert 400 < mutants(500, seed=1) <= 500


@pytest.mark.slow
def test_ten_thousand_mutants_are_refused_or_equal() -> None:
    assert 8000 < mutants(10_000, seed=2) <= 10_000
