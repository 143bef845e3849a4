"""The profile of each kind, as it was agreed: its digest, its argument list, and what a GPU cell asks of the host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox import BubblewrapCell, CellRefused, filters, landlock
from sandbox.bubblewrap import gpus, profile
from sandbox.bubblewrap.profile import Mount
from sandbox.cell import Kind

from .conftest import MakeOrder

GOLDEN: dict[Kind, str] = {
    "check": "72877504d81fc86b3873332b1a0b1ade09cc311703ca53c43474afa1b76484b7",
    "check_gpu": "e75739a6f40ff05c33bfff26cccae58d611b07376d5b9fc48bbd5039c1087d8a",
    "ingest": "c827c4146a57309a252900f497bb5764d9f16f183d48beabbaefdc3d2dba816d",
}
"""Changes only when what a cell is changes; then reports of before and after differ in `policy_sha256`."""


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_profile_digest_is_golden(kind: Kind) -> None:
    assert profile.digest(kind) == GOLDEN[kind]


def test_profile_covers_filters_rules_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {profile.digest("check")}
    with monkeypatch.context() as patch:
        patch.setattr(filters, "program", lambda _layer, _kind: b"")
        seen.add(profile.digest("check"))
    with monkeypatch.context() as patch:
        patch.setattr(landlock, "RIGHTS", {**landlock.RIGHTS, "proc": 0})
        seen.add(profile.digest("check"))
    with monkeypatch.context() as patch:
        patch.setattr(profile, "ENVIRONMENT", {"check": {}})
        seen.add(profile.digest("check"))
    assert len(seen) == 4


def test_no_masked_file_of_proc_opens(cell: BubblewrapCell, order: MakeOrder) -> None:
    """Interrupts and pressure tell what other cells do, the command line and the swaps how the host is set up."""
    tell_of_host = {"interrupts", "cmdline", "swaps", "pressure/cpu", "pressure/io", "pressure/memory"}
    assert tell_of_host < set(profile.MASKS)
    here = {name for name in profile.MASKS if Path("/proc", name).exists()}
    program = f"""
        import json
        got = {{}}
        for name in {sorted(here)}:
            for flags in (os.O_RDONLY, os.O_WRONLY):
                try: os.close(os.open("/proc/" + name, flags)); got[name] = "open"
                except OSError: got.setdefault(name, "denied")
        os.write(3, json.dumps(got).encode())
    """
    outcome = cell.run(order(program))
    assert json.loads(outcome.result or b"{}") == dict.fromkeys(here, "denied"), outcome.log_tail


def test_unshare_user_is_explicit() -> None:
    made = profile.arguments(profile.tail("check", (), "1", "1"), {}, "9", "8", ["python"])
    assert "--unshare-user" in made
    assert made.index("--unshare-user") < made.index("--unshare-all") < made.index("--disable-userns")
    assert "--unshare-user-try" not in made
    assert made[-2:] == ["--", "python"]


def test_argument_list_is_golden() -> None:
    made = profile.arguments(profile.tail("check", ("keys",), "7", "8"), {"A": "b"}, "9", "11", ["python"])
    assert made[made.index("--json-status-fd") :] == [
        "--json-status-fd", "9", "--setenv", "A", "b", "--perms", "0700", "--size", "7", "--tmpfs", "/scratch",
        "--proc", "/proc", "--ro-bind", "/dev/null", "/proc/keys", "--ro-bind", "/proc/sys", "/proc/sys",
        "--dev", "/dev", "--size", "8", "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--remount-ro", "/",
        "--chdir", "/", "--seccomp", "11", "--", "python",
    ]  # fmt: skip


def test_ingest_argument_list_is_golden() -> None:
    """No process file system, no /sys, no memory to write to, two devices."""
    made = profile.arguments(profile.tail("ingest", ("keys",), "7", "8"), {}, "9", "11", ["python"])
    assert made[made.index("--json-status-fd") :] == [
        "--json-status-fd", "9", "--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom",
        "--remount-ro", "/", "--chdir", "/", "--seccomp", "11", "--", "python",
    ]  # fmt: skip


def test_gpu_argument_list_is_golden() -> None:
    """The nodes of the leased index alone, bound as devices, and after `--dev`, which would cover them."""
    made = profile.arguments(profile.tail("check_gpu", (), "7", "8", ("3",)), {}, "9", "11", ["python"])
    nodes = [f"/dev/{name}" for name in ("nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")]
    assert made[made.index("--json-status-fd") :] == [
        "--json-status-fd", "9", "--perms", "0700", "--size", "7", "--tmpfs", "/scratch",
        "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--ro-bind", "/sys", "/sys", "--dev", "/dev",
        *(word for node in nodes for word in ("--dev-bind", node, node)), "--size", "8", "--tmpfs", "/dev/shm",
        "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--seccomp", "11", "--", "python",
    ]  # fmt: skip


def test_space_of_zero_bytes_is_absent() -> None:
    targets = {one.target for one in profile.tail("check", (), "0", "0")}
    assert not targets & {"/scratch", "/dev/shm"}


def test_gpu_nodes_that_are_no_devices_are_refused(tmp_path: Path) -> None:
    fake = tmp_path / "nvidia0"
    fake.touch()
    for source in (str(fake), str(tmp_path / "absent")):
        with pytest.raises(CellRefused) as caught:
            gpus.check_nodes([Mount(sort="device", target="/dev/nvidia0", source=source)])
        assert (caught.value.code, caught.value.item) == ("gpu_nodes_missing", source)
    gpus.check_nodes([Mount(sort="device", target="/dev/nvidia0", source="/dev/zero")])  # a stand-in is a device


def test_setuid_modprobe_in_view_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "nvidia-modprobe"
    tool.touch()
    mounts = [Mount(sort="ro", target="/opt/x", source=str(tmp_path))]
    tool.chmod(0o755)
    gpus.check_nodes(mounts)
    tool.chmod(0o4755)
    with pytest.raises(CellRefused) as caught:
        gpus.check_nodes(mounts)
    assert (caught.value.code, caught.value.item) == ("modprobe_present", "/opt/x/bin/nvidia-modprobe")
