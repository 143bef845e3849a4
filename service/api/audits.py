"""The Audits service: submit, read, list, cancel and watch."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from assay.api.v1 import audits_pb2, audits_pb2_grpc

from service.api.backing import Backing
from service.api.guard import Call, current_call
from service.api.render import audit_message, shown_event
from service.api.submit import Submitter
from service.api.watch import Watches
from service.rules import names, pages
from service.rules.access import Shown
from service.rules.errors import Refusal, not_permitted
from service.rules.pages import AuditFilter, Position
from service.store import audits, listings, views
from service.store.scopes import sees_audit
from service.store.views import AuditView

REPLY_MAX = 3 << 20
"""Bytes of a page of audits; a client refuses messages above 4 MiB, so a longer page is cut."""


class Audits(audits_pb2_grpc.AuditsServicer):
    """See `protos/assay/api/v1/audits.proto` for every method's contract."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._submitter = Submitter(backing)
        self.watches = Watches(backing)

    async def SubmitAudit(self, request: audits_pb2.SubmitAuditRequest, context: Any) -> audits_pb2.Audit:
        """Accept an audit, or say everything that is wrong with it."""
        caller = current_call().caller
        if request.validate_only:
            return await asyncio.to_thread(self._submitter.validate, caller, request)
        expired = _deadline(context, self._backing.limits.unary_s)
        if expired():
            raise Refusal("DEADLINE_PASSED", "The deadline passed before the audit was read; nothing was created.")
        found = await asyncio.to_thread(self._submitter.submit, caller, request, expired)
        return audit_message(found)

    async def GetAudit(self, request: audits_pb2.GetAuditRequest, context: Any) -> audits_pb2.Audit:
        """Read one audit."""
        call = current_call()
        found = await asyncio.to_thread(self._view, call, names.audit(request.name))
        return audit_message(found, shown=call.shown)

    def _view(self, call: Call, audit_id: str) -> AuditView:
        with self._backing.store.read() as connection:
            found = views.view(connection, audit_id) if sees_audit(connection, call.scope, audit_id) else None
        if found is None:
            raise not_permitted()
        return found

    def _require(self, call: Call, audit_id: str) -> None:
        with self._backing.store.read() as connection:
            if not sees_audit(connection, call.scope, audit_id):
                raise not_permitted()

    async def ListAudits(self, request: audits_pb2.ListAuditsRequest, context: Any) -> audits_pb2.ListAuditsResponse:
        """List audits, newest first."""
        call = current_call()
        size = pages.page_size(request.page_size)
        wanted = pages.audit_filter(request.filter, asked=call.shown is Shown.ALL)
        question = (call.caller.principal, "ListAudits", request.filter)
        after = pages.unseal(self._backing.settings.page_key, question, request.page_token)
        places, found = await asyncio.to_thread(self._page, call, wanted, after, size + 1)
        reply, bytes_so_far = audits_pb2.ListAuditsResponse(), 0
        for position, view in enumerate(found[:size]):
            message = audit_message(view, shown=call.shown)
            bytes_so_far += message.ByteSize()
            if position and bytes_so_far > REPLY_MAX:
                break
            reply.audits.append(message)
        if len(reply.audits) < len(places):
            last = places[len(reply.audits) - 1]
            reply.next_page_token = pages.seal(self._backing.settings.page_key, question, last)
        return reply

    def _page(
        self, call: Call, wanted: AuditFilter, after: Position | None, limit: int
    ) -> tuple[Sequence[Position], Sequence[AuditView]]:
        with self._backing.store.read() as connection:
            places = listings.audit_page(connection, call.scope, wanted, after, limit)
            return places, views.views(connection, [place.id for place in places])

    async def CancelAudit(self, request: audits_pb2.CancelAuditRequest, context: Any) -> audits_pb2.Audit:
        """Ask for an audit to stop; its state says when it has."""
        call = current_call()
        audit_id = names.audit(request.name)

        def cancel() -> AuditView:
            state = self._view(call, audit_id).state
            with self._backing.store.begin() as connection:
                if audits.cancel(connection, audit_id) is None:
                    raise Refusal("ALREADY_FINISHED", f"The audit is {state}.", metadata={"state": str(state)})
            return self._view(call, audit_id)

        return audit_message(await asyncio.to_thread(cancel), shown=call.shown)

    async def WatchAudit(
        self, request: audits_pb2.WatchAuditRequest, context: Any
    ) -> AsyncIterator[audits_pb2.AuditEvent]:
        """Stream events after a sequence until the audit has ended."""
        call = current_call()
        audit_id = names.audit(request.name)
        if request.after_sequence < 0:
            raise Refusal("BAD_OFFSET", "after_sequence is negative.")
        await asyncio.to_thread(self._require, call, audit_id)
        results = call.shown is Shown.ALL
        after = request.after_sequence
        async for event in self.watches.follow(call.caller.tenant, audit_id, after, results=results):
            if current_call() is not call:  # the stream was let in again: as who the caller is by now
                call = current_call()
                await asyncio.to_thread(self._require, call, audit_id)
            yield shown_event(event, call.shown)


def _deadline(context: Any, default_s: float) -> Callable[[], bool]:
    """Return a question that any thread may ask: has the caller's time run out?"""
    remaining = context.time_remaining()
    until = time.monotonic() + (default_s if remaining is None else remaining)
    return lambda: time.monotonic() >= until
