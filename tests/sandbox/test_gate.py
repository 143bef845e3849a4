"""Each layer taken away on purpose: the gate says which one is missing, and nothing of the order has run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, CellRefused, Slot, bubblewrap, cgroups, landlock, statements
from sandbox.bubblewrap import command, gate, profile, stage
from sandbox.bubblewrap.profile import Mount
from sandbox.cell import Kind

from .conftest import MakeOrder

KINDS: tuple[Kind, ...] = ("ingest", "check")
"""A GPU cell needs a control group; its argument list is golden in test_launch."""
Shim = dict[str, Any]


def refusal(order: Any) -> CellRefused:
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    try:
        with pytest.raises(CellRefused) as caught:
            cell.run(order)
    finally:
        cell.close()
    return caught.value


def told(monkeypatch: pytest.MonkeyPatch, change: Callable[[Shim], object]) -> None:
    """Let the shim be told something else than was planned."""
    whole = command.shim_plan

    def changed(*given: Any) -> str:
        made = json.loads(whole(*given))
        change(made)
        return json.dumps(made)

    monkeypatch.setattr(command, "shim_plan", changed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_armed_and_sealed(cell: BubblewrapCell, order: MakeOrder, kind: Kind) -> None:
    outcome = cell.run(order("os.write(3, b'[]')", kind=kind))
    assert outcome.result == b"[]", outcome.log_tail
    layers = outcome.seal.to_json()["layers"]
    made = json.loads(profile.document(kind))
    assert layers["seccomp_sha256"] == made["filters"]
    assert layers["landlock_abi"] == landlock.abi()
    assert layers["cgroup"] == "none"
    assert outcome.seal.policy_sha256 == profile.digest(kind)
    assert "seccomp_absent" not in outcome.seal.statements
    assert ("landlock_absent" in outcome.seal.statements) == (landlock.abi() == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_outer_filter_is_seen(order: MakeOrder, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setattr(command, "add_filter", lambda *_given: None)
    assert refusal(order("pass", kind=kind)).item.startswith("seccomp: the shim has ")


@pytest.mark.parametrize("kind", KINDS)
def test_missing_inner_filter_is_seen(order: MakeOrder, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    told(monkeypatch, lambda shim: shim.update(filter=""))
    assert refusal(order("pass", kind=kind)).item.startswith("seccomp: the shim has ")


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
@pytest.mark.parametrize("kind", KINDS)
def test_missing_landlock_is_seen(order: MakeOrder, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    told(monkeypatch, lambda shim: shim.update(landlock=None))
    assert refusal(order("pass", kind=kind)).item.startswith("landlock: version 0")


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
def test_rule_that_opens_too_much_is_seen_by_the_canary(order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, lambda shim: shim["landlock"]["rules"].append(["/", landlock.RIGHTS["read"]]))
    assert refusal(order("pass")).item == "landlock: the canary gave 0"


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
def test_canary_that_is_not_there_proves_nothing(order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, lambda shim: shim.update(canary="/shim/absent"))
    assert refusal(order("pass")).item == "landlock: the canary was out of reach before: 2"


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        ({"uid": os.geteuid() + 1}, "uid"),
        ({"gid": os.getegid() + 1}, "uid"),
        ({"groups": (4242,)}, "uid"),
        ({"inodes": dict.fromkeys(("stdout", "stderr", "result", "progress", "status", "go"), 1)}, "descriptors"),
        ({"landlock_abi": 99}, "landlock"),
        ({"status": b"[]"}, "landlock"),
        ({"init": os.getpid()}, "seccomp"),
    ],
)
def test_gate_compares_with_what_was_planned(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], layer: str
) -> None:
    whole = gate.check
    monkeypatch.setattr(gate, "check", lambda armed: whole(replace(armed, **change)))
    found = refusal(order("pass"))
    assert (found.code, found.item.partition(":")[0]) == ("not_armed", layer)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave its groups, or enter one for the test")
@pytest.mark.parametrize(
    ("line", "instead", "item"),
    [
        ("os.setgroups([])", "os.setgroups([4242])", "uid: supplementary groups [4242], planned []"),
        ("os.setresgid(uid, uid, uid)", "os.setresgid(4242, 4242, 4242)", "uid: group ['4242'"),
    ],
)
def test_groups_that_root_did_not_give_up_are_seen(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, instead: str, item: str
) -> None:
    """As if the worker were in such a group and the staging step stayed in it."""
    whole = Path(stage.__file__).read_text()
    assert whole.count(line) == 1
    (tmp_path / "stage.py").write_text(whole.replace(line, instead))
    monkeypatch.setattr(command, "_STAGE", command._STAGE.replace(str(Path(stage.__file__).parent), str(tmp_path)))
    assert refusal(order("pass")).item.startswith(item)


def test_groups_that_a_worker_cannot_give_up_are_stated() -> None:
    assert "supplementary_groups" in statements.of_bubblewrap(6, grouped=True, more_groups=True)
    assert "supplementary_groups" not in statements.of_bubblewrap(6, grouped=True)


def test_planned_mount_that_is_missing_is_seen(order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gate.check
    extra = Mount(sort="ro", target="/extra", source="/usr/lib")
    monkeypatch.setattr(gate, "check", lambda armed: whole(replace(armed, mounts=(*armed.mounts, extra))))
    assert refusal(order("pass")).item == "mounts: missing ['/extra']"


SWAPPED: dict[str, tuple[str, dict[str, Any], str]] = {
    "process files that are none": ("/proc", {"sort": "tmpfs"}, "/proc is of type proc, planned tmpfs"),
    "memory that is none": ("/scratch", {"sort": "proc"}, "/scratch is of type tmpfs, planned proc"),
    "another size": ("/scratch", {"size": str(2**20)}, "/scratch has "),
    "another size of shared memory": ("/dev/shm", {"size": str(2**20)}, "/dev/shm has "),
    "other inputs": ("/in", {"source": "/usr"}, "/in is not what lies at /usr"),
    "another shim": (profile.SHIM, {"source": profile.__file__}, f"{profile.SHIM} is not what lies at "),
    "another canary": (profile.CANARY, {"source": profile.__file__}, f"{profile.CANARY} is not what lies at "),
    "another slot": ("/out/s", {"source": profile.__file__}, "/out/s is not what lies at "),
    "other code": ("/code/program.py", {"source": profile.__file__}, "/code/program.py is not what lies at "),
    "a mask that is none": ("/proc/keys", {"source": "/dev/zero"}, "/proc/keys is not what lies at /dev/zero"),
}


@pytest.mark.parametrize("name", SWAPPED)
def test_another_thing_at_a_planned_mount_point_is_seen(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target, change, item = SWAPPED[name]
    whole = gate.check

    def check(armed: gate.Armed) -> Any:
        assert target in {one.target for one in armed.mounts}
        mounts = tuple(replace(one, **change) if one.target == target else one for one in armed.mounts)
        return whole(replace(armed, mounts=mounts))

    monkeypatch.setattr(gate, "check", check)
    asked = order("pass", slots=(Slot(name="s", max_bytes=100, released=False),))
    assert refusal(asked).item.startswith(f"mounts: {item}")


def test_inputs_that_another_folder_took_the_place_of_are_seen(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is as planned, and what bubblewrap was told is not."""
    whole = profile.arguments

    def swapped(mounts: Any, *rest: Any) -> list[str]:
        return whole([replace(one, source="/usr/lib") if one.target == "/in" else one for one in mounts], *rest)

    monkeypatch.setattr(profile, "arguments", swapped)
    assert refusal(order("pass")).item.startswith("mounts: /in is not what lies at ")


@pytest.mark.parametrize("kind", KINDS)
def test_unplanned_mount_is_seen_in_every_kind(order: MakeOrder, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setattr(profile, "FLAGS", (*profile.FLAGS, "--dev-bind", "/dev/zero", "/dev/zero2"))
    assert refusal(order("pass", kind=kind)).item == "mounts: unplanned /dev/zero2"


LIAR = """
import os, sys, json
plan = json.loads(sys.argv[1])
for role, number in (("result", 3), ("progress", 4), ("status", 5), ("go", 6)):
    os.dup2(plan["fds"][role], number)
os.closerange(7, 1024)
os.write(5, b'{"armed":true,"landlock_abi":%d,"canary_before":0,"canary_errno":13}\\n')
os.read(6, 1)
"""


def test_shim_that_only_says_it_is_armed_is_refused(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the kernel shows is not taken from the shim's word."""
    liar = tmp_path / "liar.py"
    liar.write_text(LIAR % landlock.abi())
    monkeypatch.setattr(bubblewrap, "_SHIM", liar)
    assert refusal(order("pass")).item.startswith("seccomp: the shim has ")


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"armed":1}', '{"armed":false,"code":"bwrap_setuid","item":"x"}'])
def test_malformed_word_of_the_shim_is_refused(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    odd = tmp_path / "odd.py"
    program = "import os, sys, json\nos.write(json.loads(sys.argv[1])['fds']['status'], {!r})\nos.read(0, 1)"
    odd.write_text(program.format(line.encode() + b"\n"))
    monkeypatch.setattr(bubblewrap, "_SHIM", odd)
    assert refusal(order("pass")).code == "not_armed"


class FakeGroup(cgroups.Group):
    """A group whose list of processes stands in a file of the test."""

    def __init__(self, procs: Path) -> None:
        self.version = "v2"
        self.swap_limited = True
        self.listing = procs
        self.killed = self.closed = 0

    @property
    def procs(self) -> tuple[Path, ...]:
        return (self.listing,)

    def kill(self) -> bool:
        self.killed += 1
        return False

    def peak_bytes(self) -> int:
        return 0

    def out_of_memory(self) -> bool:
        return False

    def cpu_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("listed", [True, False])
def test_cell_must_be_listed_in_its_group(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: bool
) -> None:
    group = FakeGroup(tmp_path / "procs")
    whole = gate.check

    def check(armed: gate.Armed) -> Any:
        if listed:
            group.procs[0].write_text(f"{armed.pid}\n{armed.init}\n")
        return whole(replace(armed, group=group))

    group.procs[0].write_text("")
    monkeypatch.setattr(gate, "check", check)
    if listed:
        cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
        assert cell.run(order("pass")).seal.layers["cgroup"] == "v2"
        cell.close()
    else:
        assert refusal(order("pass")).item.startswith("cgroup: ")


INGEST = """
    import ctypes, errno, json, signal, socket, threading
    def tried(attempt):
        try: attempt()
        except OSError as error: return errno.errorcode[error.errno]
        except RuntimeError: return "RuntimeError"
        return "through"
    libc = ctypes.CDLL(None, use_errno=True)
    def call(*arguments):
        if libc.syscall(*arguments) < 0: raise OSError(ctypes.get_errno(), "")
    got = {
        "fork": tried(os.fork), "pipe": tried(os.pipe), "socket": tried(socket.socket),
        "kill": tried(lambda: os.kill(1, 0)), "thread": tried(threading.Thread(target=int).start),
        "memfd": tried(lambda: os.memfd_create("x")), "execve": tried(lambda: os.execv("/x", ["x"])),
        "seccomp": tried(lambda: call(317, 1, 0, None)), "landlock": tried(lambda: call(444, None, 0, 1)),
        "mkdir": tried(lambda: os.mkdir("/x")), "proc": tried(lambda: os.stat("/proc/self")),
        "sys": tried(lambda: os.stat("/sys/kernel")), "scratch": tried(lambda: os.stat("/scratch")),
        "shm": tried(lambda: os.stat("/dev/shm")), "zero": tried(lambda: os.stat("/dev/zero")),
        "null": tried(lambda: open("/dev/null", "r+b").close()), "urandom": tried(lambda: open("/dev/urandom").close()),
        "slot": tried(lambda: open("/out/s", "wb").write(b"table")), "input": tried(lambda: open("/in/data").close()),
    }
    os.write(3, json.dumps([got, dict(os.environ)]).encode())
"""


def test_ingest_cell_can_read_hash_and_write_slots_and_little_else(cell: BubblewrapCell, order: MakeOrder) -> None:
    slots = (Slot(name="s", max_bytes=100, released=False),)
    outcome = cell.run(order(INGEST, kind="ingest", inputs={"data": b"data"}, slots=slots))
    assert outcome.result, outcome.log_tail
    got, environment = json.loads(outcome.result)
    through = {name for name, word in got.items() if word == "through"}
    assert through == {"null", "urandom", "slot", "input"}
    denied = ("fork", "pipe", "socket", "kill", "memfd", "execve", "seccomp", "landlock", "mkdir")
    assert {name: got[name] for name in denied} == dict.fromkeys(denied, "EPERM")
    assert got["thread"] == "RuntimeError"  # Python's name for a thread that cannot start
    absent = ("proc", "sys", "scratch", "shm", "zero")
    assert {name: got[name] for name in absent} == dict.fromkeys(absent, "ENOENT")
    assert outcome.slots[0].content == b"table"
    assert (environment["HOME"], environment["TMPDIR"]) == ("/", "/")
    assert environment.keys() == profile.ENVIRONMENT["ingest"].keys()
