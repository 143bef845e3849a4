"""`assay render`: one file or none, and verification's own code whatever is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from assay.cli.render import render
from assay.cli.reports import verify
from assay.render.page import COMMAND
from assay.testing import Forge
from assay.tlog.entries import Entry, parse

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
    app.command("verify")(verify)
    named = arguments if arguments[0] == "verify" else ("render", *arguments)
    code: Any = app(args=[*map(str, named)], prog_name="assay", standalone_mode=False)
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


PASSES = (
    "schema: assay-policy/v1\nname: release\nassertions:\n"
    '  - {id: low, check: forged_probe, metric: accuracy, op: "<=", value: 0.9}\n'
)


def banner(page: Path) -> str:
    return page.read_text().split("</header>")[0]


def test_withdrawn_report_is_no_pass_on_its_page(forge: Forge, tmp_path: Path) -> None:
    place, page = forge.report(rules=PASSES), tmp_path / "page.html"
    asked, told = (parse(data) for data in forge.logged.log.entries)
    left = Entry(kind="withdrawal", at="2026-01-02T03:06:00Z", tag=asked.tag, commit=told.commit, prev=1, reason="bad")
    trusted = ("--html", page, "--trust-root", forge.trust_root)
    assert run(place, *trusted, "--log", forge.log_dir) == 0
    assert ">PASS<" in banner(page)
    forge.logged.log.append(left)
    assert run(place, *trusted, "--log", forge.log_dir, "--unverified") == 1
    assert "NOT ESTABLISHED" in banner(page)
    assert "V15 wrong" in banner(page)


def test_everything_that_verify_holds_a_report_against_is_held_against_a_page(forge: Forge, tmp_path: Path) -> None:
    place, page = forge.report(rules=PASSES), tmp_path / "page.html"
    trusted = (place, "--html", page, "--trust-root", forge.trust_root)
    full_set = ("--log", forge.log_dir, "--model", forge.model_dir, "--receipt", place)
    assert run(*trusted, *full_set, "--catalogue", forge.catalogue_file, "--now", "2026-02-01T00:00:00Z") == 0
    assert "was not looked at" not in page.read_text()
    assert run(*trusted) == 0
    assert "model files not checked" in page.read_text(), "what was left open is said"
    other = Forge(tmp_path / "other", seed=9)
    for option, value, step in (
        ("--model", other.log_dir, "V09"),
        ("--receipt", other.report(), "V06"),
        ("--now", "2025-01-01T00:00:00Z", "V0"),
        ("--first", other.report(), "V14"),
    ):
        assert run(*trusted, option, value, "--unverified") in (1, 2)
        assert "NOT ESTABLISHED" in banner(page)
        assert step in banner(page)


def test_the_printed_command_works_as_printed(forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, page = forge.report(rules=PASSES), tmp_path / "page.html"
    assert run(place, "--html", page, "--key", forge.key_file) == 0
    assert f"<code>{COMMAND}</code>" in page.read_text()
    (tmp_path / "REPORT").symlink_to(place)
    (tmp_path / "LOG").symlink_to(forge.log_dir)
    (tmp_path / "MODEL").symlink_to(forge.model_dir)
    (tmp_path / "root.1.dsse.json").write_bytes(forge.trust_root.read_bytes())
    capsys.readouterr()
    words = COMMAND.split()
    assert words[0] == "assay"
    assert run(*words[1:], "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one for one in told["steps"] if one["status"] != "ok"] == []
