"""The self-check finds a missing wall, and a control that proves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox import BubblewrapCell, CellRefused, ProcessCell, bubblewrap, limits, selfcheck
from sandbox.bubblewrap import profile
from sandbox.bubblewrap.profile import Mount
from sandbox.ground import planted
from sandbox.suite import CASES, run, run_cases
from sandbox.suite.case import Row, judge

from .conftest import MakeOrder

ROOT = Path(__file__).resolve().parents[2]


def test_proof_is_repeatable_and_stands_in_later_seals(cell: BubblewrapCell, order: MakeOrder) -> None:
    started = time.monotonic()
    first = cell.prove()
    assert time.monotonic() - started < 15  # about 3.3 s on a quiet machine
    assert first.sha256 == cell.prove().sha256
    ids = [one.id for one in first.cases]
    assert ids[:2] == ["S01 ingest", "S01 check"]
    assert {one.split()[0] for one in ids} == {one.id for one in CASES if one.in_prove}
    assert cell.run(order("pass")).seal.to_json()["selfcheck_sha256"] == first.sha256


def attacked(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch, *only: str) -> list[Row]:
    """Run cases with a gate that sees nothing, as if it were broken too."""
    monkeypatch.setattr(bubblewrap.gate, "check", lambda _armed: {})
    with planted(selfcheck.host_of(cell)) as ground:
        return run_cases(cell, only=only, ground=ground)


def words(rows: list[Row]) -> dict[str, str]:
    return {f"{row.id} {row.kind}": row.word for row in rows}


def test_shared_network_is_found_open(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "FLAGS", (*profile.FLAGS, "--share-net"))
    rows = attacked(cell, monkeypatch, "S03", "S19")
    found = words(rows)
    assert (found["S19 check"], found["S03 check"]) == ("open", "denied")
    with pytest.raises(CellRefused) as caught:
        selfcheck.proof(rows, version="0", profiles={})
    assert (caught.value.code, caught.value.item.partition(":")[0]) == ("selfcheck_open", "S19 check")


def test_visible_host_is_found_open(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = profile.tail

    def leaking(*given: Any) -> tuple[Mount, ...]:
        leak = Mount(sort="ro", target=tempfile.gettempdir(), source=tempfile.gettempdir())
        return (leak, *whole(*given))

    monkeypatch.setattr(profile, "tail", leaking)
    found = words(attacked(cell, monkeypatch, "S01", "S02", "S17"))
    assert (found["S01 check"], found["S01 ingest"], found["S02 check"]) == ("open", "open", "open")
    assert found["S17 check"] == "denied"


def test_missing_limits_are_found_open(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "rlimits", lambda _caps: {"NOFILE": (1024, 1024)})
    found = words(attacked(cell, monkeypatch, "S29", "S30"))
    assert (found["S29 check"], found["S30 check"], found["S30 ingest"]) == ("open", "open", "open")


def test_a_control_that_fails_makes_its_case_void(cell: BubblewrapCell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "outside", lambda *_given, **_more: {})
    monkeypatch.setattr(run, "with_capabilities", lambda *_given: {})
    with planted(selfcheck.host_of(cell)) as ground:
        rows = run_cases(cell, only=("S01", "S08", "S17", "S24"), ground=ground)
    assert {row.word for row in rows} == {"void"}
    with pytest.raises(CellRefused) as caught:
        selfcheck.proof(rows, version="0", profiles={})
    assert (caught.value.code, caught.value.item.split(":")[0]) == ("selfcheck_void", "S01 ingest")


def test_the_suite_takes_any_backend_and_finds_the_twin_open(twin: ProcessCell, cell: BubblewrapCell) -> None:
    """A backend without a wall is attacked by the same cases: it is no use to ask it for a proof."""
    with planted(selfcheck.host_of(cell)) as ground:
        rows = run_cases(twin, kinds=("check",), only=("S01", "S12", "S18", "S24"), ground=ground)
    assert {row.word for row in rows} == {"open"}


def test_one_attempt_that_gets_through_opens_its_case() -> None:
    case = next(one for one in CASES if one.id == "S17")
    reached = {"setup": "EFAULT", "enter": "EBADF"}
    fine = judge(case, "check", {"setup": "ENOSYS", "enter": "ENOSYS"}, [reached], [])
    assert (fine.word, fine.observed) == ("denied", "ENOSYS in 2 of 2 attempts")
    assert judge(case, "check", {"setup": "ENOSYS", "enter": "EFAULT"}, [reached], []).word == "open"
    assert judge(case, "check", {"setup": "ENOSYS", "enter": "ENOSYS"}, [reached], ["seen"]).word == "open"
    assert judge(case, "check", {}, [reached], []).word == "open"


def test_a_control_that_was_refused_is_void_and_one_that_cannot_be_is_told() -> None:
    case = next(one for one in CASES if one.id == "S14")
    inside = {"netlink": "EPERM", "alg": "EPERM"}
    told = judge(case, "check", inside, [{"netlink": "through", "alg": "EAFNOSUPPORT"}], [])
    assert (told.word, told.observed) == (
        "denied",
        "EPERM in 1 of 1 attempts; not applicable, because: alg EAFNOSUPPORT",
    )
    assert judge(case, "check", inside, [{"netlink": "EPERM", "alg": "through"}], []).word == "void"
    assert judge(case, "check", inside, [{"alg": "through"}], []).word == "void"
    assert judge(case, "check", {"alg": "EPERM"}, [{"alg": "EAFNOSUPPORT"}], []).word == "not_applicable"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


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


def test_a_host_that_gives_nobody_a_namespace_says_so_for_what_needs_one() -> None:
    """AppArmor may let bubblewrap make namespaces and nothing else: then some controls cannot be made here."""
    case = next(one for one in CASES if one.id == "S09")
    inside, bare = {"mount": "EPERM"}, [{"mount": "EPERM"}, {}]
    assert judge(case, "check", inside, bare, []).word == "void"
    told = judge(case, "check", inside, bare, [], capable=False)
    assert (told.word, "no namespace" in told.observed) == ("not_applicable", True)
    assert judge(case, "check", {"mount": "EFAULT"}, bare, [], capable=False).word == "open"


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
