"""Do every fault of the failure matrix on both databases, and print what the journals counted.

    make failure-matrix [STORES=sqlite] [ROWS=upload]

The faults are tests (`tests.service.plants.matrix` says which test shows which row); each holds the journal of what it
did against the rules J1-J15 and tells its counts. A row is shown on a store if its tests ran there and none failed.
Exits 1 if a test failed, if a journal is broken, or if a row has no test that ran.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tests.service.plants.matrix import ROWS, TOLD
from tests.service.store import postgres

ROOT = Path(__file__).parents[1]
STORES = ("sqlite", "postgresql")
BROKEN = ("lost", "twice", "violations", "old_cells")
"""Counts that must be 0."""
FIRST = ("lost", "twice", "violations", "audits", "leased", "lease_expired", "finalised", "fenced", "republished")
"""Counts that every line has, in this order; those of one fault alone follow."""


@dataclass
class Cell:
    """What happened to one row on one store."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    """Reasons."""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def word(self) -> str:
        """Say whether the row was shown."""
        if self.failed or any(self.counts[name] for name in BROKEN):
            return "BROKEN"
        return "held" if self.passed else "not run"


Table = dict[tuple[str, str], Cell]

EITHER = (
    "service/scheduler/test_scheduler.py",
    "service/scheduler/test_deliveries.py",
    "service/worker/test_attempt.py",
)
"""Tests that make a database of the kind that ASSAY_TEST_STORE names; they are run once for each."""


def main() -> int:
    """Run the matrix; the return value is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    options = parser.parse_args()
    rows = {fault: row for fault, row in ROWS.items() if options.rows in fault}
    tests = sorted({test for row in rows.values() for test in row.tests})
    table: Table = {(fault, store): Cell() for fault in rows for store in options.stores}
    either = [test for test in tests if test.partition("::")[0] in EITHER]
    with tempfile.TemporaryDirectory(prefix="assay-matrix-") as scratch:
        report, told = Path(scratch) / "report.xml", Path(scratch) / "told.jsonl"
        status = [_pytest(tests, report, told, _only(options.stores))]
        _outcomes(table, report, "sqlite")
        if "postgresql" in options.stores and either and postgres.server() is not None:
            status.append(_pytest(either, report, told, "", ASSAY_TEST_STORE="postgresql"))
            _outcomes(table, report, "postgresql")
        _counts(table, told.read_text(encoding="utf-8") if told.exists() else "")
    return _print(table, rows, options.stores) or int(not set(status) <= {0, 1})


def _only(stores: Sequence[str]) -> str:
    """Return which tests' names are wanted; those that name no store are run with SQLite's."""
    return "" if len(stores) > 1 else {"sqlite": "not postgresql", "postgresql": "postgresql"}[stores[0]]


def _pytest(tests: Iterable[str], report: Path, told: Path, only: str, **environment: str) -> int:
    """Run the tests, the slow ones too, one file after the other; what fails is in the report."""
    names = [f"tests/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", str(report), *names]
    done = subprocess.run(
        [*command, *(["-k", only] if only else [])],
        cwd=ROOT,
        env={**os.environ, TOLD: str(told), **environment},
        check=False,
    )
    return done.returncode


def _outcomes(table: Table, report: Path, default: str) -> None:
    """Read which tests passed; one whose name has no store was on `default`."""
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        file = case.get("classname", "").removeprefix("tests.").replace(".", "/") + ".py"
        name = case.get("name", "")
        for cell in _cells(table, f"{file}::{name.partition('[')[0]}", _store_in(name) or default):
            if case.find("failure") is not None or case.find("error") is not None:
                cell.failed.append(f"{file}::{name}")
            elif (skipped := case.find("skipped")) is not None:
                cell.skipped.add(skipped.get("message", ""))
            else:
                cell.passed += 1


def _counts(table: Table, told: str) -> None:
    for line in told.splitlines():
        one = json.loads(line)
        test = one["test"].removeprefix("tests/").partition("[")[0]
        for cell in _cells(table, test, one["store"]):
            cell.counts.update(one["counts"])


def _cells(table: Table, test: str, store: str) -> list[Cell]:
    return [cell for (fault, of), cell in table.items() if of == store and test in ROWS[fault].tests]


def _store_in(name: str) -> str:
    """Return the store that a test's parameters name."""
    return next((store for store in STORES if store in name), "")


def _print(table: Table, rows: Iterable[str], stores: Sequence[str]) -> int:
    """Print the table; return 1 if a row is broken or was not shown."""
    wrong = 0
    for fault in rows:
        print(f"\n{fault}\n  must hold: {ROWS[fault].must_hold}")
        for store in stores:
            cell = table[fault, store]
            reasons = "; ".join(sorted(cell.skipped)) if not cell.passed else ""
            print(f"  {store:<10} {cell.word:<7} {cell.passed:>3} runs  {_told(cell.counts)}{reasons}")
            for failed in cell.failed:
                print(f"             failed: {failed}")
            wrong += cell.word == "BROKEN" or (cell.word == "not run" and not cell.skipped)
    print(f"\n{'broken: ' + str(wrong) if wrong else 'every row holds'}")
    return int(bool(wrong))


def _told(counts: Counter[str]) -> str:
    if not counts:
        return ""
    more = sorted(name for name, count in counts.items() if count and name not in FIRST)
    return ", ".join(f"{name} {counts[name]}" for name in (*FIRST, *more))


if __name__ == "__main__":
    sys.exit(main())
