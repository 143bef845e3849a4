"""What callers list and read: pages of audits, and the files of signed reports."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, literal, select, tuple_

from service.rules.access import Scope
from service.rules.names import BlobName
from service.rules.pages import AuditFilter, Position
from service.store.scopes import audit_in, carries
from service.store.tables import audit, report, report_file


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """One file of a report directory."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class ReportView:
    """One signed report."""

    audit: str
    n: int
    files: tuple[ReportFile, ...]
    key_id: str
    signed_at: int
    """Milliseconds since 1970."""
    withdrawn_at: int | None = None
    """When the log had it that the report was taken back; None: it stands."""
    withdrawal_reason: str = ""
    """A word."""


def audit_page(
    connection: Connection, scope: Scope, wanted: AuditFilter, after: Position | None, limit: int
) -> tuple[Position, ...]:
    """Return where audits stand, newest first; `views.views` reads them.

    Args:
        connection: an open read.
        scope: which audits the caller may see.
        wanted: which of them.
        after: the last row of the page before.
        limit: most rows.
    """
    found = select(audit.c.submitted_at, audit.c.id).where(audit_in(scope))
    if wanted.state is not None:
        found = found.where(audit.c.state == wanted.state)
    if wanted.model is not None:
        found = found.where(audit.c.model_sha256 == wanted.model)
    if wanted.check is not None:
        names = literal(" ") + audit.c.checks + literal(" ")
        found = found.where(names.contains(f" {wanted.check} ", autoescape=True))
    for key, value in sorted(wanted.labels.items()):
        found = found.where(carries(key, value))
    if after is not None:
        found = found.where(tuple_(audit.c.submitted_at, audit.c.id) < (after.at, after.id))
    rows = connection.execute(found.order_by(audit.c.submitted_at.desc(), audit.c.id.desc()).limit(limit))
    return tuple(Position(row.submitted_at, row.id) for row in rows)


def reports_of(connection: Connection, audit_id: str) -> tuple[ReportView, ...]:
    """Return an audit's signed reports, oldest first."""
    rows = connection.execute(select(report).where(report.c.audit == audit_id).order_by(report.c.n))
    return tuple(
        ReportView(
            audit=row.audit,
            n=row.n,
            files=tuple(ReportFile(**file) for file in json.loads(row.files_json)),
            key_id=row.key_id,
            signed_at=row.signed_at,
            withdrawn_at=row.withdrawn_at,
            withdrawal_reason=row.withdrawal_reason or "",
        )
        for row in rows
    )


def is_report_file(connection: Connection, scope: Scope, name: BlobName) -> bool:
    """Tell whether a blob is a file of a signed report that the caller may see: nothing else may ever be read."""
    found = (
        select(report_file.c.audit)
        .join(audit, audit.c.id == report_file.c.audit)
        .where(report_file.c.sha256 == name.sha256, report_file.c.size == name.size, audit_in(scope))
        .limit(1)
    )
    return connection.execute(found).one_or_none() is not None
