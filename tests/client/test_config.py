"""One configuration counts, it is named in every complaint, and files are never merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from assay.client_errors import NoConfig
from assay.config import discover, find, read

GOOD = {"address": "localhost:1", "ca": "ca.pem", "certificate": "c.pem", "key": "k.pem"}


def write(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ca.pem", "c.pem", "k.pem", "r.pem"):
        (folder / name).write_text("PEM")
    file = folder / "client.json"
    file.write_text(json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not ...}))
    return file


def test_the_order_of_places(tmp_path: Path) -> None:
    home = write(tmp_path / "home" / ".config" / "assay")
    environ = {"HOME": str(tmp_path / "home")}
    below = tmp_path / "project" / "deep" / "er"
    below.mkdir(parents=True)
    assert discover(None, environ, below) == home
    near = write(tmp_path / "project" / ".assay")
    assert discover(None, environ, below) == near
    assert discover(None, {**environ, "ASSAY_CONFIG": "/named.json"}, below) == Path("/named.json")
    assert discover(Path("/given.json"), {**environ, "ASSAY_CONFIG": "/named.json"}, below) == Path("/given.json")
    assert discover(None, {"HOME": "/nowhere"}, tmp_path / "elsewhere") is None


def test_none_found_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoConfig, match="assay-server dev"):
        find(None, {"HOME": str(tmp_path)})


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = read(write(tmp_path, report_key="r.pem"))
    assert config.ca == tmp_path / "ca.pem"
    assert config.report_key == tmp_path / "r.pem"
    assert read(write(tmp_path, report_key=None)).report_key is None


def test_a_token_stands_in_for_certificate_and_key_but_not_for_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    alone = read(write(tmp_path, token_file="token", certificate=..., key=...))
    assert (alone.token_file, alone.certificate, alone.key) == (tmp_path / "token", None, None)
    assert read(write(tmp_path, token_file="token")).certificate == tmp_path / "c.pem"
    with pytest.raises(NoConfig, match="key is missing"):
        read(write(tmp_path, token_file="token", key=...))
    with pytest.raises(NoConfig, match="certificate is missing"):
        read(write(tmp_path, certificate=..., key=...))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"key": ...}, "key is missing"),
        ({"token_file": "gone.token"}, r"gone\.token"),
        ({"colour": "red"}, "colour"),
        ({"address": 7}, "address"),
        ({"address": "a\x1b[2J"}, "address"),
        ({"ca": "gone.pem"}, r"gone\.pem"),
    ],
)
def test_a_bad_key_is_named(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(NoConfig, match=named):
        read(write(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"address":1,"address":2}', b"\xff"])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "client.json"
    file.write_bytes(content)
    with pytest.raises(NoConfig, match=r"client\.json"):
        read(file)


def test_a_named_file_that_is_absent_is_an_error_and_not_skipped(tmp_path: Path) -> None:
    with pytest.raises(NoConfig, match=r"gone\.json"):
        find(None, {"ASSAY_CONFIG": str(tmp_path / "gone.json")})
