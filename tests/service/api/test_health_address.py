"""The address of orchestrators: health and nothing else, without a certificate."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from assay.api.v1 import capabilities_pb2, capabilities_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.api import server
from service.api.health import LIVE
from service.api.transport import HEALTH
from tests.service.api.conftest import House

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def plain(house: House) -> grpc.aio.Channel:
    await house.stop()
    await house.start(health_address="127.0.0.1:0")
    assert house.served is not None
    made = grpc.aio.insecure_channel(f"127.0.0.1:{house.served.health_port}")
    house.channels.append(made)
    return made


async def test_api_of_another_revision_is_not_ready_and_is_not_ended(
    house: House, plain: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub: Any = health_pb2_grpc.HealthStub(plain)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
    assert house.served is not None
    monkeypatch.setattr(house.served.health, "_head", "another revision")
    await house.served.health.probe()
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=LIVE))).status == SERVING


async def test_nothing_but_health_is_served_without_a_guard(plain: grpc.aio.Channel) -> None:
    stub: Any = capabilities_pb2_grpc.CapabilitiesStub(plain)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest())
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    watch = health_pb2_grpc.HealthStub(plain).Watch(health_pb2.HealthCheckRequest())
    assert await watch.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_calls_that_send_no_message_do_not_hide_the_health(
    plain: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEALTH_S", 0.05)
    held: list[Any] = [plain.stream_unary("/grpc.health.v1.Health/Check")() for _ in range(HEALTH.calls)]
    for one in held:
        assert await one.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    stub: Any = health_pb2_grpc.HealthStub(plain)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
