"""Processes are SIGKILLed at named moments; the work still ends exactly once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, Server, wait_for
from tests.e2e.test_one_audit import statement

pytestmark = pytest.mark.e2e


def phases(server: Server, audit: str) -> str:
    return server.assay("show", audit, "--json").out


def test_worker_killed_in_mid_audit_ends_once_with_both_attempts(server: Server, model: Path, tmp_path: Path) -> None:
    audit = server.assay("submit", model, "--check", "clusterability", "--json").json()["audit"]
    wait_for(lambda: "RUNNING" in phases(server, audit), "the audit starts")
    killed = server.kill("worker")
    ran = server.assay("watch", audit)
    assert ran.status == 0, ran.text + server.logs()
    shown = server.assay("report", audit, "--out", tmp_path / "report")
    assert shown.status == 0, shown.text
    predicate = statement(tmp_path / "report")["predicate"]
    assert isinstance(predicate, dict)
    classes = [attempt["exit_class"] for attempt in predicate["attempts"]]
    assert classes == ["WORKER_LOST", "OK"]
    assert server.pid("worker") != killed
    assert server.assay("verify", tmp_path / "report", "--key", server.public_key).status == 0


@pytest.mark.parametrize("share", [0.6, *(pytest.param(one, marks=pytest.mark.slow) for one in (0.1, 0.5, 0.99))])
def test_server_killed_in_mid_upload_resumes_from_the_committed_offset(
    server: Server, tmp_path: Path, share: float
) -> None:
    """The API is killed while 256 MiB travel; the same client goes on, and less than all is sent again."""
    from assay.client import AuditClient

    big = tmp_path / "big"
    big.mkdir()
    (big / "config.json").write_text('{"model_type":"gpt2"}\n')
    size = 256 * 2**20
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (big / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(256):
            file.write(os.urandom(2**20))
    sent = 0
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        nonlocal sent
        sent = done
        if not killed and done > total * share:
            killed.append(server.kill("api"))

    with AuditClient.from_config(server.config) as client:
        uploaded = client.upload_model(big, progress=progress)
        assert killed, "the upload was over before the server could be killed"
        assert client.create_model(uploaded.manifest_sha256).name == f"models/{uploaded.manifest_sha256}"
    blob = hashlib.sha256((big / "model.safetensors").read_bytes()).hexdigest()
    assert (server.data / "blobs" / "sha256" / blob[:2] / blob[2:4] / blob).stat().st_size == (
        big / "model.safetensors"
    ).stat().st_size
    # Killed after 60 %, beginning again at zero would send 1.6 times the size. What may be lost is one fsync step of
    # 64 MiB and what was on its way.
    assert uploaded.bytes_sent <= size + 96 * 2**20, uploaded.bytes_sent / size
    assert uploaded.bytes_sent >= size


def test_the_whole_tree_killed_and_started_again_finishes_the_audit(
    start_server: object, model: Path, tmp_path: Path
) -> None:
    from tests.e2e.conftest import start, stop

    data = tmp_path / "data"
    data.mkdir()
    first = start(data, "--lease-s", "6")
    audit = first.assay("submit", model, "--check", "clusterability", "--json").json()["audit"]
    wait_for(lambda: "RUNNING" in phases(first, audit), "the audit starts")
    first.process.kill()
    first.process.wait()
    assert first.process.stdout is not None
    first.process.stdout.close()
    second = start(data, "--lease-s", "6")
    try:
        ran = second.assay("watch", audit)
        assert ran.status == 0, ran.text + second.logs()
        assert journal_counts(second)["completed"] == 1
    finally:
        stop(second)


def journal_counts(server: Server) -> Counter[str]:
    """Export the server's journal and hold it against its rules, as an operator would; return entries by kind."""
    out = server.data / "journal.jsonl"
    for arguments in (
        ("export", "--config", server.data / "server.toml", "--out", out),
        ("check", out, "--live", "--blobs", server.data / "blobs"),
    ):
        command = [str(BIN / "assay-server"), "journal", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return Counter(json.loads(done.stderr)["kinds"])
