"""Loops of one process, each in a thread; one that dies takes all down, and a supervisor starts the process again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.store.engine import StoreBusy

log = logging.getLogger("assay.scheduler")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One step, repeated."""

    name: str
    every_s: float
    """Pause between two steps, in seconds."""
    step: Callable[[], None]


def run_loops(loops: Sequence[Loop], stop: threading.Event) -> None:
    """Run loops until `stop` is set; blocks, and waits for every step under way.

    Raises:
        BaseException: what a step raised first. A write lock held too long is no death: the step is tried again.
    """
    failures: list[BaseException] = []

    def run(loop: Loop) -> None:
        try:
            while not stop.is_set():
                try:
                    loop.step()
                except StoreBusy as busy:
                    log.warning("%s: %s", loop.name, busy)
                stop.wait(loop.every_s)
        except BaseException as failure:
            failures.append(failure)
            stop.set()

    threads = [threading.Thread(target=run, args=(loop,), name=loop.name, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)  # a bounded join lets signal handlers of the main thread run
    if failures:
        raise failures[0]
