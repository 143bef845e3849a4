"""A real server tree: Redis, signer, scheduler, worker with its sandbox, API; and the client as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Server:
    """A running `assay-server dev`."""

    data: Path
    ready: dict[str, Any]
    process: subprocess.Popen[str]

    @property
    def config(self) -> Path:
        return self.data / "client.json"

    @property
    def public_key(self) -> Path:
        return self.data / "signer" / "report.pub.pem"

    def environment(self) -> dict[str, str]:
        home = self.data / "home"
        home.mkdir(exist_ok=True)
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return keep | {"HOME": str(home), "ASSAY_CONFIG": str(self.config), "COLUMNS": "200", "NO_COLOR": "1"}

    def assay(self, *arguments: object, timeout: float = 240) -> Ran:
        """Run the client to its end, as from another terminal."""
        done = subprocess.run(
            [str(BIN / "assay"), *map(str, arguments)],
            capture_output=True, text=True, timeout=timeout, env=self.environment(), cwd=self.data, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def start_assay(self, *arguments: object) -> subprocess.Popen[str]:
        """Start the client and return at once."""
        return subprocess.Popen(
            [str(BIN / "assay"), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(), cwd=self.data,
        )  # fmt: skip

    def pid(self, role: str) -> int:
        return int(json.loads((self.data / "run" / "children.json").read_text())[role])

    def kill(self, role: str) -> int:
        """SIGKILL one process of the tree; the server starts it again."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        return pid

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted((self.data / "logs").glob("*.log")))


def start(data: Path, *arguments: object) -> Server:
    """Start a development server and wait until it says that it is ready."""
    errors = (data / "server.err").open("w")
    process = subprocess.Popen(
        [str(BIN / "assay-server"), "dev", "--data", str(data), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
    )  # fmt: skip
    errors.close()
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        logs = "\n".join(p.read_text()[-3000:] for p in sorted(data.glob("logs/*.log")))
        pytest.fail(f"the server did not start: {(data / 'server.err').read_text()}\n{logs}")
    return Server(data, json.loads(line), process)


def stop(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(60)
    assert server.process.stdout is not None
    server.process.stdout.close()
    assert status == 0, f"the server ended with {status}\n{(server.data / 'server.err').read_text()}"


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start servers that are stopped at the end of the file: an idle tree takes a twentieth of a core."""
    running: list[Server] = []

    def make(*arguments: object) -> Server:
        running.append(start(tmp_path_factory.mktemp("server"), *arguments))
        return running[-1]

    yield make
    for server in running:
        if server.process.poll() is None:
            stop(server)


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that most tests share; its lease is short, so that a lost worker is noticed in seconds."""
    shared = start(tmp_path_factory.mktemp("server"), "--lease-s", "6")
    yield shared
    if shared.process.poll() is None:
        stop(shared)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained one-layer GPT-2 of a few kilobytes: real files, no knowledge."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    subprocess.run([sys.executable, "-m", "checks.organisms", "tiny", "--out", str(folder)], check=True, cwd=ROOT)
    return folder / "model"


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for something that other processes bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.05)
