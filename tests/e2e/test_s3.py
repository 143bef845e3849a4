"""A server whose blobs are in a bucket: signed reports, also when the bucket goes away in the middle of an audit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from assay.client import AuditClient

from tests.e2e.conftest import BIN, Ran, Server, start, stop, wait_for
from tests.service.plants.s3 import WHO, Bucket, served
from tests.service.worker.test_two_cells import gpt2

pytestmark = pytest.mark.e2e

PREFIX = "assay/"


@dataclass
class Place:
    """A server, its bucket, and the bucket's plug."""

    server: Server
    bucket: Bucket
    model: Path
    plug: ExitStack = field(default_factory=ExitStack)

    def bucket_ends(self) -> None:
        self.plug.close()

    def bucket_begins(self) -> None:
        self.plug.enter_context(served(self.bucket))

    def administer(self, *arguments: object) -> Ran:
        done = subprocess.run(
            [str(BIN / "assay-server"), *map(str, arguments)], capture_output=True, text=True, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def submit(self, client: AuditClient) -> str:
        return client.submit(client.upload_model(self.model).manifest_sha256, [("clusterability", {})]).name

    def client(self) -> AuditClient:
        return AuditClient.from_config(self.server.config, state=self.server.data / "state")


def configured(folder: Path, bucket: Bucket) -> Path:
    keys = folder / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"[default]\naws_access_key_id = {WHO.access_key}\naws_secret_access_key = {WHO.secret_key}\n")
    path = folder / "settings.toml"
    lines = {"endpoint": bucket.address, "bucket": "bucket", "region": WHO.region, "prefix": PREFIX}
    told = [f"{key} = {json.dumps(value)}" for key, value in {**lines, "credentials": str(keys)}.items()]
    path.write_text("\n".join(["[s3]", *told, ""]))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "data").mkdir()
    script = folder / "script"
    script.write_text("slow 1.5\n")
    with ExitStack() as plug:
        bucket = plug.enter_context(served())
        server = start(
            folder / "data", "--no-redis", "--lease-s", "3", "--cell", f"script={script}",
            "--settings", configured(folder, bucket),
        )  # fmt: skip
        try:
            yield Place(server, bucket, gpt2(folder / "model"), plug)
        finally:
            stop(server)


def verified(place: Place, client: AuditClient, audit: str, out: Path) -> list[str]:
    """Wait for an audit, verify its report offline, and return the classes of its attempts."""
    ended = list(client.watch(audit, timeout_s=60))[-1]
    told = client.get(audit)
    assert told.state == "COMPLETED", (ended, place.server.logs())
    client.report(audit, out)
    ran = place.server.assay("verify", out, "--log", place.server.data / "signer" / "log")
    assert ran.status == 0, ran.text
    return [str(one.exit_class) for one in told.attempts]


@pytest.mark.slow  # small: tests/service/blobs, a bucket that is away
def test_an_audit_ends_in_a_report_although_its_bucket_was_away(place: Place, tmp_path: Path) -> None:
    with place.client() as client:
        assert verified(place, client, place.submit(client), tmp_path / "first") == ["OK"]
        assert not (place.server.data / "blobs" / "sha256").exists(), "a blob is in the folder"
        assert all(key.startswith(PREFIX + "sha256/") for key in place.bucket.objects), "a probe stayed"

        audit = place.submit(client)
        wait_for(lambda: client.get(audit).state == "RUNNING", "the audit starts")
        place.bucket_ends()
        told = place.administer("status", "--config", place.server.data / "server.toml")
        assert (told.status, "PROBLEM   the bucket of the blobs" in told.out) == (1, True), told.text
        log = place.server.data / "logs" / "worker.log"
        wait_for(lambda: "nothing is leased until the blob store" in log.read_text(), "the worker sees it")
        place.bucket_begins()
        classes = verified(place, client, audit, tmp_path / "second")
        assert classes[-1] == "OK"
        assert classes.count("HOST_FAULT") == 1, "its result could not be stored, and no other strike is spent"


@pytest.mark.slow
def test_damaged_bytes_are_quarantined_until_they_are_sent_again(place: Place, tmp_path: Path) -> None:
    with place.client() as client:
        digest = next(one.sha256 for one in client.upload_model(place.model).files if one.path.endswith("safetensors"))
        key = f"{PREFIX}sha256/{digest[:2]}/{digest[2:4]}/{digest}"
        good = place.bucket.objects[key]
        worker = place.server.pid("worker")
        os.kill(worker, signal.SIGSTOP)
        audit = place.submit(client)
        log = place.server.data / "logs" / "scheduler.log"
        told = f'"text": "registered", "audit": "{audit.removeprefix("audits/")}"'
        wait_for(lambda: told in log.read_text(), "the signer has read the blob, the worker has not")
        place.bucket.objects[key] = bytes(len(good))
        os.kill(worker, signal.SIGCONT)
        list(client.watch(audit, timeout_s=60))
        assert (client.get(audit).state, client.get(audit).state_reason) == ("FAILED", "HOST_FAULT")
        assert client.upload_model(place.model).bytes_sent >= len(good), "the damaged blob does not count as there"
        assert place.bucket.objects[key] == good
        verified(place, client, place.submit(client), tmp_path / "again")
    server = place.server.data / "server.toml"
    out = tmp_path / "journal.jsonl"
    assert place.administer("journal", "export", "--config", server, "--out", out).status == 0
    checked = place.administer("journal", "check", out, "--live", "--config", server)
    assert checked.status == 0, checked.text
    assert '"blobs_checked": true' in checked.err
    copied = place.administer("backup", "--config", server, "--out", tmp_path / "copy")
    assert copied.status == 0, copied.text
    assert len(list((tmp_path / "copy" / "blobs").rglob(digest))) == 1
    swept = place.administer("gc", "--config", server, "--dry-run")
    assert swept.status == 0, swept.text
