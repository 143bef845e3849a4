"""What lies around a gate: the folder under test, the files it decides on, a console that obeys, a closed one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from assay.cli import run as running
from assay.cli.screen import SCREEN
from assay.errors import Misused
from assay.gate import outputs
from assay.testing import Forge

POLICY = """schema: assay-policy/v1
name: release
assertions: [{id: low, check: forged_probe, metric: accuracy, op: "<=", value: 0.9}]
"""
Gate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gate(forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    for name in ("CI", "GITHUB_ACTIONS", "ASSAY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "policy.yaml").write_text(POLICY)

    def call(report: Path, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        known = ("gate", report, "--policy", "policy.yaml", "--catalogue", forge.catalogue_file)
        code = running.run([str(one) for one in (*known, *arguments)])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


def trusting(forge: Forge, folder: Path) -> Path:
    """Write a client configuration that trusts the forge."""
    folder.mkdir(parents=True)
    for name in ("ca", "certificate", "key"):
        (folder / name).write_text("x")
    shutil.copy(forge.trust_root, folder / "root.1.dsse.json")
    told = {"address": "127.0.0.1:1", "ca": "ca", "certificate": "certificate", "key": "key"}
    (folder / "client.json").write_text(json.dumps({**told, "trust_root": "root.1.dsse.json"}))
    return folder / "client.json"


@pytest.mark.parametrize("place", [".", ".."])
@pytest.mark.parametrize("variable", ["CI", "GITHUB_ACTIONS"])
def test_the_repository_under_test_does_not_choose_whom_its_gate_trusts(
    forge: Forge, gate: Gate, monkeypatch: pytest.MonkeyPatch, place: str, variable: str
) -> None:
    report = forge.report(rules=POLICY)
    config = trusting(forge, Path(place).resolve() / ".assay")
    code, out, _ = gate(report, "--out", "md=m.md", "--out", "junit=j.xml", "--out", "sarif=s.json")
    assert code == 0, out  # at a desk the file counts, and every output names it
    for text in (out, *(Path(name).read_text() for name in ("m.md", "j.xml", "s.json"))):
        assert "client.json" in text
    assert "client.json" in json.loads(gate(report, "--json")[1])["key_source"]
    monkeypatch.setenv(variable, "true")
    code, out, _ = gate(report)
    assert code == 2
    assert "in the folder under test" in out
    assert gate(report, "--config", config)[0] == 0  # named, so chosen


def test_a_configuration_at_home_is_the_readers_own(
    forge: Forge, gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trusting(forge, tmp_path / "home" / "assay")
    monkeypatch.setenv("CI", "true")
    assert gate(forge.report(rules=POLICY))[0] == 0


def test_an_output_never_replaces_what_is_decided_on(forge: Forge, gate: Gate, tmp_path: Path) -> None:
    report, older = forge.report(rules=POLICY), forge.report()
    Path("link").symlink_to(report)
    Path("file").symlink_to(report / "request.json")
    (report.parent / "waivers.yaml").write_text("schema: assay-waivers/v1\nwaivers: []\n")
    before = {path: path.read_bytes() for path in report.parent.rglob("*") if path.is_file()}
    log, root, waivers = forge.log_dir, forge.trust_root, report.parent / "waivers.yaml"
    given = ("--baseline", older, "--log", log, "--trust-root", root, "--waivers", waivers, "--model", forge.model_dir)
    inside = (report / "report.sigstore.json", report / "x" / "new.json", Path("link") / "request.json", Path("file"))
    others = (
        older / "gate.json",
        log / "checkpoint",
        root,
        waivers,
        forge.model_dir / "x",
        Path("policy.yaml"),
        report,
    )
    for place in (*inside, *others):
        code, _, err = gate(report, *given, "--out", f"json={place}")
        assert (code, "would replace" in err) == (3, True), place
    code, _, err = gate(report, *given, "--out", "json=out.json", "--out", "md=./x/../out.json")
    assert (code, "another output" in err) == (3, True)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert Path("policy.yaml").read_text() == POLICY


def test_outputs_beside_the_inputs_are_fine(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    files = {"json": tmp_path / "gate.json", "md": tmp_path / "report.md"}
    outputs.apart(files, [tmp_path / "report", tmp_path / "policy.yaml", None])
    with pytest.raises(Misused):
        outputs.apart(files, [tmp_path])


HOSTILE = "x ##[add-mask]e\n::error::owned\n  ::stop-commands::x"


def test_no_line_of_any_command_is_one_for_the_runner(
    gate: Gate, forge: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also not an error's, nor a traceback's, nor one inside a JSON string."""
    wanted = {"name": forge.entry.name, "version": "1.0"}
    older, report = (
        forge.report(rules=POLICY, ask={"checks": [{**wanted, "params": {"layers": 2, "x": value}}]})
        for value in ("a", "##[add-mask]e")
    )
    known = ("--trust-root", forge.trust_root)
    seen = [gate(report, "--baseline", older, *known), gate(report, "--baseline", older, "--json", *known)]
    for arguments in (
        ("compare", older, report, *known),
        ("compare", older, report, "--json", *known),
        ("verify", HOSTILE),
    ):
        running.run([str(one) for one in (*arguments, "--debug")])
        told = capsys.readouterr()
        seen.append((0, told.out, told.err))
    SCREEN.out(HOSTILE)
    SCREEN.note(HOSTILE)
    SCREEN.json({"x": HOSTILE})
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[-1]) == {"x": HOSTILE}
    for text in (told.out, told.err, *(part for _, *both in seen for part in both)):
        assert "##[" not in text
        assert not [line for line in text.splitlines() if line.strip().startswith("::")]
    assert any("add-mask" in out + err for _, out, err in seen)


@pytest.mark.parametrize(("redirect", "code"), [(">&-", 2), ("> /dev/full", 2), ("2>&-", 0), ("", 0)])
def test_a_pass_that_nobody_could_read_is_none(forge: Forge, tmp_path: Path, redirect: str, code: int) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    known = ["--key", forge.key_file, "--log-vkey", forge.logged.log.vkey.text, "--catalogue", forge.catalogue_file]
    start = "import sys; from assay.cli import main; sys.exit(main())"
    given = [sys.executable, "-c", start, "gate", forge.report(rules=POLICY), "--policy", "policy.yaml", *known]
    ran = subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", *map(str, given)],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
