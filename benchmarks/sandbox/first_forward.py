"""Time from submit to the first forward pass, from a cold start and from a spare cell.

    python -m benchmarks.sandbox.first_forward --runs 5

Two development servers in one run, one without spares and one with a spare per slot; the same audits at each, with a
pause between them in which a spare imports. The first forward is the audit's `sweep` event. The load of the host
stands beside every number, for whatever else runs there is measured, too.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RESULT = Path(__file__).with_suffix(".json")


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
    middle = {name: statistics.median(one["first_forward_s"] for one in rows) for name, rows in starts.items()}
    made = {"cpus": os.cpu_count(), "median_s": middle, "warm_over_cold": middle["warm"] / middle["cold"], **starts}
    RESULT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    for name, rows in starts.items():
        every = ", ".join(f"{one['first_forward_s']:.2f} (load {one['load']:.1f})" for one in rows)
        print(f"{name}: median {middle[name]:.2f} s of {every}")


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
            return [_one(client, manifest, rows, idle_s) for _ in range(runs)]
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


def _one(client: Any, manifest: str, pairs: Any, idle_s: float) -> dict[str, Any]:
    _settle(idle_s)
    load, began = os.getloadavg()[0], time.time()
    audit = client.submit(manifest, checks=[("truth_probe", {})], data=[pairs])
    phases: dict[str, float] = {}
    # By the server's own times: the client is told up to a second later, and both read this host's clock.
    for event in client.watch(audit.name):
        name = event.detail.get("phase") or event.detail.get("state") or event.kind
        phases.setdefault(str(name), round(event.occurred_at.timestamp() - began, 3))
        if name == "sweep":
            client.cancel(audit.name)
    return {"first_forward_s": phases["sweep"], "load": load, "phases": phases}


if __name__ == "__main__":
    main()
