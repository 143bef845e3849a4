"""The writer: one at a time, killed at every step, power cut after every step, and never two roots of one size."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from assay.errors import CouldNotTell, MachineFailed, Malformed, Misused, Wrong
from assay.tlog import notes, proofs, tree
from assay.tlog.disk import ASIDE, Locked
from assay.tlog.entries import Entry
from assay.tlog.log import Log
from assay.tlog.memory import MemoryLog
from assay.tlog.notes import Checkpoint
from assay.tlog.tree import MemoryTree

from tests.client.tlog.faults import Dying, Killed, Seeing, grown, note_root, requests_raw
from tests.client.tlog.planted import ORIGIN, OTHER, PRIVATE, report, request, requests


@pytest.mark.parametrize(
    ("how", "before", "batch"),
    [
        *((how, before, 1) for how in ("killed", "torn", "cut") for before in (0, 1)),
        ("cut", 255, 2),
        *(pytest.param(how, 255, 2, marks=pytest.mark.slow) for how in ("killed", "torn")),
        *(pytest.param("cut", before, 1, marks=pytest.mark.slow) for before in (254, 255, 256)),
    ],
)
def test_killed_at_every_step_of_an_append(tmp_path: Path, how: str, before: int, batch: int) -> None:
    base = tmp_path / "base"
    old = grown(base, before)
    asked = [request(f"first {index}") for index in range(batch)]
    for step in range(1000):
        folder, seen = tmp_path / "log", dict[int, bytes]()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        note_root(seen, folder)
        disk = Seeing(folder, seen, step, torn=how == "torn", cut=how == "cut")
        try:
            with Log(folder, ORIGIN, PRIVATE, disk=disk) as log:
                log.append_all(asked)
            break
        except Killed:
            pass
        with Log(folder, ORIGIN, PRIVATE, disk=Dying(folder)) as log:
            note_root(seen, folder)
            kept = log.size - before
            # What the crash left is a prefix of what was asked, and other entries come after it.
            assert [log.entry(index) for index in range(before, log.size)] == [one.data for one in asked[:kept]]
            index, _ = log.append(request("another"))
            assert log.search(lambda entry: entry == request("another")) == index == before + kept
            note_root(seen, folder)
            log.check()
        expected = MemoryTree([*old, *(one.data for one in asked[:kept]), request("another").data])
        assert max(seen) == expected.size
        assert all(root == tree.root(expected.node, size) for size, root in seen.items())
    assert step >= 8


@pytest.mark.parametrize("first", [6, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_again_while_it_takes_in_what_a_crash_left(tmp_path: Path, first: int) -> None:
    base, folder = tmp_path / "base", tmp_path / "log"
    grown(base, 255)
    with pytest.raises(Killed), Log(base, ORIGIN, PRIVATE, disk=Dying(base, first)) as log:
        log.append_all([request("first 0"), request("first 1")])
    for second in range(1000):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        try:
            Log(folder, ORIGIN, PRIVATE, disk=Dying(folder, second)).close()
            break
        except Killed:
            pass
        with Log(folder, ORIGIN, PRIVATE, disk=Dying(folder)) as log:
            log.append(request("another"))
            log.check()
            assert log.entry(255) == request("first 0").data
    assert second >= 8


def test_a_power_cut_loses_no_entry_whose_proof_was_handed_out(tmp_path: Path) -> None:
    folder, seen = tmp_path / "log", dict[int, bytes]()
    for step in range(20, 60, 3):
        shutil.rmtree(folder, ignore_errors=True)
        seen.clear()
        handed_out: list[bytes] = []
        try:
            with Log(folder, ORIGIN, PRIVATE, disk=Seeing(folder, seen, step, torn=False, cut=True)) as log:
                for index in range(20):
                    handed_out.append(log.append(request(f"request {index}"))[1])
        except Killed:
            pass
        assert 0 < len(handed_out) < 20
        with Log(folder, ORIGIN, PRIVATE, disk=Dying(folder)) as log:
            for index in range(len(handed_out)):
                assert log.entry(index) == request(f"request {index}").data
            log.append(request("another"))
            log.check()
            note_root(seen, folder)
            for size, root in seen.items():
                log.require(Checkpoint(ORIGIN, size, root))


def test_a_lost_partial_tile_is_made_again_from_the_entries(tmp_path: Path) -> None:
    grown(tmp_path, 5)
    tile = tmp_path / "tile/0/000.p/5"
    before = tile.read_bytes()
    tile.unlink()
    with Log(tmp_path, ORIGIN, PRIVATE) as log:
        assert tile.read_bytes() == before
        log.check()
    (tmp_path / "tile/entries/000.p/5").unlink()
    with pytest.raises(CouldNotTell, match="tile/entries"):
        Log(tmp_path, ORIGIN, PRIVATE)


def test_a_failed_disk_closes_the_log_until_it_is_opened_again(tmp_path: Path) -> None:
    class Full(Dying):
        full = False

        def write(self, path: Path, data: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().write(path, data)

    disk = Full(tmp_path)
    with Log(tmp_path, ORIGIN, PRIVATE, disk=disk) as log:
        log.append(request("one"))
        disk.full = True
        with pytest.raises(MachineFailed, match="No space left"):
            log.append(request("two"))
        disk.full = False
        with pytest.raises(MachineFailed, match="open it again"):
            log.append(request("another"))
    with Log(tmp_path, ORIGIN, PRIVATE, disk=Dying(tmp_path)) as log:
        log.append(request("another"))
        log.check()


def test_the_second_writer_is_refused(tmp_path: Path) -> None:
    with Log(tmp_path, ORIGIN, PRIVATE, disk=Dying(tmp_path)) as log:
        log.append(request("one"))
        with pytest.raises(Locked):
            Log(tmp_path, ORIGIN, PRIVATE)
        log.append(request("two"))
    with pytest.raises(MachineFailed):
        log.append(request("three"))
    with Log(tmp_path, ORIGIN, PRIVATE) as log:
        assert log.size == 2


def test_the_folder_of_a_log_equals_the_log_in_memory(tmp_path: Path) -> None:
    grown(tmp_path, 600)
    expected = MemoryLog(ORIGIN, PRIVATE)
    for raw in requests_raw(600):
        expected.append(raw)
    found = {
        str(file.relative_to(tmp_path)): file.read_bytes()
        for file in tmp_path.rglob("*")
        if file.is_file() and file.name not in (ASIDE, ".lock")
    }
    owed = expected.files()
    assert {name: found[name] for name in owed} == owed
    # Partial forms of a tile that is full by now are gone; one of an earlier checkpoint is kept as long as it is not.
    assert found.keys() - owed.keys() == {"tile/1/000.p/1"}
    with Log(tmp_path, ORIGIN, PRIVATE) as log:
        for index in (0, 255, 256, 599):
            assert log.prove(index) == expected.prove(index)
        for old in (0, 1, 256, 599, 600):
            assert log.prove_since(old) == expected.prove_since(old)
        log.check()


def test_append_returns_a_proof_that_holds(tmp_path: Path) -> None:
    with Log(tmp_path, ORIGIN, PRIVATE) as log:
        index, asked = log.append(request("one"))
        _, told = log.append(report("two", index))
        for data in (asked, told):
            proof = proofs.read_proof(data)
            found = notes.open_checkpoint(proof.checkpoint, [log.vkey])
            tree.check_inclusion(tree.leaf_hash(proof.entry), proof.index, found.size, proof.hashes, found.root)
        assert (index, proof.index, found.size) == (0, 1, 2)
        assert log.search(lambda entry: entry.kind == "report" and entry.prev == index) == 1
        assert log.search(lambda entry: entry.kind == "void") is None


def test_a_clock_that_goes_back_is_refused(tmp_path: Path) -> None:
    with Log(tmp_path, ORIGIN, PRIVATE, disk=Dying(tmp_path)) as log:
        log.append(request("one", 5))
        with pytest.raises(MachineFailed, match="clock"):
            log.append(request("two", 4))
        with pytest.raises(MachineFailed, match="clock"):
            log.append_all([request("two", 7), request("three", 6)])
        log.append(request("two", 5))
    with Log(tmp_path, ORIGIN, PRIVATE) as log:
        with pytest.raises(MachineFailed, match="clock"):
            log.append(request("three", 4))
        assert log.size == 2


def test_a_restored_backup_does_not_fork_the_log(tmp_path: Path) -> None:
    grown(tmp_path / "log", 5)
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    with Log(tmp_path / "log", ORIGIN, PRIVATE) as log:
        log.append(request("handed out"))
        handed_out, _ = notes.read_checkpoint(log.checkpoint)
        log.require(handed_out)
    with Log(tmp_path / "backup", ORIGIN, PRIVATE) as log:
        with pytest.raises(Wrong, match="size 6 was handed out, this copy of the log has 5"):
            log.require(handed_out)
        log.append(request("another"))
        with pytest.raises(Wrong, match="forked"):
            log.require(handed_out)
        with pytest.raises(Wrong, match="is of log"):
            log.require(Checkpoint("log.other.example", 1, tree.EMPTY))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("checkpoint", "malformed"),
        ("tile/0/000.p/5", "do not give the root"),
        ("tile/entries/000.p/5", "entry 4"),
    ],
)
def test_damaged_files_are_refused_at_the_start(tmp_path: Path, name: str, said: str) -> None:
    grown(tmp_path, 5)
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 64
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Wrong, match=said):
        Log(tmp_path, ORIGIN, PRIVATE)


def test_a_damaged_old_entry_is_found_by_the_whole_check(tmp_path: Path) -> None:
    grown(tmp_path, 300)
    file = tmp_path / "tile/entries/000"
    file.write_bytes(file.read_bytes().replace(b'"v":1', b'"v":2', 1))
    with Log(tmp_path, ORIGIN, PRIVATE) as log, pytest.raises(Wrong, match="tile/0/000"):
        log.check()


def test_another_key_or_name_or_a_lost_checkpoint_is_refused(tmp_path: Path) -> None:
    grown(tmp_path, 2)
    with pytest.raises(Wrong, match="no trusted log key"):
        Log(tmp_path, ORIGIN, OTHER)
    with pytest.raises(Wrong, match="no trusted log key"):
        Log(tmp_path, "log.other.example", PRIVATE)
    with pytest.raises(Malformed):
        Log(tmp_path, "two words", PRIVATE)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(Wrong, match="no checkpoint"):
        Log(tmp_path, ORIGIN, PRIVATE)


def test_batches_and_indices_outside_their_range_are_misuse(tmp_path: Path) -> None:
    with Log(tmp_path, ORIGIN, PRIVATE) as log:
        batch: list[Entry] = [request("one")] * 257
        for wrong in ([], batch):
            with pytest.raises(Misused):
                log.append_all(wrong)
        for call in (log.prove, log.entry, lambda at: log.prove_since(at + 1)):
            with pytest.raises(Misused):
                call(0)
    assert requests(1).size == 1
