"""What a caller asks of a report he asks of its baseline, too: no flag is dropped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from assay import dsse
from assay.cli import run as running
from assay.gate import established
from assay.gate.gate import Baseline, Report
from assay.tlog import entries, proofs
from assay.tlog.entries import Entry

from tests.client.gate.bundles import Bundles, items, rules


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundles:
    for name in ("GITHUB_ACTIONS", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return Bundles(tmp_path)


@pytest.fixture
def run(bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(command: str, *arguments: object) -> tuple[int, str]:
        forge = bundles.forge
        trusted = ("--key", forge.key_file, "--log-vkey", forge.logged.log.vkey.text)
        given = (command, *arguments, *trusted, "--catalogue", forge.catalogue_file)
        code = running.run([str(one) for one in given])
        return code, capsys.readouterr().out

    return call


def withdraw(bundles: Bundles, report: Path) -> None:
    """Log that a report is withdrawn."""
    import hashlib

    from assay import bundle

    payload = bundle.read((report / bundle.FILE_NAME).read_bytes()).payload
    proven = proofs.read_proof((report / proofs.REPORT_PROOF).read_bytes())
    entry = Entry(
        kind="withdrawal",
        at="2026-01-05T00:00:00Z",
        commit=hashlib.sha256(dsse.pae(dsse.PAYLOAD_TYPE, payload)).hexdigest(),
        tag=entries.parse(proven.entry).tag,
        prev=proven.index,
        reason="wrong_model",
    )
    bundles.forge.logged.log.append(entry)


def both(bundles: Bundles) -> tuple[Path, Path]:
    Path("policy.yaml").write_text(rules())
    return bundles.report("0.8", items(0.80)), bundles.report("0.8", items(0.80), rules())


def test_a_withdrawn_baseline_is_refused_where_the_log_is_given(bundles: Bundles, run: Any) -> None:
    older, report = both(bundles)
    asked = (report, "--policy", "policy.yaml", "--baseline", older, "--now", "2026-01-10T00:00:00Z")
    assert run("gate", *asked, "--log", bundles.forge.log_dir)[0] == 0
    withdraw(bundles, older)
    log = bundles.forge.log_dir
    assert run("verify", older, "--log", log)[0] == 1
    code, out = run("gate", *asked, "--log", log)
    assert code == 2
    assert "baseline_not_verified: the baseline is not verified: V15" in out
    code, out = run("gate", *asked)
    assert code == 0
    assert "warning: baseline: not checked: the log itself was not looked at" in out


def test_compare_and_replicate_refuse_a_withdrawn_report_where_the_log_is_given(bundles: Bundles, run: Any) -> None:
    older, report = both(bundles)
    assert run("compare", older, report, "--log", bundles.forge.log_dir)[0] == 0
    withdraw(bundles, older)
    log = bundles.forge.log_dir
    for sides in ((older, report), (report, older)):
        code, out = run("compare", *sides, "--log", log)
        assert code == 1
        assert "withdrawn" in out
    code, out = run("compare", older, report)
    assert code == 0
    for side in "AB":
        assert f"{side} not checked: the log itself was not looked at" in out
    code, out = run("replicate", older, "--log", log)
    assert code == 1
    assert "withdrawn" in out


def test_flags_that_are_of_the_report_alone_say_so(bundles: Bundles, run: Any, tmp_path: Path) -> None:
    older, report = both(bundles)
    receipt = tmp_path / "receipt"
    receipt.mkdir()
    for name in ("request.json", proofs.REQUEST_PROOF):
        (receipt / name).write_bytes((report / name).read_bytes())
    given = ("--model", bundles.forge.model_dir, "--receipt", receipt, "--now", "2026-01-10T00:00:00Z")
    code, out = run("gate", report, "--policy", "policy.yaml", "--baseline", older, *given)
    assert code == 0
    assert "baseline: not checked: its model files (--model is of the report alone)" in out
    assert "baseline: not checked: its receipt (--receipt is of the report alone)" in out


def against(bundles: Bundles, older: Report, baseline: Path, report: Path, **given: Any) -> Baseline:
    return established.against(report, bundles.look(report, **given), baseline, older)


def test_a_baseline_that_was_looked_at_less_than_the_report_is_no_baseline(bundles: Bundles) -> None:
    """The library's entry points: who looks at the two by himself may forget what he asked of the first."""
    older, report = both(bundles)
    log = bundles.forge.log_dir
    whole = bundles.look(older, log_dir=log)
    assert against(bundles, whole, older, report, log_dir=log).problem is None
    for less in (bundles.look(older), bundles.look(older, log_dir=log, log_vkeys=[])):
        found = against(bundles, less, older, report, log_dir=log)
        assert found.problem is not None
        assert found.problem.code == "baseline_not_verified"
        assert found.differences is None
    unlogged = bundles.look(older, log_vkeys=[])
    found = against(bundles, unlogged, older, report)
    assert found.problem is not None
    assert "V05" in found.problem.detail
    assert against(bundles, unlogged, older, report, log_vkeys=[]).problem is None
