"""Follows one cell from its start to the moment when nothing of it is left; shared by all backends."""

from __future__ import annotations

import math
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import procfs
from sandbox.cell import Cancelled, Ended, OnStep, Outcome, Seal, Usage, Why
from sandbox.channels import Drain, Pipes, Steps
from sandbox.errors import CellFailed
from sandbox.inputs import Prepared
from sandbox.inside import OUT_OF_MEMORY

TICK_S = 0.1
"""How often limits and cancellation are looked at."""
GONE_S = 5.0
"""How long after the kill the last process may take to go."""


class Launcher:
    """A thread that starts processes and lives as long as its owner.

    A cell dies with the *thread* that started it, so a cell started from a pool's thread would die when the pool
    shrinks. This thread ends only with the program or with `close`.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def spawn(self, arguments: Sequence[str], pipes: Pipes, cwd: Path, environment: Mapping[str, str]) -> int:
        """Start a process with exactly the child's ends of the pipes, and return its pid.

        Raises:
            CellFailed: spawn_failed.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="cell-launcher", daemon=True)
                self._thread.start()
        answer: queue.SimpleQueue[int | OSError | ValueError] = queue.SimpleQueue()

        def start() -> None:
            try:
                answer.put(_start(arguments, pipes, cwd, environment))
            except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
                answer.put(error)

        self._orders.put(start)
        got = answer.get()
        if not isinstance(got, int):
            raise CellFailed("spawn_failed", str(got))
        return got

    def close(self) -> None:
        """End the thread; whatever it started dies with it."""
        with self._lock:
            if self._thread is not None:
                self._orders.put(None)
                self._thread.join()
                self._thread = None

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            order()


def _start(arguments: Sequence[str], pipes: Pipes, cwd: Path, environment: Mapping[str, str]) -> int:
    kept = tuple(number for name, number in pipes.child.items() if name not in ("stdout", "stderr"))
    process = subprocess.Popen(
        list(arguments),
        stdin=subprocess.DEVNULL,
        stdout=pipes.child["stdout"],
        stderr=pipes.child["stderr"],
        pass_fds=kept,
        cwd=cwd,
        env=dict(environment),
        start_new_session=True,
    )
    # We wait for it ourselves, by pidfd and wait4, to get its times; the object must not wait a second time.
    process.returncode = 0
    return process.pid


@dataclass
class Running:
    """One started cell."""

    pid: int
    """The direct child; not reaped before `reap`, so its number cannot be another process's."""
    pipes: Pipes
    drain: Drain
    limits: Mapping[str, int]
    started: float
    pidfd: int
    root: int
    """From here every process of the cell is found."""
    root_fd: int | None = None
    """pidfd of the namespace's pid 1, whose end is the end of all."""
    tmpfs: tuple[str, ...] = ()
    """Where the cell's memory file systems can be read from the host."""
    peak_bytes: int = 0
    tasks_peak: int = 0
    cpu_s: float = 0.0
    killed: bool = False
    gone: bool = False
    status: int | None = None
    looked: float = field(default=0.0)

    @classmethod
    def begin(
        cls, pid: int, pipes: Pipes, limits: Mapping[str, int], steps: tuple[str, ...], on_step: OnStep
    ) -> Running:
        """Take charge of a process that was just started.

        Raises:
            CellFailed: spawn_failed, when the host has no descriptor left; the process is gone then.
        """
        pipes.close_child()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise CellFailed("spawn_failed", str(error)) from None
        drain = Drain(pipes, limits, Steps(steps, on_step))
        drain.watch(pidfd)
        return cls(pid=pid, pipes=pipes, drain=drain, limits=limits, started=time.monotonic(), pidfd=pidfd, root=pid)

    def go(self) -> bool:
        """Let the shim go on; False when it is not there any more."""
        self.started = time.monotonic()
        try:
            return os.write(self.pipes.host["go"], b"g") == 1
        except BrokenPipeError:
            return False

    def ended(self) -> bool:
        """Tell whether the direct child has ended."""
        return readable(self.pidfd)

    def kill(self) -> None:
        """Kill the cell: its pid 1 first, whose namespace goes with it, then the process that started it."""
        self.killed = True
        for descriptor in (self.root_fd, self.pidfd):
            if descriptor is not None:
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def follow(self, cancelled: Cancelled) -> Why | None:
        """Watch until the program ends or a limit is reached; return which limit, None when it ended by itself."""
        deadline = self.started + self.limits["wall_s"]
        while True:
            now = time.monotonic()
            self.drain.pump(min(TICK_S, deadline - now))
            if self.ended():
                return self.drain.why
            if self.drain.why:
                return self.drain.why
            if time.monotonic() >= deadline:
                return "wall"
            if cancelled():
                return "cancelled"
            if why := self.look():
                return why

    def look(self) -> Why | None:
        """Sample memory, tasks and CPU, at most every 100 ms; return the limit that is exceeded."""
        now = time.monotonic()
        if now - self.looked < TICK_S:
            return None
        self.looked = now
        seen = procfs.sample(procfs.tree(self.root))
        files = sum(procfs.used_bytes(path) for path in self.tmpfs)
        used = seen.anonymous_bytes + max(seen.shared_bytes, files)
        self.peak_bytes = max(self.peak_bytes, used)
        self.tasks_peak = max(self.tasks_peak, seen.tasks)
        self.cpu_s = max(self.cpu_s, seen.cpu_s)
        if used > self.limits["memory_bytes"]:
            return "memory"
        if seen.tasks > self.limits["processes"] + 2:  # bubblewrap's own pid 1 and monitor are none of the program's
            return "processes"
        return None

    def bury(self) -> None:
        """Kill what is left, wait until it is gone, read the channels to their ends, and reap.

        Raises:
            CellFailed: cell_unkillable.
        """
        if self.gone:
            return
        self.kill_leftovers()
        deadline = time.monotonic() + GONE_S
        for descriptor in (self.pidfd, self.root_fd):
            while descriptor is not None and not readable(descriptor, 0.05):
                self.drain.pump(0)
                if time.monotonic() > deadline:
                    raise CellFailed("cell_unkillable", f"pid {self.pid}")
        if not self.drain.finish(deadline):
            raise CellFailed("cell_unkillable", "a channel is still open")
        _pid, status, usage = os.wait4(self.pid, 0)
        self.gone = True
        self.status = os.waitstatus_to_exitcode(status)
        self.cpu_s = max(self.cpu_s, usage.ru_utime + usage.ru_stime)

    def kill_leftovers(self) -> None:
        """Kill the namespace's pid 1 even after a regular end: orphans of the program live under it."""
        killed = self.killed
        self.kill()
        self.killed = killed

    def close(self) -> None:
        """Bury what is not buried yet, and let go of every descriptor."""
        try:
            self.bury()
        finally:
            self.drain.close()
            self.pipes.close()
            for descriptor in (self.pidfd, self.root_fd):
                if descriptor is not None:
                    os.close(descriptor)
            self.root_fd = None


def readable(pidfd: int, timeout: float = 0.0) -> bool:
    """Tell whether the process behind a pidfd has ended, waiting at most `timeout` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(math.ceil(timeout * 1000)))


def outcome(run: Running, why: Why | None, prepared: Prepared, seal: Callable[[int], Seal]) -> Outcome:
    """Say how a buried run ended.

    Args:
        run: the run, after `bury`.
        why: what `follow` returned.
        prepared: holds the slots.
        seal: makes the seal from the number of bytes that leave the cell.
    """
    assert run.status is not None
    why = why or run.drain.why
    ended, status = _ending(run, why)
    if why is None and ended == "exited" and status == OUT_OF_MEMORY:
        why = "memory"
    # The hard limit, one second after the soft one, kills without a name; the last sample of a busy host may be old.
    spent = status == signal.SIGKILL and run.cpu_s >= 0.9 * run.limits["cpu_s"]
    if ended == "signalled" and (status == signal.SIGXCPU or spent):
        ended, why = "killed", "cpu"
    finished = ended == "exited" and status == 0
    result = bytes(run.drain.result) if finished and run.drain.result else None
    slots = prepared.fill() if finished else ()
    slot_bytes = sum(len(one.content) for one in slots)
    usage = Usage(
        wall_s=time.monotonic() - run.started,
        cpu_s=run.cpu_s,
        peak_bytes=run.peak_bytes,
        processes_peak=run.tasks_peak,
        result_bytes=len(result or b""),
        slot_bytes=slot_bytes,
        log_bytes=sum(ring.total for ring in run.drain.rings.values()),
    )
    return Outcome(
        ended=ended,
        status=status,
        why=why,
        result=result,
        slots=slots,
        usage=usage,
        seal=seal(usage.result_bytes + slot_bytes),
        log_tail=run.drain.log_tail(),
    )


def _ending(run: Running, why: Why | None) -> tuple[Ended, int]:
    assert run.status is not None
    if why is not None:
        return "killed", int(signal.SIGKILL)
    if run.status < 0:
        return "signalled", -run.status
    if run.status > 128:
        return "signalled", run.status - 128
    return "exited", run.status
