"""Places of the server: neither strangers nor one credential hold those of everybody else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.api import directory, guard, server
from service.api.transport import TOKENS
from service.rules.errors import Refusal
from service.store.principals import disable_principal
from tests.service.api.conftest import QUICK, House, told, told_by
from tests.service.api.test_bearer import bare, bearers, capabilities, fresh, issuer, open_house, showing
from tests.service.plants.issuers import claims, token

__all__ = ["bearers", "issuer", "open_house"]

METHOD = "/assay.api.v1.Capabilities/GetCapabilities"


def headers_alone(channel: grpc.aio.Channel, *metadata: Any, method: str = METHOD) -> Any:
    """Begin a call of a method that takes one message, and send none."""
    return channel.stream_unary(method)(metadata=metadata, timeout=3600.0)


async def restarted(house: House, **limits: Any) -> None:
    await house.stop()
    await house.start(limits=replace(QUICK, **limits))


async def test_strangers_that_send_no_message_hold_no_place(open_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TOKENS", replace(TOKENS, calls=4))
    await restarted(open_house)
    channel = bare(open_house)
    for call in [headers_alone(channel) for _ in range(8)]:
        assert await call.code() == grpc.StatusCode.UNAUTHENTICATED
    assert (await capabilities(bare(open_house), *showing(fresh()))).api_version == "1.0"


async def test_full_token_address_leaves_the_places_of_certificates(
    open_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TOKENS", replace(TOKENS, calls=1))
    await restarted(open_house)
    stub = health_pb2_grpc.HealthStub(bare(open_house))
    held = stub.Watch(health_pb2.HealthCheckRequest(), metadata=showing(fresh()))
    await held.read()
    with pytest.raises(grpc.aio.AioRpcError, match="limit exceeded"):
        await capabilities(bare(open_house), *showing(fresh()))
    assert (await capabilities(open_house.channel("ben"))).api_version == "1.0"
    held.cancel()


async def test_message_that_does_not_come_ends_the_call_whatever_its_deadline(house: House) -> None:
    await restarted(house, unary_s=0.1)
    assert (await told(headers_alone(house.channel()))).reason == "DEADLINE_PASSED"


async def test_call_that_ends_without_its_message_is_malformed(house: House) -> None:
    call = headers_alone(house.channel())
    await call.done_writing()
    assert (await told(call)).reason == "MALFORMED_MESSAGE"


async def test_one_credential_does_not_hold_every_place(house: House) -> None:
    await restarted(house, watchers_per_tenant=2, uploads_per_tenant=1)
    limit = 2 + 1 + 64
    stubs = [health_pb2_grpc.HealthStub(house.channel()) for _ in range(3)]
    watches = [stubs[at % 3].Watch(health_pb2.HealthCheckRequest()) for at in range(limit)]
    for watch in watches:
        await watch.read()
    answer = await told(capabilities(house.channel()))
    assert (answer.reason, answer.metadata["quota"]) == ("TOO_MANY_CALLS", "calls_in_flight")
    assert (await capabilities(house.channel("ben"))).api_version == "1.0"
    for watch in watches:
        watch.cancel()
    await _eventually(lambda: capabilities(house.channel()))


async def _eventually(ask: Any) -> None:
    """Call until it is let in: a cancelled call ends at the server a moment after it ends here."""
    until = time.monotonic() + 10
    while True:
        try:
            await ask()
            return
        except grpc.RpcError:
            assert time.monotonic() < until, "the places were not given back"


async def test_watch_of_health_ends_with_its_principal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CACHE_S", 0.0)
    monkeypatch.setattr(guard, "RECHECK_S", 0.02)
    watch = health_pb2_grpc.HealthStub(house.channel()).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    assert disable_principal(house.settings.database_url, "ada")
    with pytest.raises(grpc.RpcError) as caught:
        await _read_all(watch)
    assert told_by(caught.value).reason == "NO_CREDENTIAL"


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_uploads_that_send_nothing_are_counted_as_uploads(house: House) -> None:
    await restarted(house, uploads_per_tenant=2, idle_upload_s=30.0)
    channel = house.channel()
    calls = [headers_alone(channel, method="/assay.api.v1.Blobs/Write") for _ in range(3)]
    done, waiting = await asyncio.wait(
        [asyncio.ensure_future(call.code()) for call in calls], return_when="FIRST_COMPLETED"
    )
    assert [one.result() for one in done] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert len(waiting) == 2
    for call in calls:
        call.cancel()
    await asyncio.wait(waiting)


async def test_bad_tokens_are_not_verified_without_end(open_house: House) -> None:
    channel = bare(open_house)
    forged = token(claims(time.time()), "es", signer="es2")
    reasons = [(await told(capabilities(channel, *showing(forged)))).reason for _ in range(directory.FAILURES_MAX + 1)]
    assert reasons == ["BAD_TOKEN"] * directory.FAILURES_MAX + ["TOO_MANY_CALLS"]
    answer = await told(capabilities(channel, *showing(fresh())))
    assert (answer.reason, answer.metadata["quota"]) == ("TOO_MANY_CALLS", "bad_credentials")
    assert 0 < answer.details["RetryInfo"].retry_delay.seconds <= directory.FAILURES_S
    assert (await capabilities(bare(open_house), *showing(fresh()))).api_version == "1.0"


def test_bad_credentials_are_forgotten_in_time_and_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    failures = directory.Failures(clock=lambda: now[0])
    for _ in range(directory.FAILURES_MAX):
        failures.note("a")
    with pytest.raises(Refusal):
        failures.require_few("a")
    now[0] = directory.FAILURES_S
    failures.require_few("a")
    monkeypatch.setattr(directory, "KNOWN_MAX", 3)
    for peer in "abcdef":
        failures.note(peer)
    assert len(failures._seen) == 3
