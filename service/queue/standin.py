"""What a Celery worker does without its broker: it looks at the database, until the broker answers again.

A knock and a look may find the same job; the lease decides, as between any two workers. What must not happen is that
one process minds more cells than it has slots, so that both sides share its places.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from service.queue.contract import Handler
from service.queue.polling import POLL_S, Look, PollingQueue

log = logging.getLogger("assay.queue")

SILENCE_S = 60.0
"""Specs: service, section 9. A broker that restarts is back in less, and the reconciler knocks again by then."""

ASK_S = 5.0
"""Between two questions to the broker: a turn is noticed a twelfth of `SILENCE_S` late at most."""

WAIT_S = 0.5
"""Between two looks of a waiting knock at whether the worker stops."""


class BrokerWatch:
    """Whether the broker has been silent for too long. One thread looks, any may read `is_silent`.

    Args:
        ask: whether the broker answers now; takes seconds at most.
        silence_s: how long it may be silent.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, ask: Callable[[], bool], *, silence_s: float = SILENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._silence_s = silence_s
        self._clock = clock
        self._heard_at = clock()  # a worker that starts without a broker waits as long
        self.is_silent = False

    def look(self) -> None:
        """Ask once, and log a turn."""
        if self._ask():
            self._heard_at = self._clock()
            if self.is_silent:
                log.info("the broker answers again: jobs are looked for no longer")
            self.is_silent = False
        elif not self.is_silent and self._clock() - self._heard_at >= self._silence_s:
            log.warning("the broker has not answered for %g s: jobs are looked for in the database", self._silence_s)
            self.is_silent = True


class Places:
    """Slots of one process, shared by knocks and looks.

    Args:
        slots: how many handlers may run at once.
    """

    def __init__(self, slots: int) -> None:
        self._free = threading.BoundedSemaphore(slots)
        self._closed = threading.Event()

    def close(self) -> None:
        """Give no place any more, and let waiting ones go; safe from any thread, a signal handler included."""
        self._closed.set()

    @contextmanager
    def taken(self, *, wait: bool) -> Iterator[bool]:
        """Hold a place for the block; False if there is none: closed, or all taken where nobody `wait`s."""
        has_one = False
        while not has_one and not self._closed.is_set():
            has_one = self._free.acquire(timeout=WAIT_S) if wait else self._free.acquire(blocking=False)
            if not wait:
                break
        try:
            yield has_one and not self._closed.is_set()
        finally:
            if has_one:
                self._free.release()


class StandIn:
    """The polling queue, which looks only while the broker is silent.

    Args:
        watch: tells whether it is.
        look: finds the oldest queued job.
        capabilities: what to look for, in their order.
        places: shared with the side that is knocked at.
        slots: how many handlers may run at once.
        poll_s: seconds between two looks of one slot.
    """

    def __init__(
        self,
        watch: BrokerWatch,
        look: Look,
        capabilities: Sequence[str],
        places: Places,
        *,
        slots: int = 1,
        poll_s: float = POLL_S,
    ) -> None:
        self._watch = watch
        self._look = look
        self._places = places
        own, *also = capabilities
        self._polling = PollingQueue(self._find, own, also=also, slots=slots, poll_s=poll_s)

    def run(self, handler: Handler) -> None:
        """Call the handler for every job that is found, until `stop`; raises what it raised."""

        def handle(job_id: str) -> None:
            with self._places.taken(wait=False) as has_place:
                if has_place:
                    handler(job_id)

        self._polling.run(handle)

    def stop(self) -> None:
        """Look no more; what runs goes on."""
        self._polling.stop()

    def _find(self, capability: str) -> str | None:
        return self._look(capability) if self._watch.is_silent else None
