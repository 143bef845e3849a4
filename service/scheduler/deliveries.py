"""The deliveries loop: one lane per webhook, so that a slow receiver delays nobody but itself."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from sqlalchemy import Connection

from service.rules.retries import Delivered, Reply, after
from service.rules.standard_webhooks import headers
from service.store.deliveries import Lane, Try, claim, due_lanes, settle
from service.store.engine import Store, StoreBusy, now_ms

log = logging.getLogger("assay.scheduler")

DELIVERIES_S = 0.5
"""Pause between two looks at what is due; the first retry comes after five seconds."""

LANES_MAX = 256
"""Lanes at once. Each is a thread that waits; a tenant has at most 20 webhooks, so a dozen tenants whose receivers all
hang leave room for the others."""

LOOK_MAX = 4 * LANES_MAX
"""Webhooks looked at in one step: those whose lane is taken are among them."""


class Caller(Protocol):
    """Whoever makes a call; see `service.scheduler.outbound.Outbound`."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, tenant: str) -> Reply:
        """Make one call for a tenant."""
        ...


class Deliveries:
    """Sends what is due.

    Args:
        store: the database.
        caller: makes the calls.
        clock: the database's, in milliseconds since 1970.
        jitter: drawn evenly from [-1, 1].
    """

    def __init__(
        self,
        store: Store,
        caller: Caller,
        *,
        clock: Callable[[Connection], int] = now_ms,
        jitter: Callable[[], float] = lambda: random.uniform(-1.0, 1.0),  # noqa: S311  # no secret depends on it
    ) -> None:
        self._store = store
        self._caller = caller
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()
        self._lanes: dict[Lane, threading.Thread] = {}
        self._stopping = threading.Event()
        self._death: BaseException | None = None

    def step(self) -> None:
        """Open a lane for each webhook that has something due and none open; waits for no receiver.

        Raises:
            BaseException: what a lane died of.
        """
        if self._death is not None:
            raise self._death
        with self._store.read() as connection:
            waiting = due_lanes(connection, self._clock(connection), LOOK_MAX)
        for lane in waiting:
            self._open(lane)

    def close(self) -> None:
        """Begin no further try, and wait for those under way: ten seconds at most."""
        self._stopping.set()
        with self._lock:
            lanes = list(self._lanes.values())
        for thread in lanes:
            thread.join()

    def _open(self, lane: Lane) -> None:
        with self._lock:
            if lane in self._lanes or len(self._lanes) >= LANES_MAX:
                return
            thread = threading.Thread(target=self._run, args=(lane,), name="delivery", daemon=True)
            self._lanes[lane] = thread
        thread.start()

    def _run(self, lane: Lane) -> None:
        try:
            while not self._stopping.is_set() and self._deliver(lane):
                pass
        except StoreBusy as busy:
            log.warning("a delivery waits: %s", busy)
        except BaseException as death:  # raised again by the next step, in the loop's own thread
            self._death = death
        finally:
            with self._lock:
                del self._lanes[lane]

    def _deliver(self, lane: Lane) -> bool:
        """Make one try of one delivery; False if none is due."""
        with self._store.begin() as connection:
            now = self._clock(connection)
            made = claim(connection, lane, now)
        if made is None:
            return False
        signed = headers(made.keys, made.event_id, now, made.body)
        reply = self._caller.post(made.url, signed, made.body, lane.tenant)
        self._settle(made, reply)
        return True

    def _settle(self, made: Try, reply: Reply) -> None:
        with self._store.begin() as connection:
            now = self._clock(connection)
            then = after(made.number, reply, jitter=self._jitter(), now_ms=now)
            settle(connection, made, then, reply.status, now)
        if not isinstance(then, Delivered):
            told = {"audit": made.audit, "attempt": made.number}
            log.warning("a receiver answered %d %s", reply.status, then.error, extra=told)
