"""Accepting an audit: read the request, refuse it whole, or store it whole. Runs in a thread; it blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from assay.api.v1 import audits_pb2, schedules_pb2
from sqlalchemy import Connection

from service.api.backing import Backing
from service.api.ledger import about
from service.rules import names, tracing
from service.rules.access import Caller, authorise, scope_of
from service.rules.errors import not_permitted
from service.rules.schedules import ScheduleKey
from service.store import fires, submissions, views
from service.store.engine import StoreConflict
from service.store.intake import Checked, Intake
from service.store.quotas import require_submission
from service.store.scopes import sees_audit
from service.store.submissions import NewAudit, Ticket
from service.store.views import AuditView
from service.store.wholeness import require_whole


@dataclass(frozen=True)
class Submitter:
    """Turns a request into an accepted audit."""

    backing: Backing

    @property
    def intake(self) -> Intake:
        """What this submission, and every fire of a schedule, is held against."""
        return Intake(
            store=self.backing.store,
            blobs=self.backing.blobs,
            catalogue=self.backing.catalogue,
            quotas=self.backing.limits.quotas,
        )

    def validate(self, caller: Caller, request: audits_pb2.SubmitAuditRequest) -> audits_pb2.Audit:
        """Check everything, write nothing; return the request as it would be accepted.

        Raises:
            Refusal: as `submit`.
        """
        names.request_id(request.request_id)
        checked = self._checked(caller, request)
        asked = checked.submission
        with self.backing.store.read() as connection:
            require_submission(connection, caller.tenant, asked.capability, self.backing.limits.quotas)
            require_whole(connection, checked.known)
        told = asked.to_proto()
        told.queue_estimate = views.NOT_QUEUED
        return told

    def submit(self, caller: Caller, request: audits_pb2.SubmitAuditRequest, expired: Callable[[], bool]) -> AuditView:
        """Store the audit, or find the one that this very call stored before; return its current state.

        Raises:
            Refusal: see `Audits.SubmitAudit` in the protos. Nothing was created.
        """

        def accept(connection: Connection, ticket: Ticket, new: NewAudit) -> str:
            return submissions.accept(connection, ticket, new, expired=expired)

        return self._once(caller, _ticket(caller, request), lambda: self._checked(caller, request), accept)

    def run(
        self, caller: Caller, request: schedules_pb2.RunScheduleRequest, asked: audits_pb2.Audit, key: ScheduleKey
    ) -> AuditView:
        """Store an audit that a schedule's template asks, beside its calendar; a repeated call finds the one before.

        Raises:
            Refusal: as `submit`.
        """

        def accept(connection: Connection, ticket: Ticket, new: NewAudit) -> str:
            return fires.accept_of(connection, key, ticket, new)

        return self._once(caller, _ticket(caller, request), lambda: self.intake.check(caller, asked), accept)

    def _once(
        self,
        caller: Caller,
        ticket: Ticket,
        check: Callable[[], Checked],
        accept: Callable[[Connection, Ticket, NewAudit], str],
    ) -> AuditView:
        found = self._accepted_before(caller, ticket)
        if found is None:
            with tracing.span("submit"):
                found = self._accept(caller, ticket, self.intake.prepare(caller, check()), accept)
        return found

    def _accept(
        self, caller: Caller, ticket: Ticket, new: NewAudit, accept: Callable[[Connection, Ticket, NewAudit], str]
    ) -> AuditView:
        try:
            with self.backing.store.begin() as connection:
                accepted = accept(connection, ticket, new)
                about(f"audits/{accepted}")
                return _view(connection, accepted) if accepted == new.id else _seen(connection, caller, accepted)
        except StoreConflict:
            # Only where writers run side by side (PostgreSQL): the same call, repeated, was first.
            found = self._accepted_before(caller, ticket)
            if found is None:
                raise
            return found

    def _accepted_before(self, caller: Caller, ticket: Ticket) -> AuditView | None:
        with self.backing.store.read() as connection:
            audit_id = submissions.accepted_before(connection, ticket)
            return None if audit_id is None else _seen(connection, caller, audit_id)

    def _checked(self, caller: Caller, request: audits_pb2.SubmitAuditRequest) -> Checked:
        return self.intake.check(caller, request.audit, may_wait=request.await_approval)


def _seen(connection: Connection, caller: Caller, audit_id: str) -> AuditView:
    """Return the audit that a call made before, if the caller, whatever it became since, may read it.

    Raises:
        Refusal: NOT_PERMITTED.
    """
    if not sees_audit(connection, scope_of(caller, authorise(caller, _READING)), audit_id):
        raise not_permitted()
    return _view(connection, audit_id)


_READING = "/assay.api.v1.Audits/GetAudit"


def _view(connection: Connection, audit_id: str) -> AuditView:
    found = views.view(connection, audit_id)
    assert found is not None  # it was accepted, and audits are never deleted
    return found


def _ticket(caller: Caller, request: audits_pb2.SubmitAuditRequest | schedules_pb2.RunScheduleRequest) -> Ticket:
    content = type(request).FromString(request.SerializeToString())
    content.ClearField("request_id")
    return Ticket(
        principal=caller.principal,
        request_id=names.request_id(request.request_id),
        content_sha256=hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest(),
    )
