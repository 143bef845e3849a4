"""Accepting an audit: everything that its life needs, in one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assay.manifest import Manifest
from sqlalchemy import Connection, bindparam, insert, select

from service.rules import tracing
from service.rules.capability import CPU, queue_of
from service.rules.errors import Refusal
from service.rules.limits import QUOTAS, Quotas
from service.rules.names import BlobName
from service.rules.states import AuditState, JobState
from service.rules.submission import Submission
from service.store import approvals, journal
from service.store.consent import Asking, Ground, weights_bytes
from service.store.consent import ground as find_ground
from service.store.events import append_event
from service.store.models import put_model, require_live
from service.store.outbox import owe
from service.store.owing import owe_deliveries
from service.store.quotas import require_submission
from service.store.tables import audit, audit_label, idempotency, job
from service.store.uploads import require_granted, touch
from service.store.wholeness import Known, require_whole

METHOD = "SubmitAudit"


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What makes a repeated call the same call."""

    principal: str
    request_id: str
    content_sha256: str
    """SHA-256 of the request, serialised deterministically with its request_id cleared."""


@dataclass(frozen=True, kw_only=True)
class NewAudit:
    """An audit about to be accepted."""

    id: str
    tenant: str
    submission: Submission
    manifests: tuple[Manifest, ...]
    """Of the model and its base, where the tenant has no row of them yet."""
    request: BlobName
    """`request.json`; it becomes a blob, granted to nobody, before the signer is asked to register it."""
    request_json: bytes
    """Its bytes: they are kept in the audit's row until then, so that one commit makes all of this safe."""
    accepted: bytes
    """The input fields as accepted, a serialised assay.api.v1.Audit."""
    submitted_at: int
    """Milliseconds since 1970 by the database's clock, as written into `request.json`."""
    quotas: Quotas = QUOTAS
    """Of the tenant."""
    asking: Asking | None = None
    """Set where the model is not the tenant's own: what an approval of its owner must allow."""
    known: tuple[Known, ...] = ()
    """Its models that had a row before."""


def accepted_before(connection: Connection, ticket: Ticket) -> str | None:
    """Return the id of the audit that this very call made earlier, None if it made none.

    Raises:
        Refusal: REQUEST_ID_REUSED: the id was used for other content.
    """
    asked = {"of": ticket.principal, "id": ticket.request_id}
    row = connection.execute(_BEFORE, asked).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != ticket.content_sha256:
        raise Refusal("REQUEST_ID_REUSED", "This request_id was used for other content.")
    return str(row.resource)


_BEFORE = select(idempotency.c.request_sha256, idempotency.c.resource).where(
    idempotency.c.principal == bindparam("of"),
    idempotency.c.method == METHOD,
    idempotency.c.request_id == bindparam("id"),
)


def accept(connection: Connection, ticket: Ticket, new: NewAudit, *, expired: Callable[[], bool]) -> str:
    """Write audit, job, first event, what is owed to the signer, and the ticket; return the audit's id.

    If another call with the same ticket was first, its audit's id is returned and nothing is written.

    Args:
        connection: an open transaction; it must roll back on any exception.
        ticket: the call's identity.
        new: the audit.
        expired: asked last, so that a caller who gave up meanwhile finds nothing created.

    Raises:
        Refusal: REQUEST_ID_REUSED, TOO_MANY_AUDITS, GPU_TIME_SPENT, MISSING_BLOBS, MODEL_DELETED, DEADLINE_PASSED; of
            a model that is not the tenant's own also what `consent.ground` raises.
    """
    before = accepted_before(connection, ticket)
    if before is not None:
        return before
    require_submission(connection, new.tenant, new.submission.capability, new.quotas)
    blobs = new.submission.blobs
    for manifest in new.manifests:
        put_model(connection, new.tenant, manifest)
    ground = _ground(connection, new)
    require_whole(connection, new.known)
    require_granted(connection, new.tenant, blobs)
    touch(connection, new.tenant, blobs)
    _insert_audit(connection, ticket.principal, new, ground)
    append_event(connection, new.id, "state_changed", {"state": ground.state, "reason": ""})
    journal.append(
        connection,
        "submitted",
        audit=new.id,
        detail={
            "request_id": ticket.request_id,
            "principal": ticket.principal,
            "attempts_max": new.submission.attempts_max,
        },
    )
    owe_deliveries(connection, new.id, ground.state)
    if ground.chosen is not None:
        approvals.use(connection, new.id, ground.chosen)
    if ground.state is AuditState.QUEUED:
        owe(connection, "register", new.id)
    told = {
        "principal": ticket.principal,
        "method": METHOD,
        "request_id": ticket.request_id,
        "request_sha256": ticket.content_sha256,
        "resource": new.id,
        "stored_at": new.submitted_at,
    }
    connection.execute(_TICKET, told)
    if expired():
        raise Refusal("DEADLINE_PASSED", "The deadline passed before the audit was stored; nothing was created.")
    return new.id


def _ground(connection: Connection, new: NewAudit) -> Ground:
    """Look again, under the transaction's lock, at why the audit may read its models; a base is the tenant's own."""
    asked = new.submission
    own = asked.models if new.asking is None else asked.models[1:]
    for digest in own:
        require_live(connection, new.tenant, digest)
    return Ground(owner=new.tenant) if new.asking is None else find_ground(connection, new.asking)


_AUDIT, _LABEL, _JOB, _TICKET = insert(audit), insert(audit_label), insert(job), insert(idempotency)
"""Made once: to make a statement anew takes as long as to run it."""


def _insert_audit(connection: Connection, principal: str, new: NewAudit, ground: Ground) -> None:
    asked = new.submission
    row = {
        "id": new.id,
        "tenant": new.tenant,
        "principal": principal,
        "model_sha256": asked.model_sha256,
        "base_sha256": asked.base_sha256,
        "checks": " ".join(dict.fromkeys(one.name for one in asked.checks)),
        "request_sha256": new.request.sha256,
        "request_json": new.request_json,
        "submission": new.accepted,
        "state": ground.state,
        "model_tenant": ground.owner,
        "attempts_max": asked.attempts_max,
        "last_sequence": 0,
        "submitted_at": new.submitted_at,
    }
    connection.execute(_AUDIT, row)
    labels = [{"audit": new.id, "key": key, "value": value} for key, value in asked.labels.items()]
    if labels:
        connection.execute(_LABEL, labels)
    whole = {
        "id": new.id,
        "audit": new.id,
        "kind": "whole",
        "capability": _queue(connection, asked),
        "state": JobState.QUEUED,
        "traceparent": tracing.current(),
    }
    connection.execute(_JOB, whole)


def _queue(connection: Connection, asked: Submission) -> str:
    """Return the queue that fits: of a check that needs a GPU, by the sizes of the models."""
    if asked.capability == CPU:
        return CPU
    return queue_of(asked.capability, weights_bytes(connection, asked.models))
