"""A refusal as a gRPC status: exactly one ErrorInfo, each other detail at most once, never more than 6 KiB in all."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from service.blobs import BlobsAway, NoSpace
from service.rules.errors import DOMAIN, Refusal
from service.rules.metrics import COUNTERS
from service.rules.names import shown
from service.store.engine import StoreBusy, StoreUnavailable

DETAILS_MAX = 6 * 1024
"""Bytes of a whole status. Details travel in trailers; above 16 KiB gRPC replaces the real code (measured)."""

VIOLATIONS_MAX = 40
"""Violations that are told; the count of all is in the metadata."""

MESSAGE_MAX = 600
DESCRIPTION_MAX = 200
METADATA_MAX = MESSAGE_MAX
"""Characters. What a message says stands in its metadata too, so that neither is cut before the other."""

LOG = logging.getLogger("assay.api")


def refusal_of(error: Exception, method: str) -> Refusal:
    """Return the refusal that a caller hears for an exception; what is nobody's business becomes an incident."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, StoreBusy):
        return Refusal("STORE_BUSY", "The store is busy.")
    if isinstance(error, NoSpace):
        return Refusal("DISK_FULL", "The server's disk is full.", quota="disk")
    if isinstance(error, BlobsAway):
        LOG.warning("%s in %s", error, method)
        return Refusal("STORE_UNAVAILABLE", "The blob store cannot be reached.")
    incident = secrets.token_hex(8)
    LOG.error("incident %s in %s", incident, method, exc_info=error)
    if isinstance(error, StoreUnavailable):
        return Refusal("STORE_UNAVAILABLE", "The store cannot be reached.", metadata={"incident": incident})
    return Refusal("INTERNAL", f"The server failed; incident {incident}.", metadata={"incident": incident})


def status_of(refusal: Refusal) -> status_pb2.Status:
    """Return the rich status of a refusal, cut to what trailers can carry."""
    shown_count = VIOLATIONS_MAX
    while True:
        status = _status(refusal, shown_count)
        if status.ByteSize() <= DETAILS_MAX or shown_count == 0:
            return status
        shown_count -= 1


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: Refusal) -> None:
    """End a call with a refusal, which is counted; never returns."""
    COUNTERS.add("assay_refusals_total", reason=refusal.reason)
    if refusal.quota is not None:
        COUNTERS.add("assay_quota_refusals_total", quota=refusal.quota)
    ended = rpc_status.to_status(status_of(refusal))
    await context.abort(ended.code, ended.details, ended.trailing_metadata)


def _status(refusal: Refusal, shown_count: int) -> status_pb2.Status:
    metadata = {key: shown(value, METADATA_MAX) for key, value in refusal.metadata.items()}
    count = len(refusal.violations) + len(refusal.missing)
    if count:
        metadata["violation_count"] = str(count)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=metadata)]
    if refusal.violations:
        details.append(_bad_request(refusal, shown_count))
    if refusal.missing:
        details.append(_precondition(refusal, shown_count))
    if refusal.quota is not None:
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=refusal.quota, description=refusal.reason)
        details.append(quota)
    if refusal.retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(refusal.retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [any_pb2.Any() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    message = shown(refusal.message, MESSAGE_MAX)
    return status_pb2.Status(code=code_pb2.Code.Value(refusal.code), message=message, details=packed)


def _bad_request(refusal: Refusal, shown_count: int) -> error_details_pb2.BadRequest:
    detail = error_details_pb2.BadRequest()
    for one in refusal.violations[:shown_count]:
        detail.field_violations.add(
            field=one.field[:DESCRIPTION_MAX], description=one.description[:DESCRIPTION_MAX], reason=one.reason
        )
    return detail


def _precondition(refusal: Refusal, shown_count: int) -> error_details_pb2.PreconditionFailure:
    detail = error_details_pb2.PreconditionFailure()
    for one in refusal.missing[:shown_count]:
        detail.violations.add(type="MISSING", subject=one.subject)
    return detail
