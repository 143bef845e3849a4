"""How each process of `assay-server dev` is started: Redis if it is installed, then the roles."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.main import config
from service.main.children import Recipe
from service.main.layout import Layout
from service.main.roles import ROLES
from service.worker.isolation import EXIT_REFUSED


@dataclass(frozen=True)
class Tree:
    """Which processes a development server has."""

    workers: int = 1
    """Worker processes; the first is called "worker", the others "worker2", "worker3"…"""
    apis: int = 1
    """API processes that share the port; the first is called "api", the others "api2", "api3"…"""
    metrics_port: int | None = None
    """Of the first api's `/metrics`; scheduler and first worker have the next two. None opens none."""


def recipes(layout: Layout, server: config.Server, tree: Tree) -> Iterator[Recipe]:
    """Yield how each role is started, in the order in which they must be."""
    logs = _logs(layout)
    several = [f"worker{number}" for number in range(2, tree.workers + 1)]
    apis = [f"api{number}" for number in range(2, tree.apis + 1)]
    for name in ("signer", "scheduler", "worker", *several, "api", *apis):
        role = name.rstrip("0123456789")
        of_its_own = str(_config_of(layout, server, name) if name in several else layout.config)
        command = (sys.executable, "-m", "service.main", role, "--config", of_its_own, "--ready-fd", "{ready_fd}")
        final = frozenset({EXIT_REFUSED}) if role == "worker" else frozenset()
        yield Recipe(name, (*command, *_metrics(tree, name)), logs / f"{name}.log", final=final)


def redis(layout: Layout) -> Recipe:
    """Return how Redis is started: on a Unix socket in the data folder, for nobody else."""
    path = layout.sockets / "redis.sock"
    folder = layout.root / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    settings = {
        "port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(folder), "appendonly": "yes",
        "maxmemory-policy": "noeviction", "save": "", "daemonize": "no",
    }  # fmt: skip
    binary = shutil.which("redis-server") or "redis-server"
    arguments = [binary, *(part for key, value in settings.items() for part in (f"--{key}", value))]
    return Recipe("redis", tuple(arguments), _logs(layout) / "redis.log", probe=lambda: _answers_ping(path))


def _logs(layout: Layout) -> Path:
    logs = layout.root / "logs"
    logs.mkdir(exist_ok=True)
    return logs


def _metrics(tree: Tree, name: str) -> tuple[str, ...]:
    """Return a role's port for metrics: each process needs one of its own, and further ones of a kind have none."""
    places = ("api", "scheduler", "worker")
    if tree.metrics_port is None or name not in places:
        return ()
    return ("--metrics", f"127.0.0.1:{tree.metrics_port + places.index(name)}")


def _config_of(layout: Layout, server: config.Server, name: str) -> Path:
    """Write the configuration of a further worker: what lies in a work folder at its start is removed by it."""
    aside = layout.run / name
    aside.mkdir(mode=0o700, exist_ok=True)
    path = aside / "server.toml"
    own = {"work": layout.work.with_name(f"work-{name}"), "isolation_file": aside / "isolation.json"}
    config.dump(server.model_copy(update=own), path)
    return path


def _answers_ping(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:  # not listening yet; the caller's deadline decides
        return False


assert set(ROLES) == {"signer", "scheduler", "worker", "api"}
