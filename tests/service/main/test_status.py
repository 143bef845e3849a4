from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.main import cli, config, status
from tests.service.main.test_config import server
from tests.service.store.planting import finished, leased, new_store, registered


def planted(tmp_path: Path) -> config.Server:
    store = new_store(tmp_path)
    registered(store, 1, capability="gpu-24g")
    leased(store, registered(store, 2))
    finished(store, leased(store, registered(store, 3)))
    store.close()
    own = server(tmp_path, database_url=f"sqlite:///{tmp_path}/assay.db")
    own.blobs.mkdir()
    own.isolation_file.write_text(json.dumps({"isolation": "bubblewrap", "detail": "proven"}))
    (own.signer_home / "log").mkdir(parents=True)
    (own.signer_home / "log" / "checkpoint").write_text("log.assay.example\n17\nroot\n\n— log sig\n")
    return own


def test_status_tells_queues_leases_signing_isolation_log_and_revision(tmp_path: Path) -> None:
    told = status.status_of(planted(tmp_path))
    assert told["queues"]["gpu-24g"] | {"oldest_s": 0} == {"queued": 1, "leased": 0, "backing_off": 0, "oldest_s": 0}
    assert told["queues"]["cpu"]["leased"] == 1
    assert told["signing"]["count"] == 1
    assert told["owed"]["sign"]["count"] == 1
    assert told["isolation"]["isolation"] == "bubblewrap"
    assert told["log_entries"] == 17
    assert told["revision"]["database"] == told["revision"]["release"]
    assert told["problems"] == []
    assert told["disk_free_bytes"] > 0


def test_status_is_one_json_object_and_ends_with_1_on_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = planted(tmp_path)
    config.dump(own, tmp_path / "server.toml")
    assert cli.main(["status", "--config", str(tmp_path / "server.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["log_entries"] == 17
    own.isolation_file.write_text(json.dumps({"isolation": "none", "detail": "userns off\x1b[2J\nqueue     fine"}))
    assert cli.main(["status", "--config", str(tmp_path / "server.toml")]) == 1
    out = capsys.readouterr().out
    assert out.startswith("PROBLEM   no cell can be isolated: userns off")
    assert "\x1b" not in out
    assert not any(line.startswith("queue     fine") for line in out.splitlines())


def test_looking_at_a_server_makes_nothing(tmp_path: Path) -> None:
    own = server(tmp_path, database_url=f"sqlite:///{tmp_path}/absent.db")
    told = status.status_of(own)
    assert "migrate" in told["problems"][0]
    assert told["queues"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_no_number(tmp_path: Path) -> None:
    for content in (b"", b"name", b"name\n-1\n", b"name\nmany\n", b"\x00" * 9000):
        (tmp_path / "checkpoint").write_bytes(content)
        assert status.log_entries(tmp_path / "checkpoint") is None
