"""Each wrong input gets an error that names it, and nothing is created or lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e


def audits(server: Server) -> list[str]:
    return [audit["name"] for audit in server.assay("audits", "--json").json()]


@pytest.fixture
def nothing_created(server: Server) -> Callable[[], None]:
    before = audits(server)
    return lambda: [audits(server)].remove(before)  # raises if any audit came or went


def copied(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def pickle_only(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def auto_map(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "mine.Model"}}))


def truncated(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-100])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [(pickle_only, "pytorch_model.bin"), (auto_map, "auto_map"), (truncated, "model.safetensors")],
)
def test_bad_model_directory_is_refused_before_a_byte_is_sent(
    server: Server,
    model: Path,
    tmp_path: Path,
    nothing_created: Callable[[], None],
    spoil: Callable[[Path], None],
    named: str,
) -> None:
    bad = copied(model, tmp_path)
    spoil(bad)
    ran = server.assay("submit", bad, "--check", "clusterability", "--wait")
    assert ran.status == 3, ran.text
    assert named in ran.text
    assert "Traceback" not in ran.text
    nothing_created()


@pytest.mark.parametrize("spoil", [auto_map, truncated])
def test_bad_model_sent_by_a_careless_client_is_a_signed_refusal(
    server: Server, model: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """Another client may skip the checks on its own machine; then the cell refuses, and the report says why."""
    from assay.client import AuditClient

    bad = copied(model, tmp_path)
    spoil(bad)
    with AuditClient.from_config(server.config) as client:
        uploaded = client.upload_model(bad, preflight=False)
        audit = client.submit(uploaded.manifest_sha256, checks=[("clusterability", {})])
    ran = server.assay("watch", audit.name)
    assert ran.status == 2, ran.text
    assert "REFUSED" in ran.text
    shown = server.assay("report", audit.name, "--out", tmp_path / "report")
    assert shown.status == 0, shown.text
    assert server.assay("verify", tmp_path / "report", "--key", server.public_key).status == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--check", "clusterbility"), "clusterability"),
        (("--check", "clusterability", "--param", "clusterability.alfa=0.05"), "alpha"),
        (("--check", "clusterability", "--param", "clusterability.alpha=7"), "alpha"),
        (("--check", "truth_probe", "--param", "truth_probe.restarts=2"), "restarts"),
        (("--check", "truth_probe", "--param", 'truth_probe.datasets=["mars"]'), "datasets"),
    ],
)
def test_bad_request_names_the_item(
    server: Server, model: Path, nothing_created: Callable[[], None], arguments: tuple[str, ...], named: str
) -> None:
    ran = server.assay("submit", model, *arguments)
    assert ran.status == 3, ran.text
    assert named in ran.text
    assert "Traceback" not in ran.text
    nothing_created()


def test_data_whose_third_line_is_not_json_is_named(
    server: Server, model: Path, tmp_path: Path, nothing_created: Callable[[], None]
) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"id":"a"}\n{"id":"b"}\n{"id":\n')
    ran = server.assay("submit", model, "--check", "truth_probe", "--data", f"pairs={tmp_path / 'pairs.jsonl'}")
    assert ran.status == 3, ran.text
    assert "line 3" in ran.text
    assert "pairs.jsonl" in ran.text
    nothing_created()


def test_unknown_model_digest_is_refused_by_name(server: Server, nothing_created: Callable[[], None]) -> None:
    from assay.client import AuditClient
    from assay.errors import AssayError

    with AuditClient.from_config(server.config) as client, pytest.raises(AssayError, match="UNKNOWN_MODEL"):
        client.submit("0" * 64, checks=[("clusterability", {})])
    nothing_created()


def test_expired_deadline_creates_nothing(server: Server, model: Path, nothing_created: Callable[[], None]) -> None:
    ran = server.assay("submit", model, "--check", "clusterability", "--timeout-s", "0.000001")
    assert ran.status == 4, ran.text
    nothing_created()
