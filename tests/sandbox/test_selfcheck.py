"""The self-check finds a missing wall, and a control that proves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, CellRefused, bubblewrap, limits, selfcheck
from sandbox.bubblewrap import profile
from sandbox.bubblewrap.profile import Mount

from .conftest import MakeOrder

ROOT = Path(__file__).resolve().parents[2]


def test_proof_is_repeatable_and_stands_in_later_seals(cell: BubblewrapCell, order: MakeOrder) -> None:
    started = time.monotonic()
    first = cell.prove()
    assert time.monotonic() - started < 8  # about 2.5 s on a quiet machine
    assert first.sha256 == cell.prove().sha256
    assert json.loads(first.document())["cases"][0]["id"] == "network"
    assert len(first.cases) == 14
    assert cell.run(order("pass")).seal.to_json()["selfcheck_sha256"] == first.sha256


def words(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run the cases with a gate that sees nothing, as if it were broken too."""
    monkeypatch.setattr(bubblewrap.gate, "check", lambda _armed: {})
    return {row.id: row.word for row in selfcheck.run_cases(cell)}


def test_shared_network_is_found_open(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "FLAGS", (*profile.FLAGS, "--share-net"))
    found = words(cell, monkeypatch)
    assert (found["network"], found["namespaces"], found["readonly"]) == ("open", "open", "denied")
    with pytest.raises(CellRefused) as caught:
        cell.prove()
    assert (caught.value.code, caught.value.item.partition(":")[0]) == ("selfcheck_open", "network")


def test_visible_host_and_unsized_scratch_are_found_open(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = profile.tail
    import tempfile

    ground = Path(tempfile.gettempdir())

    def leaking(*given: Any) -> tuple[Mount, ...]:
        leak = Mount(sort="ro", target=str(ground), source=str(ground))
        return (leak, *(one for one in whole(*given) if one.target != "/" or one.sort != "remount"))

    monkeypatch.setattr(profile, "tail", leaking)
    found = words(cell, monkeypatch)
    assert (found["canary"], found["readonly"], found["network"]) == ("open", "open", "denied")


def test_missing_limits_are_found_open(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "rlimits", lambda _caps: {"NOFILE": (1024, 1024)})
    found = words(cell, monkeypatch)
    # The sized tmpfs still stops the file; nothing else stops forks and core files.
    assert (found["process_limit"], found["core_dump"], found["file_size"]) == ("open", "open", "contained")


def test_a_control_that_fails_makes_its_case_void(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "outside", lambda *_given, **_more: {})
    rows = selfcheck.run_cases(cell)
    assert {row.word for row in rows if row.id != "host_root"} == {"void"}
    with pytest.raises(CellRefused) as caught:
        selfcheck.proof(cell, rows)
    assert caught.value.code == "selfcheck_void"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_report_shows_both_launchers_and_counts() -> None:
    done = command("report")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    held, _, total = lines[-1].removesuffix(" contained").partition("/")
    assert held == total
    assert lines[-1].endswith(" contained")
    launchers = {line.split()[0] for line in lines[:-1]}
    assert launchers == ({"root", "user"} if os.geteuid() == 0 else {"user", "root"})


def test_run_command_prints_the_outcome(tmp_path: Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("import os; os.write(3, open('/in/x', 'rb').read())")
    (tmp_path / "x").write_text("hello")
    done = command("run", "--program", str(program), "--input", f"x={tmp_path / 'x'}", "--limit", "wall_s=9", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["result_b64"] == "aGVsbG8="
    assert command("run", "--program", str(program), "--limit", "wall=9").returncode == 2
    assert command("run", "--program", str(program), "--limit", "wall_s=x").returncode == 3
    assert command("run").returncode == 3
    assert command("prove", "--bwrap", "/absent").returncode == 2


@pytest.mark.parametrize("interpreter", ["/usr/bin/python3", sys.executable])
def test_package_imports_on_a_bare_interpreter(interpreter: str) -> None:
    if not Path(interpreter).exists():
        pytest.skip(f"no {interpreter}")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import sandbox, sandbox.reader.model, sandbox.selfcheck, "
        "sandbox.process; print(sorted({'torch', 'numpy', 'pydantic', 'service', 'checks'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [interpreter, "-I", "-S", "-B", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[]\n", done.stderr
