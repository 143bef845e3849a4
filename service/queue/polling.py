"""A queue without a broker: workers look at the database, and the lease decides who gets the job."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from service.queue.contract import Handler
from service.queue.slots import Slots

POLL_S = 0.5
"""Specs: service, sections 9 and 15; half a second is short beside a model's loading."""

SPREAD = 0.2
"""Workers started together must not look together for ever."""

Look = Callable[[str], str | None]
"""Told a capability, returns the job that was queued first and could be leased now; None also if it cannot tell."""


class PollingKnocker:
    """The scheduler's side, which has nothing to tell: the job's row is the message."""

    def publish(self, job_id: str, capability: str) -> None:
        """See `Knocker.publish`."""

    def depth(self, capability: str) -> int | None:
        """See `Knocker.depth`."""
        return None


class PollingQueue:
    """The worker's side.

    Args:
        look: finds the oldest queued job.
        capability: what `run` serves.
        also: what it serves while no job of that one waits, in their order.
        slots: how many handlers run at once.
        poll_s: seconds between two looks of one slot, give or take a fifth.
    """

    def __init__(
        self, look: Look, capability: str = "cpu", *, also: Sequence[str] = (), slots: int = 1, poll_s: float = POLL_S
    ) -> None:
        self._look = look
        self._capabilities = (capability, *also)
        self._slots = slots
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._chance = random.Random()  # noqa: S311  spreads load, guards nothing

    def run(self, handler: Handler) -> None:
        """See `Source.run`."""
        Slots(self._slots, self._stop).run(lambda: self._turn(handler))

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stop.set()

    def _turn(self, handler: Handler) -> None:
        """Wait, then handle one job after the other until there is none, or one that cannot be had."""
        self._stop.wait(self._poll_s * self._chance.uniform(1 - SPREAD, 1 + SPREAD))
        before = None
        while not self._stop.is_set():
            found = next((job for one in self._capabilities if (job := self._look(one)) is not None), None)
            if found is None or found == before:
                return  # the same again: another slot has it, or it may not be leased now; no busy loop
            handler(found)
            before = found
