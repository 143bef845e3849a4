"""Another writer holds the database for ten seconds, on times as in earnest: callers hear of it, no lease is lost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from assay.api.v1 import audits_pb2
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from tests.e2e.burning import KINDS, burning
from tests.e2e.fire import Fire

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]  # ten seconds are ten seconds

HELD_S = 10.0


@pytest.fixture(scope="module", params=KINDS)
def fire(request: pytest.FixtureRequest, model: Path) -> Iterator[Fire]:
    with burning(request.param, model, lease_s=30.0, workers=1, apis=1) as made:
        yield made


def test_a_lock_held_for_ten_seconds_is_told_after_three_and_loses_no_lease(fire: Fire) -> None:
    audit = fire.submit("slow 12")
    fire.in_cell(audit)
    with fire.another_client(timeout_s=20.0) as client, fire.tree.store.begin() as connection:
        if fire.kind == "postgresql":
            connection.exec_driver_sql("LOCK TABLE audit IN EXCLUSIVE MODE")  # every writer, and no reader
        began = time.monotonic()
        told = refusal(client, fire)
        waited = time.monotonic() - began
        assert client.get(f"audits/{audit}").state == "RUNNING"  # reads are served
        time.sleep(max(0.0, HELD_S - (time.monotonic() - began)))
    assert told.code() == grpc.StatusCode.UNAVAILABLE
    details = rpc_status.from_call(told).details
    retry = error_details_pb2.RetryInfo()
    assert any(one.Is(retry.DESCRIPTOR) and one.Unpack(retry) for one in details)
    assert retry.retry_delay.ToMilliseconds() > 0
    assert 2.5 < waited < 6.0
    after = fire.submit()
    fire.ends([audit, after])
    assert (fire.classes(audit), fire.classes(after)) == (["OK"], ["OK"])
    told_of = fire.told([audit, after], told_after_ms=int(waited * 1000))
    assert (told_of["leased"], told_of["lease_expired"], told_of["fenced"]) == (2, 0, 0)


def refusal(client: object, fire: Fire) -> grpc.RpcError:
    """Submit once, past all that repeats; return what is raised."""
    from assay.remote.submission import to_audit
    from assay.remote.values import Limits

    message = to_audit(f"models/{fire.manifest}", [("clusterability", {})], [], Limits(), {}, bytes(32))
    request = audits_pb2.SubmitAuditRequest(request_id=str(uuid.uuid4()), audit=message)
    with pytest.raises(grpc.RpcError) as refused:
        client._calls.audits.SubmitAudit(request, timeout=20.0)  # type: ignore[attr-defined]
    return refused.value
