"""The Reports service: which files a signed report has; their bytes come by Blobs.Read."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
from typing import Any

from assay.api.v1 import reports_pb2, reports_pb2_grpc

from service.api.backing import Backing
from service.api.guard import Call, current_call
from service.api.render import report_message
from service.rules import names
from service.rules.errors import Refusal, not_permitted
from service.rules.states import AUDIT_ENDED
from service.store import listings, views
from service.store.listings import ReportView
from service.store.scopes import sees_audit


class Reports(reports_pb2_grpc.ReportsServicer):
    """See `protos/assay/api/v1/reports.proto` for every method's contract."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def GetReport(self, request: reports_pb2.GetReportRequest, context: Any) -> reports_pb2.Report:
        """Read one report's files; a report that can still come is not signed yet, any other is not there."""
        audit_id, number = names.report(request.name)
        is_live, found = await asyncio.to_thread(self._read, current_call(), audit_id)
        for one in found:
            if one.n == number:
                return report_message(one)
        if is_live and number == 1:
            raise Refusal("NOT_SIGNED_YET", "The report is not signed yet.")
        raise not_permitted()

    async def ListReports(
        self, request: reports_pb2.ListReportsRequest, context: Any
    ) -> reports_pb2.ListReportsResponse:
        """List an audit's reports; there is none before it is COMPLETED."""
        _, found = await asyncio.to_thread(self._read, current_call(), names.audit(request.parent))
        return reports_pb2.ListReportsResponse(reports=[report_message(one) for one in found])

    def _read(self, call: Call, audit_id: str) -> tuple[bool, tuple[ReportView, ...]]:
        """Return whether the audit can still be signed, and its reports."""
        with self._backing.store.read() as connection:
            audit = views.view(connection, audit_id) if sees_audit(connection, call.scope, audit_id) else None
            if audit is None:
                raise not_permitted()
            return audit.state not in AUDIT_ENDED, listings.reports_of(connection, audit_id)
