"""One running container, followed through the engine's own command, which is what the host can wait for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sandbox.cell import OnStep, Why
from sandbox.channels import Drain, Pipes, Steps
from sandbox.container import engine
from sandbox.container.settings import ContainerSettings
from sandbox.errors import CellFailed, CellRefused
from sandbox.supervise import Running

_LINE_MAX = 2**16


class FirstLine(Drain):
    """Takes the first line of standard output for the shim's: nothing untrusted has begun when it is written."""

    def _take(self, name: str, descriptor: int) -> None:
        if name != "stdout" or b"\n" in self.status or len(self.status) >= _LINE_MAX:
            super()._take(name, descriptor)
            return
        try:
            piece = os.read(descriptor, _LINE_MAX)
        except BlockingIOError:
            return
        if not piece:
            self._selector.unregister(descriptor)
            self.open.discard(name)
            return
        line, end, rest = piece.partition(b"\n")
        self.status += line + end
        if rest:
            self.rings["stdout"].add(rest)


@dataclass
class Contained(Running):
    """A container and the command that is attached to it."""

    settings: ContainerSettings = field(default=cast("Any", None))
    """Set by `begin`, as the container is."""
    container: str = ""
    seen: bool = False
    """Whether the host's kernel shows the container's processes."""
    over: bool = False
    """Whether the engine has said that the container ended."""

    def kill(self) -> None:
        """Kill the container, then the command."""
        if not self.over:
            engine.kill(self.settings, self.container)
        super().kill()

    def watch(self, pid: int) -> None:
        """Look at the container's processes from now on.

        Raises:
            CellRefused: not_armed, when the first of them has ended.
        """
        try:
            self.root_fd = os.pidfd_open(pid)
        except OSError:
            raise CellRefused("not_armed", "the container's first process ended") from None
        self.root, self.seen = pid, True

    def look(self) -> Why | None:
        """Sample memory and tasks where they can be seen; behind a sentry the engine's limits alone hold."""
        return super().look() if self.seen else None

    def said(self, patience_s: float) -> bytes:
        """Return the shim's line.

        Raises:
            CellRefused: not_armed, when it does not come in time.
        """
        deadline = time.monotonic() + patience_s
        while b"\n" not in self.drain.status:
            if self.ended():
                self.bury()
                tail = self.drain.log_tail().strip().rpartition("\n")[2][:300]
                raise CellRefused("not_armed", f"the container ended before its shim was armed: {tail}")
            if time.monotonic() > deadline:
                raise CellRefused("not_armed", "the shim said nothing in time")
            self.drain.pump(0.05)
        return bytes(self.drain.status)


def begin(
    settings: ContainerSettings, container: str, caps: Mapping[str, int], steps: tuple[str, ...], on_step: OnStep
) -> Contained:
    """Start a created container, attached.

    Raises:
        CellFailed: spawn_failed.
    """
    try:
        pipes = Pipes()
    except OSError as error:
        raise CellFailed("spawn_failed", str(error)) from None
    try:
        process = subprocess.Popen(
            [str(settings.program), "start", "--attach", "--interactive", container],
            stdin=pipes.child["go"],
            stdout=pipes.child["stdout"],
            stderr=pipes.child["stderr"],
            env=dict(settings.environment),
            start_new_session=True,
        )
    except OSError as error:
        pipes.close()
        raise CellFailed("spawn_failed", str(error)) from None
    process.returncode = 0  # waited for by its pidfd, and never a second time
    run = Contained.begin(process.pid, pipes, caps, steps, on_step)
    assert isinstance(run, Contained)
    run.settings, run.container = settings, container
    run.drain.close()
    run.drain = FirstLine(pipes, caps, Steps(steps, on_step))
    run.drain.watch(run.pidfd)
    return run
