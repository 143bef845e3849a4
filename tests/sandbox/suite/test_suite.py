"""The matrix: every case has a row, every row a control that worked, and the committed one is that of this suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from sandbox import BubblewrapCell, BubblewrapSettings, Order, Outcome, cgroups, selfcheck
from sandbox.cell import Cell
from sandbox.ground import Ground, marked, planted
from sandbox.matrix import GOOD
from sandbox.suite import CASES, launches, run_cases
from sandbox.suite.case import Row
from sandbox.suite.table import ELSEWHERE
from tests.sandbox.suite import named, results
from tests.sandbox.suite.__main__ import CASES as IDS
from tests.sandbox.suite.walls import less, refusals
from tests.sandbox.test_cgroups import here

__all__ = ["here"]

ROOT = Path(__file__).resolve().parents[3]
MATRIX = ROOT / "sandbox" / "matrix.json"


@pytest.fixture(scope="module")
def ground(cell: BubblewrapCell) -> Iterator[Ground]:
    with planted(selfcheck.host_of(cell)) as there:
        yield there


@pytest.fixture(scope="module")
def cell() -> Iterator[BubblewrapCell]:
    made = BubblewrapCell(BubblewrapSettings(site_packages=()))
    yield made
    made.close()


def failing(rows: list[Row]) -> list[tuple[str, str, str]]:
    """Return id, word and observation of each row that did not hold, or that lacks what a reader must see."""
    incomplete = [row for row in rows if not (row.observed and row.control and row.expected)]
    return [(row.id, row.word, row.observed) for row in rows if row.word not in GOOD or row in incomplete]


def test_all_45_cases_are_in_one_of_the_tables() -> None:
    cell_cases = [case.id for case in CASES]
    assert len(cell_cases) == len(set(cell_cases))
    assert {*cell_cases, *ELSEWHERE} == set(IDS)
    assert not set(cell_cases) & set(ELSEWHERE)
    assert {"S08", "S09", "S23"} <= {case.id for case in CASES if case.controls != ("bare",)}


def test_the_self_check_has_every_case_that_is_marked_for_it() -> None:
    """Those that the specification marks with P."""
    marked_p = {
        *("S01", "S02", "S03", "S05", "S08", "S09", "S10", "S12", "S14", "S16", "S17", "S18", "S19", "S20", "S21"),
        *("S22", "S23", "S24", "S25", "S26", "S27", "S28", "S29", "S30", "S31"),
    }
    assert marked_p <= {case.id for case in CASES if case.in_prove}


def test_results_that_attack_are_refused_beside_their_twin() -> None:
    rows = results.rows()
    assert [row.id for row in rows] == ["S07", "S34", "S35", "S36", "S37", "S38"]
    assert failing(rows) == []


def test_a_parser_that_takes_everything_is_found_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser's own lie would be noticed: with its answers taken away, every case of it is open."""
    monkeypatch.setattr(results, "parse_result", lambda *_given, **_more: None)
    assert {row.id for row in results.rows() if row.word == "open"} >= {"S07", "S34", "S35", "S36", "S37", "S38"}


def test_hosts_plans_and_profiles_that_must_be_refused_are(ground: Ground) -> None:
    rows = refusals.rows(ground)
    assert [row.id for row in rows] == ["S11", "S15", "S41", "S42"]
    assert failing(rows) == []


def test_behind_a_missing_filter_the_next_layer_holds(cell: BubblewrapCell, ground: Ground) -> None:
    rows = less.rows(cell, ground)
    assert [row.id for row in rows] == ["S12", "S12", "S19", "S44"]
    assert failing(rows) == []


def test_cells_that_take_more_than_one_launch_hold(cell: BubblewrapCell, ground: Ground) -> None:
    rows = launches.rows(cell, ground, pairs=2, tries=3)
    assert [row.id for row in rows] == ["S45", "S43", "S26", "S39"]
    assert failing(rows) == []


def test_two_cells_that_never_met_prove_nothing(
    cell: BubblewrapCell, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells that ran one after the other cannot see one another, walls or not."""

    class OneByOne:
        def __init__(self) -> None:
            self.turn = threading.Lock()

        def run(self, order: Order, **_more: Any) -> Outcome:
            with self.turn:
                return cell.run(order)

    monkeypatch.setattr(launches, "_MEETINGS", 1)
    row = launches.two_cells(cast("Cell", OneByOne()), ground, pairs=1)
    assert (row.word, row.observed) == ("void", "the control got together not at the same time")


@pytest.mark.slow  # a minute
def test_fifty_pairs_cross_nothing_and_no_program_of_200_killed_launchers_runs(
    cell: BubblewrapCell, ground: Ground
) -> None:
    assert failing([launches.two_cells(cell, ground, 50), launches.killed_while_starting(ground, 200)]) == []


def test_the_suite_leaves_nothing_behind(cell: BubblewrapCell) -> None:
    with planted(selfcheck.host_of(cell)) as there:
        root, victims = there.root, (there.victim, there.decoy)
        assert failing(run_cases(cell, ground=there, only=("S01", "S12", "S22", "S26"))) == []
        assert root.exists()
    assert not root.exists()
    assert not [pid for pid in victims if Path(f"/proc/{pid}").exists()]
    assert not marked(str(root))


def test_committed_matrix_is_of_this_suite() -> None:
    """Made by `make sandbox-matrix`: stale when a probe, the table or the judgement has changed since."""
    matrix = json.loads(MATRIX.read_text())
    assert matrix["probes_sha256"] == selfcheck.probes_sha256(), "run `make sandbox-matrix`"
    assert set(matrix["cases"]) == set(IDS)
    rows = matrix["rows"]
    launchers = {row["launcher"] for row in rows}
    assert "user" in launchers, "an empty column of the unprivileged launcher proves nothing"
    assert not [row for row in rows if row["word"] == "open"]
    for row in rows:
        assert row["control"]
        assert row["expected"]
        if row["word"] == "not_applicable":
            assert "because" in row["observed"]


def test_a_case_without_a_test_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = named.Named("an attack", "a control", "denied", ("tests/absent.py::test_absent",))
    monkeypatch.setattr(named, "CASES", {"S40": absent})
    monkeypatch.setattr(named, "_run", lambda _nodes: {})
    assert [row.word for row in named.rows()] == ["void"]
    failed = {"tests/absent.py::test_absent": ["PASSED", "FAILED"]}
    assert named._row("S40", absent, failed).word == "void"
    assert named._row("S40", absent, {"tests/absent.py::test_absent": ["PASSED"]}).word == "denied"


@pytest.mark.slow  # two minutes: both launchers
def test_report_shows_both_launchers_and_counts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "report"],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    fine, _, total = lines[-1].removesuffix(" contained").partition("/")
    assert fine == total
    assert lines[-1].endswith(" contained")
    launchers = {line.split()[0] for line in lines[:-2]}
    assert launchers == {"root", "user"}
    assert os.geteuid() == 0 or any(line == "root  skipped, because: not root" for line in lines)


def test_the_self_check_holds_in_control_groups_too(here: cgroups.Parent) -> None:
    """A worker with a `cgroup_parent` is proven as it runs: limits by groups, the same words."""
    grouped = BubblewrapCell(BubblewrapSettings(site_packages=(), cgroup_parent=here.name))
    try:
        with planted(selfcheck.host_of(grouped)) as ground:
            rows = run_cases(grouped, ground=ground, only=("S01", "S19", "S26", "S29", "S30"))
    finally:
        grouped.close()
    assert failing(rows) == []
