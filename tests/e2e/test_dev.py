"""`assay-server dev`: one data folder, one server, nothing left behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, Server, start, wait_for

pytestmark = pytest.mark.e2e


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_server_on_the_same_folder_names_the_first(server: Server) -> None:
    done = subprocess.run(
        [str(BIN / "assay-server"), "dev", "--data", str(server.data)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert str(server.process.pid) in done.stderr
    assert "--data" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_ready_line_says_what_runs(server: Server) -> None:
    assert server.ready["isolation"] == "bubblewrap", server.ready["isolation_detail"]
    assert server.ready["signer_profile"] == "development"
    assert server.ready["dispatcher"] in ("celery", "polling")
    assert Path(server.ready["client_config"]) == server.config


def test_sigkill_of_the_server_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    server = start(tmp_path / "data")
    children = json.loads((server.data / "run" / "children.json").read_text())
    assert set(children) >= {"api", "worker", "scheduler", "signer"}
    server.process.kill()
    server.process.wait()
    assert server.process.stdout is not None
    server.process.stdout.close()
    wait_for(lambda: not any(alive(pid) for pid in children.values()), "every child ends", seconds=5)


@pytest.mark.slow  # small: tests/service/queue, polling; tests/service/worker/test_process.py, a worker that polls
def test_without_redis_workers_poll_and_audits_end(tmp_path: Path, model: Path) -> None:
    (tmp_path / "data").mkdir()
    server = start(tmp_path / "data", "--no-redis")
    try:
        assert server.ready["dispatcher"] == "polling"
        ran = server.assay("submit", model, "--check", "clusterability", "--wait")
        assert ran.status == 0, ran.text
    finally:
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("dev", "--slots", "many"), "--slots"),
        (("worker", "--config", "/nowhere.toml"), "/nowhere.toml"),
        (("prod",), "prod"),
    ],
)
def test_wrong_usage_is_3_and_names_the_item(arguments: tuple[str, ...], named: str) -> None:
    done = subprocess.run([str(BIN / "assay-server"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "store",
    [
        "postgresql+psycopg://assay@/d?host=/nowhere",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("mysql://root@/x", "sqlite:///relative.db")),
    ],
)
def test_a_database_that_cannot_be_used_is_said_before_anything_starts(tmp_path: Path, store: str) -> None:
    command = [str(BIN / "assay-server"), "dev", "--data", str(tmp_path / "data"), "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "--store" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "server.toml").exists()
