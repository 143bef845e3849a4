"""What a service tells is read by clients that are older than it."""

from __future__ import annotations

import dataclasses
from typing import Any

from assay.api.v1 import capabilities_pb2
from assay.remote import values, wire
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def newer() -> Any:
    """Return the answer of a service whose protos have one field more, decoded with those protos."""
    file = descriptor_pb2.FileDescriptorProto()
    capabilities_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "newer/capabilities.proto", "newer"
    del file.service[:]
    answer = next(one for one in file.message_type if one.name == "GetCapabilitiesResponse")
    answer.field.add(
        name="moons_max",
        number=4_000,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("newer.GetCapabilitiesResponse"))
    return made(api_version="1.9", isolation="bubblewrap", calls_burst=7, moons_max=3)


def test_a_field_of_a_newer_service_breaks_no_client() -> None:
    sent = newer()
    read = capabilities_pb2.GetCapabilitiesResponse.FromString(sent.SerializeToString())
    for told in (sent, read):  # newer stubs beside older values, and older stubs
        found = wire.capabilities(told)
        assert (found.api_version, found.isolation, found.calls_burst) == ("1.9", "bubblewrap", 7)


def test_every_field_of_this_release_has_a_value() -> None:
    known = {field.name for field in dataclasses.fields(values.ServerCapabilities)}
    assert known == {field.name for field in capabilities_pb2.GetCapabilitiesResponse.DESCRIPTOR.fields}
