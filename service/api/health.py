"""Health: SERVING means the right revision, one read of the store and one probe of the blobs.

Not the broker: a server without one still accepts work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from service.api.backing import Backing
from service.blobs import BlobError
from service.store.engine import StoreError
from service.store.migrations import head, revision

LIVE = "live"
"""Name under which the event loop alone is told of: it answers, whether or not the server can serve. An orchestrator
that ended a server for its database's sake would help nobody."""

PROBE_S = 5.0
"""Seconds between two probes."""

LOG = logging.getLogger("assay.api")


class Health:
    """Probes the server and tells `grpc.health.v1`, per service and for the whole ("")."""

    def __init__(self, backing: Backing, services: Sequence[str]) -> None:
        self._backing = backing
        self._services = ("", *services)
        self._head = head()
        self.servicer = aio.HealthServicer()

    async def probe(self) -> bool:
        """Probe once and tell; True if all is well."""
        try:
            await asyncio.to_thread(self._probe)
            serving = not self._backing.draining.is_set()
        except (StoreError, BlobError) as error:
            LOG.warning("not serving: %s", error)
            serving = False
        word = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.servicer.set(service, word)
        await self.servicer.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        return serving

    async def watch(self) -> None:
        """Probe for ever."""
        while True:
            await asyncio.sleep(PROBE_S)
            await self.probe()

    def _probe(self) -> None:
        found = revision(self._backing.store)
        if found != self._head:
            raise StoreError(f"the database is at revision {found}, this release needs {self._head}")
        self._backing.blobs.probe()
