"""Rows that name blobs: in which column, on whose behalf, and whether what they name is a document that names more.

Nothing here knows the fields of documents: whatever looks like a digest anywhere in a value counts, in base64 too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from assay.api.v1 import audits_pb2
from google.protobuf.message import DecodeError
from sqlalchemy import Column, ColumnElement, FromClause, Select, literal, select, tuple_

from service.rules.names import is_sha256
from service.rules.states import AUDIT_ENDED, AuditState
from service.store.engine import Store
from service.store.tables import attempt, audit, job, plan, report, result
from service.store.tables_around import approval, schedule

PAGE = 500
"""Rows read at a time."""

READS_NOTHING = (*AUDIT_ENDED, AuditState.AWAITING_APPROVAL)
"""States of audits that no longer, or not yet, read a model: naming one is not having its owner's consent."""

DEPTH = 3
"""How deep base64 may hold base64: a bundle holds an envelope, that holds a statement."""

_DIGEST = re.compile(rb"(?=([0-9a-f]{64}))")
"""Overlapping: in serialised messages a neighbouring byte may read as one more hex digit."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{88,}={0,2}")
"""88 characters are the least that can hold a digest in text."""


@dataclass(frozen=True)
class Namer:
    """On whose behalf something is named."""

    tenant: str
    models: tuple[str, ...] = ()
    """Manifests that a result is about: that it names their files keeps none of them."""
    runs: bool = False
    """Of an audit that may be measured, or be signed: it needs all that its documents name."""


def digests_in(data: bytes | str, depth: int = DEPTH) -> set[str]:
    """Return every text of 64 hex digits within some bytes, and within base64 within them."""
    raw = data.encode() if isinstance(data, str) else data
    found = {match.group(1).decode() for match in _DIGEST.finditer(raw)}
    if depth:
        for match in _BASE64.finditer(raw):
            if not _DIGEST.match(match.group()):
                found |= _inside(match.group(), depth - 1)
    return found


def _inside(text: bytes, depth: int) -> set[str]:
    plain = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return digests_in(base64.b64decode(plain + b"=" * (-len(plain) % 4)), depth)
    except binascii.Error:
        return set()


def _first_report(submission: bytes | str) -> set[str]:
    """Return the bundle that an audit repeats; the files of its items are named in it alone."""
    try:
        asked = audits_pb2.Audit.FromString(bytes(submission))  # type: ignore[arg-type]
    except (DecodeError, TypeError):
        return set()
    return {asked.first_report.sha256} if is_sha256(asked.first_report.sha256) else set()


@dataclass(frozen=True, kw_only=True)
class Place:
    """A column that names blobs."""

    column: Column[Any]
    is_document: bool = False
    """What it names is read as well."""
    is_said: bool = False
    """Its text, or its document's, is a caller's, who may name anything."""
    tenant: Column[str] | None = None
    """Whose its row is; None of a row of an audit."""
    condition: ColumnElement[bool] | None = None
    """Of the rows that count."""
    read: Callable[[bytes | str], set[str]] = field(default=digests_in)
    """Returns what a value names."""

    def rows(self, store: Store) -> Iterator[tuple[Namer, set[str]]]:
        """Read the column of every row, a page at a time by the primary key; each page sees the newest rows."""
        keys = list(self.column.table.primary_key.columns)
        found = self._question(keys).order_by(*keys).limit(PAGE)
        last: tuple[Any, ...] | None = None
        while True:
            with store.read() as connection:
                rows = connection.execute(found if last is None else found.where(_after(keys, last))).all()
            for row in rows:
                value, tenant, *of = row[len(keys) :]
                if value is not None:
                    yield self._namer(tenant, *of), self.read(value)
            if len(rows) < PAGE:
                return
            last = tuple(rows[-1])[: len(keys)]

    def _question(self, keys: list[Column[Any]]) -> Select[Any]:
        source: FromClause = self.column.table
        of: tuple[Column[Any], ...] = ()
        if self.tenant is None:
            of = (audit.c.state, audit.c.model_sha256, audit.c.base_sha256)
            if source is not audit:
                source = source.join(audit, source.c.audit == audit.c.id)
        tenant = audit.c.tenant if self.tenant is None else self.tenant
        asked: Select[Any] = select(*keys, self.column, tenant, *of).select_from(source)
        return asked if self.condition is None else asked.where(self.condition)

    def _namer(self, tenant: str, state: str | None = None, *models: str | None) -> Namer:
        about = () if self.is_said else tuple(digest for digest in models if digest is not None)
        return Namer(tenant, about, state is not None and state not in READS_NOTHING)


def _after(keys: list[Column[Any]], last: tuple[Any, ...]) -> ColumnElement[bool]:
    values = [literal(value, type_=key.type) for key, value in zip(keys, last, strict=True)]
    after: ColumnElement[bool] = tuple_(*keys) > tuple_(*values)
    return after


PLACES: tuple[Place, ...] = (
    Place(column=audit.c.model_sha256, is_said=True),
    Place(column=audit.c.base_sha256, is_said=True),
    Place(column=audit.c.submission, is_said=True),
    Place(
        column=audit.c.submission,
        is_document=True,
        is_said=True,
        condition=audit.c.state.not_in(AUDIT_ENDED),
        read=_first_report,
    ),
    Place(column=audit.c.registration_json),
    # Before the request as a blob: whoever is registered in between is found by that.
    Place(column=audit.c.request_json, is_said=True),
    Place(column=audit.c.request_sha256),
    Place(column=audit.c.request_sha256, is_document=True, is_said=True, condition=audit.c.request_json.is_(None)),
    Place(column=attempt.c.result_sha256, is_document=True),
    Place(column=attempt.c.cells_json),
    Place(column=result.c.sha256, is_document=True),
    Place(column=job.c.part_sha256, is_document=True),
    Place(column=plan.c.document_sha256, is_document=True),
    Place(column=plan.c.carried_sha256, is_document=True),
    Place(column=report.c.files_json, is_document=True),
    Place(column=approval.c.envelope, is_said=True, tenant=approval.c.grantee_tenant),
    Place(column=approval.c.envelope, is_said=True, tenant=approval.c.owner_tenant),
    # A deleted schedule asks for nothing any more.
    Place(
        column=schedule.c.template, is_said=True, tenant=schedule.c.tenant, condition=schedule.c.deleted_at.is_(None)
    ),
)
"""All of them; a request that is still in its row is no blob that can be read."""
