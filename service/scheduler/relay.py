"""The relay: performs what transactions owe to the world, and only then deletes the debt. Effects are idempotent."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.queue.contract import QueueUnavailable
from service.scheduler.errors import SchedulerError
from service.store.engine import Store, StoreBusy
from service.store.outbox import Kind, Owed, owed

log = logging.getLogger("assay.scheduler")

RELAY_S = 0.1
"""Specs: service, section 8: the outbox is swept every 0.1 s."""

AGAIN_S, AGAIN_MAX_S = 0.5, 30.0
"""First pause and longest pause before a failed effect is tried again; the signer allows 60 operations a minute."""

SWEEP = 1000
"""Debts looked at in one sweep."""

Effect = Callable[[Owed], None]
"""Performs a debt and deletes it; may happen twice."""

EXPECTED = (SchedulerError, QueueUnavailable, StoreBusy)
"""What an effect may fail with and be tried again; anything else ends the process."""


class Relay:
    """One lane: kinds of debts that share a few threads, so that a slow signer never delays a knock.

    Args:
        store: the database.
        effects: what to do, by kind.
        width: how many debts are performed at once; one job's knocks never are, nor what else one audit owes.
        on_failure: told the debt and why it could not be performed now.
        on_success: called when a debt was performed, for what it may owe in turn.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        store: Store,
        effects: Mapping[Kind, Effect],
        *,
        width: int = 1,
        on_failure: Callable[[Owed, Exception], None] = lambda _debt, _why: None,
        on_success: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._effects = effects
        self._on_failure = on_failure
        self._on_success = on_success
        self._clock = clock
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="relay")
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._again: dict[int, tuple[float, float]] = {}
        self._death: BaseException | None = None

    def step(self) -> None:
        """Start what is due and not under way.

        Raises:
            BaseException: what an effect died of.
        """
        if self._death is not None:
            raise self._death
        with self._store.read() as connection:
            debts = owed(connection, tuple(self._effects), limit=SWEEP)
        self._forget(debts)
        for debt in debts:
            if self._take(debt):
                self._pool.submit(self._perform, debt)

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, debt: Owed) -> bool:
        with self._lock:
            due, _ = self._again.get(debt.id, (0.0, 0.0))
            if _owner(debt) in self._busy or self._clock() < due:
                return False
            self._busy.add(_owner(debt))
            return True

    def _perform(self, debt: Owed) -> None:
        try:
            self._try(debt)
        except BaseException as death:  # raised again by the next step, in the loop's own thread
            self._death = death
        finally:
            with self._lock:
                self._busy.discard(_owner(debt))

    def _try(self, debt: Owed) -> None:
        try:
            self._effects[debt.kind](debt)  # type: ignore[index]
        except EXPECTED as why:
            log.warning("%s is owed still: %s", debt.kind, why, extra={"audit": debt.audit})
            self._postpone(debt, why)
        else:
            with contextlib.suppress(StoreBusy):  # the next sweep finds it
                self._on_success()

    def _postpone(self, debt: Owed, why: Exception) -> None:
        with self._lock:
            _, pause = self._again.get(debt.id, (0.0, AGAIN_S / 2))
            pause = min(pause * 2, AGAIN_MAX_S)
            self._again[debt.id] = (self._clock() + pause, pause)
        try:
            self._on_failure(debt, why)
        except StoreBusy as busy:
            log.warning("the reason was not written: %s", busy, extra={"audit": debt.audit})

    def _forget(self, debts: Sequence[Owed]) -> None:
        with self._lock:
            self._again = {debt.id: self._again[debt.id] for debt in debts if debt.id in self._again}


def _owner(debt: Owed) -> str:
    """Return whose debts are performed one after the other: a job's knocks, else the audit's."""
    return debt.job if debt.kind == "publish" else debt.audit
