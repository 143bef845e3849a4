"""What a tenant holds and uses, counted in the database and held against its quotas.

Counts are read under one lock per tenant in the transaction that adds to them, so two callers side by side cannot both
take the last place.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, bindparam, case, exists, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from service.rules.limits import (
    BLOB_LEAST,
    MS_PER_DAY,
    Quotas,
    charged,
    is_gpu,
    require_audit,
    require_bytes,
    require_gpu,
    require_uploads,
)
from service.store.engine import now_ms
from service.store.tables import audit, blob_grant, job, upload
from service.store.tables_around import quota_use

GPU = "gpu_milliseconds"
"""Row of `quota_use` that attempts on GPUs are charged to."""

STORED = "stored_bytes"
"""Row of `quota_use`, of day 0, with the bytes of all blobs that a tenant has sent."""

_UNFINISHED = text("state NOT IN ('COMPLETED','CANCELLED','FAILED')")
"""Literally the condition of the index `ix_audit_unfinished`, or SQLite does not use it."""
_UNSENT = text("NOT complete")
"""Likewise of `ix_upload_unsent`."""

_COUNT_UNFINISHED = select(func.count()).select_from(audit).where(audit.c.tenant == bindparam("of"), _UNFINISHED)


def lock(connection: Connection, tenant: str) -> None:
    """Let no other transaction count for this tenant until this one ends; take it before any row is locked."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"quota:{tenant}".encode()).digest()[:8], "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def stored_bytes(connection: Connection, tenant: str) -> int:
    """Return what all blobs are charged that a tenant has sent, and that it is sending by their declared sizes.

    A blob counts once, however many uploads of it run. An upload that nobody goes on with counts until it is swept.
    What was sent is one row, kept by `hold`: to add up 100,000 blobs took 150 ms of every upload.
    """
    held = used(connection, tenant, STORED, day=0)
    return held + int(connection.execute(_COMING, {"of": tenant}).scalar_one())


_SENT = exists().where(blob_grant.c.tenant == upload.c.tenant, blob_grant.c.sha256 == upload.c.sha256)
_PARTS = (
    select(upload.c.sha256, upload.c.size)
    .where(upload.c.tenant == bindparam("of"), _UNSENT, ~_SENT)
    .distinct()
    .subquery()
)
_COMING = select(func.coalesce(func.sum(case((_PARTS.c.size < BLOB_LEAST, BLOB_LEAST), else_=_PARTS.c.size)), 0))

_COUNT_UNSENT = select(func.count()).select_from(upload).where(upload.c.tenant == bindparam("of"), _UNSENT)


def hold(connection: Connection, tenant: str, size: int) -> None:
    """Count a blob that a tenant has now, or, with a negative size, one that it has no longer.

    Args:
        connection: inside `Store.begin`, in the transaction that writes or deletes the grant, and with `lock` taken.
        tenant: whose it is.
        size: of the blob, in bytes.
    """
    _add(connection, tenant, STORED, 0, charged(size) if size >= 0 else -charged(-size))


def require_room(connection: Connection, tenant: str, quotas: Quotas, adding: int = 0) -> None:
    """Do nothing if the tenant may hold what it holds now, and `adding` bytes more.

    Raises:
        Refusal: TENANT_FULL.
    """
    require_bytes(stored_bytes(connection, tenant) + adding, quotas)


def require_upload(connection: Connection, tenant: str, quotas: Quotas) -> None:
    """Do nothing if the tenant may have as many uploads under way as it has now, and the bytes that they promise.

    Raises:
        Refusal: TOO_MANY_UPLOADS, TENANT_FULL.
    """
    require_uploads(connection.execute(_COUNT_UNSENT, {"of": tenant}).scalar_one(), quotas)
    require_room(connection, tenant, quotas)


def require_submission(connection: Connection, tenant: str, capability: str, quotas: Quotas) -> None:
    """Do nothing if the tenant may submit an audit of this capability now; others that submit wait for this one's end.

    Args:
        connection: inside `Store.begin`, before any row is locked.
        tenant: who submits.
        capability: what the audit's cells need.
        quotas: the tenant's.

    Raises:
        Refusal: TOO_MANY_AUDITS, GPU_TIME_SPENT.
    """
    lock(connection, tenant)
    require_audit(connection.execute(_COUNT_UNFINISHED, {"of": tenant}).scalar_one(), quotas)
    if is_gpu(capability):
        now = now_ms(connection)
        require_gpu(gpu_ms(connection, tenant, now // MS_PER_DAY), now, quotas)


def gpu_ms(connection: Connection, tenant: str, day: int) -> int:
    """Return the milliseconds of a tenant's attempts on GPUs that ended on a day (days since 1970, UTC)."""
    return used(connection, tenant, GPU, day)


def used(connection: Connection, tenant: str, quota: str, day: int) -> int:
    """Return a tenant's row of `quota_use`, 0 where there is none."""
    found = connection.execute(_USED, {"of": tenant, "what": quota, "on": day}).scalar_one_or_none()
    return int(found or 0)


_USED = select(quota_use.c.used).where(
    quota_use.c.tenant == bindparam("of"), quota_use.c.quota == bindparam("what"), quota_use.c.day == bindparam("on")
)


def charge_attempt(connection: Connection, job_id: str, *, started: int, ended: int) -> None:
    """Charge the wall time of an attempt that ends to its audit's tenant, if it ran on a GPU.

    Args:
        connection: inside `Store.begin`, in the transaction of the end.
        job_id: the job.
        started: milliseconds since 1970.
        ended: likewise; the day it lies in is charged.
    """
    asked = select(job.c.capability, audit.c.tenant).join(audit, audit.c.id == job.c.audit).where(job.c.id == job_id)
    row = connection.execute(asked).one()
    if is_gpu(row.capability) and ended > started:
        _add(connection, row.tenant, GPU, ended // MS_PER_DAY, ended - started)


def _add(connection: Connection, tenant: str, quota: str, day: int, amount: int) -> None:
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    charged = kind.insert(quota_use).values(tenant=tenant, quota=quota, day=day, used=amount)
    connection.execute(
        charged.on_conflict_do_update(
            index_elements=[quota_use.c.tenant, quota_use.c.quota, quota_use.c.day],
            set_={"used": quota_use.c.used + charged.excluded.used},
        )
    )
