"""Starts the trees that `fire` does faults to, on either database and a Redis whose place can be kept empty."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from assay import AuditClient

from benchmarks.soak_tree import Shape, Tree
from service.store.engine import open_store
from tests.e2e.fire import LINES, Fire
from tests.service.plants import doom
from tests.service.store import postgres

KINDS = ("sqlite", "postgresql")


def address(kind: str) -> str | None:
    """Return the address of a fresh database; None of SQLite, which the tree makes itself. Skips without a server."""
    if kind == "sqlite":
        return None
    server = postgres.server()
    if server is None:
        pytest.skip(postgres.WITHOUT)
    return server.create()


@contextmanager
def burning(kind: str, model: Path, folder: Path | None = None, **shape: Any) -> Iterator[Fire]:
    """Start a tree on a kind of database; it is drained at the end, and must end well."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server binary: install redis-server; the same faults without a broker are other tests'")
    url = address(kind)
    with tempfile.TemporaryDirectory(prefix="assay-fire-") as scratch:
        home, plan = folder or Path(scratch), Path(scratch) / "plan"
        python_path = doom.write(Path(scratch) / "doomed", plan)
        environment = {**os.environ, "PYTHONPATH": python_path, "PATH": _redis_with_a_door(Path(scratch), plan)}
        asked = Shape(**{"store": url, "workers": 2, "script": "\n".join(LINES) + "\n", **shape})

        def start() -> tuple[Tree, AuditClient]:
            try:
                tree = Tree.start(home, asked, environment)
            except SystemExit as failed:
                pytest.fail(f"{failed}\n{_last_words(home)}")
            return tree, AuditClient.from_config(tree.data / "client.json", state=Path(scratch) / "client")

        tree, client = start()
        impatient = open_store(url or f"sqlite:///{tree.data / 'assay.sqlite'}", busy_ms=200)
        made = Fire(kind, tree, client, client.upload_model(model).manifest_sha256, plan, impatient, start)
        try:
            yield made
        finally:
            print(_last_words(home))  # shown where it failed
            impatient.close()
            made.client.close()
            status = made.tree.stop()
        assert status == 0, (home / "server.err").read_text()


def _last_words(home: Path) -> str:
    """Return the ends of a tree's logs."""
    files = [home / "server.err", *sorted((home / "data" / "logs").glob("*.log"))]
    return "\n".join(f"--- {file.name}\n{file.read_text()[-2500:]}" for file in files)


def _redis_with_a_door(folder: Path, plan: Path) -> str:
    """Put a redis-server first in PATH that does not start while `redis.away` lies in the plan."""
    real = shutil.which("redis-server")
    program = folder / "bin" / "redis-server"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nwhile [ -e "{plan}/redis.away" ]; do sleep 0.05; done\nexec "{real}" "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"
