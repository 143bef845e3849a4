"""A host on which no cell can be isolated: the real worker process ends with 2 and says what to do."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import REFUSED
from sandbox.leftovers import WORKPLACE_PREFIX
from service.main import config, dev
from service.store.migrations import migrate
from tests.sandbox.test_cgroups import here

__all__ = ["here"]

ROOT = Path(__file__).parents[3]
BWRAP = Path("/usr/bin/bwrap")
LIMIT_S = 60

WITHOUT_SECCOMP = '''
"""Becomes a program for which the kernel has neither seccomp nor Landlock."""
import ctypes, os, struct, sys
EINVAL, ENOSYS, ALLOW, ERRNO = 22, 38, 0x7FFF0000, 0x00050000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
lines = [
    (LOAD, 0, 0, 4), (EQUAL, 0, 11, 0xC000003E),            # x86_64, or let it pass
    (LOAD, 0, 0, 0),
    (EQUAL, 7, 0, 317), (EQUAL, 6, 0, 444), (EQUAL, 5, 0, 445), (EQUAL, 4, 0, 446),
    (EQUAL, 0, 5, 157), (LOAD, 0, 0, 16), (EQUAL, 2, 0, 21), (EQUAL, 1, 2, 22),   # prctl, of seccomp only
    (RETURN, 0, 0, ERRNO | ENOSYS), (RETURN, 0, 0, ERRNO | EINVAL), (RETURN, 0, 0, ALLOW),
]
program = b"".join(struct.pack("<HBBI", *line) for line in lines)
held = ctypes.create_string_buffer(program)
table = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(lines), ctypes.addressof(held)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, table) == 0, os.strerror(ctypes.get_errno())
assert libc.prctl(21, 0, 0, 0, 0) == -1
os.execv(sys.argv[1], sys.argv[1:])
'''

NO_NAMESPACES = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
"""The knob is the new namespace's own; the host's stays."""


OLD = {
    "ServerVersion": "20.10.0", "MemoryLimit": True, "SwapLimit": True, "PidsLimit": True, "CpuCfsQuota": True,
    "SecurityOptions": ["name=seccomp"], "Runtimes": {"runsc": {"path": "/bin/true"}},
}  # fmt: skip


def configured(folder: Path, **changes: object) -> Path:
    """Write a worker's configuration and bring its database to the revision."""
    fields: dict[str, object] = {
        "profile": "production",
        "database_url": f"sqlite:///{folder / 'assay.db'}",
        "address": "127.0.0.1:1",
        "tls": {name: folder / name for name in ("ca", "certificate", "key")},
        "signer_uid": 0,
        "cell_uid": dev.CELL_UID if os.geteuid() == 0 else None,
    }
    for name in ("blobs", "uploads", "work", "isolation_file", "page_key", "signer_socket", "signer_home"):
        fields[name] = folder / name
    fields["signing_key"] = folder / "signing_key"
    fields |= {"log_key": folder / "log_key", "log_origin": "log.assay.example"}
    server = config.Server.model_validate(fields | changes)
    migrate(server.database_url)
    config.dump(server, folder / "server.toml")
    return folder / "server.toml"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "service.main", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}


def refused(code: str, *started: str) -> str:
    """Run to the end; return what it says after the code."""
    done = subprocess.run(
        started, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=LIMIT_S, check=False
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"assay-server: no cell can be isolated here: {code}"), done.stderr
    assert REFUSED[code] in last
    assert "Traceback" not in done.stderr
    return last


def test_worker_without_bubblewrap_refuses_to_start(tmp_path: Path) -> None:
    weights = tmp_path / "cells" / f"{WORKPLACE_PREFIX}dead" / "assay-cell-x" / "weights"
    weights.parent.mkdir(parents=True)
    weights.touch()
    file = configured(tmp_path, bwrap=tmp_path / "bwrap")
    assert str(tmp_path / "bwrap") in refused("bwrap_missing", *command("worker", "--config", file))
    assert list((tmp_path / "cells").iterdir()) == []  # neither its own nor what a killed one left
    assert "bwrap_missing" in (tmp_path / "isolation_file").read_text()


def test_worker_with_setuid_bubblewrap_refuses_to_start(tmp_path: Path) -> None:
    copy = tmp_path / "bwrap"
    shutil.copy(BWRAP, copy)
    copy.chmod(0o755 | stat.S_ISUID)
    file = configured(tmp_path, bwrap=copy)
    assert str(copy) in refused("bwrap_setuid", *command("worker", "--config", file))


def test_worker_without_user_namespaces_refuses_to_start(tmp_path: Path) -> None:
    around = ["unshare", "--user", "--map-root-user", "sh", "-c", NO_NAMESPACES, "sh"]
    if subprocess.run([*around, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace can be made here in which to switch them off")
    host = Path("/proc/sys/user/max_user_namespaces").read_text()
    file = configured(tmp_path, cell_uid=dev.CELL_UID)
    refused("userns_disabled", *around, *command("worker", "--config", file))
    assert Path("/proc/sys/user/max_user_namespaces").read_text() == host


def test_worker_without_seccomp_refuses_to_start(tmp_path: Path) -> None:
    launcher = tmp_path / "without_seccomp.py"
    launcher.write_text(WITHOUT_SECCOMP)
    file = configured(tmp_path)
    refused("seccomp_unsupported", sys.executable, str(launcher), *command("worker", "--config", file))


def test_worker_with_an_unusable_cgroup_parent_refuses_to_start(tmp_path: Path) -> None:
    name = f"assay-absent-{secrets.token_hex(8)}"
    file = configured(tmp_path, cgroup_parent=name)
    assert "memory: " in refused("cgroup_unusable", *command("worker", "--config", file))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "engine_missing"),
        ({"image": "cell:latest"}, "image_not_by_digest"),
        ({"runtime": "runc"}, "runtime_not_sentry"),
        ({"old": True}, "engine_below_minimum"),
    ],
    ids=str,
)
def test_worker_whose_containers_cannot_be_had_refuses_to_start(
    tmp_path: Path, changes: dict[str, str], code: str
) -> None:
    """The engine is a stand-in; nothing falls back to bubblewrap."""
    program = tmp_path / "engine"
    if code != "engine_missing":
        told = json.dumps(OLD)
        program.write_text(f"#!/bin/sh\necho '{told}'\n")
        program.chmod(0o755)
    chosen = {"backend": "container", "program": str(program), "image": "cell@sha256:" + "ab" * 32}
    chosen |= {name: value for name, value in changes.items() if name != "old"}
    refused(code, *command("worker", "--config", configured(tmp_path, sandbox=chosen)))


@pytest.mark.slow
def test_a_tree_whose_worker_refuses_ends_with_2_and_leaves_no_process(tmp_path: Path) -> None:
    """About 9 s on a busy host; the small one is `test_a_role_with_a_final_status_is_not_started_again`."""
    data = tmp_path / "data"
    refused("bwrap_missing", *command("dev", "--data", data, "--no-redis", "--bwrap", tmp_path / "bwrap"))
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(data).encode() in _content(path)]
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("limited_by", ["rlimits", "groups"])
def test_worker_on_this_host_starts(tmp_path: Path, limited_by: str, request: pytest.FixtureRequest) -> None:
    """The twin of all refusals above: the same process and configuration, nothing taken away."""
    parent = request.getfixturevalue("here").name if limited_by == "groups" else None
    file = configured(tmp_path, cgroup_parent=parent)
    ready, theirs = os.pipe()
    worker = subprocess.Popen(
        command("worker", "--config", file, "--ready-fd", theirs),
        pass_fds=(theirs,),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        assert select.select([ready], [], [], LIMIT_S)[0]
        assert os.read(ready, 16) == b"ready\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(LIMIT_S) == 0
    finally:
        os.close(ready)
        worker.kill()
        worker.wait()
    assert list((tmp_path / "cells").iterdir()) == []


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
