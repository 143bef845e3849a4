"""An Assay service in memory: the generated servicers, a few lines each, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc
from assay.api.v1 import (
    audits_pb2,
    audits_pb2_grpc,
    blobs_pb2,
    blobs_pb2_grpc,
    capabilities_pb2,
    capabilities_pb2_grpc,
    checks_pb2,
    checks_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    reports_pb2,
    reports_pb2_grpc,
)
from assay.catalogue import CheckEntry
from assay.config import ClientConfig
from assay.testing import forged_entry
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no stubs
from grpc_status import rpc_status

from tests.client.planted import certificates

AUDIT = "audits/" + "a" * 32


def abort(
    context: grpc.ServicerContext,
    code: str,
    reason: str,
    message: str = "No.",
    metadata: Mapping[str, str] | None = None,
    violations: Mapping[str, str] | None = None,
) -> NoReturn:
    """End a call as the service does: one ErrorInfo, one BadRequest."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="assay.api", metadata=dict(metadata or {}))]
    if violations:
        bad = error_details_pb2.BadRequest()
        for name, text in violations.items():
            bad.field_violations.add(field=name, description=text)
        details.append(bad)
    packed = [Packed() for _ in details]
    for holder, detail in zip(packed, details, strict=True):
        holder.Pack(detail)
    status = status_pb2.Status(code=getattr(code_pb2, code), message=message, details=packed)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort returned")


class Blobs(blobs_pb2_grpc.BlobsServicer):
    """Keeps whole blobs by digest and parts by upload."""

    def __init__(self) -> None:
        self.whole: dict[str, bytes] = {}
        self.parts: dict[str, bytearray] = {}
        self.asked: list[int] = []
        """Number of digests in each FindMissingBlobs."""
        self.writes: list[int] = []
        """First offset of each Write."""
        self.breaks: list[int] = []
        """Each entry ends one Write with UNAVAILABLE after so many of its bytes."""
        self.refusals: list[tuple[str, str]] = []
        """Each entry ends one Write with this code and reason."""
        self.copied = 0
        """Bytes that a Write named rather than carried."""
        self.hidden: dict[str, bytes] = {}
        """What Read answers instead of a blob."""

    def FindMissingBlobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(len(request.digests))
        return blobs_pb2.FindMissingBlobsResponse(missing=[d for d in request.digests if d.sha256 not in self.whole])

    def BatchUpdateBlobs(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = blobs_pb2.BatchUpdateBlobsResponse()
        assert sum(len(blob.data) for blob in request.blobs) <= 3 * 2**20
        for blob in request.blobs:
            fits = hashlib.sha256(blob.data).hexdigest() == blob.digest.sha256
            answer.results.add(digest=blob.digest, reason="" if fits else "DIGEST_MISMATCH")
            if fits:
                self.whole[blob.digest.sha256] = blob.data
        return answer

    def QueryWriteStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        _, upload, _, _, sha256, size = request.resource_name.split("/")
        if sha256 in self.whole:
            return blobs_pb2.QueryWriteStatusResponse(committed_size=int(size), complete=True)
        return blobs_pb2.QueryWriteStatusResponse(committed_size=len(self.parts.get(upload, b"")))

    def Write(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        first = next(messages)
        _, upload, _, _, sha256, size = first.resource_name.split("/")
        part = self.parts.setdefault(upload, bytearray())
        self.writes.append(first.write_offset)
        if self.refusals:
            abort(context, *self.refusals.pop(0))
        left = self.breaks.pop(0) if self.breaks else None
        for message in (first, *messages):
            if message.write_offset != len(part):
                abort(context, "FAILED_PRECONDITION", "OFFSET_MISMATCH", metadata={"committed_size": str(len(part))})
            part += message.data
            if message.HasField("copy"):
                asked = message.copy
                if asked.source.sha256 not in self.whole:
                    abort(context, "FAILED_PRECONDITION", "MISSING_BLOBS")
                part += self.whole[asked.source.sha256][asked.offset : asked.offset + asked.length]
                self.copied += asked.length
            if left is not None and (left := left - len(message.data)) <= 0:
                abort(context, "UNAVAILABLE", "SHUTTING_DOWN")
        if hashlib.sha256(part).hexdigest() != sha256 or len(part) != int(size):
            del self.parts[upload]
            abort(context, "INVALID_ARGUMENT", "DIGEST_MISMATCH")
        self.whole[sha256] = bytes(part)
        return blobs_pb2.WriteResponse(committed_size=len(part))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        sha256 = request.resource_name.split("/")[2]
        data = self.hidden.get(sha256, self.whole[sha256])
        for start in range(request.read_offset, len(data), 1000):
            yield blobs_pb2.ReadResponse(data=data[start : start + 1000])


class Audits(audits_pb2_grpc.AuditsServicer):
    """Keeps audits by request id; a watch plays scripted connections."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.by_request: dict[str, Any] = {}
        self.requests: list[Any] = []
        self.connections: list[list[Any] | str] = []
        """Each watch plays one: events, then the end; a text among them ends it with that code."""
        self.watched_after: list[int] = []
        self.hold = False
        """Watches stay open after their events."""
        self.refusal: tuple[Any, ...] | None = None
        self.outcome = audits_pb2.Audit.OUTCOME_MEASURED
        self.state = audits_pb2.Audit.STATE_COMPLETED
        self.attempts: list[Any] = []
        self.listed: list[Any] = []
        self.data: list[Any] = []
        """What GetAudit says that an audit reads."""
        self.knows_seeds = True
        """False is a service of before replications: it ignores what it does not know."""
        self.trouble: Callable[[grpc.ServicerContext], None] | None = None

    def SubmitAudit(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        if self.refusal:
            abort(context, *self.refusal)
        if request.audit.model.removeprefix("models/") not in self.blobs.whole:
            abort(context, "FAILED_PRECONDITION", "UNKNOWN_MODEL", "No such model.")
        made = audits_pb2.Audit()
        made.CopyFrom(request.audit)
        for name in () if self.knows_seeds else ("seed_mode", "seed", "first_report"):
            made.ClearField(name)
        if request.validate_only:
            return made
        known = self.by_request.setdefault(request.request_id, request.audit)
        if known != request.audit:
            abort(context, "INVALID_ARGUMENT", "REQUEST_ID_REUSED")
        made.name, made.state = AUDIT, audits_pb2.Audit.STATE_QUEUED
        return made

    def GetAudit(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.trouble:
            self.trouble(context)
        made = audits_pb2.Audit(name=request.name, state=self.state, attempts=self.attempts, data=self.data)
        made.limits.wall_s = 20
        if self.state == audits_pb2.Audit.STATE_COMPLETED:
            made.outcome = self.outcome
            made.reports.append(f"{request.name}/reports/r1")
        return made

    def ListAudits(self, request: Any, context: grpc.ServicerContext) -> Any:
        start = int(request.page_token or 0)
        found = [one for one in self.listed if not request.filter or request.filter.split(" = ")[1] in one.state_reason]
        end = start + min(request.page_size, 2)
        return audits_pb2.ListAuditsResponse(
            audits=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )

    def CancelAudit(self, request: Any, context: grpc.ServicerContext) -> Any:
        return audits_pb2.Audit(name=request.name, state=audits_pb2.Audit.STATE_CANCELLING)

    def WatchAudit(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self.watched_after.append(request.after_sequence)
        for item in self.connections.pop(0) if self.connections else []:
            if isinstance(item, str):
                abort(context, item, "SHUTTING_DOWN")
            yield item
        while self.hold and context.is_active():
            time.sleep(0.02)


class Checks(checks_pb2_grpc.ChecksServicer):
    def __init__(self, entry: CheckEntry) -> None:
        self.entry = entry

    def ListChecks(self, request: Any, context: grpc.ServicerContext) -> Any:
        check = checks_pb2.Check(
            name=f"checks/{self.entry.name}",
            version=self.entry.version,
            summary=self.entry.summary,
            source="assay.testing",
            access=self.entry.access,
            params_schema_json=json.dumps(dict(self.entry.params)),
            catalogue_json=self.entry.data.decode(),
            power=checks_pb2.Measured(estimate=0.5, low=0.25, high=0.75, n=8, at="planted"),
        )
        return checks_pb2.ListChecksResponse(checks=[check])

    def GetCheck(self, request: Any, context: grpc.ServicerContext) -> Any:
        abort(context, "NOT_FOUND", "UNKNOWN_CHECK")


class Models(models_pb2_grpc.ModelsServicer):
    def CreateModel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return models_pb2.Model(name=f"models/{request.manifest_sha256}")

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return models_pb2.Model(name=request.name)

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> Any:
        return models_pb2.ListModelsResponse()


class Capabilities(capabilities_pb2_grpc.CapabilitiesServicer):
    def __init__(self) -> None:
        self.isolation, self.detail = "bubblewrap", ""

    def GetCapabilities(self, request: Any, context: grpc.ServicerContext) -> Any:
        return capabilities_pb2.GetCapabilitiesResponse(
            api_version="1.0",
            digest_function="sha256",
            isolation=self.isolation,
            isolation_detail=self.detail,
            message_bytes_max=4 << 20,
            unary_deadline_s=30.0,
        )


class Reports(reports_pb2_grpc.ReportsServicer):
    """Serves one report directory."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.files: list[tuple[str, bytes]] = []
        self.withdrawn = ""

    def serve(self, directory: Path) -> None:
        self.files = [
            (str(file.relative_to(directory)), file.read_bytes()) for file in directory.rglob("*") if file.is_file()
        ]

    def ListReports(self, request: Any, context: grpc.ServicerContext) -> Any:
        return reports_pb2.ListReportsResponse()

    def GetReport(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self.files:
            abort(context, "FAILED_PRECONDITION", "NOT_SIGNED_YET")
        answer = reports_pb2.Report(name=request.name, key_id="0" * 64, withdrawal_reason=self.withdrawn)
        if self.withdrawn:
            answer.withdrawn_at.seconds = 1_767_225_600
        for path, data in self.files:
            sha256 = hashlib.sha256(data).hexdigest()
            self.blobs.whole[sha256] = data
            answer.files.add(path=path, sha256=sha256, size=len(data))
        return answer


@dataclass
class Fake:
    """A running service."""

    config: Path
    blobs: Blobs
    audits: Audits
    checks: Checks
    reports: Reports
    capabilities: Capabilities
    stop: Callable[[], None] = field(repr=False)

    def client_config(self) -> ClientConfig:
        from assay.config import read

        return read(self.config)


def start(folder: Path) -> Fake:
    """Start a service on a free port, with its own authority, and write a client configuration."""
    tls = certificates(folder)
    blobs = Blobs()
    parts = {
        "blobs": blobs,
        "audits": Audits(blobs),
        "checks": Checks(
            forged_entry(
                params={"type": "object", "properties": {"layers": {"type": "integer"}, "part": {"type": "integer"}}}
            )
        ),
        "reports": Reports(blobs),
        "capabilities": Capabilities(),
    }
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 4 * 2**20)])
    blobs_pb2_grpc.add_BlobsServicer_to_server(blobs, server)
    audits_pb2_grpc.add_AuditsServicer_to_server(parts["audits"], server)  # type: ignore[arg-type]
    checks_pb2_grpc.add_ChecksServicer_to_server(parts["checks"], server)  # type: ignore[arg-type]
    reports_pb2_grpc.add_ReportsServicer_to_server(parts["reports"], server)  # type: ignore[arg-type]
    models_pb2_grpc.add_ModelsServicer_to_server(Models(), server)  # type: ignore[abstract]  # two of its methods
    capabilities_pb2_grpc.add_CapabilitiesServicer_to_server(parts["capabilities"], server)  # type: ignore[arg-type]
    credentials = grpc.ssl_server_credentials(
        [(tls["key"].read_bytes(), tls["certificate"].read_bytes())], tls["ca"].read_bytes(), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    config = folder / "client.json"
    names = {name: str(file.relative_to(folder)) for name, file in tls.items()}
    config.write_text(json.dumps({"address": f"127.0.0.1:{port}", **names}))
    return Fake(config=config, stop=lambda: server.stop(0).wait(), **parts)  # type: ignore[arg-type]


def event(sequence: int, **kinds: Any) -> Any:
    return audits_pb2.AuditEvent(sequence=sequence, **kinds)
