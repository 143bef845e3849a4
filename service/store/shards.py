"""Audits whose data is read in shards: a plan, one job for each shard, and one that combines what the scans left.

Every transaction here has locked the audit's row first. So of two last shards that end at once the second sees that the
first has ended, and one of them, never both and never none, adds the job that combines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from service.rules.names import BlobName
from service.rules.states import AuditState, JobKind, JobState
from service.store import budget, journal
from service.store.engine import StoreFenced, now_ms
from service.store.events import append_event
from service.store.jobs import Ending, Lease, close_attempt, finish_job, lock_audit
from service.store.outbox import owe
from service.store.tables import job, plan
from service.store.uploads import insert_absent, record_blob

OVER = (JobState.DONE, JobState.DEAD)
"""States in which nothing more is to be had of a shard."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was fixed before any shard was read; both blobs are stored before it is."""

    shards: int
    document: BlobName
    carried: BlobName | None


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What became of all shards, in their order."""

    parts: tuple[BlobName, ...]
    """Of the finished ones."""
    dead: tuple[int, ...]


def shard_id(audit_id: str, shard: int) -> str:
    """Return the id of a shard's job."""
    return f"{audit_id}-s{shard}"


def combine_id(audit_id: str) -> str:
    """Return the id of the job that combines."""
    return f"{audit_id}-c"


def store_plan(connection: Connection, held: Lease, ending: Ending, new: Plan) -> None:
    """End the whole job with a plan, and queue a job for each shard; all of it, or nothing.

    Args:
        connection: inside `Store.begin`.
        held: the lease of the whole job.
        ending: how its attempt ended, and what its cells' progress is charged.
        new: the plan, of two shards or more.

    Raises:
        StoreFenced: the lease is over or the audit is no longer RUNNING; the transaction must be undone.
        ValueError: one shard is no reason for more jobs.
    """
    if new.shards < 2:
        raise ValueError(f"a plan of {new.shards} shards needs no jobs of its own")
    parent = _running(connection, held)
    whole = connection.execute(select(job.c.capability, job.c.traceparent).where(job.c.id == held.job)).one()
    finish_job(connection, held)
    close_attempt(connection, held.job, held.token, ending, result_sha256=new.document.sha256)
    _charge(connection, parent, held, ending)
    for blob in (new.document, *([new.carried] if new.carried else [])):
        record_blob(connection, blob)
    connection.execute(
        insert(plan).values(
            audit=held.audit,
            shards=new.shards,
            document_sha256=new.document.sha256,
            document_size=new.document.size,
            carried_sha256=new.carried.sha256 if new.carried else None,
            carried_size=new.carried.size if new.carried else None,
            planned_at=now_ms(connection),
        )
    )
    append_event(connection, held.audit, "planned", {"plan_sha256": new.document.sha256, "shards": new.shards})
    told = {"of": new.shards, "result_sha256": new.document.sha256}
    journal.append(connection, "shards_inserted", audit=held.audit, job=held.job, token=held.token, detail=told)
    rows = [
        {
            "id": shard_id(held.audit, shard),
            "audit": held.audit,
            "kind": JobKind.SHARD,
            "shard": shard,
            "capability": whole.capability,
            "state": JobState.QUEUED,
            "traceparent": whole.traceparent,
        }
        for shard in range(new.shards)
    ]
    connection.execute(insert(job), rows)
    for row in rows:
        owe(connection, "publish", held.audit, job=str(row["id"]))


def store_part(connection: Connection, held: Lease, ending: Ending, part: BlobName) -> None:
    """End a shard's job with what its scan left, a stored blob; once, or not at all.

    Raises:
        StoreFenced: the lease is over or the audit is no longer RUNNING; the transaction must be undone.
    """
    parent = _running(connection, held)
    finish_job(connection, held, part_sha256=part.sha256, part_size=part.size)
    close_attempt(connection, held.job, held.token, ending, result_sha256=part.sha256)
    _charge(connection, parent, held, ending)
    record_blob(connection, part)
    counts = _counts(connection, held.audit)
    detail = {"shard": held.shard, "done": counts[JobState.DONE], "of": sum(counts.values())}
    append_event(connection, held.audit, "shard_done", detail)
    told = {"result_sha256": part.sha256, "shard": held.shard, "of": detail["of"]}
    journal.append(connection, "finalised", audit=held.audit, job=held.job, token=held.token, detail=told)
    _join(connection, held.audit, counts)


def bury(connection: Connection, row: Row[Any]) -> None:
    """Tell that a shard is dead, and go on without it; its job is DEAD already.

    Args:
        connection: inside the transaction that ended its last attempt.
        row: the job.
    """
    counts = _counts(connection, row.audit)
    detail = {"shard": row.shard, "dead": counts[JobState.DEAD], "of": sum(counts.values())}
    append_event(connection, row.audit, "shard_dead", detail)
    told = {"shard": row.shard, "of": detail["of"]}
    journal.append(connection, "shard_dead", audit=row.audit, job=row.id, token=row.token, detail=told)
    _join(connection, row.audit, counts)


def plan_of(connection: Connection, audit_id: str) -> Plan | None:
    """Return the plan of an audit; None where it has none."""
    row = connection.execute(select(plan).where(plan.c.audit == audit_id)).one_or_none()
    if row is None:
        return None
    carried = None if row.carried_sha256 is None else BlobName(row.carried_sha256, row.carried_size)
    return Plan(shards=row.shards, document=BlobName(row.document_sha256, row.document_size), carried=carried)


def scanned(connection: Connection, audit_id: str) -> Scanned:
    """Return what became of an audit's shards, all of which are over."""
    rows = connection.execute(
        select(job.c.shard, job.c.state, job.c.part_sha256, job.c.part_size)
        .where(job.c.audit == audit_id, job.c.kind == JobKind.SHARD)
        .order_by(job.c.shard)
    ).all()
    return Scanned(
        parts=tuple(BlobName(row.part_sha256, row.part_size) for row in rows if row.state == JobState.DONE),
        dead=tuple(row.shard for row in rows if row.state == JobState.DEAD),
    )


def _running(connection: Connection, held: Lease) -> Row[Any]:
    parent = lock_audit(connection, held.audit)
    if parent.state != AuditState.RUNNING:
        raise StoreFenced(f"audit {held.audit} is no longer running")
    return parent


def _charge(connection: Connection, parent: Row[Any], held: Lease, ending: Ending) -> None:
    # Progress was shown, and is charged. Plan and part stay in the service: what leaves of them, leaves in the answer
    # of the cell that combines, and is charged there.
    models = budget.models_of(parent, ending.weights_sha256, ending.base_weights_sha256)
    budget.charge_ending(connection, parent, held.token, ending.output_bytes, models)


def _counts(connection: Connection, audit_id: str) -> dict[str, int]:
    rows = connection.execute(
        select(job.c.state, func.count())
        .where(job.c.audit == audit_id, job.c.kind == JobKind.SHARD)
        .group_by(job.c.state)
    )
    return dict.fromkeys(JobState, 0) | {row[0]: row[1] for row in rows}


def _join(connection: Connection, audit_id: str, counts: dict[str, int]) -> None:
    """Queue the job that combines, if every shard is over; the unique index lets it happen once."""
    if any(count for state, count in counts.items() if state not in OVER):
        return
    whole = connection.execute(select(job.c.capability, job.c.traceparent).where(job.c.id == audit_id)).one()
    row = {
        "id": combine_id(audit_id),
        "audit": audit_id,
        "kind": JobKind.COMBINE,
        "capability": whole.capability,
        "state": JobState.QUEUED,
        "traceparent": whole.traceparent,
    }
    if insert_absent(connection, job, row):
        owe(connection, "publish", audit_id, job=combine_id(audit_id))
