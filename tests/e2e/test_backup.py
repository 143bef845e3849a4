"""A living server is backed up; elsewhere its reports verify and what was queued completes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, start, stop

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def administer(*arguments: object) -> str:
    done = subprocess.run(
        [str(BIN / "assay-server"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_backup_of_a_living_server_serves_elsewhere(tmp_path: Path, model: Path) -> None:
    old, new, copy, published = (tmp_path / name for name in ("old", "new", "copy", "published"))
    old.mkdir()
    script = tmp_path / "script"
    script.write_text("ok\n")
    options = ("--no-redis", "--cell", f"script={script}")
    first = start(old, *options)
    try:
        done = first.assay("submit", model, "--check", "clusterability", "--wait", "--json")
        assert done.status in (0, 2), done.text
        finished = done.out.split('"audit"')[1].split('"')[1]
        worker = first.pid("worker")
        os.kill(worker, signal.SIGSTOP)  # what comes now stays queued
        queued = first.assay("submit", model, "--check", "clusterability", "--json").json()["audit"]
        administer("backup", "--config", old / "server.toml", "--out", copy, "--with-keys")
        shutil.copytree(old / "signer" / "log", published)  # before a report is logged that the copy knows nothing of
        os.kill(worker, signal.SIGCONT)
    finally:
        stop(first)
    new.mkdir()
    shutil.copytree(old / "pki", new / "pki")  # an operator's authority and roots are kept by the operator
    shutil.copytree(old / "trust", new / "trust")
    for name in ("signer", "run"):
        (new / name).mkdir(mode=0o700)
    config = tmp_path / "server.toml"
    config.write_text((old / "server.toml").read_text().replace(str(old), str(new)))
    newest = published / "checkpoint"
    administer("restore", "--config", config, "--from", copy, "--log", published, "--checkpoint", newest)
    second = start(new, *options)
    try:
        watched = second.assay("watch", queued)
        assert "COMPLETED" in watched.text, watched.text + second.logs()
        for audit in (finished, queued):
            shown = second.assay("report", audit, "--out", tmp_path / f"report-{audit}")
            assert shown.status in (0, 2), shown.text
            verified = second.assay("verify", tmp_path / f"report-{audit}", "--log", new / "signer" / "log")
            assert verified.status == 0, verified.text
    finally:
        stop(second)
