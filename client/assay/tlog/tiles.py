"""C2SP tlog-tiles: where a log's hashes and entries lie, and how a reader finds any node of the tree among them.

A tile holds up to 256 hashes of one level; each hash of level L + 1 is the root over a full tile of level L. Names:
`tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`, N in groups of three digits (`x001/x234/067`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from assay.errors import CouldNotTell, Misused, Wrong
from assay.tlog import tree
from assay.tlog.entries import ENTRY_MAX
from assay.tlog.notes import NOTE_MAX
from assay.tlog.tree import HASH_SIZE, fold, leaf_hash

CHECKPOINT = "checkpoint"

HEIGHT = 8
"""Levels of the tree in one tile (C2SP tlog-tiles)."""

WIDTH = 1 << HEIGHT
"""Hashes of a full tile."""

BUNDLE_MAX = WIDTH * (2 + ENTRY_MAX)
"""Bytes of a full bundle of entries, each behind two bytes of length."""

_CACHED = 64
"""Tiles kept by a reader: two proofs in a log of 2^48 entries touch fewer."""

Fetch = Callable[[str, int], bytes]
"""(name below the log's prefix, most bytes to accept) to content; raises Absent where there is none."""


class Absent(CouldNotTell):
    """The log has no such file."""


def tile_name(level: int, index: int, width: int = WIDTH) -> str:
    """Return the name of a tile of hashes."""
    return f"tile/{level}/{_number(index)}{_suffix(width)}"


def bundle_name(index: int, width: int = WIDTH) -> str:
    """Return the name of a bundle of entries."""
    return f"tile/entries/{_number(index)}{_suffix(width)}"


def partial_folder(name: str) -> str:
    """Return the folder that held the partial forms of a file that is now full."""
    return f"{name}.p"


def pack(entries: Sequence[bytes]) -> bytes:
    """Return a bundle: each entry behind its length in two bytes, big-endian."""
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def unpack(data: bytes, width: int, name: str) -> list[bytes]:
    """Return the first `width` entries of a bundle.

    Raises:
        Wrong: it is no sequence of entries, holds fewer, or more than a tile is wide.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data) or start > len(data):
            raise Wrong(f"log file {name} breaks off inside entry {len(entries)}")
        entries.append(data[start:at])
    if not width <= len(entries) <= WIDTH:
        raise Wrong(f"log file {name} has {len(entries)} entries, expected {width}")
    return entries[:width]


def folder(root: Path) -> Fetch:
    """Return a reader of a log that lies in a folder.

    The reader raises Absent for a missing file, CouldNotTell for one that cannot be read, Wrong for one that is too
    long or no regular file.
    """

    def fetch(name: str, most: int) -> bytes:
        try:
            # Without O_NONBLOCK, a pipe in the folder would hold the reader for ever.
            with open(os.open(root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise Wrong(f"log file {name} is no regular file")
                data = file.read(most + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise Absent(f"the log has no file {name}") from None
        except OSError as error:
            raise CouldNotTell(f"log file {name} cannot be read: {error.strerror}") from error
        if len(data) > most:
            raise Wrong(f"log file {name} has more than {most} bytes")
        return data

    return fetch


def checkpoint(fetch: Fetch) -> bytes:
    """Return a log's signed checkpoint, unchecked."""
    return fetch(CHECKPOINT, NOTE_MAX)


class TileTree:
    """A tree of a known size, read from tiles.

    Nothing read here is proven: a root or a proof made from it is to be held against a signed checkpoint.

    Args:
        fetch: reads the log's files.
        size: entries of the tree.
    """

    def __init__(self, fetch: Fetch, size: int) -> None:
        self.size = size
        self._fetch = fetch
        self._tiles: dict[tuple[int, int], Sequence[bytes]] = {}
        self._bundle: tuple[int, list[bytes]] = (-1, [])

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree; see `tree.Node`.

        Raises:
            Absent: a tile is missing.
            Wrong: a tile has another length than the tree's size demands.
        """
        height = level % HEIGHT
        first = index << height
        row = self.tile(level // HEIGHT, first // WIDTH)
        hashes = row[first % WIDTH : first % WIDTH + (1 << height)]
        if len(hashes) != 1 << height:
            raise Misused(f"no complete subtree {index} of level {level} in a tree of {self.size} entries")
        return fold(hashes)

    def tile(self, level: int, index: int) -> Sequence[bytes]:
        """Return the hashes of one tile, full or partial."""
        row = self._tiles.get((level, index))
        if row is None:
            if len(self._tiles) >= _CACHED:
                self._tiles.clear()
            row = self._tiles[level, index] = self._read(level, index)
        return row

    def bundle(self, index: int) -> list[bytes]:
        """Return the entries of one bundle; the last one read is kept."""
        if self._bundle[0] != index:
            name = bundle_name(index, self._width(0, index))
            data = self._either(name, bundle_name(index), BUNDLE_MAX)
            self._bundle = (index, unpack(data, self._width(0, index), name))
        return self._bundle[1]

    def entry(self, index: int) -> bytes:
        """Return one entry, checked against its leaf hash."""
        entry = self.bundle(index // WIDTH)[index % WIDTH]
        if leaf_hash(entry) != self.node(0, index):
            raise Wrong(f"entry {index} of the log does not hash to its leaf")
        return entry

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first `size` entries; all of them without one."""
        return tree.root(self.node, self.size if size is None else size)

    def _width(self, level: int, index: int) -> int:
        there = (self.size >> (HEIGHT * level)) - index * WIDTH
        if there <= 0 or index < 0:
            raise Misused(f"no tile {index} of level {level} in a tree of {self.size} entries")
        return min(there, WIDTH)

    def _read(self, level: int, index: int) -> list[bytes]:
        width = self._width(level, index)
        name = tile_name(level, index, width)
        data = self._either(name, tile_name(level, index), WIDTH * HASH_SIZE)
        if len(data) not in (width * HASH_SIZE, WIDTH * HASH_SIZE):
            raise Wrong(f"log file {name} has {len(data)} bytes, expected {width * HASH_SIZE}")
        return [data[at : at + HASH_SIZE] for at in range(0, width * HASH_SIZE, HASH_SIZE)]

    def _either(self, partial: str, full: str, most: int) -> bytes:
        """Read a file; the partial form may be gone where the full one has come since the checkpoint."""
        try:
            return self._fetch(partial, most)
        except Absent:
            if partial == full:
                raise
        try:
            return self._fetch(full, most)
        except Absent:
            raise Absent(f"the log has no file {partial}") from None


def _number(index: int) -> str:
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts))


def _suffix(width: int) -> str:
    assert 1 <= width <= WIDTH
    return "" if width == WIDTH else f".p/{width}"
