from __future__ import annotations

from pathlib import Path

import pytest

from service.main import config


def server(tmp_path: Path, **changes: object) -> config.Server:
    fields: dict[str, object] = {
        "profile": "development",
        "database_url": "sqlite:////tmp/x.sqlite",
        "address": "127.0.0.1:1",
        "tls": {"ca": tmp_path / "ca", "certificate": tmp_path / "c", "key": tmp_path / "k"},
        "signer_uid": 0,
        "log_origin": "log.assay.example",
    }
    for name in (
        "blobs",
        "uploads",
        "work",
        "isolation_file",
        "page_key",
        "signer_socket",
        "signer_home",
        "signing_key",
        "log_key",
    ):
        fields[name] = tmp_path / name
    return config.Server.model_validate(fields | changes)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    before = server(tmp_path, broker_url='redis+socket:///a"b', memory_bytes=2**30, cell_uid=64777, cgroup_parent="a/b")
    config.dump(before, tmp_path / "server.toml")
    assert config.load(tmp_path / "server.toml") == before
    assert (tmp_path / "server.toml").stat().st_mode & 0o077 == 0


def test_unknown_key_stops_the_start_and_is_named(tmp_path: Path) -> None:
    config.dump(server(tmp_path), tmp_path / "server.toml")
    text = (tmp_path / "server.toml").read_text()
    (tmp_path / "server.toml").write_text("slotz = 2\n" + text)
    with pytest.raises(config.ConfigError, match="slotz"):
        config.load(tmp_path / "server.toml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("profile = ", "server.toml"),
        ("slots = 0", "slots"),
        ("lease_s = 1.0", "lease_s"),
        ('cgroup_parent = ""', "cgroup_parent"),
    ],
)
def test_bad_values_name_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    config.dump(server(tmp_path), tmp_path / "server.toml")
    lines = [
        line
        for line in (tmp_path / "server.toml").read_text().splitlines()
        if line.split(" ")[0] != text.split(" ", maxsplit=1)[0]
    ]
    (tmp_path / "server.toml").write_text("\n".join([text, *lines]))
    with pytest.raises(config.ConfigError, match=named):
        config.load(tmp_path / "server.toml")


CONTAINER = {
    "backend": "container", "engine": "podman", "program": "/usr/bin/podman", "image": "cell@sha256:" + "ab" * 32,
    "python_path": ["/opt/venv/lib/python3.11/site-packages"],
}  # fmt: skip


def test_checks_measure_behind_bubblewrap_unless_containers_are_named(tmp_path: Path) -> None:
    assert server(tmp_path).sandbox.backend == "bubblewrap"
    before = server(tmp_path, sandbox=CONTAINER)
    config.dump(before, tmp_path / "server.toml")
    again = config.load(tmp_path / "server.toml")
    assert again == before
    assert (again.sandbox.runtime, again.sandbox.python_path) == ("runsc", tuple(CONTAINER["python_path"]))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sandbox": {**CONTAINER, "backend": "bubblewrap"}}, "engine"),
        ({"sandbox": {"image": "x"}}, "image"),
        ({"sandbox": {**CONTAINER, "backend": "process"}}, "backend"),
        ({"sandbox": {**CONTAINER, "engine": "containerd"}}, "engine"),
        ({"sandbox": {**CONTAINER, "fallback": "bubblewrap"}}, "fallback"),
        ({"sandbox": CONTAINER, "warm_spares": 1}, "warm_spares"),
    ],
)
def test_a_key_of_containers_without_effect_stops_the_start(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        server(tmp_path, **changes)


def test_absent_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"none\.toml"):
        config.load(tmp_path / "none.toml")


def test_receivers_on_this_machine_are_for_development_alone(tmp_path: Path) -> None:
    assert server(tmp_path).webhooks.allow_loopback_receivers is False
    with pytest.raises(ValueError, match="allow_loopback_receivers"):
        server(tmp_path, profile="production", webhooks={"allow_loopback_receivers": True})
    before = server(tmp_path, profile="development", webhooks={"allow_loopback_receivers": True, "ports": [443, 8443]})
    config.dump(before, tmp_path / "server.toml")
    assert config.load(tmp_path / "server.toml") == before


@pytest.mark.parametrize("ports", [[], [0], [65_536], ["443/tcp"], list(range(1, 18))])
def test_ports_of_receivers_are_ports(tmp_path: Path, ports: list[object]) -> None:
    with pytest.raises(ValueError, match="ports"):
        server(tmp_path, webhooks={"ports": ports})
