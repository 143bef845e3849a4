"""Time from submit to the first forward pass, from a cold start and from a spare cell.

    python -m benchmarks.sandbox.first_forward --runs 5

Two development servers in one run, one without spares and one with a spare per slot; the same audits at each, with a
pause between them in which a spare imports. The first forward is the audit's `sweep` event. Two kinds of audit take
turns: `own` asks truth_probe of the audit's pairs alone, `all` of its built-in sets as well: some 4000 rows, which are
read before the model is.

Other programs' load is measured, too: beside each time stand the host's load, the CPU seconds of the server's processes
from submit to the moment when the client knew of the sweep (up to a second later), and the time of a bare
`python -c "import torch"` just before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox import procfs

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RESULT = Path(__file__).with_suffix(".json")
AUDITS: Mapping[str, Mapping[str, Any]] = {"own": {"datasets": []}, "all": {}}
"""Parameters of truth_probe by kind of audit."""
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle-s", type=float, default=60.0, help="longest pause before an audit (default: 60)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        target = Path(scratch) / "tiny"
        command = [sys.executable, "-m", "checks.organisms", "tiny", "--out", str(target)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        starts = {
            name: audits(Path(scratch) / name, target, spares, options.runs, options.idle_s)
            for name, spares in (("cold", 0), ("warm", 1))
        }
    medians = {
        f"{start} {kind}": {
            what: statistics.median(one[what] for one in rows if one["audit"] == kind)
            for what in ("first_forward_s", "over_import_torch", "cpu_s", "import_torch_s", "load")
        }
        for start, rows in starts.items()
        for kind in AUDITS
    }
    made = {"cpus": os.cpu_count(), "runs": options.runs, "medians": medians, **starts}
    RESULT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(medians, indent=1))


def audits(data: Path, organism: Path, spares: int, runs: int, idle_s: float) -> list[dict[str, Any]]:
    """Return times of each phase of each audit, in seconds since its submit."""
    from assay import AuditClient

    data.mkdir()
    server = subprocess.Popen(
        [str(BIN / "assay-server"), "dev", "--data", str(data), "--warm-spares", str(spares)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        server.stdout.readline()
        with AuditClient.from_config(data / "client.json") as client:
            manifest = client.upload_model(organism / "model").manifest_sha256
            rows = client.upload_data("pairs", organism / "pairs.jsonl")
            return [_one(client, (manifest, rows), kind, server.pid, idle_s) for _ in range(runs) for kind in AUDITS]
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def _settle(most_s: float) -> None:
    """Wait until no spare cell takes CPU time any more: it has imported all that it will."""
    deadline, before = time.monotonic() + most_s, -1
    while time.monotonic() < deadline:
        ticks = 0
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if b'"preload": ["torch"' in (path / "cmdline").read_bytes():
                    ticks += sum(map(int, (path / "stat").read_text().rpartition(")")[2].split()[11:13]))
            except OSError:
                continue
        if ticks == before:
            return
        before = ticks
        time.sleep(2.0)


def _cpu_s(root: int) -> float:
    """Return the CPU seconds of a process, its descendants, and all that these have waited for."""
    total = 0
    for pid in procfs.tree(root):
        try:
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        except OSError:  # it has ended, and its parent counts it
            continue
    return total / _TICKS


def _import_torch_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began


def _one(client: Any, given: tuple[str, Any], kind: str, server: int, idle_s: float) -> dict[str, Any]:
    _settle(idle_s)
    bare = _import_torch_s()
    load, cpu, began = os.getloadavg()[0], _cpu_s(server), time.time()
    audit = client.submit(given[0], checks=[("truth_probe", AUDITS[kind])], data=[given[1]])
    phases: dict[str, float] = {}
    spent = float("nan")
    # By the server's own times: the client is told up to a second later, and both read this host's clock.
    for event in client.watch(audit.name):
        name = event.detail.get("phase") or event.detail.get("state") or event.kind
        phases.setdefault(str(name), round(event.occurred_at.timestamp() - began, 3))
        if name == "sweep":
            spent = _cpu_s(server) - cpu
            client.cancel(audit.name)
    return {
        "audit": kind, "first_forward_s": phases["sweep"], "over_import_torch": phases["sweep"] / bare, "cpu_s": spent,
        "import_torch_s": bare, "load": load, "phases": phases,
    }  # fmt: skip


if __name__ == "__main__":
    main()
