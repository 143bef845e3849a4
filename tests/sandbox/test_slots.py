"""What a program leaves in a slot is handed on whole or not at all, and nothing but bytes comes with it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox import BubblewrapCell, ProcessCell, ResultRejected, Slot, inputs
from sandbox.slots import Opened, Withheld, copy_slots, left_in, overfull, take_slots

from .conftest import MakeOrder

CAP = 100
NOTE = Slot(name="note", max_bytes=CAP, released=True)


@contextmanager
def made(folder: Path, slot: Slot = NOTE) -> Iterator[Opened]:
    descriptor = os.open(folder / slot.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    status = os.fstat(descriptor)
    try:
        yield (slot, descriptor, (status.st_dev, status.st_ino))
    finally:
        os.close(descriptor)


def code_of(action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ResultRejected) as caught:
        action()
    return caught.value.code, caught.value.at


def test_twin_is_handed_on_whole(tmp_path: Path) -> None:
    with made(tmp_path) as opened:
        (tmp_path / "note").write_bytes(b"x" * CAP)
        (found,) = take_slots([opened])
    assert (found.size, found.sha256, found.open().read()) == (
        CAP, hashlib.sha256(b"x" * CAP).hexdigest(), b"x" * CAP,
    )  # fmt: skip


def test_slot_mode_and_xattr_ignored(tmp_path: Path) -> None:
    with made(tmp_path) as opened:
        path = tmp_path / "note"
        path.write_bytes(b"plain")
        path.chmod(0o4777)
        try:
            os.setxattr(path, "user.payload", b"weights")
        except OSError as error:
            pytest.skip(f"this file system has no user attributes ({error.strerror})")
        (found,) = take_slots([opened])
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert set(vars(found)) == {"name", "size", "sha256", "content"}
    assert found.content == b"plain"


def test_holes_read_as_zeros(tmp_path: Path) -> None:
    with made(tmp_path) as opened:
        os.pwrite(opened[1], b"end", 90)
        (found,) = take_slots([opened])
    assert found.content == b"\0" * 90 + b"end"


def test_slot_over_its_cap_is_never_half_handed_on(tmp_path: Path) -> None:
    small = Slot(name="small", max_bytes=CAP, released=False)
    with made(tmp_path) as good, made(tmp_path, small) as over:
        os.pwrite(good[1], b"good", 0)
        os.pwrite(over[1], b"x" * (CAP + 1), 0)
        assert code_of(lambda: take_slots([good, over])) == ("slot_too_large", "small")
        kept, withheld = left_in([good, over])
    assert kept.content == b"good"
    assert isinstance(withheld, Withheld)
    assert (withheld.content, withheld.size, withheld.sha256) == (b"", CAP + 1, hashlib.sha256(b"").hexdigest())
    assert code_of(withheld.open) == ("slot_too_large", "small")


def test_only_what_is_stored_fills_a_disk(tmp_path: Path) -> None:
    with made(tmp_path) as opened:
        os.ftruncate(opened[1], 2**40)
        assert not overfull([opened])
        os.pwrite(opened[1], b"x" * 2**20, 0)
        os.pwrite(opened[1], b"x" * 2**20, 2**30)
        os.fsync(opened[1])
        assert overfull([opened])


def test_slot_that_fills_the_disk_is_stopped_while_it_does(cell: BubblewrapCell, order: MakeOrder) -> None:
    """Files may be as large as scratch: a slot of a hundred bytes took a gigabyte of the host's disk until the end."""
    outcome = cell.run(
        order(
            """
            import time
            stream = open("/out/note", "wb", buffering=0)
            for _ in range(8):
                stream.write(bytes(2**20))
            os.fsync(stream.fileno())
            time.sleep(60)
            """,
            slots=(NOTE,),
        )
    )
    assert (outcome.ended, outcome.why, outcome.result, outcome.slots) == ("killed", "output_cap", None, ())


def test_a_sparse_tebibyte_is_refused_without_being_read(tmp_path: Path) -> None:
    with made(tmp_path) as opened:
        os.ftruncate(opened[1], 2**40)
        assert code_of(lambda: take_slots([opened])) == ("slot_too_large", "note")


def replaced_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def replaced_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def renamed_over(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    other.rename(path)


RACES: dict[str, Callable[[Path], None]] = {
    "symbolic link": replaced_by_link,
    "FIFO": replaced_by_fifo,
    "another file": renamed_over,
    "gone": Path.unlink,
    "second name": lambda path: os.link(path, path.with_name("second")),
}


@pytest.mark.parametrize("name", RACES)
def test_what_is_put_in_a_slots_place_is_not_read(name: str, tmp_path: Path) -> None:
    with made(tmp_path) as opened:
        os.pwrite(opened[1], b"mine", 0)
        RACES[name](tmp_path / "note")
        assert code_of(lambda: take_slots([opened])) == ("slot_not_regular", "note")


def test_another_inode_behind_the_descriptor_is_refused(tmp_path: Path) -> None:
    with made(tmp_path) as (slot, descriptor, (device, inode)):
        assert code_of(lambda: take_slots([(slot, descriptor, (device, inode + 1))])) == ("slot_not_regular", "note")


def in_folder(folder: Path, slots: tuple[Slot, ...] = (NOTE,)) -> tuple[bytes, ...]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tuple(one.open().read() for one in copy_slots(descriptor, slots))
    except OSError as error:
        if error.errno in (38, 1):
            pytest.skip("the kernel, or a filter around the tests, has no openat2")
        raise
    finally:
        os.close(descriptor)


def test_folder_twin_is_handed_on(tmp_path: Path) -> None:
    assert in_folder(tmp_path) == (b"",)
    (tmp_path / "note").write_bytes(b"mine")
    assert in_folder(tmp_path) == (b"mine",)


def socket_at(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as made_socket:
        made_socket.bind(str(path))


def folder_at(path: Path) -> None:
    path.unlink()
    path.mkdir()


def linked_from_outside(path: Path) -> None:
    path.unlink()
    outside = path.parent.with_name("host")
    outside.write_bytes(b"canary")
    os.link(outside, path)


IN_FOLDER: dict[str, tuple[Callable[[Path], object], str]] = {
    "symbolic link": (replaced_by_link, "slot_not_regular"),
    "FIFO": (replaced_by_fifo, "slot_not_regular"),
    "socket": (socket_at, "slot_not_regular"),
    "folder": (folder_at, "slot_not_regular"),
    "hard link to a file outside": (linked_from_outside, "slot_not_regular"),
    "over the cap": (lambda path: path.write_bytes(b"x" * (CAP + 1)), "slot_too_large"),
    "name that nobody declared": (lambda path: path.with_name("extra").write_bytes(b""), "unknown_slot"),
    "name in other bytes": (lambda path: open(os.fsencode(path.parent) + b"/\xff\n", "wb").close(), "unknown_slot"),
    "name that looks alike": (lambda path: path.with_name("n\u043ete").write_bytes(b""), "unknown_slot"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_FOLDER)
def test_each_trick_in_a_folder_has_its_code(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "note").write_bytes(b"mine")
    plant, code = IN_FOLDER[name]
    plant(out / "note")
    assert code_of(lambda: in_folder(out))[0] == code


def test_a_run_never_raises_for_what_was_done_to_its_slots(twin: ProcessCell, order: MakeOrder) -> None:
    """The twin's slots lie in a plain folder, so a program can do there what a wall would deny."""
    program = """
        os.unlink("out/note")
        os.symlink("/etc/passwd", "out/note")
        open("out/small", "wb").write(b"x" * 101)
        open("out/fine", "wb").write(b"fine")
    """
    slots = (NOTE, Slot(name="small", max_bytes=CAP, released=False), Slot(name="fine", max_bytes=CAP, released=False))
    outcome = twin.run(order(program, slots=slots))
    note, small, fine = outcome.slots
    assert code_of(note.open) == ("slot_not_regular", "note")
    assert code_of(small.open) == ("slot_too_large", "small")
    assert fine.open().read() == b"fine"
    assert outcome.usage.slot_bytes == 4


def test_mode_attributes_and_holes_in_a_real_cell(cell: BubblewrapCell, order: MakeOrder) -> None:
    program = """
        with open("/out/note", "wb") as slot:
            slot.seek(50)
            slot.write(b"end")
        os.chmod("/out/note", 0o4777)
        try: os.setxattr("/out/note", "user.payload", b"weights")
        except OSError: pass
        for attempt in (lambda: os.unlink("/out/note"), lambda: os.mkfifo("/out/pipe"),
                        lambda: os.link("/out/note", "/out/second"), lambda: os.rename("/scratch/x", "/out/note")):
            open("/scratch/x", "w").close()
            try: attempt()
            except OSError: continue
            sys.exit(9)
    """
    outcome = cell.run(order(program, slots=(NOTE,)))
    assert outcome.status == 0, outcome.log_tail
    assert outcome.slots[0].content == b"\0" * 50 + b"end"


def test_slots_keep_the_identity_that_the_host_gave_them(tmp_path: Path, order: MakeOrder) -> None:
    with inputs.prepared(order("pass", slots=(NOTE,)), tmp_path, None) as ready:
        ((slot, descriptor, identity),) = ready.opened
        status = os.fstat(descriptor)
        assert (slot, identity) == (NOTE, (status.st_dev, status.st_ino))
        os.link(ready.root / "out" / "note", tmp_path / "second")
        assert isinstance(ready.fill()[0], Withheld)


def test_openat2_is_the_call_that_is_meant() -> None:
    """A wrong number would fail in another way: a size of nothing is refused before anything else."""
    made_call = ctypes.CDLL(None, use_errno=True).syscall(437, -1, b"x", 0, ctypes.c_size_t(0))
    if ctypes.get_errno() == 38:
        pytest.skip("the kernel has no openat2")
    assert (made_call, ctypes.get_errno()) == (-1, 22)
