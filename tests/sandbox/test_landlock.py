"""The rules by role, the rights by version, and what they stop in a real cell."""

from __future__ import annotations

import ctypes
import errno
import json
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, CellRefused, Slot, landlock
from sandbox.bubblewrap import profile
from sandbox.bubblewrap.profile import Mount
from sandbox.landlock import Right, Rule

from .conftest import MakeOrder

needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")


def test_rules_by_role_are_golden() -> None:
    rules = {rule.path: rule.right for rule in profile.template("check")[1]}
    assert rules == {
        "{prefix}": "execute", "{interpreter}": "execute", "{library}": "execute", "{site-packages}": "execute",
        "/shim/inside.py": "read", "/code": "read", "/in": "read", "/out/{slot}": "slot",
        "/scratch": "scratch", "/proc": "proc", "/dev/shm": "scratch",
        **{f"/dev/{name}": "device" for name in ("null", "zero", "full", "random", "urandom")},
    }  # fmt: skip
    ingest = {rule.path: rule.right for rule in profile.template("ingest")[1]}
    assert {path: right for path, right in ingest.items() if right in ("device", "scratch", "proc")} == {
        "/dev/null": "device", "/dev/urandom": "device",
    }  # fmt: skip
    gpu = {rule.path: rule.right for rule in profile.template("check_gpu")[1]}
    assert (gpu["/dev/nvidia{gpu}"], gpu["/dev/nvidiactl"], gpu["/sys"]) == ("device", "device", "read")


def test_every_mount_but_the_canary_and_the_kernels_own_has_a_rule() -> None:
    """A mount of a sort that nobody thought of must not be open by accident; it is closed."""
    assert landlock.rules("check", [Mount(sort="symlink", target="/lib", source="usr/lib")]) == ()
    assert landlock.rules("check", [Mount(sort="ro", target=profile.CANARY, source="x")]) == ()
    for target in ("/in", "/in/a", "/in/b"):
        assert landlock.rules("check", [Mount(sort="ro", target=target, source="x")]) == (Rule("/in", "read"),)
    assert landlock.rules("check", [Mount(sort="ro", target="/opt/x", source="x")]) == (Rule("/opt/x", "execute"),)


@pytest.mark.parametrize(
    ("version", "handled"),
    [
        (1, (0x1FFF, 0, 0)), (2, (0x3FFF, 0, 0)), (3, (0x7FFF, 0, 0)), (4, (0x7FFF, 3, 0)), (5, (0xFFFF, 3, 0)),
        (6, (0xFFFF, 3, 3)), (7, (0xFFFF, 3, 3)), (99, (0xFFFF, 3, 3)),
    ],
)  # fmt: skip
def test_every_right_that_the_version_offers_is_handled(version: int, handled: tuple[int, int, int]) -> None:
    assert landlock.handled(version) == handled
    made = landlock.planned(version, [Rule("/out/x", "slot")])
    assert made is not None
    # A right that is not handled may not stand in a rule: the kernel would refuse it.
    assert made["rules"] == [["/out/x", (0x4006 if version >= 3 else 0x6)]]


def test_no_role_but_scratch_may_make_anything_and_none_may_execute_what_it_writes() -> None:
    makes = 0b1_1111_1111_0000  # remove and make, of every sort
    for right in get_args(Right):
        bits = landlock.RIGHTS[right]
        assert not (bits & landlock.EXECUTE and bits & landlock.WRITE_FILE)
        assert right == "scratch" or not bits & makes


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_without_it_is_told_by_two_errors_alone(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Another filter's EPERM, or a kernel's own trouble, is no word on what the kernel has."""
    answers = [number, errno.EPERM, errno.EINVAL, errno.EACCES, errno.ENOMEM, 0]

    def syscall(*_given: object) -> int:
        ctypes.set_errno(answers.pop(0))
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_given, **_more: SimpleNamespace(syscall=syscall))
    assert landlock.abi() == 0
    while answers:
        with pytest.raises(CellRefused) as caught:
            landlock.abi()
        assert caught.value.code == "landlock_partial"


def test_no_landlock_in_the_kernel_is_stated(order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    seal = cell.run(order("pass")).seal
    cell.close()
    assert seal.layers["landlock_abi"] == 0
    assert "landlock_absent" in seal.statements


@needs_landlock
@pytest.mark.parametrize("kind", ["ingest", "check"])
def test_landlock_with_absent_path_refuses(order: MakeOrder, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A list that skips what is missing enforced nothing at all in a product whose tests passed."""
    whole = landlock.rules
    monkeypatch.setattr(landlock, "rules", lambda *given: (*whole(*given), Rule("/absent", "read")))
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    with pytest.raises(CellRefused) as caught:
        cell.run(order("pass", kind=kind))
    cell.close()
    assert (caught.value.code, caught.value.item) == ("landlock_partial", "/absent: No such file or directory")


@needs_landlock
def test_right_that_the_kernel_does_not_know_refuses(order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "handled", lambda _version: (1 << 40, 0, 0))
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    with pytest.raises(CellRefused) as caught:
        cell.run(order("pass"))
    cell.close()
    assert caught.value.code == "landlock_partial"


PROGRAM = """
    import ctypes, errno, json, shutil
    def tried(attempt):
        try: attempt()
        except OSError as error: return errno.errorcode[error.errno]
        return "through"
    def memfd():
        made = os.memfd_create("x")
        os.write(made, open(sys.executable, "rb").read(4096))
        os.execve(made, ["x"], {})
    def truncated():
        with open("/out/s", "r+b") as stream: stream.truncate(3)
    open("/scratch/a", "w").write("#!x")
    os.chmod("/scratch/a", 0o755)
    got = {
        "root": tried(lambda: os.listdir("/")), "out": tried(lambda: os.listdir("/out")),
        "canary": tried(lambda: open("/shim/canary.py")), "tty": tried(lambda: open("/dev/tty")),
        "ptmx": tried(lambda: open("/dev/ptmx")),
        "symlink": tried(lambda: os.symlink("/in", "/scratch/l")), "fifo": tried(lambda: os.mkfifo("/scratch/f")),
        "execute": tried(lambda: os.execv("/scratch/a", ["a"])), "memfd": tried(memfd),
        "shell": tried(lambda: os.execv("/bin/sh", ["sh"])),
        "truncate": tried(truncated), "mkdir": tried(lambda: os.mkdir("/scratch/d")),
        "rename": tried(lambda: os.rename("/scratch/a", "/scratch/d/b")),
        "remove": tried(lambda: os.remove("/scratch/d/b")),
        "shm": tried(lambda: open("/dev/shm/x", "w").write("x")),
        "zero": tried(lambda: open("/dev/zero", "rb").read(1)),
        "comm": tried(lambda: open("/proc/self/comm", "r+").write("renamed")),
    }
    os.write(3, json.dumps(got).encode())
"""


def answers(cell: BubblewrapCell, order: MakeOrder, program: str) -> dict[str, Any]:
    slots = (Slot(name="s", max_bytes=100, released=False),)
    outcome = cell.run(order(program, slots=slots))
    assert outcome.result, outcome.log_tail
    found: dict[str, Any] = json.loads(outcome.result)
    return found


@needs_landlock
def test_what_stands_in_no_rule_cannot_be_opened(cell: BubblewrapCell, order: MakeOrder) -> None:
    got = answers(cell, order, PROGRAM)
    denied = ("root", "out", "canary", "tty", "ptmx", "symlink")
    assert {name: got[name] for name in denied} == dict.fromkeys(denied, "EACCES")
    # mkfifo is mknod: the filter answers before Landlock does.
    assert got["fifo"] == "EPERM"
    through = ("truncate", "mkdir", "rename", "remove", "shm", "zero", "comm")
    assert {name: got[name] for name in through} == dict.fromkeys(through, "through")


def test_memfd_cannot_execute(cell: BubblewrapCell, order: MakeOrder) -> None:
    """Landlock does not stop it; the inner filter stops every execution, whatever lies where."""
    got = answers(cell, order, PROGRAM)
    assert (got["memfd"], got["execute"], got["shell"]) == ("EPERM", "EPERM", "EPERM")
