"""Watching: gapless, resumable, quiet but alive, and shared."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from assay.api.v1 import audits_pb2, audits_pb2_grpc

from service.api.server import drain
from service.rules.states import AuditState
from service.store.events import PAGE
from tests.service.api.conftest import QUICK, House, told, told_by
from tests.service.api.finish import complete, phase, set_state


def _watch(house: House, name: str, after: int = 0, principal: str = "ada") -> Any:
    stub = house.stub(audits_pb2_grpc.AuditsStub, principal)
    return stub.WatchAudit(audits_pb2.WatchAuditRequest(name=name, after_sequence=after))


async def _take(call: Any, count: int) -> list[Any]:
    """Read so many numbered events, passing over keepalives."""
    found: list[Any] = []
    while len(found) < count:
        event = await call.read()
        assert event is not grpc.aio.EOF
        if event.sequence:
            found.append(event)
    return found


async def test_watch_tells_every_event_and_ends_with_the_audit(house: House) -> None:
    made = await house.submit()
    call = _watch(house, made.name)
    first = await _take(call, 1)
    assert first[0].state_changed.state == audits_pb2.Audit.State.STATE_QUEUED
    phase(house, made.name, 1)
    assert (await _take(call, 1))[0].phase_reached.owed == 9
    complete(house, made.name, {"report.sigstore.json": b"signed"})
    rest = await _take(call, 3)
    assert await call.read() is grpc.aio.EOF
    assert rest[-1].state_changed.state == audits_pb2.Audit.State.STATE_COMPLETED
    assert [event.sequence for event in rest] == [3, 4, 5]
    assert await call.code() == grpc.StatusCode.OK


async def test_watch_resumes_without_gap_and_pages_through_many_events(house: House) -> None:
    made = await house.submit()
    for number in range(2 * PAGE + 5):
        phase(house, made.name, number)
    call = _watch(house, made.name)
    seen = [event.sequence for event in await _take(call, PAGE + 7)]
    call.cancel()
    set_state(house, made.name, AuditState.CANCELLED)
    rest = [event.sequence async for event in _watch(house, made.name, seen[-1])]
    assert seen + rest == list(range(1, 2 * PAGE + 8))


async def test_watch_of_an_ended_audit_ends_at_once(house: House) -> None:
    made = await house.submit()
    set_state(house, made.name, AuditState.FAILED)
    assert [event.sequence async for event in _watch(house, made.name, 2)] == []
    assert [event.sequence async for event in _watch(house, made.name, 1)] == [2]


async def test_event_after_the_end_does_not_hold_the_watch(house: House) -> None:
    """An audit cancelled before it was registered is registered all the same; nobody waits for more after that."""
    made = await house.submit()
    set_state(house, made.name, AuditState.CANCELLED)
    phase(house, made.name, 1)
    async with asyncio.timeout(5):
        assert [event.sequence async for event in _watch(house, made.name)] == [1, 2]
        assert [event.sequence async for event in _watch(house, made.name, 2)] == [3]


async def test_silence_is_broken_by_unnumbered_keepalives(house: House) -> None:
    made = await house.submit()
    call = _watch(house, made.name, 1)
    for _ in range(2):
        event = await asyncio.wait_for(call.read(), 5)
        assert event.WhichOneof("event") == "keepalive"
        assert event.sequence == 0
    phase(house, made.name, 3)
    assert (await _take(call, 1))[0].sequence == 2
    call.cancel()


async def test_sequence_ahead_is_refused(house: House) -> None:
    made = await house.submit()
    answer = await told(_watch(house, made.name, 2))
    assert (answer.code, answer.reason) == ("OUT_OF_RANGE", "SEQUENCE_AHEAD")
    assert answer.metadata["last_sequence"] == "1"
    assert (await told(_watch(house, made.name, -1))).reason == "BAD_OFFSET"
    assert (await told(_watch(house, "audits/x"))).reason == "BAD_RESOURCE_NAME"


async def test_watchers_of_one_audit_share_one_look(house: House) -> None:
    await house.stop()
    await house.start(limits=replace(QUICK, poll_s=0.2, keepalive_s=10.0))
    made = await house.submit()
    calls = [_watch(house, made.name, 1) for _ in range(20)]
    readers = [asyncio.create_task(_take(call, 1)) for call in calls]
    assert house.served is not None
    watches = house.served.audits.watches
    await asyncio.sleep(0.5)
    before = watches.looks
    await asyncio.sleep(1.0)
    assert 3 <= watches.looks - before <= 7
    phase(house, made.name, 1)
    for events in await asyncio.wait_for(asyncio.gather(*readers), 5):
        assert events[0].sequence == 2
    for call in calls:
        call.cancel()
    await asyncio.sleep(0.3)
    before = watches.looks
    await asyncio.sleep(0.5)
    assert watches.looks == before
    assert not watches._looks


async def test_watchers_per_tenant_are_limited(house: House) -> None:
    await house.stop()
    await house.start(limits=replace(QUICK, watchers_per_tenant=1))
    made, foreign = await house.submit("ada"), await house.submit("ben")
    first = _watch(house, made.name)
    await _take(first, 1)
    answer = await told(_watch(house, made.name))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHERS")
    await _take(_watch(house, foreign.name, principal="ben"), 1)
    first.cancel()
    for _ in range(100):
        await asyncio.sleep(0.01)
        assert house.served is not None
        if not house.served.audits.watches._by_tenant["acme"]:
            break
    await _take(_watch(house, made.name), 1)


async def test_draining_server_sends_watchers_away_to_come_back(house: House) -> None:
    made = await house.submit()
    call = _watch(house, made.name)
    await _take(call, 1)
    assert house.served is not None
    assert house.backing is not None
    draining = asyncio.create_task(drain(house.served, house.backing, 5.0))
    with pytest.raises(grpc.RpcError) as caught:
        await _take(call, 1)
    answer = told_by(caught.value)
    assert (answer.code, answer.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert answer.details["RetryInfo"].retry_delay.seconds == 1
    await asyncio.wait_for(draining, 5)
    await house.stop()
    await house.start()
    phase(house, made.name, 1)
    assert (await _take(_watch(house, made.name, 1), 1))[0].sequence == 2


async def test_every_kind_of_event_has_a_message(house: House) -> None:
    from service.api.render import event_message
    from service.rules.states import EVENT_DETAILS
    from service.store.events import Event

    examples: dict[str, Any] = {"state": "RUNNING", "exit_class": "OK", "number": 1, "done": 1, "owed": 2, "shards": 2}
    examples |= {"shard": 0, "dead": 1, "of": 2, "used": 1, "max_runs": 2}
    for kind, keys in EVENT_DETAILS.items():
        detail = {key: examples.get(key, "text") for key in keys}
        message = event_message(Event(sequence=1, kind=kind, detail=detail, occurred_at=1))
        assert message.WhichOneof("event") == kind
    with pytest.raises(KeyError):
        event_message(Event(sequence=1, kind="rumour", detail={}, occurred_at=1))
