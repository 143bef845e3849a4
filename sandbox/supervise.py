"""Follows one cell from its start to the moment when nothing of it is left; shared by all backends."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sandbox import procfs
from sandbox.cell import KILL_BOUND_LEAST_S, KILL_BOUND_S, Cancelled, Ended, OnStep, Outcome, Seal, Usage, Why
from sandbox.cgroups import Group
from sandbox.channels import Drain, Pipes, Steps
from sandbox.errors import CellFailed
from sandbox.inputs import Prepared
from sandbox.inside import OUT_OF_MEMORY
from sandbox.launcher import Launcher
from sandbox.slots import Opened, overfull

__all__ = ["Launcher", "Running", "outcome", "readable"]

TICK_S = 0.1
"""How often limits and cancellation are looked at."""


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
    group: Group | None = None
    """The cell's control group: it limits memory instead of the watchdog, counts CPU time, and is killed first."""
    slots: tuple[Opened, ...] = ()
    """What the program may write on the host's disk."""
    spent: Why | None = None
    """The limit of the group that was reached, once that is known."""
    peak_bytes: int = 0
    tasks_peak: int = 0
    cpu_s: float = 0.0
    killed: bool = False
    gone: bool = False
    status: int | None = None
    looked: float = field(default=0.0)
    kill_bound_s: float = KILL_BOUND_S
    """How long after the kill the last process may take to go."""
    gone_by: float = 0.0
    """When that time is over, by the monotonic clock: one bound for all that a kill takes. 0 before the first one."""

    @classmethod
    def begin(
        cls,
        pid: int,
        pipes: Pipes,
        limits: Mapping[str, int],
        steps: tuple[str, ...],
        on_step: OnStep,
        group: Group | None = None,
        *,
        kill_bound_s: float = KILL_BOUND_S,
    ) -> Running:
        """Take charge of a process that was just started, and that enters `group` by itself where there is one.

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
        now = time.monotonic()
        run = cls(pid=pid, pipes=pipes, drain=drain, limits=limits, started=now, pidfd=pidfd, root=pid, group=group)
        run.kill_bound_s = kill_bound_s
        return run

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
        """Kill the cell: its group at once, its pid 1, whose namespace goes with it, then what started it."""
        self.killed = True
        self.gone_by = self.gone_by or time.monotonic() + self.kill_bound_s
        if self.group is not None:
            self.group.kill()
        if self.root_fd is None:
            self._kill_unnamed(self.gone_by)
        for descriptor in (self.root_fd, self.pidfd):
            if descriptor is not None:
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def _kill_unnamed(self, deadline: float) -> None:
        """Kill what the direct child has made so far, while it is held still and can make no more.

        bubblewrap's pid 1 asks to die with its parent only some time after its start. Until it is named here, the end
        of its parent alone could leave it waiting for ever.
        """
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
            while procfs.fields(self.pid).get("State", "Z")[0] not in "TZX" and time.monotonic() < deadline:
                time.sleep(0.001)
            for child in procfs.tree(self.pid)[1:]:  # a parent that is held reaps nobody: the numbers stay theirs
                os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            return

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
        """Sample memory, tasks, CPU and slots, at most every 100 ms; return the limit that is exceeded."""
        now = time.monotonic()
        if now - self.looked < TICK_S:
            return None
        self.looked = now
        if overfull(self.slots):
            return "output_cap"
        pids = procfs.tree(self.root)
        seen = procfs.sample(pids)
        used = self._used(pids, seen)
        self.peak_bytes = max(self.peak_bytes, used)
        self.tasks_peak = max(self.tasks_peak, seen.tasks)
        self.cpu_s = max(self.cpu_s, seen.cpu_s)
        if self.group is not None:
            self.spent = self.spent or self._counted(self.group)
            return self.spent
        if used > self.limits["memory_bytes"]:
            return "memory"
        if seen.tasks > self.limits["processes"] + 2:  # bubblewrap's own pid 1 and monitor are none of the program's
            return "processes"
        return None

    def _used(self, pids: Sequence[int], seen: procfs.Sample) -> int:
        """Return the memory of the cell. A page of a file that is mapped too is seen twice and counts once.

        Which shared pages are of no file takes long to find out, so it is asked only where the limit hangs on it.
        """
        files = sum(procfs.used_bytes(path) for path in self.tmpfs)
        least = seen.anonymous_bytes + max(seen.shared_bytes, files)
        most = seen.anonymous_bytes + seen.shared_bytes + files
        if self.group is not None or not least <= self.limits["memory_bytes"] < most:
            return least
        return max(least, seen.anonymous_bytes + files + procfs.unnamed_bytes(pids))

    def _counted(self, group: Group) -> Why | None:
        """Ask the kernel's own counters; the number of processes it limits without our help."""
        self.cpu_s = max(self.cpu_s, group.cpu_s())
        if group.out_of_memory():
            # Otherwise a peak is the samples': the kernel's own counts the cache of files that were read, too.
            self.peak_bytes = max(self.peak_bytes, group.peak_bytes())
            return "memory"
        return "cpu" if self.cpu_s > self.limits["cpu_s"] else None

    def bury(self) -> None:
        """Kill what is left, wait until it is gone, read the channels to their ends, and reap.

        Raises:
            CellFailed: cell_unkillable.
        """
        if self.gone:
            return
        self.kill_leftovers()
        for descriptor in (self.pidfd, self.root_fd):
            while descriptor is not None and not readable(descriptor, 0.05):
                self.drain.pump(0)
                if time.monotonic() > self.gone_by:
                    raise CellFailed("cell_unkillable", f"pid {self.pid}")
        # Who is gone has closed its ends, but a kill that took its time must not leave the last words unread.
        if not self.drain.finish(max(self.gone_by, time.monotonic() + KILL_BOUND_LEAST_S)):
            raise CellFailed("cell_unkillable", "a channel is still open")
        _pid, status, usage = os.wait4(self.pid, 0)
        self.gone = True
        self.status = os.waitstatus_to_exitcode(status)
        self.cpu_s = max(self.cpu_s, usage.ru_utime + usage.ru_stime)
        if self.group is not None:  # its last words: the program may have ended between two looks
            self.spent = self.spent or self._counted(self.group)

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
    why = why or run.drain.why or run.spent
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
