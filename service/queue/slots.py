"""Threads that take jobs until told to stop; the first exception of any of them stops all and is raised."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Slots:
    """A fixed number of threads round one loop body.

    Args:
        count: number of threads.
        stop: set when no more work is to be taken.
    """

    def __init__(self, count: int, stop: threading.Event) -> None:
        self._count = count
        self._stop = stop
        self._failure: BaseException | None = None

    def run(self, body: Callable[[], None]) -> None:
        """Run `body` over and over in every thread until `stop` is set; then wait for the last of them.

        Raises:
            BaseException: what a body raised first.
        """
        threads = [
            threading.Thread(target=self._loop, args=(body,), name=f"slot-{n}", daemon=True) for n in range(self._count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)  # a bounded join lets signal handlers of the main thread run
        if self._failure is not None:
            raise self._failure

    def _loop(self, body: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                body()
        except BaseException as failure:
            self._failure = self._failure or failure
            self._stop.set()
