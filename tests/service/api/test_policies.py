"""A policy is registered before the run: as the form asked for, in words of the catalogue, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from assay import request as request_format
from assay.api.v1 import audits_pb2_grpc, blobs_pb2, blobs_pb2_grpc
from assay.policy import language, loader, registered
from sqlalchemy import func, select

from service.store.tables import audit
from tests.service.api.conftest import House, told

FINDING = "findings: [{id: none, check: %s, max_severity: note}]"


def policy(check: str = "weigh", more: str = "") -> bytes:
    text = f"schema: assay-policy/v1\nname: release\n{FINDING % check}\n{more}"
    return language.parse(loader.read(text.encode(), "policy.yaml")).data


async def refused(house: House, **fields: Any) -> tuple[str, str]:
    stub = house.stub(audits_pb2_grpc.AuditsStub, "ada")
    answer = await told(stub.SubmitAudit(await house.submission(**fields)))
    with house.store.read() as connection:
        assert connection.execute(select(func.count()).select_from(audit)).scalar_one() == 0
    return answer.reason, answer.message


async def test_a_policy_and_its_waivers_are_in_the_request_that_is_registered(house: House) -> None:
    sent = await house.send(policy())
    accepted = await house.send(registered.waivers_data(()))
    made = await house.submit(policy=sent, waivers=accepted)
    assert (made.policy, made.waivers) == (sent, accepted)
    stored = request_format.parse(house.request(made))
    assert registered.digests(stored) == (sent.sha256, accepted.sha256)


async def test_without_a_policy_the_request_says_so(house: House) -> None:
    made = await house.submit()
    stored = request_format.parse(house.request(made))
    assert (stored["policy_sha256"], stored["waivers_sha256"], made.HasField("policy")) == (None, None, False)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"schema: assay-policy/v1\n", "not JSON"),
        (policy().replace(b'"name":"release"', b'"name":"release","name":"other"'), "appears twice"),
        (policy().replace(b'"name":', b'"name": '), "normalised canonical form"),
        (policy("weihg"), "the catalogue has no check weihg"),
        (policy(more="assertions: [{id: a, check: weigh, metric: m, op: '<', value: 1}]"), "weigh has no metric m"),
        (b"[" * 40, "nested deeper"),
    ],
)
async def test_a_policy_that_could_never_be_decided_is_refused(house: House, data: bytes, words: str) -> None:
    reason, message = await refused(house, policy=await house.send(data))
    assert (reason, words in message) == ("BAD_POLICY", True), message


async def test_a_policy_names_its_bytes(house: House) -> None:
    big = blobs_pb2.Digest(sha256="0" * 64, size=registered.BYTES_MAX + 1)
    assert (await refused(house, policy=big))[0] == "BAD_POLICY"
    assert (await refused(house, policy=blobs_pb2.Digest(sha256="0" * 63, size=4)))[0] == "BAD_DIGEST"
    assert (await refused(house, policy=blobs_pb2.Digest(sha256="0" * 64, size=4)))[0] == "MISSING_BLOBS"


async def test_another_tenants_policy_is_not_there(house: House) -> None:
    theirs = await house.send(policy(), "ben")
    assert (await refused(house, policy=theirs))[0] == "MISSING_BLOBS"


async def test_waivers_are_for_a_policy_and_canonical(house: House) -> None:
    empty = await house.send(registered.waivers_data(()))
    assert (await refused(house, waivers=empty))[0] == "BAD_POLICY"
    loose = await house.send(b'{"schema": "assay-waivers/v1", "waivers": []}')
    reason, message = await refused(house, policy=await house.send(policy()), waivers=loose)
    assert (reason, "audit.waivers" in message) == ("BAD_POLICY", True)


@pytest.mark.parametrize("bytes_are", ["rotten", "gone"])
async def test_a_policy_whose_bytes_were_lost_is_asked_for_again(house: House, bytes_are: str) -> None:
    sent = await house.send(policy())
    if bytes_are == "gone":
        house.blobs.delete(sent.sha256)
    else:
        stored = house.blobs.path(sent.sha256)
        stored.chmod(0o600)
        stored.write_bytes(policy().replace(b"note", b"nope"))
    asked = await house.submission(policy=sent)
    audits = house.stub(audits_pb2_grpc.AuditsStub)
    assert (await told(audits.SubmitAudit(asked))).reason == "MISSING_BLOBS"
    find = blobs_pb2.FindMissingBlobsRequest(digests=[sent])
    assert list((await house.stub(blobs_pb2_grpc.BlobsStub).FindMissingBlobs(find)).missing) == [sent]
    await house.send(policy())
    assert (await audits.SubmitAudit(asked)).policy == sent
