"""Cases whose attack is a test elsewhere, because it takes the service: run by name, told by outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.cell import Word
from sandbox.suite.case import Row

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 300


@dataclass(frozen=True)
class Named:
    """Tests that are a case."""

    attack: str
    control: str
    expected: str
    tests: tuple[str, ...]
    """Files or functions, as pytest names them."""
    good: Word = "denied"


CASES: Mapping[str, Named] = {
    "S40": Named(
        "checks of third parties outside a cell",
        "the tests' own: the side effect is seen in the cell",
        "never imported outside; refused, names both",
        ("tests/checks/test_plugins.py", "tests/service/worker/test_plugins.py"),
    ),
    "S41": Named(
        "a worker on a host without isolation",
        "the tests' own: the worker starts elsewhere",
        "it does not start, and names the layer",
        (
            "tests/service/worker/test_process.py::test_without_isolation_the_worker_does_not_start_and_the_layer_is_named",
        ),
    ),
    "S43": Named(
        "the worker is killed while its cell runs",
        "the tests' own: another worker finishes",
        "the attempt is lost, the audit ends once",
        (
            "tests/service/worker/test_process.py::test_a_worker_killed_mid_cell_costs_one_attempt_and_the_audit_ends_once",
        ),
        good="contained",
    ),
    "S44": Named(
        "forged messages in the queue",
        "the tests' own: a message that is a job's id runs",
        "a message without a lease row is ignored; a body that is no string is dropped",
        (
            "tests/service/worker/test_attempt.py::test_unknown_job_id_is_dropped",
            "tests/service/queue/test_queues.py::test_only_short_printable_text_is_a_job_id",
            "tests/service/queue/test_celery_queue.py::test_a_body_that_is_no_string_is_dropped_and_counted",
            "tests/service/signer/test_socket.py::test_another_user_is_not_answered_root_neither",
        ),
    ),
}


def rows() -> list[Row]:
    """Run the tests of every case in one go and return a row each."""
    nodes = [node for case in CASES.values() for node in case.tests if (ROOT / node.partition("::")[0]).exists()]
    outcomes = _run(nodes)
    return [_row(number, case, outcomes) for number, case in CASES.items()]


def _run(nodes: list[str]) -> dict[str, list[str]]:
    """Return the words of pytest by test file and name, parameters left out."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--no-header", "--tb=no", "-p", "no:cacheprovider", *nodes],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        word, _, node = line.partition(" ")
        if word in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
            found.setdefault(node.split(" - ")[0].partition("[")[0], []).append(word)
    return found


def _row(number: str, case: Named, outcomes: Mapping[str, list[str]]) -> Row:
    words = [word for node, said in outcomes.items() for word in said if node.startswith(case.tests)]
    passed, ran = words.count("PASSED"), len(words)
    ran_all = all(any(node.startswith(test) for node in outcomes) or not _there(test) for test in case.tests)
    word: Word = case.good if ran and passed == ran and ran_all else "void"
    observed = f"passed in {passed} of {ran} tests" if ran else "no such test, so nothing is shown"
    return Row(
        id=number, kind="service", word=word, attack=case.attack, control=case.control, expected=case.expected,
        observed=observed,
    )  # fmt: skip


def _there(test: str) -> bool:
    return (ROOT / test.partition("::")[0]).exists()
