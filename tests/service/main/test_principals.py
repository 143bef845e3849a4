"""`assay-server principals`: whose tokens may name whom, as the operator enters it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from service.main import config, pki
from service.main.cli import main
from service.store.certificates import list_revoked
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


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    (tmp_path / "pki").mkdir()
    pki.ensure(tmp_path / "pki", ("ada",))
    return tmp_path / "pki"


def _revoke(file: Path, *more: str) -> int:
    return main(["principals", "--config", str(file), "revoke-certificate", *more])


def _revoked(file: Path) -> list[str]:
    return [one.sha256 for one in list_revoked(config.load(file).database_url)]


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ("ab" * 31, "'" + "ab" * 31 + "' is no SHA-256 of a certificate"),
        ("ab" * 20, "40 characters"),
        ("zz" * 32, "no file"),
        ("sha256:" + "ab" * 32, "no file"),
        ("", "name the certificate"),
        ("\0", "no file"),
        ("{pki}", "no file"),
        ("{pki}/ada.key", "ada.key: it holds no certificate in PEM"),
        ("{pki}/ca.pem", "ca.pem: its certificate names no principal"),
        ("{pki}/server.pem", "server.pem: its certificate names no principal"),
        ("{pki}/chain.pem", "chain.pem: it holds 2 certificates"),
        ("{pki}/large.pem", "large.pem: it has more than 65536 bytes"),
    ],
)
def test_what_is_no_certificate_is_not_revoked_and_is_named(
    file: Path, papers: Path, item: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = (papers / "ada.pem").read_bytes() + (papers / "ca.pem").read_bytes()
    (papers / "chain.pem").write_bytes(chain)
    (papers / "large.pem").write_bytes(chain * 100)
    assert _revoke(file, item.format(pki=papers)) == 3
    assert named in capsys.readouterr().err
    assert _revoked(file) == []


@pytest.mark.parametrize("reason", ["x" * 201, "two\nlines", "\x1b[2J"])
def test_reason_that_cannot_be_shown_in_a_line_is_refused(
    file: Path, papers: Path, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _revoke(file, str(papers / "ada.pem"), "--reason", reason) == 3
    assert "--reason: at most 200 printable" in capsys.readouterr().err
    assert _revoked(file) == []


def test_option_of_another_action_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _add(file)
    assert main(["principals", "--config", str(file), "disable", "ada", "--reason", "stolen"]) == 3
    assert main(["principals", "--config", str(file), "list", "--json"]) == 3
    assert capsys.readouterr().err.count("alone") == 2


def test_certificate_is_revoked_as_file_or_as_openssl_prints_its_thumbprint(
    file: Path, papers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = x509.load_pem_x509_certificate((papers / "ada.pem").read_bytes()).fingerprint(SHA256()).hex()
    printed = ":".join(found[n : n + 2] for n in range(0, 64, 2)).upper()
    assert _revoke(file, str(papers / "ada.pem"), "--reason", "laptop lost") == 0
    assert capsys.readouterr().out.startswith(f"{found}\trevoked")
    assert _revoke(file, printed) == 0  # the first word on it stays
    assert "was revoked before" in capsys.readouterr().out
    assert _revoke(file, "cd" * 32) == 0
    capsys.readouterr()
    assert main(["principals", "--config", str(file), "revoked-certificates", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["sha256"], one["principal"], one["reason"]) for one in told] == [
        (found, "ada", "laptop lost"),
        ("cd" * 32, "", ""),
    ]
    assert main(["principals", "--config", str(file), "revoked-certificates"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], *line[2:]) for line in lines] == [(found, "ada", "laptop lost"), ("cd" * 32, "-", "-")]


def test_database_of_an_older_release_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.dump(server(tmp_path, database_url=f"sqlite:///{tmp_path / 'none.db'}"), tmp_path / "server.toml")
    assert _revoke(tmp_path / "server.toml", "ab" * 32) == 3
    assert "run `assay-server migrate`" in capsys.readouterr().err
