"""Exit codes tell the truth, whatever happens to the output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from assay.api.v1 import audits_pb2
from assay.cli import catalogue as checks_command
from assay.testing import Forge

from tests.client.conftest import Assay

BIN = Path(sys.executable).with_name("assay")
OUTCOME, STATE = audits_pb2.Audit.Outcome, audits_pb2.Audit.State


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
