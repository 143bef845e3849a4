"""Whole cells in real control groups, which the test makes beneath its own and takes away again."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, CellRefused, Outcome, cgroups
from sandbox.bubblewrap import profile
from sandbox.bubblewrap.profile import Mount

from .conftest import MakeOrder
from .test_cgroups import here

__all__ = ["here"]
MIB = 2**20


def outcome_of(parent: cgroups.Parent, ordered: object) -> Outcome:
    cell = BubblewrapCell(BubblewrapSettings(site_packages=(), cgroup_parent=parent.name))
    try:
        return cell.run(ordered)  # type: ignore[arg-type]
    finally:
        cell.close()


@pytest.mark.parametrize("kind", ["ingest", "check"])
def test_cell_runs_in_its_own_group(order: MakeOrder, here: cgroups.Parent, kind: str) -> None:
    outcome = outcome_of(here, order("os.write(3, b'[]')", kind=kind))
    assert outcome.result == b"[]", outcome.log_tail
    assert outcome.seal.layers["cgroup"] == here.version
    assert not {"memory_per_process", "process_limit_per_namespace"} & set(outcome.seal.statements)
    assert [path for one in here.paths for path in one.iterdir() if path.is_dir()] == []


def test_burst_of_memory_is_killed_by_the_group(order: MakeOrder, here: cgroups.Parent) -> None:
    """Four processes of 100 MiB, none over the limit alone; the watchdog would have 100 ms to miss them."""
    program = """
        import time
        for _ in range(4):
            if os.fork() == 0:
                held = b"x" * (100 * 2**20)
                time.sleep(9)
        for _ in range(4): os.wait()
    """
    outcome = outcome_of(here, order(program, limits={"memory_bytes": 256 * MIB}))
    assert (outcome.ended, outcome.why) == ("killed", "memory")


def test_processes_are_limited_by_the_group(order: MakeOrder, here: cgroups.Parent) -> None:
    program = """
        made = 0
        try:
            while made < 40:
                if os.fork() == 0:
                    import time; time.sleep(30)
                made += 1
        except OSError:
            pass
        os.write(3, str(made).encode())
    """
    outcome = outcome_of(here, order(program, limits={"processes": 12}))
    assert outcome.result is not None, outcome.log_tail
    assert 8 <= int(outcome.result) <= 12


def test_named_group_that_is_not_there_refuses(order: MakeOrder, tmp_path: Path) -> None:
    cell = BubblewrapCell(BubblewrapSettings(site_packages=(), cgroup_parent=f"assay-absent-{tmp_path.name}"))
    with pytest.raises(CellRefused) as caught:
        cell.run(order("pass"))
    cell.close()
    assert caught.value.code == "cgroup_unusable"


def test_gpu_cell_in_a_group_still_needs_its_nodes(order: MakeOrder, here: cgroups.Parent) -> None:
    if Path("/dev/nvidia63").exists():
        pytest.skip("this host has 64 GPUs")
    with pytest.raises(CellRefused) as caught:
        outcome_of(here, order("pass", kind="check_gpu", gpus=(63,)))
    assert (caught.value.code, caught.value.item) == ("gpu_nodes_missing", "/dev/nvidia63")


GPU = """
    import ctypes, errno, json, mmap, socket
    def tried(attempt):
        try: attempt()
        except OSError as error: return errno.errorcode[error.errno]
        return "through"
    def abstract():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one, \
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as two:
            one.bind("\\0cuda-uvmfd-1"); one.listen(); two.connect("\\0cuda-uvmfd-1")
    def hosts():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one: one.connect("\\0" + sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    def reserve():  # PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        if libc.mmap(None, ctypes.c_size_t(2**40), 0, 0x4022, -1, ctypes.c_long(0)) == 2**64 - 1:
            raise OSError(ctypes.get_errno(), "")
    def memfd():
        made = os.memfd_create("x")
        os.write(made, open(sys.executable, "rb").read(4096))
        os.execve(made, ["x"], {})
    got = {
        "leased": tried(lambda: open("/dev/nvidia0", "r+b", buffering=0).read(1)),
        "other": tried(lambda: open("/dev/nvidia1", "rb")), "dri": tried(lambda: os.stat("/dev/dri")),
        "modeset": tried(lambda: os.stat("/dev/nvidia-modeset")),
        "inet": tried(lambda: socket.socket(socket.AF_INET)),
        "netlink": tried(lambda: socket.socket(socket.AF_NETLINK)),
        "abstract": tried(abstract), "hosts": tried(hosts), "reserve": tried(reserve), "memfd": tried(memfd),
        "comm": tried(lambda: open("/proc/self/task/%d/comm" % os.getpid(), "r+").write("cuda")),
        "sys": tried(lambda: os.listdir("/sys/devices")),
        "sys_write": tried(lambda: open("/sys/kernel/uevent_helper", "w")),
    }
    os.write(3, json.dumps([got, os.environ.get("CUDA_VISIBLE_DEVICES")]).encode())
"""


def test_gpu_cell_on_stand_ins(order: MakeOrder, here: cgroups.Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/dev/zero` stands in for the devices. What a driver needs works; what another tenant has is not there."""
    whole = profile._device
    stand_in = Mount(sort="device", target="", source="/dev/zero", staged=False)
    monkeypatch.setattr(
        profile, "_device", lambda name: replace(stand_in, target=f"/dev/{name}") if "nvidia" in name else whole(name)
    )
    name = f"assay-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("\0" + name)
        listener.listen()
        outcome = outcome_of(here, order(GPU, kind="check_gpu", gpus=(0,), arguments=(name,)))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.connect("\0" + name)
    assert outcome.result, outcome.log_tail
    got, visible = json.loads(outcome.result)
    assert visible == "0"
    through = {name for name, word in got.items() if word == "through"}
    assert through == {"leased", "abstract", "reserve", "comm", "sys"}
    expected = {"other": "ENOENT", "dri": "ENOENT", "modeset": "ENOENT", "inet": "EPERM", "netlink": "EPERM",
                "hosts": "ECONNREFUSED", "memfd": "EPERM"}  # fmt: skip
    assert {name: got[name] for name in expected} == expected
    assert got["sys_write"] in ("EACCES", "EROFS", "ENOENT")
    assert "address_bytes" not in {one.name for one in outcome.seal.limits}


def test_reserved_addresses_tell_the_kinds_apart(cell: BubblewrapCell, order: MakeOrder) -> None:
    got, _visible = json.loads(cell.run(order(GPU, arguments=("x",))).result or b"[{}, null]")
    assert (got["reserve"], got["abstract"], got["leased"]) == ("ENOMEM", "EPERM", "ENOENT")
