"""What the self-check plants on the host: a canary, listeners, files; and how probes are run on either side."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.bubblewrap import BubblewrapCell, gate, profile
from sandbox.cell import CodeMount, Input, Order, Outcome
from sandbox.errors import CellFailed

PROBES = Path(__file__).with_name("probes.py")
MIB = 2**20
PROCESSES = 16
SCRATCH_MIB = 4
MEMORY_MIB = 256
HELD_MIB = 320
CONTROL_S = 20.0

Answers = dict[str, tuple[bool, str]]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Planted things and parameters of one self-check."""

    root: Path
    canary: bytes
    input_sha256: str
    shared: Mapping[str, Any]
    """Parameters that are equal inside and outside."""
    listeners: tuple[socket.socket, ...]
    callers: list[str] = field(default_factory=list)
    """One entry for each connection that a listener saw."""


@contextmanager
def planted(cell: BubblewrapCell) -> Iterator[Ground]:
    """Plant everything and take it away again.

    Raises:
        CellFailed: host_lost, when the host refuses a file or a socket.
    """
    root = Path(tempfile.mkdtemp(prefix="assay-selfcheck-", dir=cell.settings.work_dir))
    listeners: list[socket.socket] = []
    try:
        try:
            ground = _plant(cell, root, listeners)
        except OSError as error:
            raise CellFailed("host_lost", str(error)) from None
        for listener in listeners:
            threading.Thread(target=_answer, args=(listener, ground.callers), daemon=True).start()
        yield ground
    finally:
        for listener in listeners:
            # shutdown, unlike close, wakes the thread that waits in accept
            try:
                listener.shutdown(socket.SHUT_RDWR)
            finally:
                listener.close()
        shutil.rmtree(root, ignore_errors=True)


def _plant(cell: BubblewrapCell, root: Path, listeners: list[socket.socket]) -> Ground:
    canary = secrets.token_bytes(32)
    (root / "canary").write_bytes(canary)
    (root / "input").write_bytes(b"unchanged\n")
    for name in ("copy", "copy-dir", "scratch"):
        (root / name).mkdir() if name != "copy" else (root / name).write_bytes(b"a copy\n")
    for path in (root / "canary", root / "input"):
        path.chmod(0o444)
    root.chmod(0o755)  # a cell that could reach it could read it: only the wall stands between
    abstract = f"assay-{secrets.token_hex(16)}"
    for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, "\0" + abstract)):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listeners.append(listener)
        listener.bind(address)
        listener.listen()
    table = profile.ENVIRONMENT["check"]
    return Ground(
        root=root,
        canary=canary,
        input_sha256=hashlib.sha256((root / "input").read_bytes()).hexdigest(),
        shared={
            "port": listeners[0].getsockname()[1],
            "abstract": abstract,
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in gate.NAMESPACES},
            "canary": str(root / "canary"),
            "environment": {name: value.replace("{cpus}", str(cell.settings.cpus)) for name, value in table.items()},
            "pid": os.getpid(),
            "mebibytes": 2 * SCRATCH_MIB,
            "processes": PROCESSES,
            "bytes": HELD_MIB * MIB,
        },
        listeners=tuple(listeners),
    )


def _answer(listener: socket.socket, callers: list[str]) -> None:
    while True:
        try:
            connection, _address = listener.accept()
        except OSError:  # closed: the check is over
            return
        callers.append(listener.family.name)
        connection.close()


def in_cell(
    cell: BubblewrapCell, ground: Ground, names: list[str], limits: Mapping[str, int], marker: str = ""
) -> Outcome:
    """Run probes inside a real cell; `marker` shows in their command lines."""
    source = ground.root / "input"
    parameters = {
        **ground.shared,
        "out": 3,
        "scratch": "/scratch",
        "stay_s": 5,
        "readonly": ["/in/input", "/code/probes.py", "/shim/inside.py", "/in", "/code", "/", "/usr/lib", "/dev"],
    }
    return cell.run(
        Order(
            kind="check",
            module="probes",
            arguments=(",".join(names), json.dumps(parameters), marker),
            code=(CodeMount(name="probes.py", source=PROBES),),
            inputs=(Input(name="input", source=source, sha256=ground.input_sha256, size=source.stat().st_size),),
            request=b"{}",
            nonce=secrets.token_hex(32),
            limits={"wall_s": 20, **limits},
        )
    )


def outside(
    cell: BubblewrapCell, ground: Ground, names: list[str], marker: str = "", limit_s: float = CONTROL_S
) -> Answers:
    """Run probes without a wall, with a planted variable and a stray descriptor; nothing when they did not end.

    Raises:
        subprocess.TimeoutExpired: they were still running after `limit_s`; they are gone now.
    """
    answer = ground.root / f"answer-{names[0]}"
    parameters = {
        **ground.shared,
        "out": str(answer),
        "scratch": str(ground.root / "scratch"),
        "stay_s": 0,
        "readonly": [str(ground.root / "copy"), str(ground.root / "copy-dir")],
    }
    stray = os.open(ground.root / "canary", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = subprocess.run(
            [str(cell.settings.interpreter), "-I", "-S", "-B", str(PROBES), ",".join(names), json.dumps(parameters),
             marker],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ground.root,
            env={"ASSAY_PLANTED": "1"}, pass_fds=(stray,), timeout=limit_s, check=False,
        )  # fmt: skip
        return parsed(answer.read_bytes()) if done.returncode == 0 else {}
    except OSError:
        return {}
    finally:
        os.close(stray)


def parsed(result: bytes | None) -> Answers:
    """Return the probes' answers, nothing when there is no result."""
    try:
        answers = json.loads(result or b"{}")
    except ValueError:
        return {}
    return {name: (bool(pair[0]), str(pair[1])) for name, pair in answers.items()}


def leaked(canary: bytes, outcome: Outcome) -> bool:
    """Tell whether the canary is in what came out of a cell: raw, hex or base64."""
    out = (outcome.result or b"") + outcome.log_tail.encode()
    forms = (canary, canary.hex().encode(), base64.b64encode(canary), base64.urlsafe_b64encode(canary))
    return any(form in out for form in forms)


def marked(marker: str) -> list[int]:
    """Return the pids of this host whose command line holds the marker."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(name))
    return found
