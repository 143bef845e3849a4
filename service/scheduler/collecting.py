"""The daily sweep of blobs: see `service.store.gc`. One look an hour, because what is doomed goes an hour later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from service.blobs import BlobStore
from service.store import gc
from service.store.engine import Store
from service.store.references import ReferencesUnreadable

log = logging.getLogger("assay.scheduler")

LOOK_S = 60.0
"""Between two looks at the clock; a look costs nothing."""

SWEEP_S = 86_400.0
"""Specs: service, section 17 counts in days."""

SECOND_S = 3_600.0
"""Between two looks at what is doomed."""


class Collector:
    """Sweeps once a day, and once more when what it doomed is due.

    The first sweep is an hour after the start: a server that is being repaired must not collect at once.

    Args:
        store: the database.
        blobs: the bytes.
        ages: how old things must be to go.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        *,
        ages: gc.Ages | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._blobs, self._clock = store, blobs, clock
        self._ages = ages or gc.Ages()
        self._looked = clock()
        self._swept: float | None = None

    def step(self) -> None:
        """Sweep, if it is time."""
        now = self._clock()
        if now - self._looked < SECOND_S:
            return
        self._looked = now
        if (
            self._swept is not None
            and now - self._swept < SWEEP_S
            and not gc.is_due(self._store, doomed_ms=self._ages.doomed_ms)
        ):
            return
        self._swept = now
        try:
            swept = gc.sweep(self._store, self._blobs, ages=self._ages)
        except ReferencesUnreadable as error:
            log.error("nothing was collected: %s; restore it from a backup", error)
            return
        log.info("swept: %s", swept.told())
