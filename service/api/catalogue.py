"""The Capabilities and Checks services: what this server can do, and which checks it can ask."""

# ruff: noqa: N802 (method names are those of the protos)
from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

from assay import canonical
from assay.api.v1 import (
    approvals_pb2,
    audits_pb2,
    blobs_pb2,
    capabilities_pb2,
    capabilities_pb2_grpc,
    checks_pb2,
    checks_pb2_grpc,
    models_pb2,
    reports_pb2,
    schedules_pb2,
    webhooks_pb2,
)
from assay.catalogue import CheckEntry
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from service.api.backing import Backing
from service.api.transport import MESSAGE_BYTES, METADATA_BYTES, STREAMS, Door
from service.api.upload import Uploads
from service.rules import names
from service.rules.callbacks import WEBHOOKS_MAX
from service.rules.errors import Refusal
from service.rules.manifest import FILES_MAX
from service.rules.schedules import SCHEDULES_MAX
from service.store.approvals import LIVE_MAX

API_VERSION = "1.0"

FILES = (
    approvals_pb2, audits_pb2, blobs_pb2, capabilities_pb2, checks_pb2, models_pb2, reports_pb2, schedules_pb2,
    webhooks_pb2,
)  # fmt: skip
"""All of the API, in the order of the files' names."""


def api_sha256() -> str:
    """Return the digest of the API: see `api_sha256` in the protos for what it covers."""
    files = FileDescriptorSet(file=[FileDescriptorProto.FromString(one.DESCRIPTOR.serialized_pb) for one in FILES])
    return hashlib.sha256(files.SerializeToString(deterministic=True)).hexdigest()


API_SHA256 = api_sha256()


class Capabilities(capabilities_pb2_grpc.CapabilitiesServicer):
    """See `protos/assay/api/v1/capabilities.proto`."""

    def __init__(self, backing: Backing, door: Door, uploads: Uploads) -> None:
        self._backing, self._door, self._room = backing, door, uploads.room

    async def GetCapabilities(
        self, request: capabilities_pb2.GetCapabilitiesRequest, context: Any
    ) -> capabilities_pb2.GetCapabilitiesResponse:
        """Tell limits, digests and whether audits can run here."""
        isolation, detail = await asyncio.to_thread(self._isolation)
        message = capabilities_pb2.GetCapabilitiesResponse(
            api_version=API_VERSION,
            api_sha256=API_SHA256,
            digest_function="sha256",
            catalogue_sha256=self._backing.catalogue.sha256,
            isolation=isolation,
            isolation_detail=detail,
            signer_profile=self._backing.settings.signer_profile,
            disk_floor_bytes=await asyncio.to_thread(self._room.floor),
        )
        message.MergeFrom(self._of_calls())
        message.MergeFrom(self._of_tenants())
        return message

    def _of_calls(self) -> capabilities_pb2.GetCapabilitiesResponse:
        limits, door = self._backing.limits, self._door
        return capabilities_pb2.GetCapabilitiesResponse(
            message_bytes_max=MESSAGE_BYTES,
            metadata_bytes_max=METADATA_BYTES,
            connection_streams_max=STREAMS,
            calls_in_flight_max=door.calls,
            principal_calls_in_flight_max=limits.calls_in_flight,
            calls_per_second=limits.calls_per_s,
            calls_burst=limits.calls_burst,
            batch_bytes_max=limits.batch_bytes,
            find_missing_max=limits.find_missing,
            unary_deadline_s=limits.unary_s,
            upload_idle_s=limits.idle_upload_s,
            upload_kept_s=limits.part_idle_s,
            connection_age_s=door.age_s,
            connection_age_grace_s=door.grace_s,
            connection_idle_s=door.idle_s,
        )

    def _of_tenants(self) -> capabilities_pb2.GetCapabilitiesResponse:
        limits = self._backing.limits
        return capabilities_pb2.GetCapabilitiesResponse(
            blob_bytes_max=limits.blob_bytes,
            stored_bytes_max=limits.quotas.stored_bytes,
            manifest_files_max=min(FILES_MAX, limits.quotas.manifest_files),
            parallel_uploads_max=limits.uploads_per_tenant,
            unfinished_uploads_max=limits.quotas.unfinished_uploads,
            watchers_max=limits.watchers_per_tenant,
            unfinished_audits_max=limits.quotas.unfinished_audits,
            gpu_seconds_per_day_max=limits.quotas.gpu_seconds_per_day,
            schedules_max=SCHEDULES_MAX,
            webhooks_max=WEBHOOKS_MAX,
            approvals_max=LIVE_MAX,
        )

    def _isolation(self) -> tuple[str, str]:
        """Return what a worker said it could arm; before any worker said so, none."""
        try:
            said = json.loads(self._backing.settings.isolation_file.read_bytes())
            return str(said["isolation"]), str(said["detail"])
        except FileNotFoundError:
            return "none", "no worker has proved its sandbox yet; start a worker"
        except (ValueError, KeyError, TypeError):
            return "none", "what the worker wrote about its sandbox is unreadable; restart the worker"


class Checks(checks_pb2_grpc.ChecksServicer):
    """See `protos/assay/api/v1/checks.proto`."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    async def ListChecks(self, request: checks_pb2.ListChecksRequest, context: Any) -> checks_pb2.ListChecksResponse:
        """List every check, in the catalogue's order."""
        return checks_pb2.ListChecksResponse(checks=[_message(entry) for entry in self._backing.catalogue.checks])

    async def GetCheck(self, request: checks_pb2.GetCheckRequest, context: Any) -> checks_pb2.Check:
        """Read one check's catalogue entry."""
        entry = self._backing.catalogue.entry(names.check(request.name))
        if entry is None:
            raise Refusal(
                "UNKNOWN_CHECK",
                f"There is no {names.shown(request.name)}.",
                code="NOT_FOUND",
                metadata={"name": names.shown(request.name)},
            )
        return _message(entry)


def _message(entry: CheckEntry) -> checks_pb2.Check:
    message = checks_pb2.Check(
        name=f"checks/{entry.name}",
        version=entry.version,
        summary=entry.summary,
        source=str(entry.raw["source"]),
        access=entry.access,
        params_schema_json=canonical.dumps(dict(entry.params)).decode(),
        catalogue_json=entry.data.decode(),
    )
    for field in ("power", "false_positive_rate"):
        rate = entry.raw.get(field)
        if rate is not None:
            getattr(message, field).CopyFrom(_measured(rate))
    return message


def _measured(rate: dict[str, Any]) -> checks_pb2.Measured:
    """Turn a rate's decimal strings into numbers."""
    return checks_pb2.Measured(
        estimate=float(rate["estimate"]),
        low=float(rate["low"]),
        high=float(rate["high"]),
        n=int(rate["n"]),
        at=str(rate["at"]),
    )
