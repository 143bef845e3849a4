"""A report's findings are formed again from its numbers alone: without torch, without a model, by anybody."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from assay.result import Answer
from assay.testing import Forge

from checks.__main__ import main
from checks.rejudge import CannotRejudge, read_answers, rejudge
from checks.truth_probe.check import TruthProbe
from tests.checks.toy import TOYS
from tests.checks.truth_probe.reported import answer, of_set, ran, whole

ROOT = Path(__file__).resolve().parents[2]

CATALOGUE = {"truth_probe": TruthProbe}


def measured_answer() -> dict[str, Any]:
    """An answer of the truth probe as a report has it."""
    check = TruthProbe()
    real = answer([*whole(), *whole(layer="1"), *of_set()], layers=("0", "1"))
    controls = tuple(ran(control.name).model_copy(update={"kind": control.kind}) for control in check.controls)
    told = Answer(
        check=check.name,
        version=check.version,
        params=json.loads(check.model_dump_json()),
        outcome="measured",
        valid=True,
        measured=real,
        controls=controls,
        findings=check.judge(real, controls),
    )
    value = told.to_json()
    named = [{**one, "fingerprint": "2" * 32} for one in value["findings"]]
    return {**value, "findings": named, "code_sha256": "0" * 64, "catalogue_sha256": "1" * 64}


def refused_answer() -> dict[str, Any]:
    told = Answer(check="truth_probe", version=TruthProbe.version, params={}, outcome="refused", reason="no_data")
    return {**told.to_json(), "code_sha256": "0" * 64, "catalogue_sha256": "1" * 64}


def statement_of(*answers: dict[str, Any]) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [],
        "predicateType": "https://assay.example/report/v1",
        "predicate": {"schema_version": "1.0", "answers": list(answers)},
    }


def sealed(folder: Path, statement: dict[str, Any] | bytes) -> Path:
    """Write a report's folder with a statement, under a signature that nobody made."""
    payload = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "0" * 64}},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": "", "keyid": "0" * 64}],
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "report.sigstore.json").write_text(json.dumps(bundle))
    return folder


def reported(folder: Path, *answers: dict[str, Any]) -> Path:
    return sealed(folder / "report", statement_of(*answers))


@pytest.mark.parametrize("of", ["folder", "file"])
def test_the_same_numbers_give_the_same_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], of: str) -> None:
    whole_answer = measured_answer()
    place = reported(tmp_path, whole_answer)
    count = len(whole_answer["findings"])
    assert count >= 4
    assert main(["rejudge", str(place if of == "folder" else place / "report.sigstore.json")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"truth_probe: {count} of {count} findings recomputed"
    assert "no signature was checked: `assay verify REPORT`" in said[1]


def a_nicer_word(told: dict[str, Any]) -> None:
    told["findings"][0]["word"] = "READABLE-ONLY"


def a_nicer_claim(told: dict[str, Any]) -> None:
    told["findings"][0]["claim"] += " All is well."


def a_softer_severity(told: dict[str, Any]) -> None:
    told["findings"][-1]["severity"] = "breach"


def a_lost_finding(told: dict[str, Any]) -> None:
    told["findings"].pop()


def a_finding_too_many(told: dict[str, Any]) -> None:
    told["findings"].append(told["findings"][0])


def a_lost_control(told: dict[str, Any]) -> None:
    told["controls"].pop()


def another_number(told: dict[str, Any]) -> None:
    auroc = next(one for one in told["measured"]["metrics"] if one["name"] == "auroc")
    auroc["value"], auroc["interval"]["low"], auroc["interval"]["high"] = "0.55", "0.5", "0.6"


def another_threshold(told: dict[str, Any]) -> None:
    told["params"]["detect_floor"] = "0.97"


@pytest.mark.parametrize(
    ("altered", "said"),
    [
        (a_nicer_word, "word: reported 'READABLE-ONLY', recomputed 'SUPPORTED'"),
        (a_nicer_claim, "claim: reported"),
        (a_softer_severity, "severity: reported 'breach', recomputed"),
        (a_lost_finding, "is recomputed alone"),
        (a_finding_too_many, "is reported alone"),
        (a_lost_control, "recomputed 'INCONCLUSIVE'"),
        (another_number, "finding 1 of"),
        (another_threshold, "finding 1 of"),
    ],
)
def test_what_does_not_follow_from_the_numbers_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], altered: Callable[[dict[str, Any]], None], said: str
) -> None:
    told = measured_answer()
    altered(told)
    assert main(["rejudge", str(reported(tmp_path, told))]) == 1
    assert said in capsys.readouterr().out.splitlines()[0]


def test_one_word_of_many_answers_is_found(tmp_path: Path) -> None:
    wrong = measured_answer()
    a_nicer_word(wrong)
    told = rejudge(reported(tmp_path, measured_answer(), refused_answer(), wrong), CATALOGUE)
    assert [one.state for one in told] == ["same", "not_measured", "different"]
    assert told[1].said == "truth_probe: refused (no_data), so there is nothing to recompute"


def test_a_refused_answer_with_findings_is_no_answer_of_ours(tmp_path: Path) -> None:
    told = {**refused_answer(), "findings": measured_answer()["findings"]}
    assert rejudge(reported(tmp_path, told), CATALOGUE)[0].state == "different"


def test_nothing_recomputed_is_no_success(tmp_path: Path) -> None:
    assert main(["rejudge", str(reported(tmp_path, refused_answer()))]) == 2
    assert main(["rejudge", str(reported(tmp_path))]) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "0.1"}, f"the report's version is 0.1, this build has {TruthProbe.version}"),
        ({"check": "other_probe"}, "this build has no such check"),
        ({"params": {"alpha": "9"}}, "params.alpha"),
        ({"valid": "yes"}, "no answer that this build can read: valid"),
        ({"measured": None}, "no answer that this build can read"),
    ],
)
def test_what_this_build_cannot_judge_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    place = reported(tmp_path, {**measured_answer(), **change})
    assert main(["rejudge", str(place)]) == 2
    assert said in capsys.readouterr().out


def test_numbers_that_break_the_judge_are_no_crash(tmp_path: Path) -> None:
    toy = Answer(
        check="toy",
        version="1.0",
        params={"raises": "judge"},
        outcome="measured",
        measured=answer([]),
    )
    told = rejudge(reported(tmp_path, toy.to_json()), TOYS)
    assert told[0].state == "cannot"
    assert "cannot be judged (RuntimeError" in told[0].said


def test_a_name_from_a_report_never_drives_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["rejudge", str(reported(tmp_path, {**measured_answer(), "check": "\x1b[31mred"}))])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b'{"a":1,"a":2}', "json_duplicate_key"),
        (b'{"a":0.5}', "json_number"),
        (b"[]", "/_type of the statement"),
        (json.dumps({**statement_of(), "predicateType": "https://example.org/x"}).encode(), "/predicateType"),
        (json.dumps({**statement_of(), "predicate": {"schema_version": "2.0"}}).encode(), "schema 1.x"),
        (json.dumps({**statement_of(), "predicate": {"schema_version": "1.0"}}).encode(), "/predicate/answers"),
    ],
)
def test_what_is_no_report_is_refused_with_its_reason(tmp_path: Path, payload: bytes, said: str) -> None:
    with pytest.raises(CannotRejudge, match=said):
        read_answers(sealed(tmp_path / "report", payload))


def test_a_file_that_is_absent_or_no_bundle_is_refused(tmp_path: Path) -> None:
    assert main(["rejudge", str(tmp_path)]) == 2
    for text, said in (
        ("{}", "payloadType"),
        ('{"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json"}}', "payload is missing"),
        ('{"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"*"}}', "not base64"),
        ("{", "json_invalid"),
    ):
        (tmp_path / "report.sigstore.json").write_text(text)
        with pytest.raises(CannotRejudge, match=said):
            read_answers(tmp_path)


def test_a_bundle_as_the_service_writes_it_is_read(tmp_path: Path) -> None:
    forge = Forge(tmp_path, seed=1)
    place = forge.report()
    assert rejudge(place, CATALOGUE)[0].said.startswith("'forged_probe': cannot be recomputed: this build has no such")
    statement = forge.statement(place)
    statement["predicate"]["answers"] = [measured_answer()]
    assert rejudge(forge.reseal(place, statement), CATALOGUE)[0].state == "same"


def test_it_runs_without_torch(tmp_path: Path) -> None:
    place = reported(tmp_path, measured_answer())
    script = (
        "import sys\n"
        "from checks.__main__ import main\n"
        "code = main(['rejudge', sys.argv[1], '--json'])\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(place)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["exit"], told["answers"][0]["state"]) == ("assay-rejudge/v1", 0, "same")
    assert "assay verify" in told["note"]
