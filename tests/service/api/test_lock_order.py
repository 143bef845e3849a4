"""The order in which rows are locked: on PostgreSQL another one lets two honest callers wait for each other."""

from __future__ import annotations

from typing import Any

import pytest
from assay.api.v1 import blobs_pb2, blobs_pb2_grpc
from sqlalchemy import update

from service.store import quotas, uploads
from service.store.tables import blob_grant
from tests.service.api.conftest import House, blob_of, digest_of


async def test_grants_are_written_in_the_order_of_digests_whatever_the_callers_order(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = list[str](), uploads.grant

    def grant(connection: Any, tenant: str, name: Any) -> None:
        written.append(name.sha256)
        real(connection, tenant, name)

    monkeypatch.setattr(uploads, "grant", grant)
    blobs = sorted((blob_of(bytes([n])) for n in range(8)), key=lambda one: one.digest.sha256, reverse=True)
    stub: Any = house.stub(blobs_pb2_grpc.BlobsStub)
    await stub.BatchUpdateBlobs(blobs_pb2.BatchUpdateBlobsRequest(blobs=blobs))
    assert written == sorted(one.digest.sha256 for one in blobs)


async def test_asking_what_is_missing_takes_the_tenants_lock_before_the_rows(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (b"a", b"b"):
        await house.send(data)
    with house.store.begin() as connection:
        connection.execute(update(blob_grant).values(touched_at=0))
    locked = list[str]()
    monkeypatch.setattr(quotas, "lock", lambda _connection, tenant: locked.append(tenant))
    stub: Any = house.stub(blobs_pb2_grpc.BlobsStub)
    await stub.FindMissingBlobs(blobs_pb2.FindMissingBlobsRequest(digests=[digest_of(b"a"), digest_of(b"b")]))
    assert locked == ["acme"]
