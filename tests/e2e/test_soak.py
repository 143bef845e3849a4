"""A short soak: processes are killed, frozen and emptied while audits run; the journal and every report hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks.soak_tree import FAULTS, plan
from tests.e2e.conftest import ROOT
from tests.service.plants.matrix import tell
from tests.service.store import postgres

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("store", "faults"),
    [
        ("sqlite", 20),
        pytest.param("sqlite", 50, marks=pytest.mark.slow),
        pytest.param("postgresql", 104, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_nothing_is_lost_and_nothing_is_done_twice_under_faults(store: str, faults: int) -> None:
    """50 faults take a minute on two idle cores and two on busy ones; so the default run does 20, in half of that."""
    command = [sys.executable, "-m", "benchmarks.soak", "--faults", str(faults), "--seed", "9", "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=880, check=False)
    if postgres.WITHOUT in done.stderr:
        pytest.skip(postgres.WITHOUT)
    counts = re.search(r"^seed 9: (\{.*\});", done.stdout, re.MULTILINE)
    if counts:
        told = json.loads(counts[1])
        tell(store, Counter({**told, "twice": told.pop("finished_twice"), "faults": faults}))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing twice, no violation, every report verifies" in done.stdout
    assert '"lost": 0, "finished_twice": 0, "violations": 0' in done.stdout


def test_a_seed_fixes_the_plan_and_every_kind_of_fault_is_in_it() -> None:
    assert plan(7, 1000) == plan(7, 1000) != plan(8, 1000)
    counts = [sum(one.kind == kind for one in plan(7, 1000)) for kind in FAULTS]
    assert len(counts) == 8
    assert min(counts) >= 50
