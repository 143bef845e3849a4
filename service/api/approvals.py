"""The Approvals service: consents of model owners, made known, read and revoked."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from assay.api.v1 import approvals_pb2, approvals_pb2_grpc, audits_pb2

from service.api.backing import Backing
from service.api.guard import Call, current_call
from service.api.render import approval_message
from service.rules import names, pages
from service.rules.approvals import Wanted, verify, wanted_of
from service.rules.errors import Refusal, Violation, not_permitted, refuse_fields
from service.rules.pages import Position
from service.rules.submission import read_submission
from service.store import approvals, consent, models
from service.store.approvals import ApprovalView


class Approvals(approvals_pb2_grpc.ApprovalsServicer):
    """See `protos/assay/api/v1/approvals.proto` for every method's contract."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def CreateApproval(
        self, request: approvals_pb2.CreateApprovalRequest, context: Any
    ) -> approvals_pb2.Approval:
        """Keep a signed approval, and let those audits go on that waited for it."""
        digest = names.model(request.parent)
        tenant = current_call().caller.tenant
        return approval_message(await asyncio.to_thread(self._create, tenant, digest, request.envelope))

    def _create(self, tenant: str, digest: str, envelope: bytes) -> ApprovalView:
        with self._backing.store.read() as connection:
            known = models.find_model(connection, tenant, digest)
            keys = approvals.keys_of(connection, tenant)
        if known is None or known.deleted_at is not None:
            raise not_permitted()
        signed = verify(envelope, keys)
        if signed.approval.model != digest:
            text = f"is models/{signed.approval.model}, the parent is another"
            raise refuse_fields([Violation("envelope.payload.model", text, "BAD_APPROVAL")])
        with self._backing.store.begin() as connection:
            sha256 = hashlib.sha256(envelope).hexdigest()
            approvals.put(connection, tenant, signed, envelope, sha256)
            consent.release(connection, signed.id, self._wanted)
        return self._known(signed.id)

    def _wanted(self, submission: bytes, tenant: str) -> Wanted | None:
        """Return what an accepted request wants by today's catalogue; None if it would be refused today."""
        try:
            asked = read_submission(audits_pb2.Audit.FromString(submission), self._backing.catalogue)
        except Refusal:
            return None
        return wanted_of(asked, tenant, self._backing.catalogue)

    def _known(self, approval_id: str) -> ApprovalView:
        with self._backing.store.read() as connection:
            found = approvals.find(connection, approval_id)
        assert found is not None  # it was just put, and approvals are never deleted
        return found

    async def GetApproval(self, request: approvals_pb2.GetApprovalRequest, context: Any) -> approvals_pb2.Approval:
        """Read one approval, with its envelope."""
        return approval_message(await asyncio.to_thread(self._read, current_call(), request.name))

    def _read(self, call: Call, name: str) -> ApprovalView:
        digest, approval_id = names.approval(name)
        with self._backing.store.read() as connection:
            found = approvals.sees_approval(connection, call.scope, digest, approval_id)
        if found is None:
            raise not_permitted()
        return found

    async def ListApprovals(
        self, request: approvals_pb2.ListApprovalsRequest, context: Any
    ) -> approvals_pb2.ListApprovalsResponse:
        """List approvals, newest first: an owner's are of its models, an auditor's are those that grant it runs."""
        call = current_call()
        digest = names.model_or_all(request.parent)
        size = pages.page_size(request.page_size)
        question = (call.caller.principal, "ListApprovals", request.parent)
        key = self._backing.settings.page_key
        after = pages.unseal(key, question, request.page_token)

        def read() -> tuple[ApprovalView, ...]:
            with self._backing.store.read() as connection:
                return approvals.approval_page(connection, call.scope, digest, after, size + 1)

        found = await asyncio.to_thread(read)
        reply = approvals_pb2.ListApprovalsResponse(approvals=[approval_message(one) for one in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            reply.next_page_token = pages.seal(key, question, Position(last.created_at, last.id))
        return reply

    async def RevokeApproval(
        self, request: approvals_pb2.RevokeApprovalRequest, context: Any
    ) -> approvals_pb2.Approval:
        """End an approval, and every audit under it that is not measured yet."""
        call = current_call()

        def revoke() -> ApprovalView:
            found = self._read(call, request.name)
            with self._backing.store.begin() as connection:
                if not consent.revoke(connection, found.id):
                    raise Refusal("ALREADY_REVOKED", "The approval was revoked before.")
            return self._known(found.id)

        return approval_message(await asyncio.to_thread(revoke))
