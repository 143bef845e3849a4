"""The heartbeat of one attempt: renews the lease, writes progress, and knows when the cell must die.

One thread does all of this attempt's database writes while the cell runs, so that a slow disk never delays the
supervision of the cell. The decision to stop is read from this host's monotonic clock alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from service.store import jobs
from service.store.engine import Store, StoreBusy, StoreUnavailable
from service.store.jobs import Beat, Lease
from service.worker.errors import Reason, Stopped

log = logging.getLogger("assay.worker")

BEATS_PER_LEASE = 6
"""Specs: service, section 8: beat every L/6."""

COUNT_MAX = 2**31 - 1
"""Progress counts come from the cell and travel as int32."""

Clock = Callable[[], float]


class Pulse:
    """Use as a context manager round everything between lease and finalise.

    Args:
        store: the database.
        held: the lease.
        lease_s: L, in seconds.
        leased_at: monotonic time *before* the lease was taken, so that our L never ends after the reaper's.
        draining: says whether this process must give its jobs back now.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        store: Store,
        held: Lease,
        *,
        lease_s: float,
        leased_at: float,
        draining: Callable[[], bool],
        clock: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._held = held
        self._every_s = lease_s / BEATS_PER_LEASE
        self._fence_s = lease_s * 2 / 3
        self._beaten_at = leased_at
        self._draining = draining
        self._clock = clock
        self._heard = Beat.GO
        self._progress: list[tuple[str, int, int]] = []
        self._changed = threading.Condition()
        self._over = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"pulse-{held.job[:8]}", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def reason(self) -> Reason | None:
        """Return why the attempt must stop, or None; never waits."""
        if self._heard is Beat.FENCED:
            return Reason.FENCED
        if self._failure is not None or self._clock() - self._beaten_at > self._fence_s:
            return Reason.STALE
        if self._heard is Beat.CANCEL:
            return Reason.CANCEL
        return Reason.DRAIN if self._draining() else None

    def must_stop(self) -> bool:
        """Say whether the cell must be killed."""
        return self.reason() is not None

    def go_on(self) -> None:
        """Return if the attempt may go on.

        Raises:
            Stopped: it may not.
        """
        reason = self.reason()
        if reason is not None:
            raise Stopped(reason)

    def phase(self, phase: str, done: int = 0, owed: int = 0) -> None:
        """Tell progress; it is written soon, and only the newest count of each phase is kept for writing."""
        done, owed = (min(max(0, number), COUNT_MAX) for number in (done, owed))
        with self._changed:
            if self._progress and self._progress[-1][0] == phase and self._progress[-1][1] > 0:
                self._progress[-1] = (phase, done, owed)
            else:
                self._progress.append((phase, done, owed))
            self._changed.notify()

    def _run(self) -> None:
        try:
            due = self._clock() + self._every_s
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._over or bool(self._progress), max(0.0, due - self._clock()))
                    told, self._progress = self._progress, []
                    over = self._over
                if over and not told:
                    return
                self._write(told)
                if self._clock() >= due:
                    due = self._clock() + self._every_s
                    self._beat()
        except BaseException as failure:  # raised again by __exit__, in the attempt's own thread
            self._failure = failure

    def _beat(self) -> None:
        begun = self._clock()
        try:
            with self._store.begin() as connection:
                self._heard = jobs.beat(connection, self._held)
        except (StoreBusy, StoreUnavailable) as error:
            log.warning("a beat failed: %s", error, extra={"audit": self._held.audit, "token": self._held.token})
            return
        if self._heard is not Beat.FENCED:
            self._beaten_at = begun

    def _write(self, told: list[tuple[str, int, int]]) -> None:
        for phase, done, owed in told:
            try:
                with self._store.begin() as connection:
                    if not jobs.reach_phase(connection, self._held, phase, done, owed):
                        self._heard = Beat.FENCED
                        return
            except (StoreBusy, StoreUnavailable) as error:
                # Progress may be lost, a beat may not: the caller goes on to that.
                log.warning("progress was not written: %s", error, extra={"audit": self._held.audit})
                return
