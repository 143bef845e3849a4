"""`assay gate` as a command: the code is set once, whatever is printed or written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay.cli import run as running
from assay.gate import established
from assay.testing import Forge

Gate = Callable[..., tuple[int, str, str]]
POLICY = """schema: assay-policy/v1
name: release
assertions:
  - {id: low, check: forged_probe, metric: accuracy, op: "<=", value: VALUE}
"""


@pytest.fixture
def gate(forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(value: str, *arguments: object) -> tuple[int, str, str]:
        (tmp_path / "policy.yaml").write_text(POLICY.replace("VALUE", value))
        given: tuple[object, ...] = (
            "gate",
            forge.report(),
            "--policy",
            "policy.yaml",
            "--key",
            forge.key_file,
            "--log-vkey",
            forge.logged.log.vkey.text,
            "--catalogue",
            forge.catalogue_file,
            *arguments,
        )
        code = running.run([str(one) for one in given])
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


LOOSE = "--unregistered-policy"


@pytest.mark.parametrize(("value", "code"), [("0.9", 0), ("0.8", 1), ("0.85", 2), ("1e3", 3)])
def test_the_codes(gate: Gate, value: str, code: int) -> None:
    assert gate(value, LOOSE)[0] == code
    assert gate(value, LOOSE, "--json")[0] == code
    outs = [part for name in ("junit", "sarif", "md", "json") for part in ("--out", f"{name}=gate.{name}")]
    assert gate(value, LOOSE, *outs)[0] == code
    assert gate(value, LOOSE, "--out", "md=absent/gate.md")[0] == {0: 2}.get(code, code)


def test_a_policy_that_nobody_registered_is_2(gate: Gate) -> None:
    code, out, _ = gate("0.9")
    assert code == 2
    assert "policy_not_registered" in out


def test_the_json_form(gate: Gate) -> None:
    code, out, _ = gate("0.8", LOOSE, "--json")
    assert out.count("\n") == 1
    body = json.loads(out)
    assert (body["schema"], body["outcome"], body["exit"]) == ("assay-gate/v1", "fail", code)


def test_usage_is_3(gate: Gate) -> None:
    for bad in (["--out", "html=x"], ["--now", "today"], ["--waivers", "absent"], ["--nonsense"]):
        assert gate("0.9", LOOSE, *bad)[0] == 3, bad
    assert gate("0.9\n    on: 1", LOOSE)[0] == 3
    code, _, err = gate("0.9}\n  - {id: low", LOOSE)
    assert code == 3
    assert "line 5" in err


def test_plugin_import_error_is_soft(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks inside is "could not tell", never a yes and never a no."""

    def broken(*arguments: Any, **named: Any) -> None:
        raise ImportError("a defect")

    monkeypatch.setattr(established, "look", broken)
    assert gate("0.9", LOOSE)[0] == gate("0.8", LOOSE)[0] == 2


def test_annotations_only_where_a_runner_reads_them(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "::error" not in gate("0.8", LOOSE)[1]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    _, out, _ = gate("0.8", LOOSE)
    found = [line for line in out.splitlines() if line.startswith("::")]
    assert len(found) == 1
    assert found[0].startswith("::error file=policy.yaml,line=4,title=forged_probe/low::")
    assert "::error" not in gate("0.8", LOOSE, "--json")[1]


def test_waivers_are_read_and_told(gate: Gate, tmp_path: Path) -> None:
    code, out, _ = gate("0.8", LOOSE, "--json", "--now", "2026-01-10T00:00:00Z")
    (failing,) = [one for one in json.loads(out)["assertions"][0]["instances"] if one["outcome"] == "fail"]
    assert code == 1
    told = {"outcome": "fail", "reason": "known", "approver": "ann", "created": "2026-01-01", "expires": "2026-01-10"}
    body = {"schema": "assay-waivers/v1", "waivers": [{"fingerprint": failing["fingerprint"], **told}]}
    (tmp_path / "w.json").write_text(json.dumps(body))
    code, out, _ = gate("0.8", LOOSE, "--waivers", "w.json", "--now", "2026-01-10T23:59:59Z")
    assert code == 0
    assert "waived until 2026-01-10" in out
    code, out, _ = gate("0.8", LOOSE, "--waivers", "w.json", "--now", "2026-01-11T00:00:00Z")
    assert code == 1
    assert "waiver expired on 2026-01-10" in out
