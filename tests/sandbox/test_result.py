"""What a cell wrote is one strict document of one run, or rejected with the one code that names its flaw."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox import ResultRejected
from sandbox.__main__ import main
from sandbox.commands import FORMS
from sandbox.result import CODES, HOST_FIELDS, NOWHERE, read_result, take_result
from tests.service.worker.scripted import OK

from .hostile.results import BYTES, CAP, CHANGES, FIELDS, NONCE, SCHEMA, good

PACKAGE = Path(__file__).parents[2] / "sandbox"


def read(data: bytes) -> dict[str, Any]:
    return read_result(data, schema=SCHEMA, nonce=NONCE, fields=FIELDS, cap=CAP)


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(ResultRejected) as caught:
        action()
    assert caught.value.code in CODES
    assert len(caught.value.at) <= 160
    assert caught.value.at.isascii()
    return caught.value.code


def test_twin_is_accepted() -> None:
    assert read(json.dumps(good()).encode()) == good()


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_document(name: str) -> None:
    data, code = BYTES[name]
    assert code_of(lambda: read(data)) == code


@pytest.mark.parametrize("name", CHANGES)
def test_a_document_that_lies(name: str) -> None:
    change, code = CHANGES[name]
    value = good()
    change(value)
    assert code_of(lambda: read(json.dumps(value).encode())) == code


@pytest.mark.parametrize("field", sorted(NOWHERE))
def test_what_only_a_host_says_stands_at_no_depth(field: str) -> None:
    assert field in HOST_FIELDS
    value = good()
    value["answers"] = [{"measured": {"metrics": [{field: "1"}]}}]
    assert code_of(lambda: read(json.dumps(value).encode())) == "host_field_claimed"


def test_parameters_may_be_called_what_they_like() -> None:
    """They are compared with the order's, which the host wrote."""
    value = good()
    value["answers"] = [{"params": {"wall_s": 3}}]
    assert read(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (OK, "result_missing"),
        (replace(OK, result=b""), "result_missing"),
        (replace(OK, result=b"{}", status=1), "result_missing"),
        (replace(OK, result=b"{}", ended="killed", why="wall"), "result_missing"),
        (replace(OK, result=b"{}", ended="signalled", status=9), "result_missing"),
        (replace(OK, result=b"{}", ended="killed", why="output_cap"), "result_over_cap"),
    ],
)
def test_only_a_program_that_ended_well_left_a_result(outcome: Any, code: str) -> None:
    assert code_of(lambda: take_result(outcome)) == code
    assert take_result(replace(OK, result=b"{}")) == b"{}"


def test_every_form_has_a_schema_and_a_nonce() -> None:
    assert all({"schema", "nonce"} < set(fields) for fields, _cap in FORMS.values())


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_command_reads_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result"
    path.write_text(json.dumps(good()))
    asked = ["read-result", str(path), "--nonce", NONCE, "--json"]
    assert main(asked) == 0
    assert said(capsys) == {"accepted": True, "bytes": path.stat().st_size}
    assert main([*asked[:3], "00" * 32, "--json"]) == 1
    assert said(capsys)["rejected"] == "result_nonce"
    assert main(["read-result", str(tmp_path / "absent"), "--nonce", NONCE]) == 3


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(
        "import os\n"
        "data = open('/in/word', 'rb').read()\n"
        "open('/out/note', 'wb').write(data)\n"
        "open('/out/big', 'wb').write(b'x' * 70000)\n"
        "open('/out/over', 'wb').write(b'x' * 11)\n"
        "os.write(3, data)\n"
    )
    (tmp_path / "word").write_bytes(b"hello")
    return path


@pytest.mark.parametrize("kind", ["ingest", "check"])
def test_command_runs_a_program_and_shows_its_slots(
    kind: str, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", "--kind", kind, "--program", str(program), "--input", f"word={program.parent / 'word'}", "--json"]
    asked += ["--slot", "note=100", "--slot", "big=70000", "--slot", "over=10", "--limit", "wall_s=20"]
    assert main(asked) == 0
    found = said(capsys)
    assert (found["seal"]["stage"], base64.b64decode(found["result_b64"])) == (kind, b"hello")
    slots = {one.pop("name"): one for one in found["slots"]}
    assert base64.b64decode(slots["note"]["content_b64"]) == b"hello"
    assert (slots["big"]["size"], slots["big"]["content_b64"], slots["big"]["refused"]) == (70000, None, None)
    assert (slots["over"]["content_b64"], slots["over"]["refused"]) == (None, "slot_too_large")


@pytest.mark.parametrize(
    "wrong", [["--slot", "note"], ["--slot", "note=x"], ["--limit", "wall_s"], ["--input", "a=/no"]]
)
def test_command_tells_a_wrong_call(wrong: list[str], program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--program", str(program), *wrong]) == 3
    assert "sandbox run:" in capsys.readouterr().err


def test_command_reads_no_device_and_waits_for_no_pipe(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(program)
    for source in ("/dev/zero", tmp_path / "pipe", tmp_path / "link", tmp_path):
        assert main(["run", "--program", str(program), "--input", f"a={source}"]) == 3
        assert capsys.readouterr().err == f"sandbox run: {source} is not a regular file\n"


def test_command_names_the_number_that_is_none(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, name in (("--limit", "wall_s"), ("--slot", "note")):
        assert main(["run", "--program", str(program), option, f"{name}=x"]) == 3
        assert capsys.readouterr().err == f"sandbox run: {option} {name}: 'x' is not a whole number\n"


@pytest.mark.parametrize("absent", ["/nonexistent", "/usr"])
def test_command_without_a_program_is_a_wrong_call(absent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--program", absent]) == 3
    assert capsys.readouterr().err == f"sandbox run: {absent} is not a file\n"


def test_command_refuses_a_gpu_cell_without_a_gpu(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--kind", "check_gpu", "--program", str(program), "--json"]) == 2
    assert said(capsys)["refused"] == "profile_invalid"
    assert main(["run", "--kind", "check_gpu", "--gpu", "63", "--program", str(program), "--json"]) == 2
    told = said(capsys)
    assert told["refused"] == "cgroup_required_for_gpu"


def test_gpu_cells_that_could_not_be_attacked_are_not_proven(capsys: pytest.CaptureFixture[str]) -> None:
    """Every case was "not applicable", and the command said that it had proven something."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this host has a GPU")
    assert main(["prove", "--kind", "check_gpu", "--json"]) == 2
    assert said(capsys)["refused"] == "gpu_nodes_missing"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    root.mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (root / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    (root / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 8}))
    return root


def decisions(capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str, str | None]]:
    return {(one["path"], one["decision"], one["reason"]) for one in said(capsys)["decisions"]}


def test_command_reads_a_model_in_a_cell(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", str(model)]) == 0
    assert capsys.readouterr().out == "accepted config.json\naccepted model.safetensors\n"
    (model / "config.json").write_text('{"model_type": "gpt2", "auto_map": {}}')
    assert main(["ingest", str(model), "--json"]) == 1
    assert ("config.json", "refused", "config_key_forbidden") in decisions(capsys)


def test_command_opens_no_link_and_starts_no_cell_for_a_bad_name(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "tokenizer.json").symlink_to("/etc/passwd")
    (model / "sub").symlink_to("/etc")
    (model / "model.bin").write_bytes(b"\x80\x04.")
    (model / "CONFIG.json").write_bytes(b"{}")
    (model / "merges.txt").write_bytes(b"")
    os.truncate(model / "merges.txt", 2**25 + 1)
    monkeypatch.setattr("sandbox.bubblewrap.BubblewrapCell.run", None)
    assert main(["ingest", str(model), "--json"]) == 1
    assert decisions(capsys) == {
        ("tokenizer.json", "refused", "not_regular"), ("sub", "refused", "not_on_list"),
        ("model.bin", "refused", "not_on_list"), ("CONFIG.json", "refused", "not_on_list"),
        ("config.json", "refused", "name_case_clash"), ("merges.txt", "refused", "size_cap"),
    }  # fmt: skip
    assert main(["ingest", str(model / "absent")]) == 3


@pytest.mark.parametrize("kind", ["ingest", "check", "check_gpu"])
def test_command_prints_each_kinds_profile(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--kind", kind, "--json"]) == 0
    found = said(capsys)
    assert (found["kind"], found["profile"]["kind"], len(found["sha256"])) == (kind, kind, 64)


def test_commands_need_nothing_but_a_bare_interpreter() -> None:
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import sandbox.__main__, sandbox.slots"
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
