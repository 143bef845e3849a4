"""A real tree of processes to do faults to, on either database, and what its journal says of each fault.

A tree is a `dev` server with two workers, two APIs, a real Redis and a lease of 1.5 s, every ratio kept
(specs: service, section 18). Roles load `doom`, so they die at named points; whatever else is done comes from outside.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import AuditClient
from assay.config import find
from assay.errors import AssayError
from assay.remote.values import Limits
from assay.verify import verify

from benchmarks.soak_tree import ENDED, Tree, runs
from service.main.journal import stored_in
from service.rules.consistency import Checker
from service.rules.journal import Violation
from service.store.engine import Store
from service.store.journal import entries
from tests.service.plants import doom
from tests.service.plants.matrix import tell

LINES = (
    "ok", "slow 0.5", "slow 2", "slow 4", "slow 12", "crash 11", "oom", "hang", "forks 300", "big", "garbage", "refuse",
)  # fmt: skip
"""What a cell of these trees can be told to do."""

PATIENCE_S = 90.0
REAPED_S = 20.0
"""A lost lease is another worker's long before: L, two ticks, a back-off of 0.25 s, and the start of an interpreter."""


def seed_of(line: str) -> int:
    """Return a seed whose audit's cell does what a line says."""
    return next(n for n in range(1, 10_000) if LINES[_place(n)] == line)


def _place(seed: int) -> int:
    """Return which line the cell of an audit with this seed does, as `service.worker.scripted` chooses it."""
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4]) % len(LINES)


@dataclass
class Fire:
    """A tree and a client of it.

    Args:
        kind: of its database.
        tree: the processes.
        client: its one client.
        manifest: digest of a model that was sent.
        plan: folder of armed points.
        impatient: its database, for writes that hardly wait for a lock.
        start: starts another tree on the same data, with a client of its own.
    """

    kind: str
    tree: Tree
    client: AuditClient
    manifest: str
    plan: Path
    impatient: Store
    start: Callable[[], tuple[Tree, AuditClient]]

    def submit(
        self,
        line: str = "ok",
        *,
        request_id: str | None = None,
        wall_s: int = 0,
        client: AuditClient | None = None,
    ) -> str:
        """Submit an audit whose cell does what a line says; return its id."""
        made = (client or self.client).submit(
            self.manifest,
            checks=[("clusterability", {})],
            seed=seed_of(line),
            request_id=request_id or str(uuid.uuid4()),
            limits=Limits(wall_s=wall_s),
        )
        return made.name.removeprefix("audits/")

    def state(self, audit: str) -> str:
        return self.tree.read(f"SELECT state FROM audit WHERE id = '{audit}'")[0][0]

    def reason(self, audit: str) -> str:
        return str(self.tree.read(f"SELECT state_reason FROM audit WHERE id = '{audit}'")[0][0])

    def classes(self, audit: str) -> list[str | None]:
        return [row[0] for row in self.tree.read(f"SELECT exit_class FROM attempt WHERE audit = '{audit}' ORDER BY n")]

    def lost_and_found(self, audit: str) -> bool:
        """Say whether an audit's worker was lost, and another one's attempt passed."""
        return "WORKER_LOST" in self.classes(audit) and self.unstarved(audit) == ["OK"]

    def unstarved(self, audit: str) -> list[str | None]:
        """Return how an audit's attempts ended but for lost ones: a busy host may starve a worker for L, 1.5 s."""
        return [one for one in self.classes(audit) if one != "WORKER_LOST"]

    def holder(self, audit: str) -> int | None:
        """Return the process that holds an audit's lease."""
        found = self.tree.read(f"SELECT worker FROM job WHERE audit = '{audit}' AND state = 'LEASED'")
        return int(found[0][0].rpartition(":")[2]) if found else None

    def in_cell(self, audit: str) -> tuple[int, int]:
        """Wait until an audit's cell measures; return the worker and the cell's process."""
        seen: list[tuple[int, int]] = []

        def measures() -> bool:
            worker = self.holder(audit)
            seen[:] = [(worker, cell) for cell in cells_of(worker)] if worker else []
            return bool(seen)

        wait(measures, f"the cell of {audit} measures")
        return seen[0]

    def ends(self, audits: Iterable[str], seconds: float = PATIENCE_S) -> None:
        """Wait until audits have ended and nothing is owed for them."""
        wanted = list(audits)

        def ended() -> bool:
            states = self.tree.states()
            return all(states[one] in ENDED for one in wanted) and not self._owed(wanted)

        wait(ended, f"{len(wanted)} audits end: {[(self.state(one), self.reason(one)) for one in wanted]}", seconds)

    def _owed(self, audits: list[str]) -> bool:
        owed = {row[0] for row in self.tree.read("SELECT audit FROM outbox WHERE kind != 'publish'")}
        return not owed.isdisjoint(audits)

    def arm(self, point: str) -> None:
        assert point in doom.POINTS
        (self.plan / point).touch()

    def met(self, point: str, seconds: float = PATIENCE_S) -> None:
        """Wait until a process died at a point."""
        wait((self.plan / f"{point}.met").exists, f"a process dies at {point}", seconds)
        (self.plan / f"{point}.met").unlink()

    @contextmanager
    def away(self, role: str) -> Iterator[None]:
        """Kill the signer or Redis, and keep its place empty."""
        (self.plan / f"{role}.away").touch()
        try:
            self.kill(role)
            yield
        finally:
            (self.plan / f"{role}.away").unlink()

    def kill(self, name: str) -> int:
        """SIGKILL a process of the tree by its name; the tree starts it again."""
        wait(lambda: name in self.tree.alive(name.rstrip("0123456789")), f"{name} lives")
        pid = self.tree.alive(name.rstrip("0123456789"))[name]
        os.kill(pid, signal.SIGKILL)
        wait(lambda: not runs(pid), f"{name} is dead")
        return pid

    def kill_all(self) -> None:
        """SIGKILL the server's first process, see all others die with it, and start it again on what it left."""
        children = [pid for role in ("api", "worker", "scheduler", "signer", "redis") for pid in self._pids(role)]
        self.tree.process.kill()
        self.tree.process.wait()
        wait(lambda: not any(map(runs, children)), "every child dies with the server", 10)
        assert self.tree.process.stdout is not None
        self.tree.process.stdout.close()
        self.tree.store.close()
        self.client.close()
        self.tree, self.client = self.start()

    def _pids(self, role: str) -> list[int]:
        return list(self.tree.alive(role).values())

    def told(self, audits: Iterable[str], *, waiting: int = 0, **more: int) -> Counter[str]:
        """Hold the whole journal against its rules; return and print what it says of some audits.

        `lost` are those without an end but for so many that rightly wait, `twice` those with two ends or two results.
        """
        wanted = set(audits)
        checker = Checker(lifted=True, stored=stored_in(self.tree.data / "blobs"))
        counts: Counter[str] = Counter()
        ends: Counter[str] = Counter()
        results: Counter[str] = Counter()
        jobs: set[str] = set()
        broken: list[Violation] = []
        for entry in entries(self.tree.store):
            broken += checker.feed(entry)
            if entry.audit not in wanted:
                continue
            counts[entry.kind] += 1
            ends[entry.audit] += entry.kind.upper() in ENDED
            results[entry.audit] += entry.kind == "finalised" and "shard" not in entry.detail
            if entry.kind == "published":
                jobs.add(entry.job)
        broken += checker.close(live=True)
        told = Counter(
            {
                "lost": sum(not ends[one] for one in wanted) - waiting,
                "twice": sum(ends[one] > 1 or results[one] > 1 for one in wanted),
                "violations": len(broken),
                "audits": len(wanted),
                "republished": counts["published"] - len(jobs),
                **{name: counts[name] for name in ("leased", "finalised", "lease_expired", "fenced", "completed")},
                "waiting": waiting,
                **more,
            }
        )
        tell(self.kind, told)
        assert not broken, [one.line() for one in broken]
        assert (told["lost"], told["twice"]) == (0, 0), told
        return told

    def verified(self, audit: str, folder: Path, key: Path | None = None) -> None:
        """Fetch a report and verify it offline."""
        self.client.report(f"audits/{audit}", folder)
        found = verify(folder, keys=[key or self.tree.data / "signer" / "report.pub.pem"])
        assert found.outcome == "verified", found.render_text()

    def another_client(self, timeout_s: float = 10.0, patience_s: float = 0.0) -> AuditClient:
        """Return a client that repeats nothing by itself."""
        config = find(self.tree.data / "client.json")
        return AuditClient(config, timeout_s=timeout_s, patience_s=patience_s, state=self.plan.parent / "client")


def cells_of(of: int | Path) -> list[int]:
    """Return processes that run scripted cells: those of a worker, or all of a tree's data folder, whoever's they are.

    A cell's command line names the folder that its code lies in, and that lies beneath the tree's data.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended while we looked
            continue
        is_one = b"inside.py" in words and b"scripted_guest" in words
        if is_one and (parent == of if isinstance(of, int) else os.fsencode(of) in words):
            found.append(int(folder.name))
    return found


def wait(condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    """Wait for what other processes bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.05)


def parallel(count: int, call: Callable[[int], Any]) -> list[Any]:
    """Make calls side by side; return what each gave or raised."""
    gate, made = threading.Barrier(count), [None] * count

    def one(n: int) -> None:
        gate.wait()
        try:
            made[n] = call(n)
        except AssayError as refused:
            made[n] = refused  # type: ignore[call-overload]

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made
