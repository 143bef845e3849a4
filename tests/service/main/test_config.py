from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from service.main import cells, config, roles
from service.worker.backends import kill_bound_of


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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"address": "nonsense"}, "address"),
        ({"address": ""}, "address"),
        ({"address": "127.0.0.1:70000"}, "address"),
        ({"address": "::1:7443"}, "address"),
        ({"token_address": "http://0.0.0.0:7444"}, "token_address"),
        ({"metrics_address": ":9464"}, "metrics_address"),
        ({"database_url": "mysql://x"}, "database_url"),
        ({"database_url": "sqlite:///relative.db"}, "database_url"),
        ({"database_url": "postgresql://a@b/c"}, "database_url"),
        ({"broker_url": "http://evil"}, "broker_url"),
        ({"bwrap": "bin/bwrap"}, "bwrap"),
        ({"blobs": "blobs"}, "blobs"),
        ({"signer_home": "/var/lib/../etc"}, "signer_home"),
        ({"tls": {"ca": "ca", "certificate": "/c", "key": "/k"}}, "ca"),
    ],
)
def test_value_that_no_role_can_use_stops_the_start_and_is_named(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        server(tmp_path, **changes)


def test_password_of_a_wrong_database_address_is_not_told(tmp_path: Path) -> None:
    config.dump(server(tmp_path), tmp_path / "server.toml")
    text = (tmp_path / "server.toml").read_text().replace("sqlite:////tmp/x.sqlite", "mysql://a:planted@b/c")
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(config.ConfigError) as caught:
        config.load(tmp_path / "server.toml")
    assert "database_url" in str(caught.value)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"token_address": "127.0.0.1:1", "issuers": "ISSUERS"}, "token_address"),
        ({"token_address": "0.0.0.0:1", "issuers": "ISSUERS"}, "token_address"),
        ({"address": "[::]:1", "token_address": "127.0.0.1:1", "issuers": "ISSUERS"}, "token_address"),
        ({"metrics_address": "127.0.0.1:1"}, "metrics_address"),
    ],
)
def test_two_doors_at_one_address_stop_the_start(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    asked = {**changes, **({"issuers": ISSUERS} if "issuers" in changes else {})}
    with pytest.raises(ValueError, match=named):
        server(tmp_path, **asked)


@pytest.mark.parametrize("around", ["blobs", "uploads", "signer_home"])
def test_folder_that_is_emptied_at_a_start_holds_nothing_else(tmp_path: Path, around: str) -> None:
    for place in (tmp_path, tmp_path / around, tmp_path / around / "inside"):
        with pytest.raises(ValueError, match="work"):
            server(tmp_path, work=place)


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


ISSUERS = [
    {"issuer": "https://a.example", "audience": "assay", "jwks": "/etc/a.json", "tenants": ["acme"]},
    {
        "issuer": "https://b.example",
        "audience": "assay",
        "jwks": "/etc/b.json",
        "tenants": ["bolt"],
        "roles": ["owner"],
    },
]


def test_issuers_and_limits_are_written_and_read_again(tmp_path: Path) -> None:
    before = server(tmp_path, issuers=ISSUERS, token_address="127.0.0.1:2", limits={"calls_burst": 7})
    config.dump(before, tmp_path / "server.toml")
    again = config.load(tmp_path / "server.toml")
    assert again == before
    assert [one.issuer for one in again.issuers] == ["https://a.example", "https://b.example"]
    assert (again.limits.calls_burst, again.limits.calls_per_second) == (7, 20.0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"issuers": [ISSUERS[0], ISSUERS[0]]}, "named twice"),
        ({"token_address": "127.0.0.1:2"}, "nobody could enter"),
        ({"issuers": [{**ISSUERS[0], "tenants": []}]}, "tenants"),
        ({"issuers": [{name: value for name, value in ISSUERS[0].items() if name != "tenants"}]}, "tenants"),
        ({"issuers": [{**ISSUERS[0], "roles": ["emperor"]}]}, "roles"),
        ({"issuers": [{**ISSUERS[0], "algorithms": ["none"]}]}, "algorithms"),
        ({"limits": {"calls_per_second": 0}}, "calls_per_second"),
        ({"limits": {"manifest_files": 10_001}}, "manifest_files"),
        ({"limits": {"stored_byte": 1}}, "stored_byte"),
    ],
)
def test_what_makes_no_sense_about_callers_stops_the_start(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        server(tmp_path, **changes)


def test_every_limit_reaches_the_api_and_rehearsals_are_not_counted_out(tmp_path: Path) -> None:
    told = {
        "calls_per_second": 3.0,
        "calls_burst": 4,
        "stored_bytes": 5,
        "blob_bytes": 6,
        "manifest_files": 7,
        "parallel_uploads": 8,
        "watchers": 9,
        "unfinished_audits": 10,
        "gpu_seconds_per_day": 11,
    }
    found = roles.api_limits(server(tmp_path, limits=told))
    per_tenant = found.quotas
    assert [
        *(found.calls_per_s, found.calls_burst, per_tenant.stored_bytes, found.blob_bytes, per_tenant.manifest_files),
        *(found.uploads_per_tenant, found.watchers_per_tenant, per_tenant.unfinished_audits),
        per_tenant.gpu_seconds_per_day,
    ] == list(told.values())
    lifted = roles.api_limits(server(tmp_path, limits=told, caps_lifted=True))
    assert lifted.calls_per_s > 10**5
    assert lifted.quotas.unfinished_audits > 10**5
    assert lifted.blob_bytes == 6


@pytest.mark.parametrize("lease_s", [1.5, 6.0, 29.9])
def test_a_lease_in_earnest_is_never_shorter_than_six_times_what_the_sandbox_takes_to_kill(
    tmp_path: Path, lease_s: float
) -> None:
    with pytest.raises(ValueError, match=rf"lease_s: {lease_s} s is shorter than 30 s, six times the 5 s"):
        server(tmp_path, profile="production", lease_s=lease_s)
    assert server(tmp_path, profile="production", lease_s=30.0).kill_bound_s == 5.0


def test_a_rehearsals_cells_are_given_up_within_a_sixth_of_its_lease(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("ok\n")
    made = server(tmp_path, profile="development", lease_s=1.5, cell_script=script)
    for one in (made, server(tmp_path, profile="development", lease_s=1.5)):
        with closing(cells.open_cell(one, tmp_path, cells.code_of_release())) as cell:
            assert kill_bound_of(cell) == one.kill_bound_s == 0.25


def test_containers_are_killed_by_their_engine_so_no_lease_of_theirs_is_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lease_s: 6.0 s is shorter than 30 s"):
        server(tmp_path, profile="development", lease_s=6.0, sandbox=CONTAINER)
    made = server(tmp_path, profile="development", sandbox=CONTAINER)
    with closing(cells.open_cell(made, tmp_path, cells.code_of_release())) as cell:
        assert kill_bound_of(cell) == 5.0
