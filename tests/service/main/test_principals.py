"""`assay-server principals`: whose tokens may name whom, as the operator enters it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.main import config
from service.main.cli import main
from service.store.migrations import migrate
from service.store.principals import list_principals
from tests.service.main.test_config import ISSUERS, server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    url = f"sqlite:///{tmp_path / 'assay.db'}"
    migrate(url)
    config.dump(server(tmp_path, database_url=url, issuers=ISSUERS), tmp_path / "server.toml")
    return tmp_path / "server.toml"


def _add(file: Path, *more: str) -> int:
    return main(["principals", "--config", str(file), "add", "ada", "--tenant", "acme", *more])


def test_principal_is_known_by_its_certificate_alone_unless_an_issuer_is_named(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = config.load(file).database_url
    assert _add(file) == 0
    assert [one.issuer for one in list_principals(url)] == [""]
    assert _add(file, "--issuer", "https://a.example") == 0
    assert main(["principals", "--config", str(file), "list"]) == 0
    assert "tokens of https://a.example" in capsys.readouterr().out
    assert _add(file) == 0  # entered again without one: tokens no longer name it
    assert [one.issuer for one in list_principals(url)] == [""]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--issuer", "https://c.example"), "no such"),
        (("--issuer", "https://b.example"), "tenants and roles"),
        (("--issuer", "https://a.example", "--role", "owner"), "tenants and roles"),
    ],
)
def test_principal_is_not_entered_under_an_issuer_that_may_not_name_it(
    file: Path, more: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _add(file, *more) != 0
    assert named in capsys.readouterr().err
    assert list_principals(config.load(file).database_url) == ()
