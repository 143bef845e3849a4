"""Kill processes of a running service at random moments and count what was lost or done twice.

    make soak FAULTS=5 SEED=1

A seed fixes the plan: which process dies, and how long after the last one. Audits are submitted all the while; at the
end every one of them must have ended once, with a report that verifies. Prints counts; exits 1 if anything was lost or
finished twice. This is a first form with whole-process kills (worker, scheduler, signer, api, redis) and real cells.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ROLES = ("worker", "scheduler", "signer", "api", "redis")


def main() -> int:
    """Run the plan; the return value is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assay-soak-") as scratch:
        model = Path(scratch) / "tiny"
        subprocess.run([sys.executable, "-m", "checks.organisms", "tiny", "--out", str(model)], check=True, cwd=ROOT)
        data = Path(scratch) / "data"
        data.mkdir()
        arguments = [str(BIN / "assay-server"), "dev", "--data", str(data), "--lease-s", "6", "--slots", "2"]
        server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert server.stdout is not None
        try:
            server.stdout.readline()
            return _soak(data, model, options.faults, options.seed)
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()


def _soak(data: Path, model: Path, faults: int, seed: int) -> int:
    from assay import AuditClient

    began = time.monotonic()
    plan = random.Random(seed)
    killed: Counter[str] = Counter()
    names: list[str] = []
    with AuditClient.from_config(data / "client.json") as client:
        manifest = client.upload_model(model / "model").manifest_sha256
        for _ in range(faults):
            names.append(client.submit(manifest, checks=[("clusterability", {})]).name)
            time.sleep(plan.uniform(0.5, 8.0))
            killed[_kill(data, plan.choice(ROLES))] += 1
        ended = {
            name: [event.detail["state"] for event in client.watch(name) if event.kind == "state_changed"]
            for name in names
        }
        reports = [data / "fetched" / str(n) for n in range(len(names))]
        for name, folder in zip(names, reports, strict=True):
            client.report(name, folder)
    key = data / "signer" / "report.pub.pem"
    verified = sum(_verifies(folder, key) for folder in reports)
    lost = sum(states[-1] != "COMPLETED" for states in ended.values())
    twice = sum(states.count("COMPLETED") > 1 or states.count("SIGNING") > 1 for states in ended.values())
    print(
        f"seed {seed}: {sum(killed.values())} faults {json.dumps(dict(sorted(killed.items())))} "
        f"in {time.monotonic() - began:.0f} s; "
        f"{len(names)} audits, {lost} lost, {twice} finished twice, {verified} of {len(names)} reports verify"
    )
    return int(bool(lost or twice or verified != len(names)))


def _kill(data: Path, role: str) -> str:
    pid = json.loads((data / "run" / "children.json").read_text(encoding="utf-8")).get(role)
    if pid is None:
        return f"{role} (was down)"
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return f"{role} (was down)"
    return role


def _verifies(report: Path, key: Path) -> bool:
    command = [str(BIN / "assay"), "verify", str(report), "--key", str(key)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
