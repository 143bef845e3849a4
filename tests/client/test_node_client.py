"""A client in another language works from the committed protos alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from assay import manifest
from assay.api.v1 import audits_pb2

from tests.client.fakes import AUDIT, Fake, event
from tests.client.planted import write_model

NODE = Path(__file__).parents[1] / "node"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").is_dir(),
    reason="node or its packages are not installed; `make node` installs them",
)


def run(fake: Fake, model: Path) -> tuple[int, list[Any]]:
    config = fake.client_config()
    assert config.certificate is not None
    assert config.key is not None
    done = subprocess.run(
        ["node", NODE / "submit_and_watch.mjs", config.address, config.ca, config.certificate, config.key, model],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_it_uploads_submits_and_watches(fake: Fake, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    completed = audits_pb2.StateChanged(state=audits_pb2.Audit.STATE_COMPLETED)
    fake.audits.connections = [[event(0, keepalive=audits_pb2.Keepalive()), event(1, state_changed=completed)]]
    code, lines = run(fake, model)
    assert code == 0, lines
    made = manifest.build(model)
    assert fake.blobs.whole[made.digest] == made.data
    assert lines[0] == {"uploaded": 3, "bytes": made.size + len(made.data)}
    assert fake.audits.requests[0].audit.model == f"models/{made.digest}"
    assert lines[-2]["stateChanged"]["state"] == "STATE_COMPLETED"
    assert lines[-1]["audit"] == AUDIT
    assert hashlib.sha256((model / "config.json").read_bytes()).hexdigest() in fake.blobs.whole


def test_it_tells_a_refusal(fake: Fake, tmp_path: Path) -> None:
    fake.audits.refusal = ("INVALID_ARGUMENT", "UNKNOWN_CHECK", "No such check.")
    code, lines = run(fake, write_model(tmp_path / "model"))
    assert code == 1
    assert "No such check." in lines[-1]["error"]


def test_the_lock_names_no_registry_host() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all("integrity" in package for path, package in lock["packages"].items() if path)
