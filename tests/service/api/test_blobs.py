from __future__ import annotations

import hashlib

from assay.api.v1 import blobs_pb2, blobs_pb2_grpc

from tests.service.api.conftest import House, digest_of, told


async def test_only_what_was_sent_is_present(house: House) -> None:
    stub = house.stub(blobs_pb2_grpc.BlobsStub)
    sent, absent = digest_of(b"here"), digest_of(b"not here")
    await house.send(b"here")
    wrong_size = blobs_pb2.Digest(sha256=sent.sha256, size=5)
    reply = await stub.FindMissingBlobs(
        blobs_pb2.FindMissingBlobsRequest(digests=[sent, absent, wrong_size, digest_of(b""), absent])
    )
    assert list(reply.missing) == [absent, wrong_size]
