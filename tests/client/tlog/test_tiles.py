"""Tiles: names, full and partial forms, and what a reader does with files that do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from assay.errors import CouldNotTell, Misused, Wrong
from assay.tlog import tiles
from assay.tlog.edge import Edge, load
from assay.tlog.tiles import Absent, TileTree

from tests.client.tlog import naive
from tests.client.tlog.planted import VECTORS, requests


def fetch_from(files: dict[str, bytes]) -> tiles.Fetch:
    def fetch(name: str, most: int) -> bytes:
        if name not in files:
            raise Absent(f"no file {name}")
        return files[name]

    return fetch


def written(count: int) -> tuple[dict[str, bytes], list[bytes]]:
    entries = [b"%d" % index for index in range(count)]
    edge = Edge()
    for entry in entries:
        edge.push(entry)
    return dict(edge.files()), entries


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "tile/0/000"),
        (67, "tile/0/067"),
        (999, "tile/0/999"),
        (1000, "tile/0/x001/000"),
        (1_234_067, "tile/0/x001/x234/067"),
    ],
)
def test_names_of_tiles(index: int, name: str) -> None:
    assert tiles.tile_name(0, index) == name
    assert tiles.tile_name(0, index, 5) == f"{name}.p/5"
    assert tiles.bundle_name(index, 255) == name.replace("tile/0", "tile/entries") + ".p/255"


def test_vector_t5_seventy_thousand_entries() -> None:
    vector = VECTORS["T5"]
    files, _ = written(vector["count"])
    for level, (full, partial) in enumerate(zip(vector["full"], vector["partial"], strict=True)):
        names = [name for name in files if name.startswith(f"tile/{level}/")]
        assert sum(".p/" not in name for name in names) == full
        assert [name.rpartition("/")[2] for name in names if ".p/" in name] == [str(partial)]
    read = TileTree(fetch_from(files), vector["count"])
    assert read.root().hex() == vector["root"]
    assert read.entry(69_999) == b"69999"


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 700])
def test_the_edge_read_back_is_the_edge_that_was_written(size: int) -> None:
    files, entries = written(size)
    read = TileTree(fetch_from(files), size)
    edge, lost = load(read)
    assert not lost
    assert edge.root() == read.root() == naive.mth(entries)
    for entry in entries[:300]:
        edge.push(entry)
    assert edge.root() == naive.mth(entries + entries[:300])
    assert all(read.root(part) == naive.mth(entries[:part]) for part in (1, size // 2, size))


def test_a_partial_tile_that_was_removed_is_read_from_the_full_one() -> None:
    files, entries = written(256)
    read = TileTree(fetch_from(files), 200)
    assert read.root() == naive.mth(entries[:200])
    assert read.bundle(0) == entries[:200]


@pytest.mark.parametrize("name", ["tile/0/000.p/100", "tile/entries/000.p/100"])
@pytest.mark.parametrize("bend", [lambda data: data[:-1], lambda data: data + b"\x00", lambda data: b""])
def test_a_file_of_another_length_is_wrong(name: str, bend: object) -> None:
    files, _ = written(100)
    files[name] = bend(files[name])  # type: ignore[operator]
    read = TileTree(fetch_from(files), 100)
    with pytest.raises(Wrong, match=name.replace(".", r"\.")):
        read.root() if "/0/" in name else read.bundle(0)


def test_an_entry_is_held_against_its_leaf() -> None:
    files, _ = written(100)
    data = bytearray(files["tile/entries/000.p/100"])
    data[2] ^= 1
    files["tile/entries/000.p/100"] = bytes(data)
    with pytest.raises(Wrong, match="entry 0"):
        TileTree(fetch_from(files), 100).entry(0)


def test_a_missing_tile_is_not_a_wrong_one() -> None:
    files, _ = written(300)
    del files["tile/0/000"]
    with pytest.raises(CouldNotTell, match="tile/0/000"):
        TileTree(fetch_from(files), 300).node(0, 3)
    with pytest.raises(Misused):
        TileTree(fetch_from(files), 300).node(0, 300)


def test_a_folder_is_read_without_waiting_on_a_pipe(tmp_path: Path) -> None:
    requests(3).write(tmp_path)
    fetch = tiles.folder(tmp_path)
    assert TileTree(fetch, 3).entry(2) == requests(3).entries[2]
    with pytest.raises(Wrong, match="more than"):
        fetch("checkpoint", 10)
    with pytest.raises(Absent):
        fetch("tile/0/001", 10)
    with pytest.raises(Absent):
        fetch("checkpoint/none", 10)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Wrong, match="regular"):
        fetch("pipe", 10)
    with pytest.raises(CouldNotTell):
        fetch("tile", 10)
