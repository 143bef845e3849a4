"""Text of others is printable, reports are rendered without claims, `--json` is one document."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from assay.api.v1 import audits_pb2, capabilities_pb2
from assay.testing import Forge

from tests.client.conftest import Assay
from tests.client.fakes import AUDIT, Fake
from tests.client.render.planted import RULES, accepted

BIN = Path(sys.executable).with_name("assay")
OUTCOME, STATE = audits_pb2.Audit.Outcome, audits_pb2.Audit.State


def failed_answer(forge: Forge, reason: str = "TIME_LIMIT", outcome: str = "failed") -> dict[str, Any]:
    return {
        **forge.answer({"layers": 2, "part": 0}),
        "outcome": outcome, "valid": False, "reason": reason, "measured": None, "controls": [], "findings": [],
    }  # fmt: skip


def test_lists_and_shows(assay: Assay, fake: Fake) -> None:
    fake.audits.listed = [audits_pb2.Audit(name=f"audits/{i}", state=STATE.STATE_RUNNING) for i in range(5)]
    assert [one["name"] for one in assay("audits", "--json").json()] == [f"audits/{i}" for i in range(5)]
    assert len(assay("audits", "--limit", "3", "--json").json()) == 3
    assert assay("audits").out.count("RUNNING") == 5
    fake.audits.state = STATE.STATE_RUNNING
    assert assay("show", AUDIT, "--json").json()["state"] == "RUNNING"
    assert "RUNNING" in assay("show", AUDIT).out
    assert assay("cancel", AUDIT, "--json").json()["state"] == "CANCELLING"


def test_the_service_cannot_write_to_the_terminal(assay: Assay, fake: Fake) -> None:
    nasty = "\x1b[2J[bold]\u202e\r"
    fake.audits.listed = [
        audits_pb2.Audit(name=f"audits/{nasty}", checks=[audits_pb2.CheckRequest(check=nasty)], state_reason=nasty)
    ]
    ran = assay("audits")
    assert ran.code == 0
    assert not set(ran.out) & {"\x1b", "\u202e", "\r"}
    assert "[bold]" in ran.out


def test_checks_have_exactly_the_promised_fields(assay: Assay) -> None:
    ran = assay("checks", "--json")
    [check] = ran.json()
    assert list(check) == [
        "name", "version", "summary", "source", "access", "params", "power", "false_positive_rate",
    ]  # fmt: skip
    assert check["power"] == {"estimate": 0.5, "low": 0.25, "high": 0.75, "n": 8, "at": "planted"}
    assert check["false_positive_rate"] is None
    assert check["params"]["properties"]["layers"] == {"type": "integer"}
    assert "service" in ran.err
    assert "power: 0.5 [0.25, 0.75]" in assay("checks").out


def test_every_limit_that_the_service_publishes_is_shown(assay: Assay) -> None:
    fields = [field.name for field in capabilities_pb2.GetCapabilitiesResponse.DESCRIPTOR.fields]
    told = assay("capabilities", "--json").json()
    assert set(told) == set(fields)
    assert (told["message_bytes_max"], told["unary_deadline_s"]) == (4 << 20, 30.0)
    lines = dict(line.split(maxsplit=1) for line in assay("capabilities").out.splitlines())
    assert set(lines) == set(fields)
    assert (lines["message_bytes_max"], lines["unary_deadline_s"]) == ("4194304", "30")


def test_checks_offline_say_so(assay: Assay, monkeypatch: pytest.MonkeyPatch, forge: Forge, tmp_path: Path) -> None:
    from assay import canonical, catalogue

    rate = {"estimate": "0.9", "low": "0.8", "high": "0.95", "n": 40, "at": "planted"}
    document = {"schema": catalogue.SCHEMA, "checks": [{**forge.entry.raw, "power": rate}]}
    shipped = catalogue.parse(canonical.dumps(document))
    monkeypatch.setattr(catalogue, "load", lambda: shipped)
    ran = assay("checks", "--offline", "--json")
    assert ran.json()[0]["power"] == {"estimate": 0.9, "low": 0.8, "high": 0.95, "n": 40, "at": "planted"}
    assert "shipped with this client" in ran.err
    monkeypatch.delenv("ASSAY_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no client configuration" in assay("checks").err


def test_unreachable_is_4(assay: Assay, fake: Fake) -> None:
    fake.stop()
    ran = assay("audits", "--timeout-s", "2")
    assert ran.code == 4
    assert "assay-server dev" in ran.err or "cannot reach" in ran.err


def test_no_configuration_is_3(assay: Assay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ASSAY_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = assay("audits")
    assert ran.code == 3
    assert "assay-server dev" in ran.err


def test_report_goes_where_it_should(assay: Assay, fake: Fake, forge: Forge) -> None:
    fake.reports.serve(forge.report())
    assert assay("report", AUDIT, "--out", "x/y", "--json").json()["directory"].endswith("x/y")
    assert Path("x/y/report.sigstore.json").is_file()
    assert "assay verify" in assay("report", AUDIT).out


def test_a_report_is_not_fetched_without_a_word_of_its_waivers(assay: Assay, fake: Fake, forge: Forge) -> None:
    fake.reports.serve(forge.report(rules=RULES, waivers=accepted()))
    said = assay("report", AUDIT).out
    assert "Waivers registered with it: 2." in said
    for word in ("release board", "2026-06-01", "ticket 12", "ada"):
        assert word in said
    fake.reports.serve(forge.report(rules=RULES))
    assert "aiver" not in assay("report", AUDIT, "--out", "y").out


def test_a_withdrawn_report_says_so_when_it_is_fetched(assay: Assay, fake: Fake, forge: Forge) -> None:
    fake.reports.serve(forge.report())
    fake.reports.withdrawn = "wrong_model"
    ran = assay("report", AUDIT)
    assert ran.code == 0
    assert "WITHDRAWN by the operator on 2026-01-01, reason wrong_model" in ran.err
    assert assay("report", AUDIT, "--out", "y", "--json").json()["withdrawal_reason"] == "wrong_model"


def test_verify_codes_and_where_the_key_came_from(assay: Assay, fake: Fake, forge: Forge) -> None:
    made = forge.report()
    ran = assay("verify", made, "--key", forge.key_file, "--model", forge.model_dir, "--json")
    seen = ran.json()
    assert (seen["schema"], seen["key_source"]) == ("assay-verify/v1", "--key")
    assert ran.code == {"verified": 0, "wrong": 1, "unknown": 2}[seen["outcome"]]
    assert next(step for step in seen["steps"] if step["step"] == "V03")["status"] == "ok"
    ran = assay("verify", made)
    assert ran.code == 2
    assert "give --trust-root" in ran.out
    config = json.loads(fake.config.read_text())
    fake.config.write_text(json.dumps({**config, "report_key": str(forge.key_file)}))
    assert "report_key of the client configuration" in assay("verify", made).out
    other = Forge(forge.model_dir.parent / "other", seed=9)
    assert assay("verify", made, "--key", other.key_file).code == 1
    assert assay("verify", made, "--key", "gone.pem").code == 3
    assert assay("verify", "gone").code == 2


def test_findings_put_first_what_was_not_answered(assay: Assay, forge: Forge) -> None:
    made = forge.report(checks=2, answers=[forge.answer({"part": 0}), failed_answer(forge, "check_error")])
    ran = assay("findings", made)
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert "proves nothing" in lines[1]
    assert lines.index("Not answered:") < next(i for i, line in enumerate(lines) if "control" in line)
    assert "check_error" in ran.out
    assert "held   ShuffledLabels (null): accuracy{layer=1} = 0.503, band [0.45, 0.55]" in ran.out
    assert "accuracy{layer=1} = 0.861 [0.835, 0.883] level 0.95 wilson fraction, n 800" in ran.out


def test_findings_never_say_clean(assay: Assay, forge: Forge) -> None:
    answer = {**forge.answer({"part": 0}), "findings": []}
    ran = assay("findings", forge.report(answers=[answer]))
    assert "not detected; power not measured" in ran.out
    power = {
        "metric": "accuracy", "effect": "planted", "value": "0.9", "low": "0.8", "high": "0.95", "n_planted": 40,
        "fpr": "0.05",
    }  # fmt: skip
    made = forge.report(answers=[{**answer, "power": [power]}])
    ran = assay("findings", made)
    assert "not detected; power 0.9 [0.8, 0.95] at n 40" in ran.out
    answer["findings"] = [{**forge.answer({})["findings"][0], "word": "not-detected"}]
    assert "readable{layer=1} not detected; power not measured" in assay("findings", forge.report(answers=[answer])).out
    path = r"\s*".join(re.escape(letter) for letter in str(made).lower())  # lines break inside of long ones
    said = re.sub(path, "", ran.out.lower())
    for forbidden in ("clean", "safe", "free of", "no evidence"):
        assert forbidden not in said


def test_words_from_the_future_read_as_inconclusive(assay: Assay, forge: Forge) -> None:
    ran = assay("findings", forge.report(answers=[{**forge.answer({}), "outcome": "splendid"}]), "--json")
    assert ran.json()["answers"][0]["state"] == "inconclusive"
    assert ran.json()["verified"] is False


def test_a_report_cannot_write_to_the_terminal(assay: Assay, forge: Forge) -> None:
    answer = forge.answer({"part": "\x1b]0;x\x07"})
    answer["findings"][0] |= {"claim": "\x1b[2J\u202eevil\n::error::x", "word": "[red]\x1b"}
    ran = assay("findings", forge.report(answers=[answer]), "--all")
    assert ran.code == 0
    assert not set(ran.out) & {"\x1b", "\x07", "\u202e"}
    assert not [line for line in ran.out.splitlines() if line.startswith("::")]


def test_a_malformed_report_is_could_not_tell(assay: Assay, forge: Forge) -> None:
    made = forge.report()
    (made / "report.sigstore.json").write_text("{}")
    assert assay("findings", made).code == 2
    assert assay("findings", "gone").code == 2
