"""Eight ways to break the service, each of which turns a named test red (specs: service, section 18)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LINKED = ("sandbox", "checks", "client", "benchmarks", "protos", "deploy")
"""What a mutant's tree takes as it is."""


@dataclass(frozen=True)
class Mutant:
    """A change of the service's source, and the test that must fail under it."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    test: str

    @property
    def case(self) -> Any:
        """The parameter: a slow one, unless its test is among the cheapest."""
        marks = () if self.name in ALWAYS else pytest.mark.slow
        return pytest.param(self, marks=marks, id=self.name.replace(" ", "_"))


ALWAYS = ("outbox outside the transaction", "blob linked before verifying")
"""Mutants of the default run, the cheapest measured: 3.5 and 2.3 s of a core. `make test-all` makes all eight."""

MUTANTS = (
    Mutant(
        "no token condition",
        "service/store/jobs.py",
        (
            (" job.c.token == held.token,", ""),
            ("attempt.c.token == token, attempt.c.ended_at.is_(None)", "attempt.c.n > 0"),
        ),
        "tests/service/store/test_jobs.py::test_zombie_worker_finalises_nothing",
    ),
    Mutant(
        "no unique result",
        "service/store/migrations/versions/0001_first_release.py",
        (('sa.PrimaryKeyConstraint("audit", name=op.f("pk_result"))', 'sa.PrimaryKeyConstraint("audit", "token")'),),
        "tests/service/test_one_row.py::test_a_second_result_of_an_audit_is_refused",
    ),
    Mutant(
        "no reconciler",
        "service/scheduler/reconciler.py",
        (("if depth is None or depth >= count:", "if True:"),),
        "tests/service/scheduler/test_scheduler.py::test_a_broker_that_lost_everything_is_told_again",
    ),
    Mutant(
        "no reaper",
        "service/scheduler/leases.py",
        (("if age < self._lease_s:", "if True:"),),
        "tests/service/scheduler/test_scheduler.py"
        "::test_reaper_frees_a_dead_workers_job_and_both_attempts_are_recorded",
    ),
    Mutant(
        "no idempotency index",
        "service/store/migrations/versions/0001_first_release.py",
        (
            (
                'sa.PrimaryKeyConstraint("principal", "method", "request_id", name=op.f("pk_idempotency"))',
                'sa.PrimaryKeyConstraint("principal", "method", "request_id", "resource")',
            ),
        ),
        "tests/service/test_one_row.py::test_a_second_row_of_a_request_is_refused",
    ),
    Mutant(
        "outbox outside the transaction",
        "service/store/jobs.py",
        (('    owe(connection, "sign"', '    connection.commit()\n    owe(connection, "sign"'),),
        "tests/service/test_one_row.py::test_a_result_whose_debt_is_not_written_is_undone",
    ),
    Mutant(
        "cancel confirmed before the kill",
        "service/store/audits.py",
        (("    if still_leased(connection, audit_id):", "    if False:"),),
        "tests/service/store/test_jobs.py::test_cancel_is_confirmed_only_when_the_cell_is_dead",
    ),
    Mutant(
        "blob linked before verifying",
        "service/blobs/local.py",
        (
            (
                "                if found != digest:",
                "                self._place(aside, target)\n                if found != digest:",
            ),
        ),
        "tests/service/blobs/test_conformance.py::test_refused_bytes_leave_nothing_behind",
    ),
)
"""All of them."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the service and its tests; the rest is linked."""
    folder = tmp_path_factory.mktemp("mutants")
    kept = shutil.ignore_patterns("__pycache__", "node_modules", "node", "verifiers")
    for name in ("service", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=kept)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def run(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests against the tree's own service."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'client'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.name.replace(" ", "_") for one in MUTANTS])
def test_every_change_still_has_its_place(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    for old, _ in mutant.changes:
        assert old in source, f"{mutant.file} changed: say anew how to make {mutant.name}"


@pytest.mark.slow
def test_unchanged_the_named_tests_are_green(tree: Path) -> None:
    done = run(tree, sorted({mutant.test for mutant in MUTANTS}))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", [one.case for one in MUTANTS])
def test_a_mutant_turns_its_named_test_red(tree: Path, mutant: Mutant) -> None:
    file = tree / mutant.file
    source = file.read_text(encoding="utf-8")
    changed = source
    for old, new in mutant.changes:
        changed = changed.replace(old, new)
    file.write_text(changed, encoding="utf-8")
    try:
        done = run(tree, [mutant.test])
    finally:
        file.write_text(source, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr  # 1: a test failed; not that none was found
    assert "1 failed" in done.stdout or "failed" in done.stdout
