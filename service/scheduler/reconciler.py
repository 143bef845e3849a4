"""The reconciler: knocks again for jobs that a broker forgot; it heals a flushed broker and cannot flood one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from service.queue.contract import Knocker, QueueUnavailable
from service.store.engine import Store
from service.store.views import mark_published, queued_by_capability, unpublished

log = logging.getLogger("assay.scheduler")

RECONCILE_S = 10.0
"""Specs: service, section 15."""

MARKED = 100
"""Knocks that one commit remembers: a commit for each made 10,000 of them take minutes, and others waited."""


class Reconciler:
    """Compares the queue with the database.

    Args:
        store: the database.
        knocker: the queue.
        older_s: a job knocked for more recently than this, in seconds, is left alone.
    """

    def __init__(self, store: Store, knocker: Knocker, *, older_s: float = RECONCILE_S) -> None:
        self._store = store
        self._knocker = knocker
        self._older_ms = int(older_s * 1000)

    def step(self) -> None:
        """Look once at every capability."""
        with self._store.read() as connection:
            queued = queued_by_capability(connection)
        try:
            for capability, count in queued.items():
                self._republish(capability, count)
        except QueueUnavailable as away:
            log.warning("%s", away)

    def _republish(self, capability: str, count: int) -> None:
        depth = self._knocker.depth(capability)
        if depth is None or depth >= count:
            return
        with self._store.read() as connection:
            missing = unpublished(connection, capability, older_ms=self._older_ms, limit=count - depth)
        for start in range(0, len(missing), MARKED):
            self._knock(missing[start : start + MARKED], capability)

    def _knock(self, jobs: Sequence[str], capability: str) -> None:
        """Knock for a few jobs, then remember it; killed in between, they are knocked for again, which harms nobody.

        Raises:
            QueueUnavailable: the broker took some of them, which are remembered, and not the rest.
        """
        told: list[str] = []
        try:
            for job in jobs:
                self._knocker.publish(job, capability)
                told.append(job)
                log.info("knocked again", extra={"job": job})
        finally:
            with self._store.begin() as connection:
                mark_published(connection, *told)
