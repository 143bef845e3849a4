"""Rows as messages of the API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from assay.api.v1 import approvals_pb2, audits_pb2, models_pb2, reports_pb2
from assay.manifest import Manifest
from google.protobuf.timestamp_pb2 import Timestamp

from service.rules.access import Shown
from service.store.approvals import ApprovalView
from service.store.events import Event
from service.store.listings import ReportView
from service.store.models import ModelView
from service.store.views import AuditView


def timestamp(milliseconds: int) -> Timestamp:
    """Return a moment of the database as a protobuf timestamp."""
    moment = Timestamp()
    moment.FromMilliseconds(milliseconds)
    return moment


def audit_message(view: AuditView, *, shown: Shown = Shown.ALL) -> audits_pb2.Audit:
    """Return an audit as its caller may see it.

    Args:
        view: the audit.
        shown: how much; less than all leaves out what was asked and what came out.
    """
    message = audits_pb2.Audit()
    if shown is Shown.ALL:
        message.ParseFromString(view.submission)
        message.request_sha256 = view.request_sha256
        message.reports.extend(f"audits/{view.id}/reports/r{n}" for n in view.reports)
        message.schedule = f"schedules/{view.schedule}" if view.schedule else ""
        message.result_digest = view.record_sha256
        if view.outcome:
            message.outcome = audits_pb2.Audit.Outcome.Value(f"OUTCOME_{view.outcome}")
    message.name = f"audits/{view.id}"
    message.state = audits_pb2.Audit.State.Value(f"STATE_{view.state}")
    message.state_reason = view.state_reason
    message.retryable = view.retryable
    message.cancel_confirmation = view.cancel_confirmation
    message.last_sequence = view.last_sequence
    message.queue_estimate = view.queue_estimate
    message.etag = hashlib.sha256(f"{view.id}/{view.last_sequence}/{view.state}".encode()).hexdigest()[:16]
    _add_times(message, view)
    if shown is not Shown.STATE:
        _add_attempts(message, view)
    return message


def _add_times(message: audits_pb2.Audit, view: AuditView) -> None:
    message.submitted_at.CopyFrom(timestamp(view.submitted_at))
    if view.registered_at is not None:
        message.registered_at.CopyFrom(timestamp(view.registered_at))
    if view.started_at is not None:
        message.started_at.CopyFrom(timestamp(view.started_at))
    if view.ended_at is not None:
        message.ended_at.CopyFrom(timestamp(view.ended_at))


def _add_attempts(message: audits_pb2.Audit, view: AuditView) -> None:
    for one in view.attempts:
        attempt = message.attempts.add(job=one.job, number=one.number, started_at=timestamp(one.started_at))
        if one.ended_at is not None:
            attempt.ended_at.CopyFrom(timestamp(one.ended_at))
        if one.exit_class:
            attempt.exit_class = exit_class(one.exit_class)


def exit_class(name: str) -> audits_pb2.ExitClass.ValueType:
    """Return the API's value of an exit class."""
    return audits_pb2.ExitClass.Value(f"EXIT_CLASS_{name}")


def event_message(event: Event, receipt: tuple[bytes, bytes] | None = None) -> audits_pb2.AuditEvent:
    """Return one event row as a message.

    Args:
        event: the row.
        receipt: of a registration: the request's bytes and the proof that it is in the log; None tells neither.

    Raises:
        KeyError: a kind without a message: the table of events and the API disagree.
    """
    message = audits_pb2.AuditEvent(sequence=event.sequence, occurred_at=timestamp(event.occurred_at))
    detail = dict(event.detail)
    if event.kind == "state_changed":
        message.state_changed.state = audits_pb2.Audit.State.Value(f"STATE_{detail['state']}")
        message.state_changed.reason = detail["reason"]
    elif event.kind == "approval_used":
        message.approval_used.CopyFrom(audits_pb2.ApprovalUsed(**detail))
    elif event.kind == "registered":
        message.registered.request_sha256 = detail["request_sha256"]
        if receipt is not None:
            message.registered.request_json, message.registered.request_proof = receipt
    elif event.kind == "attempt_started":
        message.attempt_started.CopyFrom(audits_pb2.AttemptStarted(**detail))
    elif event.kind == "attempt_ended":
        detail["exit_class"] = exit_class(detail["exit_class"])
        message.attempt_ended.CopyFrom(audits_pb2.AttemptEnded(**detail))
    elif event.kind == "phase_reached":
        message.phase_reached.CopyFrom(audits_pb2.PhaseReached(**detail))
    elif event.kind == "planned":
        message.planned.CopyFrom(audits_pb2.Planned(**detail))
    elif event.kind == "shard_done":
        message.shard_done.CopyFrom(audits_pb2.ShardDone(**detail))
    elif event.kind == "shard_dead":
        message.shard_dead.CopyFrom(audits_pb2.ShardDead(**detail))
    else:
        raise KeyError(event.kind)
    return message


def shown_event(message: audits_pb2.AuditEvent, shown: Shown) -> audits_pb2.AuditEvent:
    """Return an event as a caller may see it; what is left out keeps its sequence, which is gapless for everybody."""
    kind = message.WhichOneof("event")
    if shown is Shown.ALL or kind in _SHOWN_EVENTS[shown] or kind is None:
        return message
    return audits_pb2.AuditEvent(sequence=message.sequence, occurred_at=message.occurred_at)


_OF_ATTEMPTS = frozenset({"attempt_started", "attempt_ended", "phase_reached", "planned", "shard_done", "shard_dead"})
_SHOWN_EVENTS: Mapping[Shown, frozenset[str]] = {
    Shown.STATE: frozenset({"state_changed", "keepalive"}),
    Shown.STATE_AND_ATTEMPTS: frozenset({"state_changed", "keepalive"}) | _OF_ATTEMPTS,
}
"""What was registered names the request, and an approval names model and owner: neither is state or attempt."""


def approval_message(view: ApprovalView) -> approvals_pb2.Approval:
    """Return an approval with its signed envelope."""
    message = approvals_pb2.Approval(
        name=f"models/{view.model_sha256}/approvals/{view.id}",
        envelope=view.envelope,
        grantee=view.grantee_tenant,
        max_runs=view.max_runs,
        used=view.used,
        not_after=timestamp(view.not_after),
        created_at=timestamp(view.created_at),
    )
    if view.revoked_at is not None:
        message.revoked_at.CopyFrom(timestamp(view.revoked_at))
    return message


def model_message(view: ModelView, manifest: Manifest | None) -> models_pb2.Model:
    """Return a model; its files are named if its manifest is given."""
    message = models_pb2.Model(
        name=f"models/{view.manifest_sha256}", bytes=view.bytes, created_at=timestamp(view.created_at), etag=view.etag
    )
    if view.deleted_at is not None:
        message.deleted_at.CopyFrom(timestamp(view.deleted_at))
    if view.goes_at is not None:
        message.purged_at.CopyFrom(timestamp(view.goes_at))
    for file in manifest.files if manifest else ():
        message.files.add(path=file.path, sha256=file.sha256, size=file.size)
    return message


def report_message(view: ReportView) -> reports_pb2.Report:
    """Return the files of a signed report."""
    message = reports_pb2.Report(
        name=f"audits/{view.audit}/reports/r{view.n}", signed_at=timestamp(view.signed_at), key_id=view.key_id
    )
    if view.withdrawn_at is not None:
        message.withdrawn_at.CopyFrom(timestamp(view.withdrawn_at))
        message.withdrawal_reason = view.withdrawal_reason
    for file in view.files:
        message.files.add(path=file.path, sha256=file.sha256, size=file.size)
    return message
