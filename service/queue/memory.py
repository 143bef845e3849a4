"""The queue's in-memory twin: both sides in one process, for tests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from service.queue.contract import Handler, is_job_id
from service.queue.slots import Slots


class MemoryQueue:
    """Knocks kept in this process; gone with it.

    Args:
        capability: what `run` serves.
        also: what it serves while nothing of that one waits, in their order.
        slots: how many handlers run at once.
    """

    def __init__(self, capability: str = "cpu", *, also: Sequence[str] = (), slots: int = 1) -> None:
        self._capabilities = (capability, *also)
        self._slots = slots
        self._waiting: dict[str, deque[str]] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()

    def publish(self, job_id: str, capability: str) -> None:
        """See `Knocker.publish`."""
        with self._changed:
            self._waiting.setdefault(capability, deque()).append(job_id)
            self._changed.notify()

    def depth(self, capability: str) -> int | None:
        """See `Knocker.depth`."""
        return len(self._waiting.get(capability, ()))

    def run(self, handler: Handler) -> None:
        """See `Source.run`."""
        Slots(self._slots, self._stop).run(lambda: self._next(handler))

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stop.set()

    def _first(self) -> deque[str] | None:
        """Return the first list of ours that is not empty."""
        return next((found for one in self._capabilities if (found := self._waiting.get(one))), None)

    def _next(self, handler: Handler) -> None:
        with self._changed:
            self._changed.wait_for(self._first, timeout=0.05)
            waiting = self._first()
            job_id = waiting.popleft() if waiting else None
        if job_id is not None and is_job_id(job_id):
            handler(job_id)
