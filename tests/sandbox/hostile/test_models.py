"""Each rule of the allow-list has a directory that breaks it and is refused by name and reason, in real cells too."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, commands
from sandbox.ingest import CODES, ingest
from tests.sandbox.conftest import MakeOrder

from .models import ARCHITECTURE_TABLE, ELSEWHERE, FORMATS, KEPT_NAMES, WEIGHTS, Hostile, corpus, twin

CORPUS = corpus()
SMALL = sorted(name for name in CORPUS if name != "4097 files")
IN_CELLS = (
    "GGUF called config.json", "pickle called model.safetensors", "model: auto_map at depth 3",
    "header over 1 % of 100 MB", "tokenizer.json one byte over its cap", "model: id twice",
)  # fmt: skip
"""One row of each reader, for real cells; the slow test takes all of them."""


def planted(name: str, root: Path) -> Hostile:
    row = CORPUS[name]
    if row.root_only and os.geteuid():
        pytest.skip("not root: no device node can be made")
    twin(root)
    row.plant(root)
    return row


def files_of(root: Path) -> dict[str, Path]:
    found = {}
    for folder, below, plain in os.walk(root):
        links = [one for one in below if Path(folder, one).is_symlink()]
        found.update({Path(folder, one).relative_to(root).as_posix(): Path(folder, one) for one in [*plain, *links]})
    return dict(sorted(found.items()))


def refusals(root: Path) -> set[tuple[str | None, str | None]]:
    refused, decisions, _more, slots = ingest(files_of(root), ARCHITECTURE_TABLE)
    found = {(one.path, one.reason) for one in decisions if one.decision == "refused"}
    assert refused == bool(found)
    assert not (refused and slots), "a refused model passes nothing on"
    return found


def test_twin_is_accepted(tmp_path: Path) -> None:
    twin(tmp_path)
    assert refusals(tmp_path) == set()


@pytest.mark.parametrize("name", SMALL)
def test_each_directory_is_refused_by_name_and_reason(name: str, tmp_path: Path) -> None:
    row = planted(name, tmp_path)
    started = time.monotonic()
    assert refusals(tmp_path) == {(row.path, row.code)}
    assert time.monotonic() - started < 10


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    twin(tmp_path)
    files = files_of(tmp_path) | {f"LICENSE{n}": tmp_path / "README.md" for n in range(4097)}
    _refused, decisions, _more, _slots = ingest(files, ARCHITECTURE_TABLE)
    assert [one.reason for one in decisions if one.decision == "refused"] == ["too_many_files"]


def test_every_code_of_the_closed_list_has_a_directory_or_a_reason_why_not() -> None:
    shown = {row.code for row in CORPUS.values()}
    assert shown <= CODES
    assert CODES - shown == ELSEWHERE.keys()


def test_corpus_is_small_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Disk blocks and not lengths: large files are holes. What all rows share is counted once."""
    twin(tmp_path)
    own = _blocks(tmp_path)
    total = 0
    for number, name in enumerate(SMALL):  # the 4097 files are empty
        root = tmp_path / f"row{number}"
        root.mkdir()
        planted_here = CORPUS[name].root_only and os.geteuid()
        if not planted_here:
            planted(name, root)
            total += max(0, _blocks(root) - own)
    assert total <= 5 * 2**20
    with capsys.disabled():
        codes = Counter(row.code for row in CORPUS.values())
        print(f"\nhostile models: {len(CORPUS)} directories, {len(codes)} codes, {total >> 10} KiB on disk")


def _blocks(root: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in files_of(root).values())


@pytest.mark.parametrize("form", FORMATS)
def test_names_that_are_never_read_may_hold_anything(form: str, tmp_path: Path) -> None:
    """They count in the manifest, and neither a loader nor a later cell ever gets them."""
    twin(tmp_path)
    for name in KEPT_NAMES:
        (tmp_path / name).write_bytes(FORMATS[form])
        (tmp_path / name).chmod(0)
    refused, decisions, _more, slots = ingest(files_of(tmp_path), ARCHITECTURE_TABLE)
    assert not refused
    assert {one.path for one in decisions if one.decision == "accepted"} >= set(KEPT_NAMES)
    assert FORMATS[form] not in b"".join(slots.values())


def through_the_door(cell: BubblewrapCell, root: Path, aside: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    aside.mkdir(exist_ok=True)
    table = aside / "architectures.json"
    table.write_text(json.dumps(ARCHITECTURE_TABLE))
    status = commands.read_model(cell, argparse.Namespace(directory=root, architectures=table, json=True))
    said = json.loads(capsys.readouterr().out)
    assert status == int(said["refused"])
    return said


def check_in_a_cell(name: str, cell: BubblewrapCell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "model"
    root.mkdir()
    row = planted(name, root)
    said = through_the_door(cell, root, tmp_path / "aside", capsys)
    found = {(one["path"], one["reason"]) for one in said["decisions"] if one["decision"] == "refused"}
    if row.code == "too_many_files":
        assert (row.path, row.code) in found
    else:
        assert found == {(row.path, row.code)}


@pytest.mark.parametrize("name", IN_CELLS)
def test_a_real_cell_says_the_same(
    name: str, cell: BubblewrapCell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_in_a_cell(name, cell, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CORPUS))
def test_real_cells_say_the_same_of_all(
    name: str, cell: BubblewrapCell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_in_a_cell(name, cell, tmp_path, capsys)


def test_twin_is_accepted_by_a_real_cell(
    cell: BubblewrapCell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "model"
    root.mkdir()
    twin(root)
    said = through_the_door(cell, root, tmp_path / "aside", capsys)
    assert (said["refused"], said["seal"]["stage"]) == (False, "ingest")


def test_a_regex_without_end_costs_its_own_audit_only(cell: BubblewrapCell, order: MakeOrder) -> None:
    """Every reader accepts it; whoever compiles and runs it is in a cell that ends at its limit. The next one runs."""
    regex = json.dumps("(a+)+$")
    program = f"import re\nre.match({regex}, 'a' * 64 + '!')"
    ended = cell.run(order(program, limits={"wall_s": 1}))
    assert (ended.ended, ended.why) == ("killed", "wall")
    assert cell.run(order("os.write(3, b'1')")).result == b"1"


def test_weights_are_never_rewritten(tmp_path: Path) -> None:
    twin(tmp_path)
    _refused, _decisions, _more, slots = ingest(files_of(tmp_path), ARCHITECTURE_TABLE)
    assert WEIGHTS not in slots
