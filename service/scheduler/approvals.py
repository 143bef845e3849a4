"""Consent that did not come, ended or was taken back: audits under it stop. One look every few seconds.

Waiting is counted in days by the database's clock; a clock that is wrong cancels early or late, and never lets a run
begin without consent, which is the worker's own look at what was signed.
"""

from __future__ import annotations

import logging

from service.rules.approvals import REVOKED, WAIT_MS
from service.store import audits, consent
from service.store.engine import Store

log = logging.getLogger("assay.scheduler")

APPROVALS_S = 5.0
"""Between two looks: days are waited for, and a revocation itself cancels at once."""


class Approvals:
    """Cancels what waited too long for an approval, and what lives under one that is over.

    Args:
        store: the database.
        wait_ms: how long an audit waits, in milliseconds.
    """

    def __init__(self, store: Store, *, wait_ms: int = WAIT_MS) -> None:
        self._store = store
        self._wait_ms = wait_ms

    def step(self) -> None:
        """Look once."""
        with self._store.read() as connection:
            overdue = consent.overdue(connection, wait_ms=self._wait_ms)
            crossed = consent.revoked_but_live(connection)
        for audit_id in overdue:
            with self._store.begin() as connection:
                done = consent.expire(connection, audit_id, wait_ms=self._wait_ms)
            if done:
                log.info("no approval in time", extra={"audit": audit_id})
        for audit_id in crossed:
            with self._store.begin() as connection:
                audits.cancel(connection, audit_id, reason=REVOKED)
            log.info("its approval was revoked", extra={"audit": audit_id})
