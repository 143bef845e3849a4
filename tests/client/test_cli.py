"""Exit codes tell the truth, text of others is printable, `--json` is one document, bad input sends nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from assay.api.v1 import audits_pb2
from assay.cli import catalogue as checks_command
from assay.cli import options
from assay.cli.run import run
from assay.testing import Forge

from tests.client.fakes import AUDIT, Fake, event, write_model

BIN = Path(sys.executable).with_name("assay")
OUTCOME, STATE = audits_pb2.Audit.Outcome, audits_pb2.Audit.State


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Assay = Callable[..., Ran]


@pytest.fixture
def assay(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Assay:
    monkeypatch.setenv("ASSAY_CONFIG", str(fake.config))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(options, "PATIENCE_S", 1.0)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run([str(one) for one in arguments])
        seen = capsys.readouterr()
        return Ran(code, seen.out, seen.err)

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "forge")


def failed_answer(forge: Forge, reason: str = "TIME_LIMIT", outcome: str = "failed") -> dict[str, Any]:
    return {
        **forge.answer({"layers": 2, "part": 0}),
        "outcome": outcome, "valid": False, "reason": reason, "measured": None, "controls": [], "findings": [],
    }  # fmt: skip


def missed_answer(forge: Forge) -> dict[str, Any]:
    answer = forge.answer({"layers": 2, "part": 0})
    answer["controls"][0] |= {"held": False, "value": "0.7"}
    return {**answer, "valid": False}


# Submit


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


# Waiting


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


# Looking


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


# Reports


def test_report_goes_where_it_should(assay: Assay, fake: Fake, forge: Forge) -> None:
    fake.reports.serve(forge.report())
    assert assay("report", AUDIT, "--out", "x/y", "--json").json()["directory"].endswith("x/y")
    assert Path("x/y/report.sigstore.json").is_file()
    assert "assay verify" in assay("report", AUDIT).out


def test_verify_codes_and_where_the_key_came_from(assay: Assay, fake: Fake, forge: Forge) -> None:
    made = forge.report()
    ran = assay("verify", made, "--key", forge.key_file, "--model", forge.model_dir, "--json")
    seen = ran.json()
    assert (seen["schema"], seen["key_source"]) == ("assay-verify/v1", "--key")
    assert ran.code == {"verified": 0, "wrong": 1, "unknown": 2}[seen["outcome"]]
    assert next(step for step in seen["steps"] if step["step"] == "V03")["status"] == "ok"
    ran = assay("verify", made)
    assert ran.code == 2
    assert "give --key" in ran.out
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
    said = ran.out.lower().replace(str(made), "")
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


# Codes


@pytest.mark.parametrize("arguments", [("nope",), ("show",), ("show", "a", "b"), ("audits", "--limit", "0"), ("--x",)])
def test_usage_is_3_and_never_2(assay: Assay, arguments: tuple[str, ...]) -> None:
    assert assay(*arguments).code == 3


def test_help_is_0_and_nothing_at_all_is_3(assay: Assay) -> None:
    ran = assay("--help")
    assert (ran.code, "Exit codes" in ran.out) == (0, True)
    assert assay().code == 3


def test_an_unexpected_exception_is_2_and_never_1(assay: Assay, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret\x1b[2J")

    monkeypatch.setattr(checks_command, "_checks", broken)
    ran = assay("checks", "--json")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert "\x1b" not in ran.err
    assert ran.json()["error"]["type"] == "ZeroDivisionError"
    assert "Traceback" in assay("--debug", "checks").err


@pytest.mark.parametrize(("arguments", "code"), [(("version",), 2), (("verify", "gone"), 2), (("nope",), 3)])
def test_a_full_disk_turns_only_success_into_could_not_tell(arguments: tuple[str, ...], code: int) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([BIN, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_never_turns_wrong_into_something_else(forge: Forge, tmp_path: Path) -> None:
    made = forge.report()
    other = Forge(tmp_path / "other", seed=9)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [BIN, "verify", made, "--key", other.key_file], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == 1, done.stderr


@pytest.mark.parametrize("command", ["verify", "findings", "version"])
def test_reading_a_report_imports_no_grpc(forge: Forge, command: str) -> None:
    arguments = [command] if command == "version" else [command, str(forge.report())]
    script = (
        "import sys; from assay.cli.run import run; run(sys.argv[1:]); "
        "print([m for m in sys.modules if m.split('.')[0] in ('grpc', 'google', 'torch', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_wheel_needs_no_torch_and_no_celery() -> None:
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    needs = {Requirement(line).name for line in requires("assay-client") or ()}
    assert {"grpcio", "typer", "cryptography"} <= needs
    assert not needs & {"torch", "celery", "numpy", "sqlalchemy", "redis", "transformers"}
