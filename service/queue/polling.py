"""A queue without a broker: workers look at the database, and the lease decides who gets the job."""

from __future__ import annotations

import random
import threading

from service.queue.contract import Handler
from service.queue.slots import Slots
from service.store.engine import Store, StoreError
from service.store.views import oldest_queued

POLL_S = 0.5
"""Specs: service, sections 9 and 15; half a second is short beside a model's loading."""

SPREAD = 0.2
"""Workers started together must not look together for ever."""


class PollingQueue:
    """Looks for the oldest queued job of one capability; also the scheduler's side, which has nothing to tell.

    Args:
        store: the database.
        capability: what `run` serves.
        slots: how many handlers run at once.
        poll_s: seconds between two looks of one slot, give or take a fifth.
    """

    def __init__(self, store: Store, capability: str = "cpu", *, slots: int = 1, poll_s: float = POLL_S) -> None:
        self._store = store
        self._capability = capability
        self._slots = slots
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._chance = random.Random()  # noqa: S311  spreads load, guards nothing

    def publish(self, job_id: str, capability: str) -> None:
        """See `Knocker.publish`: the job's row is the message."""

    def depth(self, capability: str) -> int | None:
        """See `Knocker.depth`."""
        return None

    def run(self, handler: Handler) -> None:
        """See `Source.run`."""
        Slots(self._slots, self._stop).run(lambda: self._look(handler))

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stop.set()

    def _look(self, handler: Handler) -> None:
        self._stop.wait(self._poll_s * self._chance.uniform(1 - SPREAD, 1 + SPREAD))
        while not self._stop.is_set():
            try:
                with self._store.read() as connection:
                    found = oldest_queued(connection, self._capability)
            except StoreError:
                return  # the database is away for the moment; the next look tells
            if not found:
                return
            handler(found[0])
            with self._store.read() as connection:
                if oldest_queued(connection, self._capability) == found:
                    return  # somebody leased and gave it back, or it may not be leased: no busy loop
