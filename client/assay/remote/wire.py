"""From protobuf messages to values, and from gRPC failures to errors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no stubs

from assay import strict_json
from assay.api.v1 import audits_pb2, capabilities_pb2, checks_pb2, models_pb2
from assay.catalogue import BYTES_MAX, CheckEntry, parse_entry
from assay.client_errors import ServerRefused, TimedOut, Unreachable, Violation
from assay.errors import AssayError, Malformed, shown
from assay.manifest import hash_file
from assay.preflight.data import CheckedData
from assay.remote import values

_STATUS_KEY = "grpc-status-details-bin"


def failure(error: grpc.RpcError, address: str) -> AssayError:
    """Return what a failed call means for the caller."""
    code, message = error.code(), error.details() or ""
    details = _details(error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(
            f"{shown(address)} did not answer within the deadline: retry with a longer --timeout-s "
            "(a submission with the same --request-id)"
        )
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Unreachable(f"cannot reach {shown(address)}: {shown(message, 300)}{_hint(message)}")
    info = details.get("ErrorInfo")
    bad = details.get("BadRequest")
    fields = bad.field_violations if bad is not None else ()
    return ServerRefused(
        code=code.name,
        reason=(info.reason if info is not None else "") or code.name,
        message=message,
        violations=[Violation(field=one.field, description=one.description) for one in fields],
        metadata=dict(info.metadata) if info is not None else {},
    )


def _details(error: grpc.RpcError) -> Mapping[str, Any]:
    """Return the error details by type; a service's broken details never hide its error."""
    found: dict[str, Any] = {}
    try:
        trailers: Any = error.trailing_metadata() or ()
        for key, data in trailers:
            if key == _STATUS_KEY:
                for packed in status_pb2.Status.FromString(data).details:
                    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
                        message = kind()
                        if packed.Is(message.DESCRIPTOR) and packed.Unpack(message):
                            found[message.DESCRIPTOR.name] = message
    except DecodeError:
        return {}
    return found


def _hint(message: str) -> str:
    lowered = message.lower()
    if "ssl" in lowered or "certificate" in lowered or "handshake" in lowered:
        return " (do ca, certificate and key of the client configuration belong to this service?)"
    if "refused" in lowered or "connect" in lowered:
        return " (is the service running? `assay-server dev` starts one)"
    return ""


def moment(message: Any, field: str) -> datetime | None:
    """Return a field as a moment in UTC; None where it is not set."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except ValueError:
        return None


def _word(name: str, prefix: str) -> str | None:
    """Return an enumeration's word without its prefix; None for zero."""
    bare = name.removeprefix(prefix)
    return None if bare == "UNSPECIFIED" else bare


def _state(value: audits_pb2.Audit.State.ValueType) -> str:
    """Return a state's word; one that is newer than this client is never taken for an end."""
    try:
        return _word(audits_pb2.Audit.State.Name(value), "STATE_") or "UNSPECIFIED"
    except ValueError:
        return "UNKNOWN"


def _exit_class(value: audits_pb2.ExitClass.ValueType) -> str | None:
    try:
        return _word(audits_pb2.ExitClass.Name(value), "EXIT_CLASS_")
    except ValueError:
        return "UNKNOWN"


def _outcome(value: audits_pb2.Audit.Outcome.ValueType) -> str | None:
    """Return an outcome's word; one that is newer than this client reads as inconclusive."""
    try:
        return _word(audits_pb2.Audit.Outcome.Name(value), "OUTCOME_")
    except ValueError:
        return "INCONCLUSIVE"


def audit(message: audits_pb2.Audit) -> values.Audit:
    """Return an audit as a value."""
    return values.Audit(
        name=message.name,
        model=message.model,
        base_model=message.base_model,
        checks=tuple(_asked(one) for one in message.checks),
        data=tuple(
            values.DataInput(
                role=one.role, sha256=one.blob.sha256, size=one.blob.size, media_type=one.media_type, rows=one.rows
            )
            for one in message.data
        ),
        limits=values.Limits(
            attempts_max=message.limits.attempts_max,
            output_bytes=message.limits.output_bytes,
            wall_s=message.limits.wall_s,
        ),
        labels=dict(message.labels),
        policy_sha256=message.policy.sha256,
        waivers_sha256=message.waivers.sha256,
        seed=message.seed if message.seed_mode == audits_pb2.Audit.SEED_MODE_FIXED else None,
        first_sha256=message.first_report.sha256,
        state=_state(message.state),
        state_reason=message.state_reason,
        retryable=message.retryable,
        outcome=_outcome(message.outcome),
        attempts=tuple(_attempt(one) for one in message.attempts),
        reports=tuple(message.reports),
        request_sha256=message.request_sha256,
        cancel_confirmation=message.cancel_confirmation,
        last_sequence=message.last_sequence,
        submitted_at=moment(message, "submitted_at"),
        registered_at=moment(message, "registered_at"),
        started_at=moment(message, "started_at"),
        ended_at=moment(message, "ended_at"),
        etag=message.etag,
        queue_estimate=message.queue_estimate,
        result_sha256=message.result_digest,
    )


def _asked(message: audits_pb2.CheckRequest) -> values.AskedCheck:
    return values.AskedCheck(
        check=message.check.removeprefix("checks/"),
        version=message.version,
        parameters=_object(message.parameters_json),
    )


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text; what is none reads as empty, because it is only shown, never decided upon."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _attempt(message: audits_pb2.Attempt) -> values.Attempt:
    return values.Attempt(
        job=message.job,
        number=message.number,
        started_at=moment(message, "started_at"),
        ended_at=moment(message, "ended_at"),
        exit_class=_exit_class(message.exit_class),
    )


def event(message: audits_pb2.AuditEvent) -> values.Event:
    """Return an event as a value."""
    kind = message.WhichOneof("event") or "unknown"
    return values.Event(
        sequence=message.sequence,
        occurred_at=moment(message, "occurred_at"),
        kind=kind,
        detail={} if kind == "unknown" else _detail(kind, getattr(message, kind)),
        receipt=_receipt(message.registered) if kind == "registered" else None,
    )


def _receipt(body: Any) -> values.Receipt | None:
    """Return the receipt of a registration; None where the service tells none, as services of before the log do."""
    if not body.request_json or not body.request_proof:
        return None
    return values.Receipt(request=body.request_json, proof=body.request_proof)


def _detail(kind: str, body: Any) -> dict[str, Any]:
    told = (field.name for field in body.DESCRIPTOR.fields if field.type != field.TYPE_BYTES)
    detail = {name: getattr(body, name) for name in told}
    if kind == "state_changed":
        detail["state"] = _state(detail["state"])
    if "exit_class" in detail:
        detail["exit_class"] = _exit_class(detail["exit_class"])
    return detail


def model(message: models_pb2.Model) -> values.Model:
    """Return a model as a value."""
    return values.Model(
        name=message.name,
        files=tuple(values.ModelFile(path=one.path, sha256=one.sha256, size=one.size) for one in message.files),
        bytes=message.bytes,
        created_at=moment(message, "created_at"),
    )


def check(message: checks_pb2.Check) -> values.Check:
    """Return a check of the catalogue as a value."""
    return values.Check(
        name=message.name.removeprefix("checks/"),
        version=message.version,
        summary=message.summary,
        source=message.source,
        access=tuple(message.access),
        params=_object(message.params_schema_json),
        power=_rate(message, "power"),
        false_positive_rate=_rate(message, "false_positive_rate"),
    )


def entry(message: checks_pb2.Check) -> CheckEntry:
    """Return a check's whole catalogue entry.

    Raises:
        Malformed: it is none, or that of another check.
    """
    found = parse_entry(strict_json.loads(message.catalogue_json.encode(), BYTES_MAX))
    if f"checks/{found.name}" != message.name:
        raise Malformed(
            "catalogue_form", "/name", f"the service tells the entry of {shown(found.name)} under another name"
        )
    return found


def _rate(message: checks_pb2.Check, field: Literal["power", "false_positive_rate"]) -> values.Rate | None:
    if not message.HasField(field):
        return None
    rate: checks_pb2.Measured = getattr(message, field)
    return values.Rate(estimate=rate.estimate, low=rate.low, high=rate.high, n=rate.n, at=rate.at)


def capabilities(message: capabilities_pb2.GetCapabilitiesResponse) -> values.ServerCapabilities:
    """Return a service's capabilities as a value; a field that this client has no name for is left out."""
    known = {field.name for field in dataclasses.fields(values.ServerCapabilities)}
    told = (field.name for field in message.DESCRIPTOR.fields)
    return values.ServerCapabilities(**{name: getattr(message, name) for name in told if name in known})


def model_name(text: str) -> str:
    """Return a model's full name, whichever way it was given."""
    return text if text.startswith("models/") else f"models/{text}"


def audit_name(text: str) -> str:
    """Return an audit's full name, whichever way it was given."""
    return text if text.startswith("audits/") else f"audits/{text}"


def data_input(checked: CheckedData) -> values.DataInput:
    """Return a data file that was looked at, hashed."""
    real = checked.path.resolve()
    entry = hash_file(real.parent, real.name)
    return values.DataInput(
        role=checked.role, sha256=entry.sha256, size=entry.size, media_type=checked.media_type, rows=checked.rows
    )
