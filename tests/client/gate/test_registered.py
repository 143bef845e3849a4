"""Verify and gate end to end on reports with a registered policy: nothing taken away makes a no into a yes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from assay import canonical
from assay.catalogue import SCHEMA
from assay.cli import run as running
from assay.forged_rules import ForgedRules
from assay.testing import Forge, forged_entry

from tests.client.test_verify_verdict import FAILS, PASSES, POLICY, STRADDLES, WAIVED, failed_print

Gate = Callable[..., tuple[int, dict[str, Any]]]

PLAIN = POLICY.replace("max_age_days: 30, ", "")
"""Without an age, which only a log can tell."""

FINDING = "schema: assay-policy/v1\nname: leak\nfindings: [{id: none, check: forged_probe, max_severity: note}]\n"
POWER = (PLAIN % "0.9").replace("op:", "min_power: 0.8, op:")
REFUSING = {"fail": PLAIN % "0.6", "straddles": PLAIN % "0.86", "finding": FINDING, "no_power": POWER}


def pinned(forge: Forge) -> tuple[object, ...]:
    """Return the options that trust a forge's keys, of reports and of the log."""
    return "--key", forge.key_file, "--log-vkey", forge.logged.log.vkey.text


@pytest.fixture
def gate(forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(report: Path, policy: str, *arguments: object) -> tuple[int, dict[str, Any]]:
        (tmp_path / "policy.yaml").write_text(policy)
        known = (*pinned(forge), "--catalogue", forge.catalogue_file)
        given = ("gate", report, "--policy", "policy.yaml", *known, "--json", *arguments)
        capsys.readouterr()
        code = running.run([str(one) for one in given])
        told = capsys.readouterr().out
        return code, json.loads(told) if told else {}

    return call


@pytest.mark.parametrize(("value", "code"), [("0.9", 0), ("0.6", 1), ("0.86", 2)])
def test_a_registered_policy_decides(forge: Forge, gate: Gate, value: str, code: int) -> None:
    policy = PLAIN % value
    found, told = gate(forge.report(rules=policy), policy)
    assert (found, told["policy"]["registered"]) == (code, True)
    assert gate(forge.report(rules=policy), policy + "\n# a comment changes nothing\n")[0] == code


def test_another_policy_than_the_registered_one_is_no_answer(forge: Forge, gate: Gate) -> None:
    report = forge.report(rules=PLAIN % "0.6")
    assert gate(report, PLAIN % "0.9")[0] == 2
    assert gate(forge.report(), PLAIN % "0.9")[0] == 2
    code, told = gate(report, PLAIN % "0.9", "--unregistered-policy")
    assert (code, told["policy"]["registered"]) == (0, False)
    assert any("--unregistered-policy" in one for one in told["warnings"])


def test_an_unsigned_report_and_a_stranger_key_never_pass(forge: Forge, gate: Gate, tmp_path: Path) -> None:
    policy = PLAIN % "0.9"
    report = forge.report(rules=policy)
    stranger = Forge(tmp_path / "other", seed=9)
    assert gate(report, policy)[0] == 0
    assert gate(stranger.report(rules=policy), policy)[0] == 1
    (report / "report.sigstore.json").unlink()
    assert gate(report, policy)[0] == 2


def test_an_age_runs_from_the_logged_moment_and_is_unknown_without_a_log(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(PASSES)
    report = forge.report(rules=PASSES)

    known = ("--catalogue", forge.catalogue_file)

    def ask(*arguments: object) -> tuple[int, str]:
        code = running.run([str(one) for one in ("gate", report, "--policy", "policy.yaml", *known, *arguments)])
        return code, capsys.readouterr().out

    root = ("--trust-root", forge.trust_root, "--now")
    assert ask(*root, "2026-02-01T03:04:00Z")[0] == 0
    code, out = ask(*root, "2026-02-02T03:04:00Z")
    assert (code, "too_old" in out) == (2, True)
    code, out = ask("--key", forge.key_file, "--no-log", "--now", "2026-01-03T00:00:00Z")
    assert (code, "age_unknown" in out) == (2, True)


def test_a_waiver_holds_on_its_days_and_an_expired_one_does_not(forge: Forge, gate: Gate, tmp_path: Path) -> None:
    policy = PLAIN % "0.6"
    report = forge.report(rules=policy)
    (tmp_path / "waivers.yaml").write_text(WAIVED % (failed_print(), "2026-01-01", "2026-03-01"))
    given = ("--waivers", "waivers.yaml", "--now")
    assert gate(report, policy, *given, "2026-03-01T23:59:59Z")[0] == 0
    code, told = gate(report, policy, *given, "2026-03-02T00:00:00Z")
    assert (code, told["waivers"][0]["state"]) == (1, "expired")


@pytest.mark.parametrize(
    "text",
    [
        "schema: assay-policy/v1\nname: x\n",  # nothing at level gate
        "schema: assay-policy/v1\nname: no\nname: x\n",
        "schema: assay-policy/v2\n",
        PASSES.replace("checks:", "chekcs:").replace("require", "requires"),
    ],
)
def test_an_unreadable_policy_is_usage_even_on_a_failing_report(forge: Forge, gate: Gate, text: str) -> None:
    assert gate(forge.report(rules=FAILS), text)[0] == 3


def test_baseline_drifts_by_itself(forge: Forge, gate: Gate, tmp_path: Path) -> None:
    policy = (PLAIN % "0.9") + (
        'compare: [{id: no-drop, check: forged_probe, metric: accuracy, op: ">=", value: -0.2}]\n'
    )
    report, older = forge.report(rules=policy), forge.report()
    assert gate(report, policy)[0] == 2  # without a baseline nobody can tell
    code, told = gate(report, policy, "--baseline", older)
    assert (code, told["baseline_sha256"] is not None) == (0, True), told
    assert gate(report, policy)[0] == 2  # a pass leaves nothing behind that the next run would be held against
    (older / "request.json").unlink()
    code, told = gate(report, policy, "--baseline", older)
    assert (code, [one["code"] for one in told["problems"]]) == (2, ["baseline_not_verified"])


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_no_file_that_is_taken_away_makes_a_no_into_a_yes(forge: Forge, gate: Gate, tmp_path: Path, name: str) -> None:
    policy = REFUSING[name]
    report = forge.report(rules=policy)
    assert gate(report, policy)[0] in (1, 2)
    files = sorted(path.relative_to(report) for path in report.rglob("*") if path.is_file())
    assert len(files) >= 7
    for number, file in enumerate(files):
        copy = tmp_path / f"without-{number}"
        shutil.copytree(report, copy)
        (copy / file).unlink()
        assert gate(copy, policy)[0] in (1, 2), file
        (copy / file).write_bytes(b"")
        assert gate(copy, policy)[0] in (1, 2), file


Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield every place in a statement."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*at, key)
        yield from places(child, (*at, key))


def without(value: Any, place: Place) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]
    return copy


def _all_deletions(forge: Forge, gate: Gate, name: str, share: float) -> int:
    policy = REFUSING[name]
    report = forge.report(rules=policy)
    honest = forge.statement(report)
    asked, rules = (report / "request.json").read_bytes(), ForgedRules(policy, None, forge.entry)
    draw = random.Random(name)
    tried = 0
    for place in places(honest):
        if draw.random() > share:
            continue
        altered = without(honest, place)
        assert gate(forge.reseal(report, altered), policy)[0] in (1, 2), place
        tried += 1
        if place[:2] in (("predicate", "policy"), ("predicate", "verdict")) or len(place) < 2:
            continue
        try:  # the operator deletes evidence and decides again, honestly on what is left
            bare = {key: one for key, one in altered["predicate"].items() if key not in ("policy", "verdict")}
            altered["predicate"] = rules.judged(bare, asked)
        except (KeyError, ValueError):
            continue
        assert gate(forge.reseal(report, altered), policy)[0] in (1, 2), place
    return tried


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_no_field_that_is_taken_away_makes_a_no_into_a_yes(forge: Forge, gate: Gate, name: str) -> None:
    assert _all_deletions(forge, gate, name, 0.08) >= 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(REFUSING))
def test_no_field_at_all_that_is_taken_away_makes_a_no_into_a_yes(forge: Forge, gate: Gate, name: str) -> None:
    assert _all_deletions(forge, gate, name, 1.0) >= 200


def test_a_straddling_report_is_registered_as_inconclusive(forge: Forge, gate: Gate) -> None:
    code, told = gate(forge.report(rules=STRADDLES), STRADDLES)
    assert (code, told["verify"]["verdict"]) == (2, "inconclusive")


def weaker(forge: Forge) -> Path:
    """Return a report that carries a catalogue entry without controls, and no control."""
    honest = forge.entry
    forge.entry = forged_entry(controls=[])
    answer = {**forge.answer({"layers": 2, "part": 0}), "controls": []}
    place = forge.report(rules=PLAIN % "0.9", answers=[answer])
    forge.entry = honest
    return place


def ask_all(
    forge: Forge, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, dict[str, str]]:
    """Return exit code and every output of a gate that knows no check of the forge's."""
    (tmp_path / "policy.yaml").write_text(PLAIN % "0.9")
    outs = {name: tmp_path / f"gate.{name}" for name in ("junit", "sarif", "md", "json")}
    told = [part for name, place in outs.items() for part in ("--out", f"{name}={place}")]
    given = ("gate", report, "--policy", tmp_path / "policy.yaml", *pinned(forge), *told, *arguments)
    capsys.readouterr()
    code = running.run([str(one) for one in given])
    return code, {"console": capsys.readouterr().out, **{name: place.read_text() for name, place in outs.items()}}


def test_a_weaker_entry_of_a_check_that_is_not_shipped_never_passes(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for report in (weaker(forge), forge.report(rules=PLAIN % "0.9")):  # nobody here can tell which is the weaker one
        code, outputs = ask_all(forge, report, tmp_path, capsys)
        assert code == 2
        assert all("check_not_shipped" in one or "only the report says" in one for one in outputs.values()), outputs
        code, outputs = ask_all(forge, report, tmp_path, capsys, "--unshipped-checks")
        assert code == 0
        assert [name for name, one in outputs.items() if "--unshipped-checks" not in one] == []


def test_a_catalogue_of_the_readers_own_tells_a_weaker_entry(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    own = ("--catalogue", forge.catalogue_file)
    assert ask_all(forge, forge.report(rules=PLAIN % "0.9"), tmp_path, capsys, *own)[0] == 0
    code, outputs = ask_all(forge, weaker(forge), tmp_path, capsys, *own, "--unshipped-checks")
    assert code == 1
    assert "differs in controls" in outputs["console"]
    other = tmp_path / "other.json"
    other.write_bytes(canonical.dumps({"schema": SCHEMA, "checks": [dict(forged_entry(version="2.0").raw)]}))
    assert ask_all(forge, forge.report(rules=PLAIN % "0.9"), tmp_path, capsys, "--catalogue", other)[0] == 2


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"schema":"assay-catalogue/v1","checks":[{}]}', None])
def test_a_catalogue_that_is_none_is_misuse(
    forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None
) -> None:
    (tmp_path / "policy.yaml").write_text(PLAIN % "0.9")
    place = tmp_path / "own.json"
    if data is not None:
        place.write_bytes(data)
    given = (
        "gate",
        forge.report(),
        "--policy",
        tmp_path / "policy.yaml",
        "--key",
        forge.key_file,
        "--catalogue",
        place,
    )
    assert running.run([str(one) for one in given]) == 3
    assert "own.json" in capsys.readouterr().err
