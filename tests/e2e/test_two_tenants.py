"""Two tenants on one server: a model of one is audited by the other with signed consent, until it is taken back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from assay.client import AuditClient
from assay.client_errors import ServerRefused
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.conftest import BIN, Ran, Server, start, stop
from tests.e2e.test_one_audit import statement
from tests.service.worker.test_two_cells import gpt2

pytestmark = pytest.mark.e2e

PEOPLE = ("ola:owner:acme", "ada:auditor:bolt")


@dataclass(frozen=True)
class Two:
    """A server with an owner of acme and an auditor of bolt."""

    server: Server

    def client(self, name: str) -> AuditClient:
        """Return a client in this process."""
        state = self.server.data / f"state-{name}"
        return AuditClient.from_config(self.server.ready["clients"][name], state=state)

    def ada(self, *arguments: object) -> Ran:
        """Run the client as the auditor of the other tenant."""
        return self.server.assay(*arguments, "--config", self.server.ready["clients"]["ada"])


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    script = tmp_path / "script"
    script.write_text("ok\n")
    (tmp_path / "data").mkdir()
    named = [part for one in PEOPLE for part in ("--principal", one)]
    server = start(tmp_path / "data", "--no-redis", "--cell", f"script={script}", *named)
    try:
        yield Two(server)
    finally:
        stop(server)


def enter_key(server: Server, folder: Path) -> Path:
    """Make the owner's key and have the operator enter its public half; return the private one."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "owner.key.pem", folder / "owner.pub.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    entered = ["approval-keys", "add", "--config", server.data / "server.toml", "--tenant", "acme", "--pem", public]
    subprocess.run([str(BIN / "assay-server"), *map(str, entered)], check=True, capture_output=True)
    return private


def test_a_foreign_model_is_audited_by_signed_consent_until_it_is_taken_back(two: Two, tmp_path: Path) -> None:
    model = gpt2(tmp_path / "model")
    with two.client("ola") as ola:
        name = ola.create_model(ola.upload_model(model).manifest_sha256).name
    with two.client("ada") as ada, pytest.raises(ServerRefused) as stranger:
        ada.submit(name, [("clusterability", {})])
    assert stranger.value.reason == "UNKNOWN_MODEL"

    consent = tmp_path / "bolt.approval.json"
    signed = two.server.assay(
        "approvals", "sign", "--model", name, "--grantee", "bolt", "--check", "clusterability", "--data", "*",
        "--max-runs", 3, "--not-after", "2999-01-01T00:00:00Z", "--key", enter_key(two.server, tmp_path),
        "--out", consent,
    )  # fmt: skip
    assert signed.status == 0, signed.text
    with two.client("ola") as ola:
        approval = ola.approvals.create(consent.read_bytes()).name

    report = tmp_path / "report"
    ran = two.ada("submit", name, "--check", "clusterability", "--wait", "--report", report)
    assert ran.status == 2, ran.text + two.server.logs()  # a scripted cell measures nothing: no verdict either way
    told = statement(report)["predicate"]
    assert isinstance(told, dict)
    assert (told["parties"]["auditor"], told["parties"]["owner"]) == ("bolt", "acme")
    assert [one["name"] for one in told["parties"]["approvals"]] == [approval]
    assert told["access"]["grant"] == told["parties"]["approvals"][0]["envelope_sha256"]
    verified = two.ada("verify", report, "--log", two.server.data / "signer" / "log")
    assert verified.status == 0, verified.text

    with two.client("ola") as ola:
        ola.approvals.revoke(approval)
    with two.client("ada") as ada, pytest.raises(ServerRefused) as after:
        ada.submit(name, [("clusterability", {})])
    assert after.value.reason == "APPROVAL_MISMATCH"
