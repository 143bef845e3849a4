"""What cannot be accepted is named and sends nothing; waiting ends with an honest code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from assay.api.v1 import audits_pb2
from assay.testing import Forge

from tests.client.conftest import Assay
from tests.client.fakes import AUDIT, Fake, event

BIN = Path(sys.executable).with_name("assay")
OUTCOME, STATE = audits_pb2.Audit.Outcome, audits_pb2.Audit.State


def failed_answer(forge: Forge, reason: str = "TIME_LIMIT", outcome: str = "failed") -> dict[str, Any]:
    return {
        **forge.answer({"layers": 2, "part": 0}),
        "outcome": outcome, "valid": False, "reason": reason, "measured": None, "controls": [], "findings": [],
    }  # fmt: skip


def missed_answer(forge: Forge) -> dict[str, Any]:
    answer = forge.answer({"layers": 2, "part": 0})
    answer["controls"][0] |= {"held": False, "value": "0.7"}
    return {**answer, "valid": False}


def test_submit_prints_the_name_and_what_was_left_out(assay: Assay, fake: Fake, model: Path) -> None:
    (model / "notes.txt").write_text("mine")
    ran = assay("submit", model, "--check", "forged_probe:layers=3", "--param", "forged_probe.part=1", "--label", "a=b")
    assert ran.code == 0
    assert AUDIT in ran.out
    assert "notes.txt" in ran.err
    sent = fake.audits.requests[-1].audit
    assert json.loads(sent.checks[0].parameters_json) == {"layers": 3, "part": 1}
    assert dict(sent.labels) == {"a": "b"}
    assert (model / "model.safetensors").read_bytes() in fake.blobs.whole.values()


def test_submit_asks_before_it_sends(assay: Assay, fake: Fake, model: Path) -> None:
    assay("submit", model, "--check", "forged_probe")
    assert [one.validate_only for one in fake.audits.requests] == [True, False]
    assert len({one.request_id for one in fake.audits.requests}) == 1
    assert len({one.audit.nonce for one in fake.audits.requests}) == 1


def test_a_service_that_cannot_run_audits_is_warned_of(assay: Assay, fake: Fake, model: Path) -> None:
    fake.capabilities.isolation, fake.capabilities.detail = "none", "bubblewrap is not installed"
    ran = assay("submit", model, "--check", "forged_probe")
    assert (ran.code, "bubblewrap is not installed" in ran.err) == (0, True)


def test_data_travels_with_its_role(assay: Assay, fake: Fake, model: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"id":"a"}\n')
    ran = assay("submit", model, "--check", "forged_probe", "--data", "pairs=pairs.jsonl", "--json")
    assert ran.json()["audit"] == AUDIT
    [data] = fake.audits.requests[-1].audit.data
    assert (data.role, data.rows, data.media_type) == ("pairs", 1, "application/jsonl")
    assert fake.blobs.whole[data.blob.sha256] == b'{"id":"a"}\n'


def test_a_refused_request_sends_no_byte(assay: Assay, fake: Fake, model: Path) -> None:
    fake.audits.refusal = ("INVALID_ARGUMENT", "BAD_DATA_ROLE", "It needs data of role pairs.")
    ran = assay("submit", model, "--check", "forged_probe")
    assert ran.code == 3
    assert "pairs" in ran.err
    assert not fake.blobs.whole
    assert not fake.blobs.asked


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--check", "forged_prob"), "did you mean forged_probe"),
        (("--check", "forged_probe:layer=2"), "did you mean layers"),
        (("--check", "forged_probe", "--param", "forged_probe.layres=2"), "did you mean layers"),
        (("--check", "forged_probe", "--param", "other.layers=2"), "other is not asked"),
        (("--check", "forged_probe", "--check", "forged_probe", "--param", "forged_probe.layers=2"), "twice"),
        (("--check", "forged_probe", "--param", "layers=2"), "CHECK.KEY=VALUE"),
        (("--check", "forged_probe:layers=1,layers=2"), "given twice"),
        (("--check", "forged_probe:"), "NAME:key=value"),
        ((), "--check"),
        (("--check", "forged_probe", "--data", "pairs"), "KEY=VALUE"),
        (("--check", "forged_probe", "--data", "pairs=gone.jsonl"), "gone.jsonl"),
        (("--check", "forged_probe", "--label", "x"), "KEY=VALUE"),
        (("--check", "forged_probe", "--wall-s", "soon"), "wall-s"),
        (("--check", "forged_probe", "--report", "r"), "--wait"),
        (("--check-json", "gone.json"), "gone.json"),
        (("--check", "forged_probe", "--nope"), "--nope"),
    ],
)
def test_bad_usage_is_3_and_named_and_sends_nothing(
    assay: Assay, fake: Fake, model: Path, arguments: tuple[str, ...], named: str
) -> None:
    ran = assay("submit", model, *arguments)
    assert ran.code == 3, ran
    assert named in ran.err
    assert not fake.audits.requests
    assert not fake.blobs.asked


def test_a_bad_model_and_a_bad_line_are_told_together(assay: Assay, fake: Fake, model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    (tmp_path / "pairs.jsonl").write_text('{"id":"a"}\n{"id":"b"}\n{"id":\n')
    ran = assay("submit", model, "--check", "forged_probe", "--data", "pairs=pairs.jsonl", "--json")
    assert ran.code == 3
    assert "pytorch_model.bin" in ran.err
    assert "pairs.jsonl, line 3" in ran.err
    assert len(ran.json()["error"]["problems"]) == 2
    assert not fake.audits.requests


@pytest.mark.parametrize("body", ["[]", "{", '{"check":7}', '{"check":"a","params":{}}', '[{"check":"a"},3]'])
def test_a_check_file_of_another_form_is_named(assay: Assay, model: Path, tmp_path: Path, body: str) -> None:
    (tmp_path / "ask.json").write_text(body)
    ran = assay("submit", model, "--check-json", "ask.json")
    assert ran.code == 3
    assert "ask.json" in ran.err or "--check" in ran.err


def test_a_check_file_is_read(assay: Assay, fake: Fake, model: Path, tmp_path: Path) -> None:
    asked = [{"check": "forged_probe", "parameters": {"layers": [1, 2]}}, {"check": "forged_probe"}]
    (tmp_path / "ask.json").write_text(json.dumps(asked))
    assert assay("submit", model, "--check-json", "ask.json").code == 0
    assert [json.loads(one.parameters_json) for one in fake.audits.requests[-1].audit.checks] == [
        {"layers": [1, 2]},
        {},
    ]


def test_an_expired_deadline_is_4(assay: Assay, fake: Fake, model: Path) -> None:
    ran = assay("submit", model, "--check", "forged_probe", "--timeout-s", "0.000001")
    assert ran.code == 4
    assert not fake.audits.requests


def test_one_request_id_is_one_audit(assay: Assay, fake: Fake, model: Path) -> None:
    arguments = ("submit", model, "--check", "forged_probe", "--request-id", "7b9d0c8e-3a7e-4c53-9d6f-1d0f3f6f0a11")
    assert assay(*arguments).code == 0
    assert assay(*arguments).code == 0
    assert len(fake.audits.by_request) == 1
    assert assay(*arguments, "--label", "other=content").code == 3


def test_wait_measured_is_0_with_report_and_findings(assay: Assay, fake: Fake, model: Path, forge: Forge) -> None:
    fake.reports.serve(forge.report())
    fake.audits.connections = [
        [
            event(1, state_changed=audits_pb2.StateChanged(state=STATE.STATE_RUNNING)),
            event(2, attempt_started=audits_pb2.AttemptStarted(job="whole", number=1)),
            event(3, phase_reached=audits_pb2.PhaseReached(phase="sweep", done=3, owed=8)),
        ]
    ]
    ran = assay("submit", model, "--check", "forged_probe", "--wait")
    assert ran.code == 0, ran
    assert f"MEASURED {AUDIT}" in ran.out
    assert "0.861 [0.835, 0.883]" in ran.out
    assert "sweep 3/8" in ran.err
    assert "attempt 1 of job whole started" in ran.err
    assert Path("assay-reports", "a" * 32, "report.sigstore.json").is_file()


def test_wait_failed_says_failed_and_why(assay: Assay, fake: Fake, model: Path, forge: Forge) -> None:
    fake.audits.outcome = OUTCOME.OUTCOME_FAILED
    fake.reports.serve(forge.report(answers=[failed_answer(forge)]))
    ran = assay("submit", model, "--check", "forged_probe", "--wait", "--report", "there")
    assert ran.code == 2
    assert ran.out.splitlines()[-1] == f"FAILED {AUDIT} : forged_probe failed: TIME_LIMIT (wall limit 20 s)"
    assert Path("there", "report.sigstore.json").is_file()


def test_wait_refused_and_inconclusive_are_2(assay: Assay, fake: Fake, model: Path, forge: Forge) -> None:
    arguments = ("submit", model, "--check", "forged_probe", "--wait")
    fake.audits.outcome = OUTCOME.OUTCOME_REFUSED
    fake.reports.serve(forge.report(answers=[failed_answer(forge, "ingest:st_tail", "refused")]))
    ran = assay(*arguments, "--report", "one")
    assert (ran.code, "refused: ingest:st_tail" in ran.out) == (2, True)
    fake.audits.outcome = OUTCOME.OUTCOME_INCONCLUSIVE
    fake.reports.serve(forge.report(answers=[missed_answer(forge)]))
    ran = assay(*arguments, "--report", "two", "--json")
    assert ran.code == 2
    document = ran.json()
    assert (document["outcome"], document["exit"], document["report"]) == ("INCONCLUSIVE", 2, "two")
    assert document["findings"]["answers"][0]["state"] == "inconclusive"


def test_a_service_that_says_more_than_its_report_is_not_believed(
    assay: Assay, fake: Fake, model: Path, forge: Forge
) -> None:
    fake.reports.serve(forge.report(answers=[missed_answer(forge)]))
    ran = assay("submit", model, "--check", "forged_probe", "--wait")
    assert ran.code == 2
    assert "MEASURED" in ran.out
    assert ran.out.splitlines()[-1].startswith("INCONCLUSIVE")


@pytest.mark.parametrize(
    ("state", "word"), [(STATE.STATE_FAILED, "FAILED"), (STATE.STATE_CANCELLED, "CANCELLED"), (99, "UNKNOWN")]
)
def test_watch_without_a_report_is_2(assay: Assay, fake: Fake, state: Any, word: str) -> None:
    fake.audits.state = state
    fake.audits.attempts = [audits_pb2.Attempt(job="whole", number=1, exit_class=audits_pb2.EXIT_CLASS_WORKER_LOST)]
    ran = assay("watch", AUDIT)
    assert ran.code == 2
    assert ran.out.startswith(f"{word} {AUDIT}")
    assert "WORKER_LOST" in ran.out


def test_watch_tells_the_exit_class_of_a_failed_outcome(assay: Assay, fake: Fake) -> None:
    fake.audits.outcome = OUTCOME.OUTCOME_FAILED
    fake.audits.attempts = [audits_pb2.Attempt(job="whole", number=1, exit_class=audits_pb2.EXIT_CLASS_TIME_LIMIT)]
    ran = assay("watch", "a" * 32)
    assert (ran.code, "TIME_LIMIT (wall limit 20 s)" in ran.out) == (2, True)


def test_watch_that_loses_the_service_is_4_and_says_how_to_go_on(assay: Assay, fake: Fake) -> None:
    fake.audits.connections = [
        [event(5, state_changed=audits_pb2.StateChanged(state=STATE.STATE_RUNNING)), "UNAVAILABLE"],
        *(["UNAVAILABLE"] for _ in range(50)),
    ]
    ran = assay("watch", AUDIT)
    assert ran.code == 4
    assert f"assay watch {AUDIT} --after 5" in ran.err


def test_an_interrupt_is_130_and_says_how_to_go_on(fake: Fake, tmp_path: Path) -> None:
    """A real process, interrupted while it waits for events."""
    fake.audits.connections = [[*(event(i, registered=audits_pb2.Registered()) for i in (1, 2))]]
    fake.audits.hold = True
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ASSAY_CONFIG": str(fake.config)}
    process = subprocess.Popen(
        [BIN, "watch", AUDIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    assert "registered" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert f"assay watch {AUDIT}" in err
    assert "Traceback" not in err
