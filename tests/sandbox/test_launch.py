"""What refuses a launch, each with its own code, and nothing of the lower layers leaks."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import (
    BubblewrapCell,
    BubblewrapSettings,
    CellFailed,
    CellRefused,
    CodeMount,
    SandboxError,
    Slot,
    inside,
)
from sandbox.bubblewrap import gate, plan, profile
from sandbox.bubblewrap.profile import Mount
from sandbox.errors import FAILED, REFUSED
from sandbox.inputs import prepared
from sandbox.limits import DEFAULTS, RANGES, resolve

from .conftest import MakeOrder

BWRAP = Path("/usr/bin/bwrap")


def refused(order: Any, **changes: Any) -> CellRefused:
    cell = BubblewrapCell(BubblewrapSettings(**{"site_packages": (), **changes}))
    try:
        with pytest.raises(CellRefused) as caught:
            cell.run(order)
    finally:
        cell.close()
    assert REFUSED[caught.value.code] in str(caught.value)
    return caught.value


def test_missing_bwrap_refuses(order: MakeOrder, tmp_path: Path) -> None:
    assert refused(order("pass"), bwrap=tmp_path / "bwrap").code == "bwrap_missing"
    assert refused(order("pass"), bwrap=Path("bwrap")).code == "bwrap_missing"


def test_setuid_bwrap_refused(order: MakeOrder, tmp_path: Path) -> None:
    copy = tmp_path / "bwrap"
    shutil.copy(BWRAP, copy)
    copy.chmod(0o755 | stat.S_ISUID)
    assert refused(order("pass"), bwrap=copy).code == "bwrap_setuid"


def test_bwrap_without_an_option_refuses(order: MakeOrder, tmp_path: Path) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\n/usr/bin/bwrap \"$@\" | grep -v -- '--disable-userns'\n")
    old.chmod(0o755)
    refusal = refused(order("pass"), bwrap=old)
    assert (refusal.code, refusal.item) == ("bwrap_option_missing", "--disable-userns")


def test_bwrap_that_fails_refuses(order: MakeOrder) -> None:
    root = Path("/var/tmp")  # a root worker covers /mnt before it executes anything
    fake = root / f"assay-fake-bwrap-{os.getpid()}"
    fake.write_text(
        '#!/bin/sh\ncase "$1" in --help|--version) exec /usr/bin/bwrap "$@";; esac\necho broken >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    try:
        found = refused(order("pass"), bwrap=fake)
        assert (found.code, found.item) == ("not_armed", "launch: err| broken")
    finally:
        fake.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
@pytest.mark.parametrize("uid", [None, 0])
def test_root_without_cell_uid_refuses(order: MakeOrder, uid: int | None) -> None:
    assert refused(order("pass"), cell_uid=uid).code == "host_uid_root"


def test_unreadable_code_is_named(order: MakeOrder) -> None:
    ordered = order("pass")
    ordered.code[0].source.chmod(0o600 if os.geteuid() == 0 else 0)
    refusal = refused(ordered)
    assert (refusal.code, refusal.item) == ("prefix_unreadable", str(ordered.code[0].source))


def test_absent_interpreter_refuses(order: MakeOrder) -> None:
    assert refused(order("pass"), interpreter=Path("/opt/absent/python")).code == "prefix_unreadable"


@pytest.mark.parametrize("path", ["/", "/root", "/home", "/tmp", "/run", "/proc", "/dev", "/dev/null"])
def test_roots_homes_and_runtime_directories_are_never_mounted(order: MakeOrder, path: str) -> None:
    ordered = replace(order("pass"), code=(CodeMount(name="x", source=Path(path)),))
    assert refused(ordered).code == "mount_forbidden_source"


def test_socket_in_code_refuses(order: MakeOrder, tmp_path: Path) -> None:
    import socket

    folder = tmp_path / "code"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "s"))
        ordered = replace(order("pass"), code=(CodeMount(name="x", source=folder),))
        assert refused(ordered).code == "mount_forbidden_source"


@pytest.mark.parametrize(
    "limits",
    [
        {"wall_s": 0}, {"wall_s": 86_401}, {"memory_bytes": 1}, {"processes": 3}, {"unknown": 1}, {"wall_s": "5"},
        {"wall_s": True}, {"file_bytes": 5}, {"result_bytes": 2**20 + 1}, {"scratch_bytes": -1},
    ],
)  # fmt: skip
def test_limit_out_of_range_is_refused_by_name(order: MakeOrder, limits: Mapping[str, int]) -> None:
    refusal = refused(order("pass", limits=limits))
    assert refusal.code == "limit_invalid"
    assert next(iter(limits)) in refusal.item


def test_every_default_is_in_its_range(order: MakeOrder) -> None:
    for name, value in DEFAULTS["check"].items():
        low, high = RANGES[name]
        assert low <= value <= high
    caps = resolve(order("pass", limits={}, slots=(Slot(name="s", max_bytes=2**31, released=True),)), cpus=3)
    assert (caps["cpu_s"], caps["file_bytes"]) == (60, 2**31)


@pytest.mark.parametrize(
    "changes",
    [
        {"module": "os; evil"}, {"module": ""}, {"code": ()}, {"nonce": "0" * 63}, {"request": b"x" * (2**20 + 1)},
        {"steps": ("a",) * 65}, {"kind": "anything"}, {"arguments": ("a\0b",)}, {"gpus": (0,)}, {"kind": "check_gpu"},
        {"kind": "check_gpu", "gpus": (0, 0)}, {"kind": "check_gpu", "gpus": (-1,)},
        {"slots": (Slot(name="../x", max_bytes=1, released=False),)},
        {"slots": (Slot(name="x", max_bytes=0, released=False),)},
        {"slots": (Slot(name="x", max_bytes=1, released=False),) * 2}, {"code": (CodeMount(name=".x", source=BWRAP),)},
    ],
)  # fmt: skip
def test_malformed_orders_are_refused(order: MakeOrder, changes: Mapping[str, Any]) -> None:
    assert refused(order("pass", **changes)).code == "profile_invalid"


def test_no_error_of_a_lower_layer_leaks(order: MakeOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pipe(_flags: int) -> tuple[int, int]:
        raise OSError(24, "too many open files")

    missing = BubblewrapCell(BubblewrapSettings(site_packages=(), work_dir=tmp_path / "absent"))
    with pytest.raises(CellFailed) as caught:
        missing.run(order("pass"))
    assert caught.value.code == "host_lost"
    cell = BubblewrapCell(BubblewrapSettings(site_packages=()))
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", lambda *_given: no_pipe(0))
        with pytest.raises(CellFailed) as caught:
            cell.run(order("pass"))
        assert caught.value.code == "spawn_failed"
    monkeypatch.setattr(os, "pipe2", no_pipe)
    with pytest.raises(SandboxError):
        cell.run(order("pass"))


def test_gpu_cell_without_a_group_is_refused(order: MakeOrder) -> None:
    assert refused(order("pass", kind="check_gpu", gpus=(0,))).code == "cgroup_required_for_gpu"


@pytest.mark.parametrize(
    ("targets", "code"),
    [
        ([("rw", "/out/a"), ("ro", "/out/a/b")], "mount_beneath_untrusted"),
        ([("tmpfs", "/scratch"), ("ro", "/scratch/x")], "mount_beneath_untrusted"),
        ([("ro", "/in/a"), ("ro", "/in/a/b")], "mount_beneath_untrusted"),
        ([("ro", "/code/a"), ("rw", "/code")], "mount_shadowed"),
        ([("ro", "/code/a"), ("ro", "/code/a")], "mount_shadowed"),
        ([("ro", "/code/../etc")], "profile_invalid"),
        ([("ro", "relative")], "profile_invalid"),
    ],
)
def test_bad_mount_tables_are_refused(targets: list[tuple[Any, str]], code: str) -> None:
    with pytest.raises(CellRefused) as caught:
        plan.check_table([Mount(sort=sort, target=target) for sort, target in targets])
    assert caught.value.code == code


_PARTS = st.lists(st.sampled_from(["in", "out", "a", "scratch", "..", "code"]), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["ro", "rw", "tmpfs"]), _PARTS), max_size=6))
@settings(max_examples=200, deadline=None)
def test_an_accepted_table_never_nests_under_writable_ground(entries: list[tuple[Any, list[str]]]) -> None:
    mounts = [Mount(sort=sort, target="/" + "/".join(parts)) for sort, parts in entries]
    try:
        plan.check_table(mounts)
    except CellRefused:
        return
    for index, later in enumerate(mounts):
        for earlier in mounts[:index]:
            assert later.target != earlier.target
            assert not earlier.target.startswith(later.target.rstrip("/") + "/")
            if earlier.sort in ("rw", "tmpfs"):
                assert not later.target.startswith(earlier.target.rstrip("/") + "/")


@pytest.mark.parametrize(
    ("flags", "layer"),
    [
        (("--share-net",), "namespaces"),
        (("--cap-add", "CAP_NET_ADMIN"), "capabilities"),
        (("--tmpfs", "/opt"), "mounts"),
    ],
)
def test_gate_refuses_a_cell_that_lacks_a_layer(
    order: MakeOrder, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], layer: str
) -> None:
    monkeypatch.setattr(profile, "FLAGS", (*profile.FLAGS, *flags))
    refusal = refused(order("os.write(3, b'ran')"))
    assert refusal.code == "not_armed"
    assert refusal.item.startswith(layer)


@pytest.mark.parametrize("without", ["/dev", "/"])
def test_gate_refuses_a_writable_root_or_dev(order: MakeOrder, monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    whole = profile.tail

    def lacking(*given: Any) -> tuple[Mount, ...]:
        return tuple(one for one in whole(*given) if (one.sort, one.target) != ("remount", without))

    monkeypatch.setattr(profile, "tail", lacking)
    refusal = refused(order("pass"))
    assert refusal.item == f"mounts: {without} is writable"


def test_gate_compares_rlimits_and_descriptors(order: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gate, "rlimits", lambda _caps: {"NPROC": (1, 1)})
        assert refused(order("pass")).item.startswith("rlimits: NPROC")
    monkeypatch.setattr(inside, "GO", 8)
    assert refused(order("pass")).item.startswith("descriptors")


def test_every_code_says_what_to_do() -> None:
    for code in REFUSED:
        assert len(REFUSED[code].split()) > 4
    assert all(FAILED.values())


def test_so_many_inputs_that_a_mount_for_each_would_cost_the_start_are_one_folder(
    cell: BubblewrapCell, order: MakeOrder, tmp_path: Path
) -> None:
    """A model of many small files could else keep any worker from starting its cell, one after the other."""
    names = [f"model.{number}" for number in range(1500)]
    program = """
    names = os.listdir('/in')
    read = b''.join(open('/in/' + name, 'rb').read() for name in names if name != 'order.json')
    for how in (lambda: open('/in/new', 'w'), lambda: open('/in/model.0', 'r+'), lambda: os.unlink('/in/model.0')):
        try: how()
        except OSError: read += b'd'
    os.write(3, f'{len(names)} {len(read)}'.encode())
    """
    asked = order(program, inputs=dict.fromkeys(names, b"x"), kind="ingest")
    for one in asked.inputs:
        one.source.chmod(0o444)  # linked, as a worker's are, and not copied
    outcome = cell.run(asked)
    assert outcome.result == b"1501 1503", outcome.log_tail
    assert len(plan_of(asked, tmp_path)) < 40


def plan_of(order: Any, folder: Path) -> tuple[Mount, ...]:
    settings = BubblewrapSettings(site_packages=())
    with prepared(order, folder, None) as ready:
        return plan.make(order, ready, settings, resolve(order, settings.cpus), Path(inside.__file__)).mounts
