"""Approvals at a service: consents of model owners. How one is written and signed: `assay.approval`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from assay.api.v1 import approvals_pb2
from assay.approval import open_envelope
from assay.approval import read as read_document
from assay.remote.calls import Calls
from assay.remote.wire import model_name, moment

PAGE = 100


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One approval as the service keeps it."""

    name: str
    """models/{64 hex}/approvals/{32 hex}"""
    envelope: bytes = field(repr=False)
    """As signed; `assay.approval.open_envelope` takes it apart."""
    grantee: str
    max_runs: int
    used: int
    """Runs counted so far."""
    not_after: datetime | None
    created_at: datetime | None
    revoked_at: datetime | None


class Approvals:
    """The approvals that the caller may see: an owner's are of its models, an auditor's are those that grant it runs.

    Args:
        calls: the connection.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(self, envelope: bytes) -> Approval:
        """Make a signed approval known; the same envelope returns the same approval.

        Raises:
            Malformed: it is no envelope, or its document is wrong; nothing was sent.
            ServerRefused: BAD_SIGNATURE, BAD_APPROVAL; PERMISSION_DENIED if the model is not the caller's.
        """
        parent = model_name(read_document(open_envelope(envelope).payload).model)
        request = approvals_pb2.CreateApprovalRequest(parent=parent, envelope=envelope)
        return _approval(self._calls.unary(self._calls.approvals.CreateApproval, request, patient=True))

    def get(self, name: str) -> Approval:
        """Return one approval."""
        request = approvals_pb2.GetApprovalRequest(name=name)
        return _approval(self._calls.unary(self._calls.approvals.GetApproval, request, patient=True))

    def all(self, model: str | None = None) -> Iterator[Approval]:
        """Yield approvals of one model or of all, newest first, asking for pages as they are needed."""
        parent, token = model_name(model or "-"), ""
        while True:
            request = approvals_pb2.ListApprovalsRequest(parent=parent, page_size=PAGE, page_token=token)
            page = self._calls.unary(self._calls.approvals.ListApprovals, request, patient=True)
            yield from (_approval(one) for one in page.approvals)
            token = page.next_page_token
            if not token:
                return

    def revoke(self, name: str) -> Approval:
        """End an approval: nothing more is leased under it, and what runs is cancelled.

        Raises:
            ServerRefused: ALREADY_REVOKED.
        """
        request = approvals_pb2.RevokeApprovalRequest(name=name)
        return _approval(self._calls.unary(self._calls.approvals.RevokeApproval, request))


def _approval(message: approvals_pb2.Approval) -> Approval:
    return Approval(
        name=message.name,
        envelope=message.envelope,
        grantee=message.grantee,
        max_runs=message.max_runs,
        used=message.used,
        not_after=moment(message, "not_after"),
        created_at=moment(message, "created_at"),
        revoked_at=moment(message, "revoked_at"),
    )
