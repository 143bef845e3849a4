"""The tree of processes under `assay-server dev`: started in order, restarted when one dies, drained in reverse."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

READY_TIMEOUT_S = 60.0
"""A role that is not ready by then has failed to start; the slowest is the worker, which proves its sandbox first."""

RESTART_PAUSE_S = 0.5
"""Pause before a dead role is started again, doubled with each death in a row up to RESTART_PAUSE_MAX_S."""

RESTART_PAUSE_MAX_S = 30.0

STEADY_S = 60.0
"""A role that lived this long has its pause reset."""


class ChildFailed(Exception):
    """A process did not become ready, or ended for good; the message names it and where its log lies."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        """With which it ended; None if it did not."""


@dataclass(frozen=True)
class Recipe:
    """How one process is started, and how one knows that it serves."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    probe: Callable[[], bool] | None = None
    """Asked until true, for programs that are not ours; None: the program reports on its ready pipe."""
    final: frozenset[int] = frozenset()
    """Exit statuses after which starting it again is of no use."""


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    ready: int
    """Read end of the ready pipe."""
    started: float
    is_ready: bool = False


@dataclass
class Children:
    """Processes that live no longer than this one. All methods are for the thread that made it."""

    note: Callable[[str], None]
    """Told of every start and death."""
    environment: Mapping[str, str]
    pause_max_s: float = RESTART_PAUSE_MAX_S
    """Longest pause before a dead role is started again."""
    _recipes: dict[str, Recipe] = field(default_factory=dict)
    _running: dict[str, _Running] = field(default_factory=dict)
    _pauses: dict[str, float] = field(default_factory=dict)
    _restart_at: dict[str, float] = field(default_factory=dict)

    def start(self, recipe: Recipe) -> None:
        """Start a process; `await_ready` waits for it."""
        self._recipes[recipe.name] = recipe
        read_end, write_end = os.pipe()
        arguments = [part.replace("{ready_fd}", str(write_end)) for part in recipe.arguments]
        with recipe.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.main.lifeline", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                env=dict(self.environment),
                start_new_session=True,  # a Ctrl-C at the terminal reaches this process only, which drains in order
            )
        os.close(write_end)
        self._running[recipe.name] = _Running(process, read_end, time.monotonic())

    def pids(self) -> dict[str, int]:
        """Return the process ids of what runs, by name."""
        return {name: running.process.pid for name, running in self._running.items()}

    def await_ready(self, names: Sequence[str]) -> None:
        """Wait until every named process serves.

        Raises:
            ChildFailed: one ended or was silent for READY_TIMEOUT_S.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        for name in names:
            running, recipe = self._running[name], self._recipes[name]
            while not running.is_ready:
                if running.process.poll() is not None:
                    raise _ended(recipe, running.process.returncode)
                if time.monotonic() > deadline:
                    raise ChildFailed(f"{name} was not ready after {READY_TIMEOUT_S:.0f} s; see {recipe.log}")
                running.is_ready = self._probe(running, recipe)

    @staticmethod
    def _probe(running: _Running, recipe: Recipe) -> bool:
        if recipe.probe is not None:
            time.sleep(0.01)
            return recipe.probe()
        readable, _, _ = select.select([running.ready], [], [], 0.05)
        return bool(readable) and bool(os.read(running.ready, 16))

    def tend(self) -> None:
        """Start again what has died. Call it a few times a second.

        Raises:
            ChildFailed: one ended with a status that is final for it.
        """
        now = time.monotonic()
        for name, running in list(self._running.items()):
            if running.process.poll() is None:
                continue
            status = running.process.returncode
            self._forget(name)
            if status in self._recipes[name].final:
                raise _ended(self._recipes[name], status)
            pause = RESTART_PAUSE_S if now - running.started > STEADY_S else self._pauses.get(name, RESTART_PAUSE_S)
            self._pauses[name] = min(2 * pause, self.pause_max_s)
            self._restart_at[name] = now + pause
            self.note(f"{name} ended with status {status}; starting it again in {pause:.1f} s")
        for name, due in list(self._restart_at.items()):
            if now >= due:
                del self._restart_at[name]
                self.start(self._recipes[name])

    def stop(self, patience_s: float) -> None:
        """Drain in reverse order of start: SIGTERM, then SIGKILL for what is still there after `patience_s`."""
        self._restart_at.clear()
        for name in reversed(list(self._running)):
            process = self._running[name].process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(patience_s)
                except subprocess.TimeoutExpired:
                    self.note(f"{name} did not drain in {patience_s:.0f} s; killed")
                    process.kill()
                    process.wait()
            self._forget(name)

    def _forget(self, name: str) -> None:
        os.close(self._running.pop(name).ready)


def _ended(recipe: Recipe, status: int) -> ChildFailed:
    return ChildFailed(f"{recipe.name} ended with status {status}; see {recipe.log}", status)
