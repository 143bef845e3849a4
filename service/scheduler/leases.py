"""Reaper and back-off. No decision reads a wall clock: what counts is how long this process saw nothing change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from service.rules.metrics import COUNTERS
from service.rules.states import BACKOFF_BASE_MS, STRIKES_MAX, ExitClass
from service.store.endings import end_waiting, take_expired
from service.store.engine import Store
from service.store.views import leased_jobs, waiting_jobs

log = logging.getLogger("assay.scheduler")

Clock = Callable[[], float]


@dataclass(frozen=True)
class _Seen:
    sign: Hashable
    since: float


class Watch:
    """Remembers since when each job showed the same sign, by this process's own clock.

    A fresh watch has seen nothing, so nothing is ever older than the watch itself.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def ages(self, signs: Mapping[str, Hashable]) -> dict[str, float]:
        """Return for how many seconds each job has shown its sign; jobs not named are forgotten."""
        now = self._clock()
        self._seen = {
            job: seen if (seen := self._seen.get(job)) and seen.sign == sign else _Seen(sign, now)
            for job, sign in signs.items()
        }
        return {job: now - seen.since for job, seen in self._seen.items()}


class Reaper:
    """Takes jobs from workers whose beats stopped for L.

    Args:
        store: the database.
        lease_s: L, in seconds.
        backoff_base_ms: first back-off, in milliseconds.
        strikes_max: strikes after which a job is given up.
        caps_lifted: whether neither attempts nor strikes are counted out: in rehearsals.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease_s: float,
        backoff_base_ms: int = BACKOFF_BASE_MS,
        strikes_max: int = STRIKES_MAX,
        caps_lifted: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._lease_s = lease_s
        self._base_ms = backoff_base_ms
        self._strikes_max = strikes_max
        self._lifted = caps_lifted
        self._watch = Watch(clock)

    def step(self) -> None:
        """Look once at every leased job."""
        with self._store.read() as connection:
            pulses = {pulse.job: pulse for pulse in leased_jobs(connection)}
        ages = self._watch.ages({job: (pulse.token, pulse.beat) for job, pulse in pulses.items()})
        for job, age in ages.items():
            if age < self._lease_s:
                continue
            pulse = pulses[job]
            with self._store.begin() as connection:
                then = take_expired(
                    connection,
                    job,
                    pulse.token,
                    pulse.beat,
                    base_ms=self._base_ms,
                    strikes_max=self._strikes_max,
                    lifted=self._lifted,
                )
            if then is not None:
                COUNTERS.add("assay_lease_expiries_total")
                COUNTERS.add("assay_attempts_total", exit_class=ExitClass.WORKER_LOST)
                log.warning("lease expired, then %s", then, extra={"job": job, "token": pulse.token})


class BackOff:
    """Queues waiting jobs again when their back-off is over.

    Args:
        store: the database.
        clock: monotonic, in seconds.
    """

    def __init__(self, store: Store, *, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._watch = Watch(clock)

    def step(self) -> None:
        """Look once at every waiting job."""
        with self._store.read() as connection:
            waiting = {one.job: one for one in waiting_jobs(connection)}
        ages = self._watch.ages({job: one.token for job, one in waiting.items()})
        for job, age in ages.items():
            if age * 1000 >= waiting[job].backoff_ms:
                with self._store.begin() as connection:
                    end_waiting(connection, job, waiting[job].token)
