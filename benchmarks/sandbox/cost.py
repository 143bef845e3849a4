"""What a cell costs, as ratios to bare programs of the same run: every row of the specification's table (section 17).

    python -m benchmarks.sandbox.cost --runs 30

What is compared is taken in turns, so that the host's load is the same for both; each number is a median, and the
least is beside it, for the median of a busy host is its neighbours' too. As root the unprivileged column is measured as
well, by the system's interpreter on a copy that everybody may read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.sandbox.programs import WORK, clock, in_turns, ingest_order, order_of, timed
from sandbox import BubblewrapCell, BubblewrapSettings, procfs
from sandbox.ground import planted
from sandbox.inputs import held
from sandbox.matrix import NOBODY, SYSTEM_PYTHON
from sandbox.reader import strict_json
from sandbox.reader.digest import file_sha256
from sandbox.selfcheck import host_of
from sandbox.suite import CASES, run_cases

RESULT = Path(__file__).with_suffix(".json")
PASS = ("-I", "-S", "-B", "-c", "pass")
TORCH = ("-c", "import torch")
_TORCH_ROUNDS = 5


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--starts", action="store_true", help="measure the starts alone, print them, write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        cell = BubblewrapCell(BubblewrapSettings(site_packages=(), work_dir=place))
        try:
            if options.starts:
                print(json.dumps(starts(cell, place, options.runs)))
                return
            made = everything(cell, place, options.runs)
        finally:
            cell.close()
    RESULT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(made, indent=1))


def everything(cell: BubblewrapCell, place: Path, runs: int) -> dict[str, Any]:
    """Return all rows."""
    launcher = "root" if os.geteuid() == 0 else "user"
    told: dict[str, Any] = {
        "cpus": os.cpu_count(), "kernel": platform.release(), "load_before": os.getloadavg()[0], "runs": runs,
        "import_torch": bare_torch(), "start": {launcher: starts(cell, place, runs)},
    }  # fmt: skip
    if launcher == "root":
        told["start"]["user"] = starts_of_nobody(runs)
    for columns in told["start"].values():
        for kind in ("ingest", "check"):
            if kind in columns:
                columns[kind]["over_import_torch"] = columns[kind]["median_ms"] / told["import_torch"]["median_ms"]
    told["torch_in_a_cell"] = work(place)
    told["ingest_of_a_model"] = reading(cell, place)
    told["strict_header"] = headers(min(runs, 10))
    told["prove_check"] = proof(cell, min(runs, 5))
    told["running_cell"] = memory(cell, place)
    told["cancel"] = cancels(cell, place, runs)
    return {**told, "load_after": os.getloadavg()[0]}


def _ms(seconds: list[float]) -> dict[str, float]:
    return {"median_ms": 1e3 * statistics.median(seconds), "least_ms": 1e3 * min(seconds)}


def bare_torch() -> dict[str, float]:
    """The start that every audit has anyway."""
    return _ms([timed(lambda: subprocess.run([sys.executable, *TORCH], check=True)) for _ in range(_TORCH_ROUNDS)])


def starts(cell: BubblewrapCell, place: Path, runs: int) -> dict[str, Any]:
    """A fully armed cell of each kind, with its gate, that does nothing."""
    seconds = in_turns(
        runs,
        {
            "bare": lambda: subprocess.run([sys.executable, *PASS], check=True, env={}),
            "ingest": lambda: cell.run(order_of(place, "pass", kind="ingest")),
            "check": lambda: cell.run(order_of(place, "pass")),
        },
    )
    made = {name: _ms(taken) for name, taken in seconds.items()}
    for kind in ("ingest", "check"):
        made[kind]["over_bare"] = made[kind]["median_ms"] / made["bare"]["median_ms"]
        made[kind]["least_over_bare"] = made[kind]["least_ms"] / made["bare"]["least_ms"]
    return made


def starts_of_nobody(runs: int) -> dict[str, Any]:
    """The same as an unprivileged user; why not, where that cannot be."""
    setpriv, root = shutil.which("setpriv"), Path(__file__).parents[2]
    if setpriv is None or not SYSTEM_PYTHON.exists():
        return {"skipped": "no setpriv" if setpriv is None else f"no {SYSTEM_PYTHON}"}
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        copy = Path(folder)
        for name in ("sandbox", "benchmarks/sandbox"):
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "benchmarks/__init__.py").touch()
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        done = subprocess.run(
            [setpriv, "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", str(SYSTEM_PYTHON), "-s", "-S", "-B",
             "-m", "benchmarks.sandbox.cost", "--starts", "--runs", str(runs)],
            cwd=copy, env={"LANG": "C.UTF-8"}, capture_output=True, check=True,
        )  # fmt: skip
    return dict(json.loads(done.stdout))


def cancels(cell: BubblewrapCell, place: Path, runs: int) -> dict[str, float]:
    """From the cancel to the moment when nothing of a sleeping cell is left."""
    taken = []
    for _ in range(runs):
        asked: list[float] = []

        def cancelled(asked: list[float] = asked) -> bool:
            asked.append(clock())
            return True

        cell.run(order_of(place, "import time; time.sleep(60)"), cancelled=cancelled)
        taken.append(clock() - asked[0])
    return {"median_ms": statistics.median(taken) * 1e3, "most_ms": max(taken) * 1e3, "n": runs}


def memory(cell: BubblewrapCell, place: Path) -> dict[str, int]:
    """Anonymous memory of a cell that does nothing: bubblewrap's two processes and the interpreter."""
    seen: list[int] = []

    def look() -> bool:
        pids = [pid for pid in procfs.tree(os.getpid()) if pid != os.getpid()]
        seen.append(procfs.sample(pids).anonymous_bytes)
        return len(seen) > 2

    cell.run(order_of(place, "import time; time.sleep(60)"), cancelled=look)
    return {"anonymous_bytes": max(seen)}


def proof(cell: BubblewrapCell, rounds: int) -> dict[str, float]:
    """The self-check: of cells for checks without the killers, which wait for limits; and all of it."""
    bare = BubblewrapCell(replace(cell.settings, site_packages=()))
    harmless = [case.id for case in CASES if case.in_prove and not case.killers]

    def check() -> None:
        with planted(host_of(bare)) as ground:
            run_cases(bare, kinds=("check",), only=harmless, ground=ground, proving=True)

    try:
        taken = in_turns(
            rounds,
            {"bare": lambda: subprocess.run([sys.executable, *PASS], check=True, env={}), "check": check},
        )
    finally:
        bare.close()
    middle = {name: statistics.median(one) for name, one in taken.items()}
    return {
        "check_without_killers_s": middle["check"], "over_bare": middle["check"] / middle["bare"], "n": rounds,
        "cases": len(harmless), "everything_s": timed(cell.prove),
    }  # fmt: skip


def headers(rounds: int) -> dict[str, float]:
    """A header of 20 000 tensors, read strictly and by `json`, in CPU time."""
    rows = {f"h.{n}.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(20_000)}
    data = json.dumps(rows).encode()
    ours: Mapping[str, Callable[[], object]] = {
        "strict": lambda: strict_json.loads(data, cap=2**24), "json": lambda: json.loads(data),
    }  # fmt: skip
    taken = in_turns(rounds, ours, cpu=True)
    middle = {name: statistics.median(one) for name, one in taken.items()}
    return {"over_json": middle["strict"] / middle["json"], "header_bytes": len(data), "n": rounds}


def work(place: Path) -> dict[str, float]:
    """CPU seconds of the same matrix products in a cell and outside; wall time would be the neighbours' as well."""
    cell = BubblewrapCell(BubblewrapSettings(work_dir=place, cpus=1))
    rows: list[tuple[float, float]] = []
    try:
        for _ in range(_TORCH_ROUNDS):
            inside = cell.run(order_of(place, WORK.format(3))).result
            bare = subprocess.run([sys.executable, "-c", WORK.format(1)], check=True, capture_output=True).stdout
            rows.append((float(inside or b"nan"), float(bare)))
    finally:
        cell.close()
    inner, outer = (statistics.median(row[side] for row in rows) for side in (0, 1))
    return {
        "cpu_s_inside": inner, "cpu_s_outside": outer, "over_outside": inner / outer,
        "least_over_least": min(row[0] for row in rows) / min(row[1] for row in rows), "n": _TORCH_ROUNDS,
    }  # fmt: skip


def reading(cell: BubblewrapCell, place: Path) -> dict[str, Any]:
    """The ingest cell on a sparse model in 8 shards, less its start, against SHA-256 of the same bytes."""
    order, size = ingest_order(place / "model")
    shards = [one for one in order.inputs if one.name.endswith(".safetensors")]
    hashed = timed(lambda: [file_sha256(one.source) for one in shards])
    with held(order.inputs, place, cell.settings.cell_uid if os.geteuid() == 0 else None) as kept:
        outcome = cell.run(order, held=kept)
        assert outcome.result is not None, outcome.log_tail
        taken = in_turns(
            7,
            {
                "read": lambda: cell.run(order, held=kept),
                "start": lambda: cell.run(order_of(place, "pass", kind="ingest")),
            },
        )
    less = statistics.median(taken["read"]) - statistics.median(taken["start"])
    return {
        "model_bytes": size, "sha256_s": hashed, "less_start_s": less, "over_sha256": less / hashed, "n": 7,
        "refused": json.loads(outcome.result)["refused"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
