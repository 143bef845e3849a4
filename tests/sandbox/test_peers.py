"""Defects that other sandboxes had, each as a test by name. Those that stand elsewhere are found by the last test.

Where it is known, the peer is named; the specification has the whole list (section 15).
"""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, CellRefused, CodeMount, landlock
from sandbox.bubblewrap import plan
from sandbox.filters.assembler import assemble
from sandbox.filters.tables import EPERM, Table
from sandbox.reader.model import read_model

from .conftest import MakeOrder
from .filters.interpreter import run

ROOT = Path(__file__).resolve().parents[2]
X86_64 = 0xC000003E
ERRNO = 0x00050000
"""SECCOMP_RET_ERRNO; the lower half is the number."""

NAMES = (
    "test_empty_allow_list_means_deny",
    "test_landlock_with_absent_path_refuses",
    "test_root_launch_drops_uid_before_bwrap",
    "test_process_limit_holds_when_worker_is_root",
    "test_unshare_user_is_explicit",
    "test_stray_fd_is_closed",
    "test_cell_outlives_its_submitting_thread",
    "test_prefix_mounted_in_place_loads_same_libpython",
    "test_dev_tmpfs_is_read_only_and_shm_sized",
    "test_memfd_cannot_execute",
    "test_ioctl_compared_in_32_bits",
    "test_host_root_not_readable",
    "test_no_import_whitelist_is_relied_on",
    "test_setuid_bwrap_refused",
    "test_scanner_output_never_gates",
    "test_slot_mode_and_xattr_ignored",
    "test_af_unix_rule_differs_by_kind",
    "test_runtime_directories_never_mounted",
)


def test_empty_allow_list_means_deny(cell: BubblewrapCell, order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every place that takes a list, an empty one gives nothing (srt: an empty list meant unrestricted)."""
    empty = assemble(Table(plain={}, argued={}, default=EPERM, gap=EPERM))
    assert {run(empty, number, X86_64) for number in range(464)} == {ERRNO | EPERM}
    with pytest.raises(CellRefused) as caught:
        cell.run(order("pass", code=()))
    assert caught.value.code == "profile_invalid"
    program = "os.write(3, b'ran')"
    assert cell.run(order(program)).result == b"ran"
    monkeypatch.setattr(landlock, "rules", lambda _kind, _mounts: ())
    with pytest.raises(CellRefused) as unarmed:
        cell.run(order(program))  # no rule at all: not even what arms the cell can be opened, and nothing runs
    assert unarmed.value.code == "not_armed"


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: the limit of a root worker cannot be shown")
def test_process_limit_holds_when_worker_is_root(cell: BubblewrapCell, order: MakeOrder) -> None:
    """The kernel does not apply this limit to root; a cell that mapped to root could fork without end."""
    program = """
    children = 0
    read_end, write_end = os.pipe()
    try:
        while children < 60:
            if os.fork() == 0:
                os.close(write_end)
                os.read(read_end, 1)
                os._exit(0)
            children += 1
    except OSError:
        pass
    os.write(3, str(children).encode())
    """
    outcome = cell.run(order(program, limits={"processes": 20}))
    assert outcome.result is not None
    assert 0 < int(outcome.result) < 20


def test_dev_tmpfs_is_read_only_and_shm_sized(cell: BubblewrapCell, order: MakeOrder) -> None:
    """`--dev` alone leaves a writable tmpfs without a size: a hole in memory."""
    program = """
    import json
    flags = {path: os.statvfs(path) for path in ("/dev", "/dev/shm")}
    try:
        os.close(os.open("/dev/new", os.O_CREAT | os.O_WRONLY))
        made = True
    except OSError:
        made = False
    size = flags["/dev/shm"].f_blocks * flags["/dev/shm"].f_frsize
    os.write(3, json.dumps([bool(flags["/dev"].f_flag & os.ST_RDONLY), made, size]).encode())
    """
    outcome = cell.run(order(program, limits={"shm_bytes": 2**20}))
    assert json.loads(outcome.result or b"") == [True, False, 2**20]


def test_host_root_not_readable(cell: BubblewrapCell, order: MakeOrder) -> None:
    """Nothing of the host is there but what was planned (srt binds the host's root for reading)."""
    reads = """
    def denied(path):
        try:
            os.listdir(path) if os.path.isdir(path) else open(path).close()
        except OSError:
            return True
        return False
    paths = ("/etc", "/home", "/var", "/tmp", "/boot", "/etc/passwd", "/etc/hostname")
    os.write(3, str(sum(denied(path) for path in paths)).encode())
    """
    assert os.path.exists("/etc/passwd")  # the control: on the host it is there for everybody
    assert cell.run(order(reads)).result == b"7"


def test_no_import_whitelist_is_relied_on(cell: BubblewrapCell, order: MakeOrder) -> None:
    """A program may import what it likes and reach everything that Python has; the wall stands elsewhere (NDIF)."""
    program = """
    import builtins, ctypes, gc, importlib, socket, subprocess
    libc = ctypes.CDLL(None, use_errno=True)
    loose = getattr(__builtins__, "__import__", None) or builtins.__import__
    assert loose is importlib.__import__ or callable(loose)
    libc.socket(2, 1, 0)
    by_libc = ctypes.get_errno()
    try:
        socket.socket()
        by_python = 0
    except OSError as error:
        by_python = error.errno
    try:
        subprocess.run(["/usr/bin/true"])
        ran = True
    except OSError:
        ran = False
    os.write(3, f"{by_libc} {by_python} {ran}".encode())
    """
    outcome = cell.run(order(program))
    assert outcome.result == b"1 1 False", outcome.log_tail  # EPERM by whichever way it is asked for


def test_scanner_output_never_gates(tmp_path: Path) -> None:
    """A file is accepted by its name, its kind and a strict reader; what it seems to hold changes nothing.

    modelscan flagged 28 of 95 hostile files. Here a harmless pickle and one that would run a command get the same
    answer, and there is no scanner to ask.
    """
    hostile = b"\x80\x04cposix\nsystem\n(X\x02\x00\x00\x00idtR.".ljust(40, b"\0")
    harmless = (b"\x80\x04" + b"N0" * 8 + b"N.").ljust(40, b"\0")
    answers: list[set[tuple[str | None, str, str | None]]] = []
    for content in (harmless, hostile):
        folder = tmp_path / f"model-{len(answers)}"
        folder.mkdir()
        for name in ("pytorch_model.bin", "model.safetensors", "config.json"):
            (folder / name).write_bytes(content)
        files = {path.name: path for path in folder.iterdir()}
        reading = read_model(files, {"architectures": {}, "ignorable": [], "forbidden": []})
        assert reading.refused
        answers.append({(one.path, one.decision, one.reason) for one in reading.decisions})
    assert answers[0] == answers[1]
    assert ("pytorch_model.bin", "refused", "not_on_list") in answers[0]
    sources = [path.read_text() for top in ("sandbox", "service", "checks") for path in (ROOT / top).rglob("*.py")]
    assert not [one for one in sources if re.search(r"^\s*(import|from) (pickletools|modelscan|picklescan)", one, re.M)]


def test_runtime_directories_never_mounted(order: MakeOrder, cell: BubblewrapCell, tmp_path: Path) -> None:
    """Connecting to a socket works through a read-only mount, so where sockets are is never mounted."""
    for path in (
        "/run",
        "/var/run",
        "/tmp",
        "/var/tmp",
        "/dev",
        "/proc",
        "/sys",
        "/",
        "/home",
        "/root",
        "/var",
        "/etc",
    ):
        if not os.path.isdir(path):
            continue
        with pytest.raises(CellRefused) as caught:
            plan.check_source(Path(path))
        assert caught.value.code == "mount_forbidden_source", path
    tree = tmp_path / "deep" / "er"
    tree.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tree / "s"))
        ordered: Any = replace(order("pass"), code=(CodeMount(name="x", source=tmp_path / "deep"),))
        with pytest.raises(CellRefused) as caught:
            cell.run(ordered)
        assert (caught.value.code, caught.value.item) == ("mount_forbidden_source", str(tree / "s"))


def test_every_defect_of_a_peer_has_its_test() -> None:
    texts = [path.read_text() for path in (ROOT / "tests" / "sandbox").rglob("test_*.py")]
    found = {name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)\(", text, re.M)}
    assert set(NAMES) <= found, set(NAMES) - found
    assert len(NAMES) == 18
