"""Watching audits: one look per second and watched audit, shared by all who watch it in this process.

Events are read from their rows and nothing else; between two pages nothing is kept but the last sequence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from assay import request
from assay.api.v1 import audits_pb2
from sqlalchemy import select

from service.api.backing import Backing
from service.api.render import event_message
from service.blobs import BlobMissing
from service.rules.errors import Refusal
from service.rules.metrics import COUNTERS
from service.rules.states import AUDIT_ENDED, AuditState
from service.store.events import PAGE, Event, events_after
from service.store.tables import audit


@dataclass(frozen=True)
class _Look:
    """One look at an audit's last sequence; whoever wants to know within the next second shares it."""

    started_at: float
    """By the event loop's clock."""
    last_sequence: asyncio.Future[int]


class Watches:
    """All watches of one process."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._by_audit: Counter[str] = Counter()
        self._by_tenant: Counter[str] = Counter()
        self._looks: dict[str, _Look] = {}
        self.looks = 0
        """Looks at the database so far: what shows that watchers share them."""

    async def follow(
        self, tenant: str, audit_id: str, after: int, *, results: bool = False
    ) -> AsyncIterator[audits_pb2.AuditEvent]:
        """Yield an audit's events after a sequence until it has ended, with a keepalive in each silence.

        Args:
            tenant: who watches.
            audit_id: the audit.
            after: the last sequence that is not told.
            results: False leaves out the receipt: it says what was asked.

        Raises:
            Refusal: SEQUENCE_AHEAD, TOO_MANY_WATCHERS, SHUTTING_DOWN.
        """
        limit = self._backing.limits.watchers_per_tenant
        if self._by_tenant[tenant] >= limit:
            told = {"quota": "watchers", "limit": str(limit)}
            text = f"{limit} watches of this tenant already run."
            raise Refusal("TOO_MANY_WATCHERS", text, metadata=told, quota="watchers")
        self._by_tenant[tenant] += 1
        self._by_audit[audit_id] += 1
        COUNTERS.add("assay_watchers", 1)
        try:
            async for message in self._follow(audit_id, after, results):
                yield message
        finally:
            self._by_tenant[tenant] -= 1
            self._by_audit[audit_id] -= 1
            COUNTERS.add("assay_watchers", -1)
            if not self._by_audit[audit_id]:
                del self._by_audit[audit_id]
                self._looks.pop(audit_id, None)

    async def _follow(self, audit_id: str, after: int, results: bool) -> AsyncIterator[audits_pb2.AuditEvent]:
        state, last, page = await asyncio.to_thread(self._read, audit_id, after)
        if after > last:
            raise Refusal("SEQUENCE_AHEAD", f"This audit has {last} events.", metadata={"last_sequence": str(last)})
        while True:
            for event in page:
                told = results and event.kind == "registered"
                yield event_message(event, await asyncio.to_thread(self._receipt, audit_id) if told else None)
                after = event.sequence
                if event.kind == "state_changed" and event.detail["state"] in AUDIT_ENDED:
                    return
            if len(page) < PAGE:
                if state in AUDIT_ENDED:
                    return
                while not await self._is_more(audit_id, after):
                    yield audits_pb2.AuditEvent(keepalive=audits_pb2.Keepalive())
            state, _, page = await asyncio.to_thread(self._read, audit_id, after)

    def _read(self, audit_id: str, after: int) -> tuple[AuditState, int, tuple[Event, ...]]:
        """Return state, last sequence and the next page of events.

        The state is read first: if it is an ended one, its event is among those read after it.
        """
        with self._backing.store.read() as connection:
            row = connection.execute(select(audit.c.state, audit.c.last_sequence).where(audit.c.id == audit_id)).one()
            return AuditState(row.state), row.last_sequence, events_after(connection, audit_id, after)

    def _receipt(self, audit_id: str) -> tuple[bytes, bytes] | None:
        """Return the registered request and its proof, which the signer answered; None where one is not there.

        Read from the audit's row and the request's blob each time they are told: stored twice they could differ.
        """
        with self._backing.store.read() as connection:
            asked = select(audit.c.request_sha256, audit.c.registration_json).where(audit.c.id == audit_id)
            row = connection.execute(asked).one()
        proof = json.loads(row.registration_json or "{}").get("receipt")
        if not isinstance(proof, str):
            return None  # registered by a signer of before the log
        try:
            with self._backing.blobs.open(row.request_sha256) as file:
                return file.read(request.BYTES_MAX), proof.encode()
        except BlobMissing:
            return None

    async def _is_more(self, audit_id: str, after: int) -> bool:
        """Wait until there are events after a sequence; False if a keepalive is due first.

        Raises:
            Refusal: SHUTTING_DOWN.
        """
        clock = asyncio.get_running_loop().time
        silent_until = clock() + self._backing.limits.keepalive_s
        while clock() < silent_until:
            if await self._last_sequence(audit_id) > after:
                return True
            look = self._looks[audit_id]
            await self._pause(look.started_at + self._backing.limits.poll_s - clock())
        return False

    async def _last_sequence(self, audit_id: str) -> int:
        """Return the last sequence as of less than a second ago."""
        now = asyncio.get_running_loop().time()
        look = self._looks.get(audit_id)
        if look is None or now - look.started_at >= self._backing.limits.poll_s:
            look = _Look(now, asyncio.ensure_future(asyncio.to_thread(self._look, audit_id)))
            self._looks[audit_id] = look
        # One watcher that goes away must not cancel what the others wait for.
        return await asyncio.shield(look.last_sequence)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.001)):
                await self._backing.draining.wait()
        if self._backing.draining.is_set():
            raise Refusal("SHUTTING_DOWN", "The server is going down.")

    def _look(self, audit_id: str) -> int:
        self.looks += 1
        with self._backing.store.read() as connection:
            return int(connection.execute(select(audit.c.last_sequence).where(audit.c.id == audit_id)).scalar_one())
