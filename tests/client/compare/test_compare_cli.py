"""The command `assay compare`: exit codes, and what verification has to say first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from assay.bundle import FILE_NAME
from assay.testing import Forge

from tests.client.compare.planted import P1, WORSE, Pair, held, with_shares


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


class Run:
    """The command, as the table of commands will call it."""

    def __init__(self, pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
        self._pair, self._capsys = pair, capsys

    def __call__(self, *arguments: object, key: bool = True) -> tuple[int, str]:
        import typer
        from assay.cli import codes
        from assay.cli.compare import compare as command
        from assay.errors import AssayError

        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command("compare")(command)
        keys = ["--key", str(self._pair.key)] if key else []
        try:
            code = app(args=[*map(str, arguments), *keys], standalone_mode=False)
        except AssayError as error:
            code = codes.of_error(error)
        return int(code), self._capsys.readouterr().out


@pytest.fixture
def run(pair: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSAY_CONFIG", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Run(pair, capsys)


def test_the_command_ends_with_zero_whatever_the_words(run: Run, pair: Pair) -> None:
    a = pair.report(0, with_shares(*P1), held=held(*P1))
    b = pair.report(1, with_shares(WORSE, P1[1]), held=held(WORSE, P1[1]))
    code, out = run(a, b)
    assert (code, "1 cannot_tell, 1 regressed" in out) == (0, True)
    code, out = run(a, b, "--json", "--margin", "forged_probe/accuracy=0.5")
    assert code == 0
    assert json.loads(out)["counts"] == {"equivalent": 2}


def test_verifications_code_wins(run: Run, pair: Pair) -> None:
    a, b = pair.report(0), pair.report(1)
    assert run(a, a.parent / "absent", "--json")[0] == 2
    forged = pair.report(1)
    (forged / FILE_NAME).write_bytes((forged / FILE_NAME).read_bytes().replace(b'"sig":"M', b'"sig":"N'))
    for sides in ((a, forged), (forged, a), (forged, a.parent / "absent")):
        code, out = run(*sides, "--json")
        assert (code, json.loads(out)["outcome"]) == (1, "not_verified")
    stranger = Forge(a.parent / "stranger", seed=2).report()
    assert run(stranger, b)[0] == 1


@pytest.mark.parametrize("margin", ["accuracy=0.1", "forged_probe/accuracy", "forged_probe/accuracy=0", "a/b=1e-3",
                                    "a/b=-1", "forged_probe/=1"])  # fmt: skip
def test_a_margin_in_another_form_is_refused(run: Run, pair: Pair, margin: str) -> None:
    a = pair.report(0)
    assert run(a, a, "--margin", margin)[0] == 3
