"""The gate: codes 0 to 3 from real verifications, and nothing missing is ever a yes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from assay.cli import codes
from assay.errors import Misused
from assay.gate import annotations as console
from assay.gate import outputs
from assay.policy import fingerprint
from assay.policy.waivers import Waiver
from assay.testing import Forge

from tests.client.gate.looking import NOW, ask, look, policy, with_step


def test_a_verified_report_that_holds_passes_with_0(forge: Forge) -> None:
    told = ask(look(forge, forge.report()))
    assert (told.outcome, told.exit_code, told.problems) == ("pass", 0, ())
    body = told.to_json()
    assert (body["schema"], body["outcome"], body["exit"]) == ("assay-gate/v1", "pass", 0)
    assert {"assertions", "waivers", "verify"} <= set(body)
    assert body["verify"]["schema"] == "assay-verify/v1"
    json.dumps(body, allow_nan=False)
    assert any("development key" in one for one in told.warnings)


def test_a_seed_that_the_auditor_chose_is_told_beside_a_pass(forge: Forge) -> None:
    derived = ask(look(forge, forge.report()))
    fixed = ask(look(forge, forge.report(ask={"seed_mode": "fixed", "seed": 7})))
    assert (derived.outcome, fixed.outcome) == ("pass", "pass")
    assert [any("FIXED" in one for one in told.warnings) for told in (derived, fixed)] == [False, True]


def test_a_failing_assertion_is_1_and_a_straddling_one_2(forge: Forge) -> None:
    report = look(forge, forge.report())
    assert (ask(report, policy("0.8")).outcome, ask(report, policy("0.8")).exit_code) == ("fail", 1)
    assert (ask(report, policy("0.85")).outcome, ask(report, policy("0.85")).exit_code) == ("inconclusive", 2)


def test_wrong_outranks_everything(forge: Forge) -> None:
    place = forge.report()
    statement = forge.statement(place)
    statement["predicate"]["answers"][0]["controls"].pop()
    told = ask(look(forge, forge.reseal(place, statement)))
    assert (told.outcome, told.exit_code) == ("wrong", 1)


def test_without_a_trusted_key_it_could_not_tell_even_if_it_would_fail(forge: Forge) -> None:
    told = ask(look(forge, forge.report(), keys=False), policy("0.1"))
    assert (told.outcome, told.exit_code, told.verdict) == ("inconclusive", 2, None)


def test_a_signed_failure_stands_whatever_else_is_missing(forge: Forge) -> None:
    report = look(forge, forge.report())
    for name in ("V05", "V06", "V08", "V10", "V12"):
        assert ask(with_step(report, name, "unknown"), policy("0.8")).outcome == "fail"
    assert ask(with_step(report, "V03", "unknown"), policy("0.8")).outcome == "inconclusive"


def test_failed_run_dropped(forge: Forge) -> None:
    place = forge.report()
    statement = forge.statement(place)
    del statement["predicate"]["attempts"][0]
    assert ask(look(forge, forge.reseal(place, statement))).outcome == "wrong"


def test_a_policy_that_was_not_registered_is_2_and_told_where_it_is_allowed(forge: Forge) -> None:
    report = look(forge, forge.report())
    for registered in (None, "0" * 64, ""):
        told = ask(report, registered_policy_sha256=registered)
        assert (told.outcome, [one.code for one in told.problems]) == ("inconclusive", ["policy_not_registered"])
        allowed = ask(report, registered_policy_sha256=registered, unregistered_policy=True)
        assert allowed.outcome == "pass"
        assert "not registered" in allowed.warnings[0]
    assert ask(report, policy("0.8"), registered_policy_sha256=None).exit_code == 2


def test_the_age_runs_from_the_log(forge: Forge) -> None:
    report = look(forge, forge.report())
    aged = policy(more="report: {max_age_days: 8}")
    assert ask(report, aged).outcome == "pass"
    assert ask(report, aged, now=NOW.replace(day=11)).outcome == "inconclusive"
    assert ask(replace(report, reported_at=None), aged).outcome == "inconclusive"


def test_no_step_may_be_missing_unknown_or_unheard_of(forge: Forge) -> None:
    report = look(forge, forge.report())
    free = {"V09", "V13", "V14", "V15"}
    for step in report.verification.steps:
        for status in ("unknown", "wrong", "of the future", None):
            for no_log in (False, True):
                told = ask(with_step(report, step.id, status), no_log=no_log)
                assert told.exit_code == (1 if status == "wrong" else 2), (step.id, status)
        told = ask(with_step(report, step.id, "not_asked"))
        assert told.outcome == ("pass" if step.id in free else "inconclusive"), step.id
        rest = tuple(one for one in report.verification.steps if one is not step)
        cut = replace(report, verification=replace(report.verification, steps=rest))
        assert ask(cut).outcome == ("pass" if step.id in free else "inconclusive"), step.id
    unheard: Any = "of the future"
    strange = replace(report.verification, outcome=unheard)
    assert ask(replace(report, verification=strange)).outcome == "inconclusive"


def test_a_report_that_is_in_no_log_passes_only_by_name_and_that_is_told(forge: Forge) -> None:
    """With a pinned key alone nobody looks when the report was signed, or whether its request came first."""
    unlogged = with_step(look(forge, forge.report()), "V05", "not_asked")
    told = ask(unlogged)
    assert (told.outcome, [one.code for one in told.problems]) == ("inconclusive", ["step_unknown"])
    assert "--no-log" in told.problems[0].detail
    allowed = ask(unlogged, no_log=True)
    assert (allowed.outcome, allowed.problems) == ("pass", ())
    for render in outputs.FORMATS.values():
        assert b"--no-log" in render(allowed)
    assert any("--no-log" in line for line in console.lines(allowed))
    assert ask(unlogged, policy("0.8")).exit_code == 1
    assert not any("--no-log" in one for one in ask(look(forge, forge.report()), no_log=True).warnings)


def test_taking_a_part_away_never_makes_a_pass(forge: Forge) -> None:
    report = look(forge, forge.report())
    seen = report.verification
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("statement_absent", {"statement": None}),
        ("", {"statement": {}}),
        ("request_absent", {"request": None}),
        ("", {"request": {}}),
        ("", {"entries": {}}),
        ("profile_unknown", {"verification": replace(seen, profile=None)}),
        ("profile_unknown", {"verification": replace(seen, profile="of the future")}),
    )
    for code, change in changes:
        told = ask(replace(report, **change))
        assert told.outcome == "inconclusive", change
        assert [one.code for one in told.problems] == [code] * bool(code)
        assert ask(replace(report, **change), policy("0.8")).outcome in ("inconclusive", "fail")
    told = ask(with_step(with_step(report, "V07", "wrong"), "V08", "unknown"))
    assert [one.code for one in told.problems] == ["step_wrong", "step_unknown"]


def test_a_finding_cannot_be_dropped_from_a_signed_report(forge: Forge) -> None:
    place = forge.report()
    asked = policy(more="findings: [{id: f, check: forged_probe, max_severity: note}]")
    assert ask(look(forge, place), asked).outcome == "fail"
    bundle = place / "report.sigstore.json"
    whole = bundle.read_bytes()
    statement = forge.statement(place)
    statement["predicate"]["answers"][0]["findings"].clear()
    forge.reseal(place, statement)
    assert ask(look(forge, place), asked).outcome == "inconclusive"  # silence, even honestly signed, is no yes
    other = Forge(place.parent, seed=9)
    bundle.write_bytes(whole)
    other.reseal(place, statement)
    assert ask(look(forge, place), asked).outcome == "wrong"


def waiver(outcome: str = "fail", **change: Any) -> Waiver:
    told: dict[str, Any] = {
        "fingerprint": fingerprint.of_metric("forged_probe", "low", "accuracy", (("layer", "1"),)),
        "outcome": outcome,
        "reason": "known `since` | May",
        "approver": "ann@example.com",
        "created": date(2026, 1, 1),
        "expires": date(2026, 1, 10),
        "model": None,
    }
    return Waiver(**{**told, **change})


def test_ignore_after_fail_on(forge: Forge) -> None:
    """A waiver acts before the verdict, so what it accepts cannot fail the run afterwards."""
    report = look(forge, forge.report())
    told = ask(report, policy("0.8"), waivers=(waiver(),))
    assert (told.outcome, told.exit_code) == ("pass", 0)
    assert told.to_json()["waivers"][0]["state"] == "used"
    assert len(told.waived) == 1
    expired = ask(report, policy("0.8"), waivers=(waiver(expires=date(2026, 1, 9)),))
    assert expired.outcome == "fail"
    assert any("expired on 2026-01-09" in one for one in expired.warnings)
    unused = ask(report, waivers=(waiver(),))
    assert any("unused" in one for one in unused.warnings)


def test_a_waiver_cannot_cover_a_signature(forge: Forge) -> None:
    report = look(forge, forge.report(), keys=False)
    assert ask(report, policy("0.8"), waivers=(waiver(), waiver("inconclusive"))).outcome == "inconclusive"


def test_a_failed_write_turns_0_into_2_and_no_other_code(forge: Forge, tmp_path: Path) -> None:
    report = look(forge, forge.report())
    there, lost = tmp_path / "gate.json", tmp_path / "absent" / "gate.md"
    for asked, code, spoilt in ((policy(), 0, 2), (policy("0.8"), 1, 1), (policy("0.85"), 2, 2)):
        told = ask(report, asked)
        assert outputs.final_code(told, outputs.write(told, {"json": there})) == code
        failed = outputs.write(told, {"md": lost, "json": there})
        assert len(failed) == 1
        assert outputs.final_code(told, failed) == spoilt
        assert json.loads(there.read_bytes())["exit"] == code  # the others are written all the same
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "forge") == ["gate.json"]


def test_json_flag_changes_exit_code(forge: Forge) -> None:
    report = look(forge, forge.report())
    for asked in (policy(), policy("0.8"), policy("0.85")):
        told = ask(report, asked)
        before = told.exit_code
        for render in outputs.FORMATS.values():
            render(told)
        assert told.exit_code == before == told.to_json()["exit"]


def test_a_renderer_that_breaks_is_a_failed_write(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(result: object) -> bytes:
        raise KeyError(result)

    monkeypatch.setattr(outputs, "FORMATS", {**outputs.FORMATS, "md": broken})
    told = ask(look(forge, forge.report()))
    files = {"md": tmp_path / "gate.md", "json": tmp_path / "gate.json"}
    assert outputs.final_code(told, outputs.write(told, files)) == 2
    assert files["json"].exists()


def test_uncaught_exception_reads_as_policy_failed() -> None:
    assert codes.of_error(KeyError("a defect")) == 2
    assert codes.of_error(MemoryError()) == 2


@pytest.mark.parametrize("option", ["junit", "junit=", "=x", "html=x", "JUNIT=x", ""])
def test_a_bad_out_is_usage(option: str) -> None:
    with pytest.raises(Misused) as caught:
        outputs.parse([option])
    assert codes.of_error(caught.value) == 3


def test_outs_are_read_and_named_once() -> None:
    assert outputs.parse(["junit=a=b.xml", "md=c"]) == {"junit": Path("a=b.xml"), "md": Path("c")}
    for twice in (["md=a", "md=b"], ["md=a", "json=a"]):
        with pytest.raises(Misused):
            outputs.parse(twice)
