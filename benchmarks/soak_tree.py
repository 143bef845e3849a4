"""The tree of processes that a soak kills, and each kind of fault done to it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from assay import AuditClient
from assay.errors import AssayError

from service.store.engine import Store, open_store

BIN = Path(sys.executable).parent
LEASE_S = 1.5
"""L of the rehearsal (specs: service, section 18); kill bound, back-off and reconciler shrink with it."""
WORKERS, APIS, SLOTS = 3, 2, 2
PATIENCE_S = 120.0
"""Longest wait for a process that was killed to be there again: some twenty starts of an interpreter on a busy host."""
FROZEN_S = 5 * LEASE_S
"""How much longer a worker may stand still. One that froze inside a transaction holds SQLite's only lock, so that not
even its lease can be taken from it."""
LIVE = ("QUEUED", "RUNNING")
ENDED = ("COMPLETED", "CANCELLED", "FAILED")
SCRIPT = "slow 0.2\nslow 0.4\nslow 0.7\nslow 1.0\nslow 0.3\nok\nrefuse\ncrash 11\ngarbage\nbig\noom\n"
"""A line an audit. `hang` is left out: nobody waits for an hour's limit, and a cancel meets `slow` as well."""


@dataclass(frozen=True)
class Shape:
    """How large a tree is, and what its cells do."""

    workers: int = WORKERS
    apis: int = APIS
    slots: int = SLOTS
    lease_s: float = LEASE_S
    script: str = SCRIPT
    store: str | None = None
    """Address of the database; None keeps one in the tree's own folder."""
    more: tuple[str, ...] = ()
    """Further words of the command line."""


@dataclass
class Tree:
    """A running `assay-server dev`."""

    data: Path
    process: subprocess.Popen[str]
    store: Store
    """Its database, beside the server."""
    stopped: set[int] = field(default_factory=set)
    """Processes that are stopped now."""

    @classmethod
    def start(cls, folder: Path, shape: Shape = Shape(), environment: Mapping[str, str] | None = None) -> Tree:
        """Start it and wait until it serves."""
        script, data = folder / "script", folder / "data"
        script.write_text(shape.script, encoding="utf-8")
        data.mkdir(exist_ok=True)
        asked = {
            "--data": data,
            "--lease-s": shape.lease_s,
            "--workers": shape.workers,
            "--apis": shape.apis,
            "--slots": shape.slots,
            "--cell": f"script={script}",
            **({"--store": shape.store} if shape.store else {}),
        }
        words = [str(part) for pair in asked.items() for part in pair]
        command = [str(BIN / "assay-server"), "dev", *words, "--lift-caps", *shape.more]
        with (folder / "server.err").open("w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit(f"the server did not start: {(folder / 'server.err').read_text()}")
        return cls(data, process, open_store(shape.store or f"sqlite:///{data / 'assay.sqlite'}"))

    def stop(self) -> int:
        """Drain it; return its exit status."""
        self.process.terminate()
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.store.close()
        return status

    def alive(self, role: str) -> dict[str, int]:
        """Return the living processes of a role, by name."""
        found = json.loads((self.data / "run" / "children.json").read_text(encoding="utf-8"))
        of_role = {name: pid for name, pid in found.items() if name.rstrip("0123456789") == role}
        return {name: pid for name, pid in of_role.items() if runs(pid) and pid not in self.stopped}

    def states(self) -> dict[str, str]:
        """Return every audit's state."""
        return {str(row[0]): str(row[1]) for row in self.read("SELECT id, state FROM audit")}

    def leasing(self) -> set[int]:
        """Return the workers that hold a lease."""
        return {
            int(worker.rpartition(":")[2]) for (worker,) in self.read("SELECT worker FROM job WHERE state='LEASED'")
        }

    def read(self, statement: str) -> list[tuple[str, ...]]:
        """Return the rows of a question to the server's database, beside the server."""
        with self.store.read() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]


def runs(pid: int) -> bool:
    """Say whether a process exists that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for what other processes bring about."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(0.05)


@dataclass
class Faults:
    """Does what a plan says; every fault meets a process that lives."""

    tree: Tree
    client: AuditClient
    _timers: list[threading.Thread] = field(default_factory=list)

    def inject(self, kind: str, choice: float) -> None:
        """Inject one fault; `choice`, from 0 to 1, picks among those that it may befall."""
        FAULTS[kind](self, choice)

    def settle(self) -> None:
        """Let whatever is stopped go on."""
        for timer in self._timers:
            timer.join()

    def kill(self, role: str, choice: float) -> None:
        until(lambda: self.tree.alive(role), f"a {role} lives")
        os.kill(pick(self.tree.alive(role), choice), signal.SIGKILL)

    def kill_worker(self, choice: float) -> None:
        """Every other time one that holds a lease, if there is one."""
        until(lambda: self.tree.alive("worker"), "a worker lives")
        alive = self.tree.alive("worker")
        leasing = {name: pid for name, pid in alive.items() if pid in self.tree.leasing()}
        os.kill(pick(leasing if leasing and choice < 0.5 else alive, choice), signal.SIGKILL)

    def empty_redis(self, choice: float) -> None:
        self.kill("redis", choice)
        shutil.rmtree(self.tree.data / "redis" / "appendonlydir", ignore_errors=True)

    def stop_worker(self, choice: float) -> None:
        """Freeze a worker for longer than L; when it goes on, its lease is another's."""
        until(lambda: self._holders(), "a worker holds a lease")
        holders = self._holders()
        if not holders:  # it ended in this very moment
            self.stop_worker(choice)
            return
        pid = pick(holders, choice)
        os.kill(pid, signal.SIGSTOP)
        self.tree.stopped.add(pid)
        timer = threading.Thread(target=self._go_on, args=(pid, (1.5 + choice) * LEASE_S), daemon=True)
        self._timers.append(timer)
        timer.start()

    def _holders(self) -> dict[str, int]:
        leasing = self.tree.leasing()
        return {name: pid for name, pid in self.tree.alive("worker").items() if pid in leasing}

    def _go_on(self, pid: int, after_s: float) -> None:
        """Thaw a worker when L has passed and the reaper, which may have been killed meanwhile, has taken its lease."""
        time.sleep(after_s)
        deadline = time.monotonic() + FROZEN_S
        while pid in self.tree.leasing() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.tree.stopped.discard(pid)
        if runs(pid):
            os.kill(pid, signal.SIGCONT)

    def knock(self, choice: float) -> None:
        """Ten messages of one audit, one of none, and one whose body is no text."""
        from service.queue.celery_queue import TASK, make_app

        names = [name for name, state in self.tree.states().items() if state in LIVE] or list(self.tree.states())
        job = names[int(choice * len(names)) % len(names)] if names else "0" * 32
        app = make_app(f"redis+socket://{self.tree.data / 'run' / 'redis.sock'}")
        bodies: list[object] = [*[job] * 10, "f" * 32, {"no": "text"}]
        try:
            for body in bodies:
                app.send_task(TASK, args=[body], queue="cpu", ignore_result=True, retry=False)
        except Exception as away:  # whatever a broker that was just killed makes of it
            print(f"the broker was away: {type(away).__name__}", file=sys.stderr)
        finally:
            app.close()

    def cancel(self, choice: float) -> None:
        """Cancel an audit at whatever it is doing; too late is an answer too."""
        states = self.tree.states()
        names = [name for name, state in states.items() if state in LIVE] or list(states)
        if names:
            try:
                self.client.cancel(f"audits/{names[int(choice * len(names)) % len(names)]}")
            except AssayError as refused:
                print(f"not cancelled: {type(refused).__name__}", file=sys.stderr)


def pick(found: Mapping[str, int], choice: float) -> int:
    """Return one of some processes."""
    names = sorted(found)
    return found[names[min(int(choice * len(names)), len(names) - 1)]]


FAULTS: Mapping[str, Callable[[Faults, float], None]] = {
    "worker_killed": Faults.kill_worker,
    "worker_stopped": Faults.stop_worker,
    "scheduler_killed": lambda faults, choice: faults.kill("scheduler", choice),
    "signer_killed": lambda faults, choice: faults.kill("signer", choice),
    "api_killed": lambda faults, choice: faults.kill("api", choice),
    "redis_emptied": Faults.empty_redis,
    "knocked_twelve_times": Faults.knock,
    "cancelled": Faults.cancel,
}
"""Kinds of faults; a plan has all of them equally often."""


@dataclass(frozen=True)
class Planned:
    """One fault of a plan."""

    kind: str
    pause_s: float
    """Before it."""
    choice: float


def plan(seed: int, count: int) -> list[Planned]:
    """Return the faults of a seed: the same for ever."""
    rng = random.Random(f"assay soak {seed}")
    kinds = [list(FAULTS)[n % len(FAULTS)] for n in range(count)]
    rng.shuffle(kinds)
    return [Planned(kind, rng.uniform(0.1, 0.8), rng.random()) for kind in kinds]
