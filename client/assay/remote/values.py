"""What the service tells, as plain frozen values. No protobuf type reaches a caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.catalogue import CheckEntry

ENDED = ("COMPLETED", "CANCELLED", "FAILED")
"""States after which nothing changes."""


def plain(value: Any) -> Any:
    """Return plain JSON values of a frozen value, whole trees included; moments as RFC 3339 in UTC."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Bytes by content."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class AskedCheck:
    """One check of an audit."""

    check: str
    """Name, without "checks/"."""
    version: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DataInput:
    """One data file of an audit, already uploaded (`AuditClient.upload_data`)."""

    role: str
    sha256: str
    size: int
    media_type: str = ""
    rows: int = 0
    """As counted by the sender; 0 means not counted."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one audit may take; 0 means the service's default."""

    attempts_max: int = 0
    output_bytes: int = 0
    wall_s: int = 0
    """Seconds of wall time of one attempt."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a job."""

    job: str
    number: int
    started_at: datetime | None
    ended_at: datetime | None
    exit_class: str | None
    """OK, REFUSED, TIME_LIMIT, WORKER_LOST, …; None while it runs."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """One audit as the service sees it now."""

    name: str
    """audits/{32 hex}; empty in the answer to a validation."""
    model: str
    base_model: str
    """A second model that the first is held against; empty where none was named."""
    checks: tuple[AskedCheck, ...]
    data: tuple[DataInput, ...]
    limits: Limits
    labels: Mapping[str, str]
    state: str
    """QUEUED, RUNNING, SIGNING, COMPLETED, CANCELLING, CANCELLED, FAILED."""
    state_reason: str
    retryable: bool
    outcome: str | None
    """MEASURED, INCONCLUSIVE, REFUSED, FAILED once completed; never a verdict about the model."""
    attempts: tuple[Attempt, ...]
    reports: tuple[str, ...]
    request_sha256: str
    cancel_confirmation: str
    last_sequence: int
    submitted_at: datetime | None
    registered_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    etag: str
    policy_sha256: str = ""
    """Digest of the release policy that was registered with the request; empty where none was."""
    waivers_sha256: str = ""
    seed: int | None = None
    """The fixed seed of an audit that repeats another; None where it is derived."""
    first_sha256: str = ""
    """Digest of the bundle of the report that is repeated; empty where none is."""
    queue_estimate: int = -1
    """Jobs in line before its next one, an estimate; negative where none of its jobs is in line."""
    result_sha256: str = ""
    """Digest of the host's record, once there is a result."""

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED

    @property
    def word(self) -> str:
        """The outcome of a completed audit, else its state."""
        return self.outcome or "INCONCLUSIVE" if self.state == "COMPLETED" else self.state


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was registered before the run, and the proof that it was in the log by then. Keep both."""

    request: bytes
    """request.json"""
    proof: bytes
    """request.tlog-proof"""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change of an audit."""

    sequence: int
    """Gapless from 1; watching again after it misses nothing."""
    occurred_at: datetime | None
    kind: str
    """state_changed, registered, attempt_started, attempt_ended, phase_reached, planned, shard_done, shard_dead, or a
    kind that is newer than this."""
    detail: Mapping[str, Any]
    """state, reason · request_sha256 · job, number · exit_class · phase, done, owed, job · plan_sha256, shards ·
    shard, done, of. What is bytes has a field of its own."""
    receipt: Receipt | None = None
    """Of a registration, where the service tells it."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One file of a model."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that the service knows."""

    name: str
    """models/{64 hex}: SHA-256 of its manifest."""
    files: tuple[ModelFile, ...]
    bytes: int
    created_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What an upload did."""

    manifest_sha256: str
    """The model's digest."""
    files: tuple[ModelFile, ...]
    left_out: tuple[str, ...]
    """Files of the directory that are not part of the model."""
    bytes_total: int
    """Size of the model and its manifest."""
    bytes_sent: int
    """Bytes that travelled, those sent twice after a break included."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A rate measured on planted cases."""

    estimate: float
    low: float
    high: float
    n: int
    at: str
    """What was planted, and at which size."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A question that can be asked."""

    name: str
    version: str
    summary: str
    source: str
    access: tuple[str, ...]
    params: Mapping[str, Any]
    """JSON Schema of the parameters."""
    power: Rate | None
    """None until measured."""
    false_positive_rate: Rate | None


def from_catalogue(entry: CheckEntry) -> Check:
    """Return a check of the catalogue that ships with this package."""
    return Check(
        name=entry.name,
        version=entry.version,
        summary=entry.summary,
        source=str(entry.raw["source"]),
        access=entry.access,
        params=entry.params,
        power=_rate(entry.raw.get("power")),
        false_positive_rate=_rate(entry.raw.get("false_positive_rate")),
    )


def _rate(raw: Mapping[str, Any] | None) -> Rate | None:
    """Read a rate of the catalogue, whose numbers are decimal strings."""
    if raw is None:
        return None
    estimate, low, high = (float(raw[field]) for field in ("estimate", "low", "high"))
    return Rate(estimate=estimate, low=low, high=high, n=int(raw["n"]), at=str(raw["at"]))


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """One file of a report directory."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """A signed report, as downloaded."""

    name: str
    directory: Path
    files: tuple[ReportFile, ...]
    """Every one was hashed after the download and agrees."""
    signed_at: datetime | None
    key_id: str
    """What the service says signed it; only `assay verify` with a key you trust knows."""
    withdrawn_at: datetime | None = None
    """When the operator took it back, as the service says; the log proves it (`assay verify --log`)."""
    withdrawal_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ServerCapabilities:
    """What the service can do and where its limits lie."""

    api_version: str
    digest_function: str
    catalogue_sha256: str
    batch_bytes_max: int
    blob_bytes_max: int
    find_missing_max: int
    manifest_files_max: int
    isolation: str
    """"bubblewrap", or "none" when nothing will run."""
    isolation_detail: str
    signer_profile: str
    calls_per_second: float = 0.0
    """Of one principal in the long run; this and what follows is 0 where the service does not tell it."""
    calls_burst: int = 0
    stored_bytes_max: int = 0
    """Of one tenant, as is what follows."""
    parallel_uploads_max: int = 0
    watchers_max: int = 0
    unfinished_audits_max: int = 0
    gpu_seconds_per_day_max: int = 0
    api_sha256: str = ""
    """Of the API's protos; empty where the service does not tell it."""
    message_bytes_max: int = 0
    metadata_bytes_max: int = 0
    """Of one call."""
    connection_streams_max: int = 0
    calls_in_flight_max: int = 0
    """At this address."""
    principal_calls_in_flight_max: int = 0
    unary_deadline_s: float = 0.0
    """Of a call that was sent without a deadline. Times are seconds."""
    upload_idle_s: float = 0.0
    """Silence that ends an upload's stream, which can be taken up again."""
    upload_kept_s: float = 0.0
    """What is sent of an unfinished upload is deleted after so long."""
    connection_age_s: float = 0.0
    connection_age_grace_s: float = 0.0
    connection_idle_s: float = 0.0
    """0 also where an idle connection is never closed."""
    disk_floor_bytes: int = 0
    """Free bytes that uploads and new leases leave alone."""
    unfinished_uploads_max: int = 0
    schedules_max: int = 0
    webhooks_max: int = 0
    approvals_max: int = 0
    """Of one model, for one tenant."""
