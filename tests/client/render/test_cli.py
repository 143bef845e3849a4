"""`assay render`: one file or none, and verification's own code whatever is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from assay.cli.render import render
from assay.testing import Forge

from tests.client.render.planted import full


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ASSAY_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> int:
    app = typer.Typer()
    app.command("render")(render)
    app.command("other")(lambda: 0)  # with one command alone typer takes no name
    code: Any = app(args=["render", *map(str, arguments)], prog_name="assay", standalone_mode=False)
    assert isinstance(code, int)
    return code


def test_verified_report_is_written(forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run(forge.report(), "--html", page, "--key", forge.key_file) == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert str(len(page.read_bytes())) in capsys.readouterr().out
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".page")] == []


def test_report_without_key_is_not_rendered_unless_asked(forge: Forge, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run(full(forge), "--html", page) == 2
    assert not page.exists()
    assert run(full(forge), "--html", page, "--unverified") == 2
    assert "NOT ESTABLISHED" in page.read_text()


def test_altered_report_stays_a_no(forge: Forge, tmp_path: Path) -> None:
    place, page = full(forge), tmp_path / "page.html"
    statement = forge.statement(place)
    statement["predicate"]["answers"][0]["controls"].pop()
    forge.reseal(place, statement)
    assert run(place, "--html", page, "--key", forge.key_file) == 1
    assert not page.exists()
    assert run(place, "--html", page, "--key", forge.key_file, "--unverified") == 1
    assert "V10 wrong" in page.read_text()


def test_bytes_that_are_no_report_give_no_page(tmp_path: Path, forge: Forge) -> None:
    (tmp_path / "junk").write_bytes(b"{}")
    page = tmp_path / "page.html"
    assert run(tmp_path / "junk", "--html", page, "--key", forge.key_file, "--unverified") == 1
    assert not page.exists()


def test_failed_write_turns_yes_into_could_not_tell(forge: Forge, tmp_path: Path) -> None:
    assert run(forge.report(), "--html", tmp_path / "no" / "page.html", "--key", forge.key_file) == 2
    place = full(forge)
    (place / "assay-manifest.json").write_bytes(b"{}")
    assert run(place, "--html", tmp_path / "no" / "page.html", "--key", forge.key_file, "--unverified") == 1


def test_json_names_file_digest_and_code(forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run(forge.report(), "--html", page, "--key", forge.key_file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["exit"], told["bytes"]) == ("assay-render/v1", 0, len(page.read_bytes()))
    assert told["verify"]["outcome"] == "verified"
