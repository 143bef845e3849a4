"""What the suite plants on the host: a canary in a file, a variable, memory and sockets; listeners; files."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.cell import Kind, Outcome
from sandbox.errors import CellFailed

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CONTENT = b"unchanged\n" * 512
"""Of each planted file: more than a page, so that it can be mapped."""
_HOME = (".ssh/id_ed25519", ".netrc", ".cache/huggingface/token", ".aws/credentials", ".config/gcloud/key.json")
_HOOK = "import sys; sys.modules['assay_planted'] = sys\n"
HOOKS: Mapping[str, str] = {"sitecustomize.py": _HOOK, "usercustomize.py": _HOOK, "planted.pth": _HOOK}
"""Files that an interpreter runs by itself where it finds them."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the suite must know of the host beside the cell that it attacks."""

    interpreter: Path
    """Runs the controls."""
    work_dir: Path | None
    environment: Callable[[Kind], Mapping[str, str]]
    """What a cell of this kind must see, all of it."""
    landlock_abi: int


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Everything planted for one run of the suite."""

    host: Host
    root: Path
    canary: bytes
    """In a file, in a variable of the victim, in this process's memory, and said by the listeners."""
    shared: Mapping[str, Any]
    """Parameters that are equal inside and outside."""
    victim: int
    """Pid of a process that a cell tries to stop."""
    decoy: int
    """Pid of the one that the control stops."""
    targets: Mapping[str, Any]
    """Listeners that nobody may reach: those that a cell is told of."""
    callers: list[str] = field(default_factory=list)
    """One entry for each caller that one of these saw, by the listener's name."""
    decoys: Mapping[str, Any]
    """Listeners like them, for the controls."""

    def stopped(self) -> bool:
        """Tell whether the victim was stopped or killed."""
        try:
            line = Path(f"/proc/{self.victim}/stat").read_text()
        except OSError:
            return True
        return line.rpartition(")")[2].split()[0] not in ("S", "R", "D")


@contextmanager
def planted(host: Host) -> Iterator[Ground]:
    """Plant everything and take it away again.

    Raises:
        CellFailed: host_lost, when the host refuses a file or a socket.
    """
    with ExitStack() as stack:
        try:
            root = Path(tempfile.mkdtemp(prefix="assay-selfcheck-", dir=host.work_dir))
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            ground = _plant(host, root, stack)
        except OSError as error:
            raise CellFailed("host_lost", str(error)) from None
        yield ground


def _plant(host: Host, root: Path, stack: ExitStack) -> Ground:
    canary = secrets.token_bytes(32)
    _files(root, canary)
    callers: list[str] = []
    # A socket's path has at most 107 bytes, and a work directory may be deep: these lie where paths are short.
    sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-")))
    sockets.chmod(0o755)
    targets = _listeners(sockets / "socket", canary, callers, stack)
    decoys = _listeners(sockets / "socket-decoy", canary, [], stack)
    victim, decoy = (_victim(canary, stack) for _ in range(2))
    return Ground(
        host=host,
        root=root,
        canary=canary,
        shared={
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES},
            "canary": str(root / "canary"),
            "home": str(root / "home"),
            "pid": os.getpid(),
        },
        victim=victim,
        decoy=decoy,
        targets=targets,
        callers=callers,
        decoys=decoys,
    )


def _files(root: Path, canary: bytes) -> None:
    for name in ("copy-dir", "scratch", "out", "shm", "hooks"):
        (root / name).mkdir()
    for name in _HOME:
        path = root / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(canary)
    for name in ("copy", "input", "mapped"):
        (root / name).write_bytes(CONTENT)
    for name in ("slot", "slot2", "holes"):
        (root / "out" / name).touch()
    for name, text in HOOKS.items():
        (root / "hooks" / name).write_text(text)
    (root / "canary").write_bytes(canary)
    for path in (root / "canary", root / "input"):
        path.chmod(0o444)
    root.chmod(0o755)  # a cell that could reach it could read it: only the wall stands between


def _listeners(path: Path, canary: bytes, callers: list[str], stack: ExitStack) -> dict[str, Any]:
    """Open one listener of each kind; return how they are reached."""
    unix, inet, abstract = socket.AF_UNIX, socket.AF_INET, f"assay-{secrets.token_hex(16)}"
    wanted: dict[str, tuple[int, int, Any]] = {
        "tcp": (inet, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
        "udp": (inet, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        "dns": (inet, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        "path": (unix, socket.SOCK_STREAM, str(path)),
        "abstract": (unix, socket.SOCK_STREAM, "\0" + abstract),
    }
    ports: dict[str, int] = {}
    for name, (family, kind, address) in wanted.items():
        ports[name] = 0
        try:
            listener = socket.socket(family, kind)
            stack.callback(_close, listener)
            listener.bind(address)
        except OSError:
            if family == socket.AF_INET6:  # a host without it
                ports[name] = 1
                continue
            raise
        if family != unix:
            ports[name] = listener.getsockname()[1]
        threading.Thread(target=_answer, args=(listener, name, canary, callers), daemon=True).start()
    path.chmod(0o777)
    return {"ports": ports, "abstract": abstract, "socket": str(path)}


def _close(listener: socket.socket) -> None:
    with suppress(OSError):
        # shutdown, unlike close, wakes the thread that waits in accept
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _answer(listener: socket.socket, name: str, canary: bytes, callers: list[str]) -> None:
    stream = listener.type == socket.SOCK_STREAM
    try:
        if stream:
            listener.listen()
        while True:
            if not stream:
                if not listener.recv(512):
                    return
                callers.append(name)
                continue
            connection, _address = listener.accept()
            callers.append(name)
            with connection:
                connection.sendall(canary)
    except OSError:  # closed: the suite is over
        return


def _victim(canary: bytes, stack: ExitStack) -> int:
    """Start a process that does nothing, holds the canary in its environment and may be stopped."""
    process = subprocess.Popen(
        ["/bin/sleep", "300"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"ASSAY_CANARY": canary.hex()},
        start_new_session=True,
    )

    def end() -> None:
        process.kill()
        process.wait()

    stack.callback(end)
    return process.pid


def leaked(canary: bytes, outcome: Outcome) -> bool:
    """Tell whether the canary is in what came out of a cell: raw, hex or base64; result, slots and logs."""
    out = b"\n".join([outcome.result or b"", outcome.log_tail.encode(), *(one.content for one in outcome.slots)])
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
