"""The spine: submit, queue, sandbox, signed report, verified; and what a flipped bit does."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, ROOT, Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def report(server: Server, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed report of a real audit, as `assay submit --wait` leaves it."""
    folder = tmp_path_factory.mktemp("reports") / "tiny"
    ran = server.assay("submit", model, "--check", "clusterability", "--wait", "--report", folder)
    assert ran.status == 0, ran.text + server.logs()
    assert "audits/" in ran.out
    return folder


def statement(report: Path) -> dict[str, object]:
    envelope = json.loads((report / "report.sigstore.json").read_bytes())["dsseEnvelope"]
    decoded: dict[str, object] = json.loads(base64.b64decode(envelope["payload"]))
    return decoded


def test_the_report_verifies_with_every_file_of_the_model(server: Server, model: Path, report: Path) -> None:
    ran = server.assay("verify", report, "--model", model, "--key", server.public_key)
    assert ran.status == 0, ran.text
    for step in ("V01", "V03", "V06", "V08", "V09", "V10", "V12"):
        assert step in ran.out


def test_without_flags_the_servers_trust_root_is_used(server: Server, model: Path, report: Path) -> None:
    ran = server.assay("verify", report, "--json")
    assert ran.status == 0, ran.text
    steps = {step["step"]: step["status"] for step in ran.json()["steps"]}
    assert (steps["V02"], steps["V05"], steps["V06"]) == ("ok", "ok", "ok")
    ran = server.assay("verify", report, "--model", model, "--log", server.public_key.parent / "log")
    assert ran.status == 0, ran.text
    assert "V15 ok" in ran.out


def test_openssl_alone_verifies_the_signature(server: Server, report: Path) -> None:
    script = ROOT / "deploy" / "openssl-verify.sh"
    done = subprocess.run(
        [str(script), str(report / "report.sigstore.json"), str(server.public_key)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Verified OK" in done.stdout, done.stdout + done.stderr


def test_the_report_says_which_walls_stood(report: Path) -> None:
    predicate = statement(report)["predicate"]
    assert isinstance(predicate, dict)
    cells = predicate["sandbox"]["cells"]
    assert [cell["stage"] for cell in cells] == ["ingest", "check"]
    for cell in cells:
        assert cell["backend"] == "bubblewrap"
        assert cell["network"] == "none"
        assert cell["layers"]["cell_uid_is_root"] is False
        assert set(cell["layers"]["namespaces"]) >= {"user", "mnt", "pid", "net", "ipc", "uts"}
        assert len(set(cell["layers"]["seccomp_sha256"])) == 2
        assert cell["layers"]["landlock_abi"] > 0 or "landlock_absent" in cell["statements"]
        assert "memory_per_process" in cell["statements"]
        assert len(cell["selfcheck_sha256"]) == 64


@pytest.mark.parametrize("file", ["report.sigstore.json", "request.json", "assay-manifest.json"])
def test_one_flipped_bit_fails_and_names_the_step(server: Server, report: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "report"
    shutil.copytree(report, copy)
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 0x01
    (copy / file).chmod(0o600)
    (copy / file).write_bytes(data)
    ran = server.assay("verify", copy, "--key", server.public_key, "--json")
    assert ran.status == 1, ran.text
    assert any(step["status"] == "wrong" for step in ran.json()["steps"])


def test_a_changed_weight_file_fails(server: Server, model: Path, report: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 0x80
    (copy / "model.safetensors").write_bytes(weights)
    ran = server.assay("verify", report, "--model", copy, "--key", server.public_key)
    assert ran.status == 1, ran.text
    assert "model.safetensors" in ran.text


def test_a_strangers_key_does_not_verify(server: Server, report: Path, tmp_path: Path) -> None:
    from service.signer.keys import ensure_key

    ensure_key(tmp_path / "other.key.pem")
    ran = server.assay("verify", report, "--key", tmp_path / "other.pub.pem")
    assert ran.status == 1, ran.text
    assert "V03" in ran.text


def test_the_same_request_id_is_one_audit(server: Server, model: Path) -> None:
    arguments = (
        "submit",
        model,
        "--check",
        "clusterability",
        "--request-id",
        "7b9d0c8e-3a7e-4c53-9d6f-1d0f3f6f0a11",
        "--json",
    )
    first, second = (server.assay(*arguments).json() for _ in range(2))
    assert first["audit"] == second["audit"]


def test_introspection_names_the_services(server: Server) -> None:
    """What grpcurl does: ask the reflection service, with the client's certificate."""
    import grpc
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    config = json.loads(server.config.read_text())
    credentials = grpc.ssl_channel_credentials(
        *(Path(config[name]).read_bytes() for name in ("ca", "key", "certificate"))
    )
    with grpc.secure_channel(config["address"], credentials) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "assay.api.v1.Audits" in database.get_services()
        audits = DescriptorPool(database).FindServiceByName("assay.api.v1.Audits")
    assert [m.name for m in audits.methods][:2] == ["SubmitAudit", "GetAudit"]


def test_a_client_in_another_language_submits_and_watches(server: Server, model: Path) -> None:
    node = ROOT / "tests" / "node"
    if shutil.which("node") is None or not (node / "node_modules").is_dir():
        pytest.skip("node or its packages are not installed; `make node` installs them")
    config = json.loads(server.config.read_text())
    done = subprocess.run(
        ["node", node / "submit_and_watch.mjs", *(config[k] for k in ("address", "ca", "certificate", "key")), model],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert "STATE_COMPLETED" in json.dumps(events[-3:]), events


def test_the_client_alone_installs_without_torch_and_verifies(server: Server, report: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check"]
    shutil.copytree(ROOT / "client", tmp_path / "client", ignore=shutil.ignore_patterns("*.egg-info", "build"))
    subprocess.run(
        [*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), str(tmp_path / "client")], check=True, timeout=240
    )
    listed = subprocess.run([*pip, "list"], capture_output=True, text=True, check=True).stdout
    installed = {line.split()[0].lower() for line in listed.splitlines()[2:]}
    assert not installed & {"torch", "celery", "numpy", "sqlalchemy", "transformers", "assay-server"}
    done = subprocess.run(
        [str(tmp_path / "venv/bin/assay"), "verify", str(report), "--key", str(server.public_key)],
        capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


assert BIN.name == "bin"
