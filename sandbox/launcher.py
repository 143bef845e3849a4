"""Starts processes from one thread that lives as long as its owner: a cell dies with the thread that started it."""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandbox.channels import Pipes
from sandbox.errors import CellFailed


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
