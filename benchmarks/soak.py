"""Do a thousand faults to a running service and count what was lost or done twice.

    make soak FAULTS=1000 SEED=1 [STORE=postgresql]

A seed fixes the plan: kinds of faults, their order, the pauses between them and what each befalls. Three workers and
two APIs serve on a lease of 1.5 s, with every ratio of the service's times kept and the caps on attempts and strikes
lifted; cells follow a script (`service.worker.scripted`). Audits are submitted all the while. At the end every one
must have ended once, its report must verify, and the journal must hold together (J1-J15, every digest hashed again).
Prints counts from the journal; exits 1 if anything was lost, finished twice, inconsistent or unverified.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from assay import AuditClient
from assay.errors import AssayError
from assay.verify import verify

from benchmarks.soak_tree import APIS, BIN, ENDED, LEASE_S, WORKERS, Faults, Planned, Shape, Tree, plan, until

ROOT = Path(__file__).parents[1]
WIDTH = 10
"""Audits under way at once: the slots of all workers, and some that wait."""
STARVED = 8
"""Faults after which an audit must have ended before the next one: the seed fixes their order, the host their pace."""
LAST_S = 600.0
"""Longest wait for the last audit to end once nothing is done to the service any more."""


@dataclass
class Submitter:
    """Keeps audits under way; each call is repeated under one request id until it is answered."""

    client: AuditClient
    manifest: str
    tree: Tree
    rng: random.Random
    names: dict[str, str] = field(default_factory=dict)
    """Audits by request id."""
    refused: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Submit until `over`."""
        while not self.over.is_set():
            if sum(state not in ENDED for state in self.tree.states().values()) >= WIDTH:
                time.sleep(0.05)
                continue
            self._submit(str(uuid.UUID(bytes=self.rng.randbytes(16), version=4)))

    def _submit(self, request_id: str) -> None:
        while request_id not in self.names:
            try:
                made = self.client.submit(self.manifest, checks=[("clusterability", {})], request_id=request_id)
            except AssayError as error:
                self.refused[type(error).__name__] += 1
                time.sleep(0.2)
            else:
                self.names[request_id] = made.name.removeprefix("audits/")


def main() -> int:
    """Run the plan; the return value is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--store", choices=("sqlite", "postgresql"), default="sqlite", help="postgresql starts a server of its own"
    )
    parser.add_argument("--keep", type=Path, help="folder to leave the data in (default: removed)")
    options = parser.parse_args()
    faults = plan(options.seed, options.faults)
    digest = hashlib.sha256(repr(faults).encode()).hexdigest()
    told = f"{WORKERS} workers, {APIS} APIs, L {LEASE_S} s, {options.store}"
    print(f"seed {options.seed}: {len(faults)} faults, plan {digest[:16]}, {told}")
    with tempfile.TemporaryDirectory(prefix="assay-soak-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(exist_ok=True, parents=True)
        model = folder / "tiny"
        subprocess.run([sys.executable, "-m", "checks.organisms", "tiny", "--out", str(model)], check=True, cwd=ROOT)
        return _soak(folder, model / "model", faults, options.seed, Shape(store=_store(options.store)))


def _store(kind: str) -> str | None:
    """Return the address of a fresh database; None of SQLite, which the tree makes itself."""
    if kind == "sqlite":
        return None
    from tests.service.store import postgres

    server = postgres.server()
    if server is None:
        raise SystemExit(postgres.WITHOUT)
    return server.create()


def _soak(folder: Path, model: Path, faults: list[Planned], seed: int, shape: Shape) -> int:
    began = time.monotonic()
    tree = Tree.start(folder, shape)
    injected: Counter[str] = Counter()
    try:
        with AuditClient.from_config(tree.data / "client.json", state=folder / "client") as client:
            manifest = client.upload_model(model).manifest_sha256
            submitter = Submitter(client, manifest, tree, random.Random(f"requests {seed}"))
            thread = threading.Thread(target=submitter.run, daemon=True)
            thread.start()
            _inject(tree, Faults(tree, client), faults, injected)
            submitter.over.set()
            thread.join()
            faulted_s = time.monotonic() - began
            accepted = set(submitter.names.values())
            until(lambda: all(state in ENDED for state in tree.states().values()), "every audit ends", LAST_S)
            until(lambda: not _owes(tree), "everything owed is settled", LAST_S)
            unverified = _unverified(client, tree, folder / "reports")
            cells = _cells(tree)
        journal = _export(tree, folder)
    finally:
        status = tree.stop()
    told = _judge(folder, tree, accepted, journal)
    told |= {"unverified": len(unverified), "old_cells": cells, "server_exit": status}
    print(f"faults: {json.dumps(dict(sorted(injected.items())))} in {faulted_s:.0f} s")
    print(f"calls repeated: {json.dumps(dict(submitter.refused))}")
    print(f"journal: {json.dumps(told.pop('kinds'))}")
    print(f"seed {seed}: {json.dumps(told)}; {time.monotonic() - began:.0f} s in all")
    broken = [name for name in MUST_BE_NONE if told[name]] + (["fenced"] if _owed_fence(injected, told) else [])
    print(
        "broken: " + ", ".join(broken) if broken else "nothing lost, nothing twice, no violation, every report verifies"
    )
    return int(bool(broken))


MUST_BE_NONE = ("lost", "finished_twice", "violations", "unverified", "old_cells", "server_exit")


def _owed_fence(injected: Counter[str], told: dict[str, int]) -> bool:
    """Say whether no worker that was frozen found its lease over; a few may be killed or cancelled meanwhile."""
    return injected["worker_stopped"] >= 5 and not told["fenced"]


def _inject(tree: Tree, faults: Faults, planned: list[Planned], injected: Counter[str]) -> None:
    until(lambda: tree.states(), "the first audit is submitted")
    ended, since = 0, 0
    for fault in planned:
        time.sleep(fault.pause_s)
        since += 1
        if since > STARVED:
            until(lambda before=ended: _count_ended(tree) > before, "an audit ends under faults", LAST_S)  # type: ignore[misc]
        now = _count_ended(tree)
        ended, since = (now, 0) if now > ended else (ended, since)
        faults.inject(fault.kind, fault.choice)
        injected[fault.kind] += 1
    faults.settle()


def _count_ended(tree: Tree) -> int:
    return sum(state in ENDED for state in tree.states().values())


def _owes(tree: Tree) -> bool:
    return bool(tree.read("SELECT kind FROM outbox WHERE kind != 'publish' LIMIT 1"))


def _unverified(client: AuditClient, tree: Tree, folder: Path) -> list[str]:
    """Fetch every report and verify it offline; return the audits whose report does not."""
    key = tree.data / "signer" / "report.pub.pem"
    wrong = []
    for name, state in tree.states().items():
        if state == "COMPLETED":
            until(lambda name=name: _fetched(client, name, folder / name), f"the report of {name}")  # type: ignore[misc]
            found = verify(folder / name, keys=[key])
            if found.outcome != "verified":
                wrong.append(name)
                print(f"audits/{name}: {found.outcome}: {[one for one in found.steps if one.status == 'wrong']}")
    return wrong


def _fetched(client: AuditClient, name: str, folder: Path) -> bool:
    """Fetch a report; False where the service wants fewer calls a second, or is not there in this moment."""
    try:
        client.report(f"audits/{name}", folder)
    except AssayError as error:
        print(f"the report of {name} is fetched again: {error}"[:200], file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(1)
        return False
    return True


def _cells(tree: Tree) -> int:
    """Count processes of cells that are left when no job is leased any more."""
    found = 0
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes()
        except OSError:
            continue
        found += b"inside.py" in words and str(tree.data).encode() in words
    return found


def _export(tree: Tree, folder: Path) -> Path:
    out = folder / "journal.jsonl"
    command = [str(BIN / "assay-server"), "journal", "export", "--config", str(tree.data / "server.toml")]
    subprocess.run([*command, "--out", str(out)], check=True)
    return out


def _judge(folder: Path, tree: Tree, accepted: set[str], journal: Path) -> dict[str, int]:
    """Hold the journal against the rules, and against what the client was told."""
    command = [str(BIN / "assay-server"), "journal", "check", str(journal), "--lifted", "--blobs"]
    done = subprocess.run([*command, str(tree.data / "blobs")], capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    ends: dict[str, Counter[str]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        ends.setdefault(entry["audit"], Counter())[entry["kind"]] += 1
    terminal = {name: sum(kinds[one.lower()] for one in ENDED) for name, kinds in ends.items() if name}
    told = json.loads(done.stderr.splitlines()[-1])
    return {
        "audits": len(terminal),
        "lost": sum(not terminal.get(name) for name in accepted | set(terminal)) + len(set(terminal) - accepted),
        "finished_twice": sum(count > 1 or ends[name]["finalised"] > 1 for name, count in terminal.items()),
        "violations": told["violations"],
        "fenced": told["kinds"].get("fenced", 0),
        "kinds": told["kinds"],
    }


if __name__ == "__main__":
    sys.exit(main())
