"""What Capabilities publishes is what is enforced, at the address that was asked; and its digest is of the protos."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from assay.api.v1 import capabilities_pb2, capabilities_pb2_grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]

from service.api import server
from service.api.backing import Limits
from service.api.catalogue import API_SHA256
from service.api.transport import CERTIFIED, TOKENS
from service.rules.callbacks import WEBHOOKS_MAX
from service.rules.limits import Quotas
from service.rules.schedules import SCHEDULES_MAX
from service.store.approvals import LIVE_MAX
from tests.service.api.conftest import QUICK, House, told
from tests.service.api.test_bearer import bare, bearers, capabilities, fresh, issuer, open_house, showing

__all__ = ["bearers", "issuer", "open_house"]

PROTOS = Path(__file__).parents[3] / "protos"

PUBLISHED = {
    "batch_bytes": "batch_bytes_max",
    "blob_bytes": "blob_bytes_max",
    "find_missing": "find_missing_max",
    "uploads_per_tenant": "parallel_uploads_max",
    "watchers_per_tenant": "watchers_max",
    "calls_per_s": "calls_per_second",
    "calls_burst": "calls_burst",
    "unary_s": "unary_deadline_s",
    "idle_upload_s": "upload_idle_s",
    "part_idle_s": "upload_kept_s",
    "stored_bytes": "stored_bytes_max",
    "unfinished_audits": "unfinished_audits_max",
    "gpu_seconds_per_day": "gpu_seconds_per_day_max",
    "unfinished_uploads": "unfinished_uploads_max",
    "manifest_files": "manifest_files_max",
}
"""Limit -> field."""

NO_LIMITS = {"keepalive_s", "poll_s", "sync_bytes", "quotas"}
"""Of `Limits`, what refuses and ends nothing."""


async def asked(house: House) -> Any:
    stub: Any = house.stub(capabilities_pb2_grpc.CapabilitiesStub)
    return await stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest())


async def test_every_limit_that_is_enforced_is_published_with_the_value_in_force(house: House) -> None:
    kinds = [field for kind in (Limits, Quotas) for field in dataclasses.fields(kind)]
    assert {field.name for field in kinds} == PUBLISHED.keys() | NO_LIMITS, "publish a new limit, or say why not"
    odd: dict[str, Any] = {field.name: 1001 + at for at, field in enumerate(kinds) if field.name in PUBLISHED}
    quotas = {field.name: odd.pop(field.name) for field in dataclasses.fields(Quotas)}
    await house.stop()
    await house.start(limits=Limits(quotas=Quotas(**quotas), **odd), disk_floor_bytes=12345)
    found = await asked(house)
    assert {name: getattr(found, PUBLISHED[name]) for name in (*odd, *quotas)} == {**odd, **quotas}
    assert found.principal_calls_in_flight_max == odd["watchers_per_tenant"] + odd["uploads_per_tenant"] + 64
    assert found.disk_floor_bytes == 12345
    assert (found.schedules_max, found.webhooks_max, found.approvals_max) == (SCHEDULES_MAX, WEBHOOKS_MAX, LIVE_MAX)
    told_of = {field.name for field, _ in found.ListFields()}
    assert told_of >= {field.name for field in found.DESCRIPTOR.fields} - {"connection_idle_s"}  # there 0: never


async def test_limits_of_the_transport_are_those_of_the_address_that_was_asked(open_house: House) -> None:
    here, there = await asked(open_house), await capabilities(bare(open_house), *showing(fresh()))
    for found, door in ((here, CERTIFIED), (there, TOKENS)):
        options = dict(door.options)
        assert found.message_bytes_max == options["grpc.max_receive_message_length"] == 4 << 20
        assert found.metadata_bytes_max == options["grpc.max_metadata_size"] == 8 << 10
        assert found.connection_streams_max == options["grpc.max_concurrent_streams"] == 32
        assert found.connection_age_s * 1000 == options["grpc.max_connection_age_ms"]
        assert found.connection_age_grace_s * 1000 == options["grpc.max_connection_age_grace_ms"] == 300_000
        assert found.connection_idle_s * 1000 == options.get("grpc.max_connection_idle_ms", 0)
    assert (here.connection_age_s, here.calls_in_flight_max) == (1800, 1024)
    assert (there.connection_age_s, there.calls_in_flight_max) == (300, 512)


async def test_the_published_number_of_calls_is_what_the_server_was_built_with(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CERTIFIED", replace(CERTIFIED, calls=7))
    await house.stop()
    await house.start()
    assert (await asked(house)).calls_in_flight_max == 7


async def test_an_upload_is_ended_after_the_published_silence(house: House) -> None:
    from assay.api.v1 import blobs_pb2_grpc

    await house.stop()
    await house.start(limits=replace(QUICK, idle_upload_s=0.25))
    assert (await asked(house)).upload_idle_s == 0.25
    stub: Any = house.stub(blobs_pb2_grpc.BlobsStub)
    answer = await told(stub.Write())
    assert (answer.reason, answer.metadata["limit_s"]) == ("UPLOAD_IDLE", "0.25")


async def test_the_digest_is_of_the_published_protos(house: House, tmp_path: Path) -> None:
    """Anybody who has the protos and protoc can make it again."""
    files = sorted((PROTOS / "assay" / "api" / "v1").glob("*.proto"))
    out = tmp_path / "set.binpb"
    common = [f"-I{PROTOS}", f"-I{Path(protoc.__file__).parent / '_proto'}", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *common, *map(str, files)]) == 0
    compiled = FileDescriptorSet.FromString(out.read_bytes())
    ordered = FileDescriptorSet(file=sorted(compiled.file, key=lambda one: one.name))
    for file in ordered.file:
        for message in file.message_type:
            _forget_json_names(message)
    expected = hashlib.sha256(ordered.SerializeToString(deterministic=True)).hexdigest()
    assert (await asked(house)).api_sha256 == API_SHA256 == expected


def _forget_json_names(message: Any) -> None:
    for field in (*message.field, *message.extension):
        field.ClearField("json_name")
    for nested in message.nested_type:
        _forget_json_names(nested)
