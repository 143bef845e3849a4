"""The database, read only: three questions about one audit, and no way to write."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from service.rules.approvals import OwnerKey
from service.signer.refusal import Refused
from service.store.tables import attempt, audit, model, report, result
from service.store.tables_around import approval, approval_key, approval_use

BUSY_MS = 10_000
"""Readers wait in WAL mode only while a checkpoint restarts."""


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """What the signer believes the database about; everything else it re-reads by digest."""

    id: str
    state: str
    model_sha256: str
    base_sha256: str | None
    request_sha256: str
    registration_json: str | None


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One leased try, as the worker and the reaper recorded it. Times in milliseconds since 1970."""

    n: int
    job: str
    """How the report names the job: whole, shard:k or combine."""
    token: int
    started_at: int
    ended_at: int | None
    exit_class: str | None
    result_sha256: str | None
    cells_json: str = "[]"
    """Seals and usage of its cells, as the worker stored them."""


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """The finalised result: which lease wrote it, and the digest of the host's record."""

    token: int
    sha256: str
    lifetime_bytes: int | None
    """What the auditor was charged for the model by then, this result included; None in rows of before the ledger."""
    lifetime_cap: int | None
    base_lifetime_bytes: int | None
    """The same of the base model; None where the audit names none."""
    base_lifetime_cap: int | None


@dataclass(frozen=True, kw_only=True)
class ApprovalRow:
    """An approval that was counted for an audit."""

    id: str
    envelope: bytes
    owner_tenant: str
    """Who made it known."""
    used: int
    """Runs counted of it in all."""


@dataclass(frozen=True, kw_only=True)
class ConsentRow:
    """On whose word an audit may read its model; the envelopes are verified before they are believed."""

    tenant: str
    """Who asks."""
    model_tenant: str
    """Whose model it is; empty in rows of before there were owners."""
    lends: bool
    """Whether that tenant has the model, and its weights are not gone."""
    counted: tuple[ApprovalRow, ...]
    """The approvals that were counted for it."""
    keys: tuple[OwnerKey, ...]
    """The approval keys of that tenant, revoked ones too."""


class Rows:
    """Reads one database.

    Args:
        url: the service's address; the connection is opened read-only whatever the credentials allow.
    """

    def __init__(self, url: str) -> None:
        self._engine = _read_only(url)

    def audit(self, audit_id: str) -> AuditRow:
        """Return an audit.

        Raises:
            Refused: UNKNOWN_AUDIT, DATABASE_UNAVAILABLE.
        """
        names = ("id", "state", "model_sha256", "base_sha256", "request_sha256", "registration_json")
        columns = [audit.c[name] for name in names]
        with self._connection() as connection:
            row = connection.execute(select(*columns).where(audit.c.id == audit_id)).one_or_none()
        if row is None:
            raise Refused("UNKNOWN_AUDIT", f"no audit {audit_id}")
        return AuditRow(**row._mapping)

    def attempts(self, audit_id: str) -> tuple[AttemptRow, ...]:
        """Return every attempt of an audit, oldest first.

        Raises:
            Refused: DATABASE_UNAVAILABLE.
        """
        columns = (
            attempt.c.n,
            attempt.c.job_label.label("job"),
            attempt.c.token,
            attempt.c.started_at,
            attempt.c.ended_at,
            attempt.c.exit_class,
            attempt.c.result_sha256,
            attempt.c.cells_json,
        )
        with self._connection() as connection:
            rows = connection.execute(select(*columns).where(attempt.c.audit == audit_id).order_by(attempt.c.n))
            return tuple(AttemptRow(**row._mapping) for row in rows)

    def result(self, audit_id: str) -> ResultRow:
        """Return an audit's finalised result.

        Raises:
            Refused: WRONG_STATE if there is none, DATABASE_UNAVAILABLE.
        """
        with self._connection() as connection:
            lifetime = ("lifetime_bytes", "lifetime_cap", "base_lifetime_bytes", "base_lifetime_cap")
            columns = [result.c[name] for name in ("token", "sha256", *lifetime)]
            row = connection.execute(select(*columns).where(result.c.audit == audit_id)).one_or_none()
        if row is None:
            raise Refused("WRONG_STATE", f"audit {audit_id} has no result")
        return ResultRow(**row._mapping)

    def consent(self, audit_id: str) -> ConsentRow:
        """Return on whose word an audit may read its model.

        Raises:
            Refused: UNKNOWN_AUDIT, DATABASE_UNAVAILABLE.
        """
        runs = select(func.count()).select_from(uses := approval_use.alias()).where(uses.c.approval == approval.c.id)
        columns = (approval.c.id, approval.c.envelope, approval.c.owner_tenant, runs.scalar_subquery().label("used"))
        counted = (
            select(*columns)
            .join(approval_use, approval_use.c.approval == approval.c.id)
            .where(approval_use.c.audit == audit_id)
            .order_by(approval.c.id)
        )
        with self._connection() as connection:
            asked = select(audit.c.tenant, audit.c.model_tenant, audit.c.model_sha256).where(audit.c.id == audit_id)
            row = connection.execute(asked).one_or_none()
            if row is None:
                raise Refused("UNKNOWN_AUDIT", f"no audit {audit_id}")
            owner = row.model_tenant or row.tenant
            live = model.c.deleted_at.is_(None) & model.c.purged_at.is_(None)
            has = select(model.c.tenant).where(
                model.c.tenant == owner, model.c.manifest_sha256 == row.model_sha256, live
            )
            keys = connection.execute(select(approval_key).where(approval_key.c.tenant == owner)).all()
            return ConsentRow(
                tenant=row.tenant,
                model_tenant=row.model_tenant,
                lends=connection.execute(has).one_or_none() is not None,
                counted=tuple(ApprovalRow(**one._mapping) for one in connection.execute(counted)),
                keys=tuple(OwnerKey(key_id=key.key_id, spki=key.public_spki) for key in keys),
            )

    def receipts(self) -> Iterator[tuple[str, str]]:
        """Yield every audit that was registered, with its registration as stored.

        Raises:
            Refused: DATABASE_UNAVAILABLE.
        """
        asked = select(audit.c.id, audit.c.registration_json).where(audit.c.registration_json.is_not(None))
        with self._connection() as connection:
            for row in connection.execute(asked):
                yield row.id, row.registration_json

    def report_files(self) -> Iterator[tuple[str, str]]:
        """Yield every audit that has a report, with the list of its files as stored.

        Raises:
            Refused: DATABASE_UNAVAILABLE.
        """
        with self._connection() as connection:
            for row in connection.execute(select(report.c.audit, report.c.files_json)):
                yield row.audit, row.files_json

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise Refused("DATABASE_UNAVAILABLE", f"the database cannot be read: {type(error).__name__}") from error


def _read_only(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        # PostgreSQL: the server itself refuses to write in such a session.
        options = {"options": "-c default_transaction_read_only=on"}
        return create_engine(parsed, connect_args=options, poolclass=NullPool)
    address = f"file:{quote(str(Path(parsed.database or '').absolute()))}?mode=ro"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(address, uri=True, timeout=BUSY_MS / 1000, check_same_thread=False)
        connection.execute("PRAGMA query_only=ON").close()
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)
